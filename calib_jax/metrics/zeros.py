"""Options of probability exactly 0: how many there are, and what was rounded to 0."""

import math
from typing import NamedTuple

import numpy as np

# Units tried: 1/n for every n up to here, then powers of 10 up to 10^-6.
_LARGEST_PART = 1000
_POWERS = (4, 5, 6)


class Zeros(NamedTuple):
    """The zeros of a set of rows.

    Attributes:
        rows: how many rows hold one.
        total: of how many rows.
        answers: how many right answers are one; None where the answers are not known.
        unit: what the probabilities are multiples of; None where they are not rounded.
        highest: the largest probability that a zero may stand for: half the unit, or the smallest
            probability given.
    """

    rows: int
    total: int
    answers: int | None
    unit: float | None
    highest: float

    def __str__(self) -> str:
        hold = "holds" if self.rows == 1 else "hold"
        text = f"{self.rows} of {self.total} rows {hold} an option of probability exactly 0"
        if self.answers is not None:
            text += f", which is the right answer in {self.answers} of them"
        if self.unit is None:
            return text + (
                ". The probabilities are not rounded to a common unit; a zero is read as the most "
                f"likely probability up to the smallest that is given, {self.highest:.3g}"
            )
        return text + (
            f". The probabilities are rounded to {unit_name(self.unit)}, so a zero is read as the "
            f"most likely probability up to half of that unit, {self.highest:.3g}"
        )


def unit_name(unit: float) -> str:
    """A rounding unit in words.

    >>> unit_name(0.01), unit_name(0.125)
    ('2 decimals', 'multiples of 1/8')
    """
    parts = round(1 / unit)
    decimals = round(math.log10(parts))
    if 10**decimals != parts:
        return f"multiples of 1/{parts}"
    return {0: "0 and 1", 1: "1 decimal"}.get(decimals, f"{decimals} decimals")


def find_zeros(
    log_scores: np.ndarray, valid: np.ndarray, answers: np.ndarray | None = None
) -> Zeros | None:
    """The zeros among the valid options; None where there are none.

    Args:
        log_scores: [N, K], -inf at the zeros; ln of the probabilities as they were given, not
            divided by their sums, or the rounding is not seen.
        valid: [N, K] bool, the options that exist.
        answers: [N] int or None.

    Example:
        >>> probs = np.array([[0.97, 0.03], [1.0, 0.0], [0.52, 0.48]])
        >>> with np.errstate(divide="ignore"):
        ...     found = find_zeros(np.log(probs), probs >= 0, np.array([0, 1, 0]))
        >>> found.rows, found.answers, found.unit, round(found.highest, 6)
        (1, 1, 0.01, 0.005)
    """
    zero = valid & (log_scores == -np.inf)
    if not zero.any():
        return None
    right = None
    if answers is not None:
        right = int(np.take_along_axis(zero, answers[:, None], axis=1).sum())
    unit = _rounding_unit(log_scores, valid)
    if unit is not None:
        highest = unit / 2
    else:
        highest = math.exp(max(normalised(log_scores, valid & ~zero).min(), -700.0))
    return Zeros(int(zero.any(axis=1).sum()), len(zero), right, unit, highest)


def _rounding_unit(log_scores: np.ndarray, valid: np.ndarray) -> float | None:
    """The largest unit of which all probabilities are multiples; None where there is none."""
    with np.errstate(over="ignore"):
        probs = np.where(valid, np.exp(log_scores.astype(np.float64)), 0)
    # Rounding moves a row's sum by at most half a unit an option: logits have other sums.
    off = np.abs(probs.sum(axis=1) - 1) - 1e-4
    slack = float((off / valid.sum(axis=1)).max()) * 2
    values = np.unique(probs[valid])
    if not slack <= 1:
        return None
    for parts in (*range(1, _LARGEST_PART + 1), *(10**d for d in _POWERS)):
        if parts + 1 < len(values) or slack > 1 / parts:
            continue
        # What float32 leaves of a logarithm and of its exponential.
        error = 4e-7 * parts * np.maximum(values, 1e-3) + 1e-6
        if (np.abs(values * parts - np.round(values * parts)) <= np.minimum(error, 0.2)).all():
            return 1 / parts
    return None


def normalised(log_scores: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Float64 [N, K]: ln of the probabilities over the options ``given``; 0 elsewhere."""
    scores = np.where(given, log_scores.astype(np.float64), -np.inf)
    top = scores.max(axis=1, keepdims=True)
    total = top + np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
    return np.where(given, scores - total, 0)
