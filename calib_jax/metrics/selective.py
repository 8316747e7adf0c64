"""Selective answering: what is gained by answering only the questions one is confident about.

All are functions of the data, whatever the order of the rows, also where confidences tie.
Piecewise constant in ``probs``.
"""

import fractions
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics.checked import checked
from calib_jax.metrics.inputs import as_weights
from calib_jax.metrics.ranks import Keyed, Runs, by_confidence, runs, sum_over_runs
from calib_jax.metrics.scores import confidences


class RiskCoverage(NamedTuple):
    """A risk-coverage curve: float32 arrays [N], from the most confident row down.

    ``risk[i]`` is the share of errors among the most confident ``coverage[i]`` of the rows, and
    ``confidence[i]`` the lowest confidence among them.
    """

    coverage: jax.Array
    risk: jax.Array
    confidence: jax.Array


@checked
def risk_coverage_curve(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    *,
    log_scores: ArrayLike | None = None,
) -> RiskCoverage:
    """Share of errors among the most confident rows, for every number of rows answered.

        risk(k) = E[errors among the k most confident rows] / k,   coverage(k) = k / N

    Rows of equal confidence are taken in random order: the expectation over it spreads the run's
    errors evenly, so the curve does not depend on the order of the rows. The mean of ``risk`` is
    ``aurc``. At full coverage the risk is 1 - accuracy.

    Source: El-Yaniv and Wiener 2010; Geifman and El-Yaniv 2017.

    Args:
        probs: [N, K] option probabilities.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        weights: [N], how many copies of the row there are; None means one. A row's point is that
            of its last copy; with weight 0 it repeats the point above it (NaN at the top).
        log_scores: [N, K] natural logs of which ``probs`` are the softmax; they tell apart the
            confidences that round to 1 (``tails``).

    Returns:
        ``RiskCoverage(coverage, risk, confidence)``; all NaN when a counted row is NaN.

    Example:
        >>> probs = [[0.5, 0.5], [1.0, 0.0], [0.75, 0.25], [0.75, 0.25]]
        >>> curve = risk_coverage_curve(probs, [1, 0, 0, 1])
        >>> curve.coverage.tolist()
        [0.25, 0.5, 0.75, 1.0]
        >>> curve.risk.tolist()   # the tie at 0.75 is half right: 0, 0.5 / 2, 1 / 3, 2 / 4
        [0.0, 0.25, 0.3333333432674408, 0.5]
    """
    confidence = confidences(probs, mask)
    return _curve(by_confidence(probs, answers, mask, log_scores), confidence, weights)


@jax.jit
def _curve(keyed: Keyed, confidence: jax.Array, weights) -> RiskCoverage:
    num_rows = confidence.shape[0]
    if num_rows == 0:
        return RiskCoverage(*(jnp.zeros(0, jnp.float32),) * 3)
    weights = as_weights(weights, num_rows)
    weights = jnp.ones(num_rows, jnp.int32) if weights is None else weights
    order = jnp.argsort(keyed.key) if keyed.order is None else keyed.order
    keyed = keyed._replace(order=order)
    counts = runs(keyed, weights, sought=False, lowest_first=False)
    # The run's last row holds its totals: the first end at or after each row.
    rows = jax.tree.map(lambda x: x.T.ravel()[:num_rows] if x.ndim else x, counts)
    end = jnp.where(rows.is_end, jnp.arange(num_rows), num_rows - 1)
    end = jax.lax.cummin(end, reverse=True)
    whole = rows._replace(shown=rows.shown[end], found=rows.found[end])
    risk = _errors_at(whole, rows.shown) / rows.shown
    values = (rows.shown / rows.shown[-1:], risk, confidence[order[::-1]])
    return RiskCoverage(*(jnp.where(rows.unknown, jnp.nan, x) for x in values))


@checked
def aurc(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    *,
    log_scores: ArrayLike | None = None,
) -> jax.Array:
    """Area under the risk-coverage curve: mean risk over all coverages. Lower is better.

        AURC = (1/N) sum_{k=1..N} risk(k)

    with the risk of ``risk_coverage_curve``: equal confidences are taken in random order, and the
    value is the expectation over it. It mixes ranking with accuracy: a random order scores the
    error rate, a perfect one about r + (1 - r) ln(1 - r) for an error rate r.

    The sum, as in HELM and LM-Polygraph (there a tie counts as the sort happened to leave it);
    not torch-uncertainty's trapezium.

    Source: Geifman, Uziel and El-Yaniv 2019, Section 3.

    Args:
        probs: [N, K] option probabilities.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        weights: [N], how many copies of the row there are; None means one. Not only their ratios
            matter: the sum runs over single copies.
        log_scores: [N, K] natural logs of which ``probs`` are the softmax; they tell apart the
            confidences that round to 1 (``tails``).

    Returns:
        float32 scalar in [0, 1]; NaN for no rows.

    Example:
        >>> probs = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]]
        >>> round(float(aurc(probs, [0, 0, 0, 1])), 6)   # (0 + 0 + 0 + 1/4) / 4
        0.0625
    """
    return _aurc(by_confidence(probs, answers, mask, log_scores), weights)


@jax.jit
def _aurc(keyed: Keyed, weights) -> jax.Array:
    num_rows = keyed.key.shape[0]
    if num_rows == 0:
        return jnp.float32(jnp.nan)

    def bend(counts):
        # Over a run from n + 1 to m with E errors above it and a share e of its own, the risks
        # (E + (k - n) e) / k sum to (m - n) e + (E - n e) (H_m - H_n). The first parts add up to
        # all errors.
        steps = _harmonic_difference(counts.shown_before, counts.shown)
        return (counts.found_before - counts.shown_before * _own_share(counts)) * steps

    weights = as_weights(weights, num_rows)
    bends, shown, errors, unknown = sum_over_runs(
        keyed, weights, bend, sought=False, lowest_first=False
    )
    return jnp.where(unknown, jnp.nan, (bends + errors) / shown)


@checked
def accuracy_at_coverage(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    coverage: ArrayLike = 0.1,
    weights: ArrayLike | None = None,
    *,
    log_scores: ArrayLike | None = None,
) -> jax.Array:
    """Accuracy on the most confident rows, 1 - risk(k) at k = min(floor(coverage N) + 1, N).

    That k is the smallest number of rows that covers more than ``coverage`` (HELM's "acc@10"
    and its k), and every row at coverage 1; never none. Equal confidences are taken in random
    order, see ``risk_coverage_curve``.

    Args:
        probs: [N, K] option probabilities.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        coverage: share of the rows, 0 to 1; NaN results outside. Counted as the decimal that it
            prints as: 0.29 of 100 rows are 29, though the float lies below 0.29. Traced, it is
            the float32.
        weights: [N], how many copies of the row there are; None means one.
        log_scores: [N, K] natural logs of which ``probs`` are the softmax; they tell apart the
            confidences that round to 1 (``tails``).

    Returns:
        float32 scalar in [0, 1]; NaN for no rows.

    Example:
        >>> probs = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]]
        >>> float(accuracy_at_coverage(probs, [0, 0, 1, 1], coverage=0.25))
        1.0
        >>> float(accuracy_at_coverage(probs, [0, 0, 1, 1], coverage=1.0))
        0.5
    """
    keyed = by_confidence(probs, answers, mask, log_scores)
    if isinstance(coverage, jax.core.Tracer):
        return _accuracy_at(keyed, weights, coverage, None)
    written = np.asarray(coverage)[()]
    if not 0 <= written <= 1:
        return jnp.float32(jnp.nan)
    digits = _digits(fractions.Fraction(str(written)))
    return _accuracy_at(keyed, weights, jnp.float32(written), jnp.asarray(digits, jnp.uint32))


@jax.jit
def _accuracy_at(keyed: Keyed, weights, coverage, digits) -> jax.Array:
    num_rows = keyed.key.shape[0]
    if num_rows == 0:
        return jnp.float32(jnp.nan)
    counts = runs(keyed, as_weights(weights, num_rows), sought=False, lowest_first=False)
    # Not counts.all_shown: running sums of float32 weights may end a little below it.
    shown = jnp.where(counts.is_end, counts.shown, 0)
    total = shown.max()
    coverage = jnp.asarray(coverage, jnp.float32)
    covered = jnp.floor(coverage * total)
    if digits is not None:
        exact = _whole_part(digits, total)
        whole = total == jnp.round(total)
        covered = jnp.where(whole, exact, covered.astype(exact.dtype)).astype(total.dtype)
    number = jnp.minimum(covered.astype(total.dtype) + 1, total)
    # The run in which the number is reached is the one that ends first at or after it.
    end = jnp.argmin(jnp.where(shown >= number, shown, jnp.inf))
    errors = _errors_at(jax.tree.map(lambda x: x.ravel()[end] if x.ndim else x, counts), number)
    known = (coverage >= 0) & (coverage <= 1) & ~counts.unknown
    return jnp.where(known, 1 - errors / number, jnp.nan)


# Digits to base 2^15 of a share: with 105 bits, no share of 17 decimals is mistaken.
_DIGITS, _BITS = 7, 15


def _digits(share: fractions.Fraction) -> list[int]:
    """A share from 0 to 1 to base 2^15, its whole part first; rounded up in the last digit."""
    scaled = math.ceil(share * 2 ** (_BITS * _DIGITS))
    return [scaled >> _BITS * (_DIGITS - i) & (2**_BITS - 1) for i in range(_DIGITS + 1)]


def _whole_part(digits: jax.Array, number: jax.Array) -> jax.Array:
    """floor(share * number), exactly, for a whole number from 0 to 2^31 - 1: uint32."""
    number = number.astype(jnp.uint32)
    high, low = number >> 16, number & 0xFFFF
    carried = jnp.uint32(0)
    for digit in digits[:0:-1]:
        carried = 2 * digit * high + ((digit * low + carried) >> _BITS)
    return digits[0] * number + carried


@checked
def coverage_at_accuracy(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    accuracy: ArrayLike = 0.9,
    weights: ArrayLike | None = None,
    *,
    log_scores: ArrayLike | None = None,
) -> jax.Array:
    """Largest share of rows that a threshold on confidence can answer at the wanted accuracy.

        max { n_t / N : accuracy of the n_t rows with c >= t is at least ``accuracy`` }

    over thresholds t: equal confidences are answered together, as a threshold must. Where no
    threshold reaches the accuracy, 0. Chosen on the rows it is measured on, so optimistic for
    small N.

    Args:
        probs: [N, K] option probabilities.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        accuracy: the wanted accuracy, compared as float32 with right / all.
        weights: [N], how many copies of the row there are; None means one.
        log_scores: [N, K] natural logs of which ``probs`` are the softmax; they tell apart the
            confidences that round to 1 (``tails``).

    Returns:
        float32 scalar in [0, 1]; NaN for no rows.

    Example:
        >>> probs = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]]
        >>> float(coverage_at_accuracy(probs, [0, 1, 0, 1], accuracy=0.65))   # 2/3 of three rows
        0.75
    """
    return _coverage_at(by_confidence(probs, answers, mask, log_scores), weights, accuracy)


@jax.jit
def _coverage_at(keyed: Keyed, weights, accuracy) -> jax.Array:
    num_rows = keyed.key.shape[0]
    if num_rows == 0:
        return jnp.float32(jnp.nan)
    counts = runs(keyed, as_weights(weights, num_rows), sought=False, lowest_first=False)
    reached = (counts.shown - counts.found) / counts.shown
    good = counts.is_end & (reached >= jnp.asarray(accuracy, jnp.float32))
    coverage = jnp.where(good, counts.shown, 0).max() / counts.all_shown  # 0/0 without rows
    return jnp.where(counts.unknown, jnp.nan, coverage)


def _own_share(counts: Runs) -> jax.Array:
    """Share of errors within the run of equal confidences of each row; 0 where none counts."""
    errors = counts.found - counts.found_before
    size = counts.shown - counts.shown_before
    return errors / jnp.where(size == 0, 1, size)


def _errors_at(counts: Runs, number: jax.Array) -> jax.Array:
    """Expected errors among the first ``number`` rows, which end inside the run of each row."""
    return counts.found_before + (number - counts.shown_before) * _own_share(counts)


def _harmonic_difference(low: jax.Array, high: jax.Array) -> jax.Array:
    """H_high - H_low = sum of 1/k for k = low + 1 .. high, to float32 precision at any size.

    Not a difference of two rounded harmonic numbers: six terms of either end are paired exactly,
    the rest is Euler-Maclaurin's expansion at the mid-points.
    """
    low, high = low.astype(jnp.float32), high.astype(jnp.float32)
    gap = high - low
    total = jnp.zeros_like(gap)
    for j in range(1, 7):
        total += gap / ((low + j) * (high + j))
    start, stop = low + 6.5, high + 6.5

    def correction(x):
        return 1 / (24 * x**2) - 7 / (960 * x**4)

    return total + jnp.log1p(gap / start) + correction(stop) - correction(start)
