"""Probabilities of exactly 0 in measurements: what is said of them, and what NLL reads them as.

A probability that was rounded to 0 was not 0, and an infinite NLL would say nothing of the model.
"""

import math
from typing import Any

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.metrics.zeros import Zeros, find_zeros
from calib_jax.posthoc.floor import most_likely_floor


def as_read(scores: Scores) -> np.ndarray:
    """The log-scores by which metrics of tails are computed, float32 [N, K].

    Free answers' are as they are. Where the probabilities are recognised as rounded, a zero is the
    most likely probability up to half of the unit, the same that the calibrators fitted to these
    scores read (``posthoc.floor``); else, and where all are 0 or 1, it stays -inf. Probabilities
    that are no zeros are measured as they are given.
    """
    return _floored(scores, _found(scores))


def figures(scores: Scores) -> dict[str, Any]:
    """What a ROW says of options with a probability of exactly 0; nothing where there is none.

    Returns:
      zero_probability_rows; where the probabilities are rounded, rounding_unit; where that is less
      than 1, zero_read_as, the probability that NLL reads a zero as.
    """
    found = _found(scores)
    if found is None:
        return {}
    row: dict[str, Any] = {"zero_probability_rows": found.rows}
    if found.unit is not None:
        row["rounding_unit"] = found.unit
    if _rounded(found):
        row["zero_read_as"] = math.exp(_floor(scores, found))
    return row


def _found(scores: Scores) -> Zeros | None:
    if scores.is_free:  # a confidence of its own, and no share of 1
        return None
    return find_zeros(np.asarray(scores.log_scores), np.asarray(scores.mask, bool))


def _rounded(found: Zeros) -> bool:
    return found.unit is not None and found.unit < 1


def _floor(scores: Scores, found: Zeros) -> float:
    log_scores, mask = np.asarray(scores.log_scores), np.asarray(scores.mask, bool)
    weights = np.ones(len(scores))
    return most_likely_floor(log_scores, mask, np.asarray(scores.answers), weights, found.highest)


def _floored(scores: Scores, found: Zeros | None) -> np.ndarray:
    log_scores, mask = np.asarray(scores.log_scores), np.asarray(scores.mask, bool)
    if found is None or not _rounded(found):
        return log_scores
    zero = mask & (log_scores == -np.inf)
    # A floor is a probability beside others that sum to 1, as ``posthoc.inputs.centred_scores``.
    total = np.log(np.exp(np.where(mask, log_scores, -np.inf).astype(np.float64)).sum(axis=1))
    return np.where(zero, total[:, None] + _floor(scores, found), log_scores).astype(np.float32)
