"""predictions/pairs.parquet and text.parquet: a row per pair or document, to redo figures from."""

import os

import numpy as np
import pyarrow as pa

from calib_jax.confidence.preference import PreferenceScores
from calib_jax.confidence.running_text import TextLosses
from calib_jax.reports import parquet

_PAIRS = {
    "id": pa.string(),
    "chosen_log_prob": pa.float64(),
    "rejected_log_prob": pa.float64(),
    "chosen_tokens": pa.int32(),
    "rejected_tokens": pa.int32(),
    "rate": pa.float64(),
}
_TEXT = {
    "id": pa.string(),
    "nll": pa.float64(),
    "tokens": pa.int32(),
    "words": pa.int32(),
    "bytes": pa.int32(),
}


def write_pairs(path: str | os.PathLike, scores: PreferenceScores) -> None:
    """Writes log-probabilities (nats, summed over an answer's tokens) and numbers of tokens.

    Columns: id, chosen_log_prob, rejected_log_prob, chosen_tokens, rejected_tokens, and rate, the
    share that prefers the chosen answer (null where it is not known).
    """
    values = {
        "id": scores.ids,
        "chosen_log_prob": scores.chosen,
        "rejected_log_prob": scores.rejected,
        "chosen_tokens": scores.chosen_tokens,
        "rejected_tokens": scores.rejected_tokens,
        "rate": [None if np.isnan(rate) else rate for rate in scores.rates],
    }
    parquet.write(path, values, _PAIRS, {})


def read_pairs(path: str | os.PathLike) -> PreferenceScores:
    """What ``write_pairs`` wrote, bit for bit; raises UserError for anything else."""
    table, _ = parquet.read(path, _PAIRS, "scored pairs")
    rates = [np.nan if rate is None else rate for rate in table["rate"].to_pylist()]
    return PreferenceScores(
        chosen=table["chosen_log_prob"].to_numpy(),
        rejected=table["rejected_log_prob"].to_numpy(),
        chosen_tokens=table["chosen_tokens"].to_numpy(),
        rejected_tokens=table["rejected_tokens"].to_numpy(),
        rates=np.array(rates, np.float64),
        ids=tuple(table["id"].to_pylist()),
    )


def write_text(path: str | os.PathLike, losses: TextLosses) -> None:
    """Writes every document's loss in nats, and its numbers of tokens, words and bytes."""
    values = {
        "id": losses.ids,
        "nll": losses.nll,
        "tokens": losses.tokens,
        "words": losses.words,
        "bytes": losses.bytes,
    }
    parquet.write(path, values, _TEXT, losses.counts)


def read_text(path: str | os.PathLike) -> TextLosses:
    """What ``write_text`` wrote, bit for bit; raises UserError for anything else."""
    table, counts = parquet.read(path, _TEXT, "scored text")
    arrays = {name: table[name].to_numpy() for name in ("nll", "tokens", "words", "bytes")}
    return TextLosses(**arrays, ids=tuple(table["id"].to_pylist()), counts=counts)
