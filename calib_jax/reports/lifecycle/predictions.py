"""predictions/text.parquet and facts.parquet: one row per place, so that figures can be redone."""

import os

import numpy as np
import pyarrow as pa

from calib_jax.confidence.next_token import NextTokens
from calib_jax.reports import parquet

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
    parquet.write(path, values, _COLUMNS, tokens.counts)


def read(path: str | os.PathLike) -> NextTokens:
    """Reads back what ``write`` wrote, bit for bit.

    Raises:
      UserError: no such file, or not one of these.
    """
    table, counts = parquet.read(path, _COLUMNS, "next-token predictions")

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
        counts=counts,
    )
