"""Host-side check of the narrow waist: a clear error instead of a NaN or a wrong number."""

from typing import Any

import jax
import numpy as np
from jax.typing import ArrayLike

# How far below zero a probability may lie by rounding alone, as in 1 - 0.8 - 0.1 - 0.1 = -5.6e-17:
# a few units of float32, in which everything is computed, or one of the dtype.
_ROUNDING = {"bfloat16": 8e-3, "float16": 1e-3}
# How far a row may be from summing to 1: a softmax rounded to the dtype, with some room.
_SUM_TOLERANCE = {"bfloat16": 2e-2, "float16": 2e-3, "float32": 1e-4, "float64": 1e-4}


def validate(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    tolerance: float | None = None,
) -> None:
    """Raise ValueError unless the arrays are probabilities, answers and a mask that fit together.

    Checks, in this order: shapes and dtypes; every row has a valid option; no NaN; nothing
    negative (but for rounding, see ``rounding``) or above 1; masked options hold 0; rows sum to 1;
    answers lie in 0..K-1 and on a valid option. A single option, K = 1, is an answer that was given
    with a confidence in it: its probability may be anything from 0 to 1, and the answer is 0 where
    it is right and -1 where it is wrong. The message names the first bad row (0-based), its
    value, and how many rows are bad. Every public metric calls it when it is called with arrays
    (see ``checked``); inside jit no value is looked at and NaN propagates.

    Args:
        probs: [N, K] float option probabilities. N = 0 passes.
        answers: [N] int; or the answers' known distribution [N, K] float, as ``tce`` takes it,
            which is then checked as ``probs`` is.
        mask: [N, K] bool or None.
        tolerance: how far a row's sum may be from 1 and a value above 1; default by dtype
            (float32 and float64 1e-4, float16 2e-3, bfloat16 2e-2).

    Example:
        >>> validate([[0.5, 0.5], [0.25, 0.75]], [0, 1])
        >>> validate([[0.5, 0.5], [0.5, 0.75]], [0, 1])
        Traceback (most recent call last):
        ...
        ValueError: row 1 sums to 1.25, not to 1 within 0.0001 (1 bad row of 2): normalise \
each row over its valid options
    """
    probs, answers = np.asarray(probs), np.asarray(answers)
    if probs.ndim != 2 or probs.shape[1] == 0:
        raise ValueError(f"probs must have shape [N, K] with K >= 1, got {probs.shape}")
    num_rows, num_options = probs.shape
    if not _is_floating(probs):
        raise ValueError(f"probs must be floating point, got {probs.dtype}")
    known = answers.shape == probs.shape and _is_floating(answers)
    if not known and answers.shape != (num_rows,):
        raise ValueError(f"answers must have shape ({num_rows},), got {answers.shape}")
    if not known and num_rows and not np.issubdtype(answers.dtype, np.integer):
        raise ValueError(f"answers must be integers (option indices), got {answers.dtype}")
    mask = np.ones(probs.shape, bool) if mask is None else np.asarray(mask)
    if mask.shape != probs.shape or mask.dtype != bool:
        raise ValueError(f"mask must be bool of shape {probs.shape}, got {mask.dtype} {mask.shape}")
    _refuse(~mask.any(axis=1), "has no valid option", "give every row at least one option")
    single = num_options == 1 and not known
    _check_rows(probs, mask, tolerance, "", sums=not single)
    if known:
        _check_rows(answers, mask, tolerance, "of target_probs ")
        return
    if single:
        outside = (answers != 0) & (answers != -1)
        if outside.any():
            text = f"has answer {answers[outside][0]} and a single option"
            remedy = "the answer is 0 where the given one is right, and -1 where it is wrong"
            _refuse(outside, text, remedy)
        return
    outside = (answers < 0) | (answers >= num_options)
    if outside.any():
        text = f"has answer {answers[outside][0]}, outside 0..{num_options - 1}"
        _refuse(outside, text, "answers are 0-based option indices")
    if num_rows:
        masked = ~np.take_along_axis(mask, answers[:, None].astype(np.int64), axis=1)[:, 0]
        if masked.any():
            text = f"has answer {answers[masked][0]}, which is a masked option"
            _refuse(masked, text, "the answer must be one of the row's options")


def validate_weights(weights: ArrayLike) -> None:
    """Raise ValueError unless ``weights`` [N] are finite, not negative and not all 0.

    Example:
        >>> validate_weights([1, 0, 2])
        >>> validate_weights([1.0, -1.0])
        Traceback (most recent call last):
        ...
        ValueError: row 1 has the weight -1 (1 bad row of 2): weights are 0 or more, and finite
    """
    weights = np.asarray(weights)
    if weights.ndim != 1 or not len(weights):
        return
    values = weights.astype(np.float64)
    bad = ~((values >= 0) & np.isfinite(values))
    if bad.any():
        _refuse(bad, f"has the weight {values[bad][0]:.6g}", "weights are 0 or more, and finite")
    if not values.any():
        raise ValueError("all weights are 0: no row counts, so there is nothing to measure")


def rounding(probs: jax.Array | np.ndarray) -> float:
    """How far below zero a probability of this dtype may lie by rounding; it is then read as 0."""
    return _ROUNDING.get(np.dtype(probs.dtype).name, 1e-6)


def without_rounding(probs: np.ndarray) -> np.ndarray:
    """The same with 0 in place of rounding errors below zero.

    Example:
        >>> without_rounding(np.array([[1.0, 1 - 0.8 - 0.1 - 0.1], [1.5, -0.5]])).tolist()
        [[1.0, 0.0], [1.5, -0.5]]
    """
    return np.where((probs < 0) & (probs >= -rounding(probs)), 0, probs)


def sum_tolerance(probs: jax.Array | np.ndarray) -> float:
    """How far a row of this dtype may be from summing to 1."""
    return _SUM_TOLERANCE.get(np.dtype(probs.dtype).name, 1e-4)


def _is_floating(array: np.ndarray) -> bool:
    # numpy does not count ml_dtypes' bfloat16 as floating.
    return np.issubdtype(array.dtype, np.floating) or array.dtype.name in _SUM_TOLERANCE


def _check_rows(
    probs: np.ndarray, mask: np.ndarray, tolerance: float | None, of: str, sums: bool = True
) -> None:
    """Raise unless the rows are distributions over their valid options; ``of`` names the array.

    Without ``sums`` they are probabilities that need not sum to 1.
    """
    if tolerance is None:
        tolerance = sum_tolerance(probs)
    below = rounding(probs)
    probs = probs.astype(np.float64)
    for bad, remedy in (
        (np.isnan(probs), "remove or recompute these rows"),
        (probs < -below, "probabilities, not logits or log-probabilities, are expected"),
        (probs > 1 + tolerance, "probabilities, not logits, are expected"),
        (~mask & (probs != 0), "masked options must hold 0"),
    ):
        if bad.any():
            row, option = np.argwhere(bad)[0]
            cell = f"option {option} is {probs[row, option]:.6g}"
            _refuse(bad.any(axis=1), f"{of}does not hold probabilities: {cell}", remedy)
    totals = probs.sum(axis=1)
    bad = np.abs(totals - 1) > tolerance
    if sums and bad.any():
        text = f"{of}sums to {totals[bad][0]:.6g}, not to 1 within {tolerance:g}"
        _refuse(bad, text, "normalise each row over its valid options")


def _refuse(bad: Any, text: str, remedy: str) -> None:
    """Raise for the first True of ``bad`` [N], saying how many there are."""
    if bad.any():
        total = int(bad.sum())
        count = f"{total} bad row{'s' if total > 1 else ''} of {len(bad)}"
        raise ValueError(f"row {int(np.argmax(bad))} {text} ({count}): {remedy}")
