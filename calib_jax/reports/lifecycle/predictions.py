"""predictions/text.parquet and facts.parquet: one row per place, so that figures can be redone."""

import json
import os
import pathlib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from calib_jax.confidence.next_token import NextTokens
from calib_jax.errors import UserError
from calib_jax.reports.atomic import atomic_path

_COUNTS = b"calib_jax.next_token.counts"
_COLUMNS = {
    "id": pa.string(),
    "document": pa.string(),
    "relation": pa.string(),
    "position": pa.int32(),
    "gold": pa.int32(),
    "prediction": pa.int32(),
    "correct": pa.bool_(),
    "confidence": pa.float32(),
    "log_prob": pa.float32(),
}


def write(path: str | os.PathLike, tokens: NextTokens) -> None:
    """Writes the predictions, atomically.

    Columns: id, document and relation (of a fact; null elsewhere), position (index of the token in
    its text), gold and prediction (token ids), correct, confidence, log_prob (natural log, of the
    gold token).
    """
    values = {
        "id": tokens.ids,
        "document": tokens.documents,
        "relation": [name or None for name in tokens.relations],
        "position": tokens.positions,
        "gold": tokens.gold,
        "prediction": tokens.predictions,
        "correct": tokens.correct,
        "confidence": tokens.confidences,
        "log_prob": tokens.log_probs,
    }
    columns = {name: pa.array(values[name], kind) for name, kind in _COLUMNS.items()}
    metadata = {_COUNTS: json.dumps(tokens.counts).encode()}
    table = pa.table(columns).replace_schema_metadata(metadata)
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read(path: str | os.PathLike) -> NextTokens:
    """Reads back what ``write`` wrote, bit for bit.

    Raises:
      UserError: no such file, or not one of these.
    """
    path = pathlib.Path(path)
    try:
        with pq.ParquetFile(path) as file:
            table = file.read()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable parquet file ({error})") from None
    counts = (table.schema.metadata or {}).get(_COUNTS)
    if counts is None or table.column_names != list(_COLUMNS):
        raise UserError(f"{path}: not a file of next-token predictions; delete it to score again")

    def array(name: str) -> np.ndarray:
        return table[name].to_numpy()

    return NextTokens(
        confidences=array("confidence"),
        correct=array("correct"),
        log_probs=array("log_prob"),
        predictions=array("prediction"),
        gold=array("gold"),
        positions=array("position"),
        ids=tuple(table["id"].to_pylist()),
        documents=tuple(table["document"].to_pylist()),
        relations=tuple(name or "" for name in table["relation"].to_pylist()),
        counts=json.loads(counts),
    )
