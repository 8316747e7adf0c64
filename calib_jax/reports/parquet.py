"""Rows with some counts beside them, in parquet: written atomically, read back exactly."""

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from calib_jax.atomic import atomic_path
from calib_jax.characters import encodable
from calib_jax.errors import UserError
from calib_jax.provenance import reads

_COUNTS = b"calib_jax.counts"


def write(
    path: str | os.PathLike,
    values: Mapping[str, Any],
    kinds: Mapping[str, pa.DataType],
    counts: Mapping[str, int],
) -> None:
    """Writes one column for each of ``kinds``, and the counts into the file's metadata."""
    columns = {
        name: strings(values[name]) if kind == pa.string() else pa.array(values[name], kind)
        for name, kind in kinds.items()
    }
    table = pa.table(columns).replace_schema_metadata({_COUNTS: json.dumps(counts).encode()})
    write_table(path, table)


def write_table(path: str | os.PathLike, table: pa.Table) -> None:
    """Writes a table, atomically."""
    # By a handle: pyarrow takes no path that is not UTF-8.
    with atomic_path(path) as temporary, temporary.open("wb") as handle:
        pq.write_table(table, handle, compression="zstd")


def strings(values: Iterable[str | None]) -> pa.Array:
    """A column of text; what UTF-8 cannot hold appears as its code."""
    return pa.array([v if v is None else encodable(v) for v in values], pa.string())


def read_schema(path: str | os.PathLike) -> pa.Schema:
    """The columns of a parquet file and what its metadata holds."""
    with open(path, "rb") as handle:
        return pq.read_schema(handle)


def read_table(path: str | os.PathLike) -> pa.Table:
    """All of a parquet file; raises UserError where there is none, or it is none."""
    reads(path)
    try:
        # Not pq.read_table: it reads folder names such as "run=3" as columns.
        with open(path, "rb") as handle, pq.ParquetFile(handle) as file:
            return file.read()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file ({error})") from None


def read(
    path: str | os.PathLike, kinds: Mapping[str, pa.DataType], what: str
) -> tuple[pa.Table, dict[str, int]]:
    """What ``write`` wrote.

    Args:
      what: the file is to be, for the message.

    Raises:
      UserError: no such file, or not one of these.
    """
    table = read_table(path)
    counts = (table.schema.metadata or {}).get(_COUNTS)
    if counts is None or table.column_names != list(kinds):
        raise UserError(f"{path}: not a file of {what}; delete it to score again")
    return table, json.loads(counts)
