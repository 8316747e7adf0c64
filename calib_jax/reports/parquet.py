"""Rows with some counts beside them, in parquet: written atomically, read back exactly."""

import json
import os
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from calib_jax.errors import UserError
from calib_jax.provenance import reads
from calib_jax.reports.atomic import atomic_path

_COUNTS = b"calib_jax.counts"


def write(
    path: str | os.PathLike,
    values: Mapping[str, Any],
    kinds: Mapping[str, pa.DataType],
    counts: Mapping[str, int],
) -> None:
    """Writes one column for each of ``kinds``, and the counts into the file's metadata."""
    columns = {name: pa.array(values[name], kind) for name, kind in kinds.items()}
    table = pa.table(columns).replace_schema_metadata({_COUNTS: json.dumps(counts).encode()})
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_table(path: str | os.PathLike) -> pa.Table:
    """All of a parquet file; raises UserError where there is none, or it is none."""
    reads(path)
    try:
        # Not pq.read_table: it reads folder names such as "run=3" as columns.
        with pq.ParquetFile(path) as file:
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
