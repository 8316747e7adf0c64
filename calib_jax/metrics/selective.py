"""Selective answering: what is gained by answering only the questions one is confident about.

All are functions of the data, whatever the order of the rows, also where confidences tie.
Piecewise constant in ``probs``.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from calib_jax.metrics.checked import checked
from calib_jax.metrics.discrimination import by_confidence, tie_runs
from calib_jax.metrics.inputs import as_weights
from calib_jax.metrics.sums import tree_sum


class RiskCoverage(NamedTuple):
    """A risk-coverage curve: float32 arrays [N], from the most confident row down.

    ``risk[i]`` is the share of errors among the most confident ``coverage[i]`` of the rows, and
    ``confidence[i]`` the lowest confidence among them.
    """

    coverage: jax.Array
    risk: jax.Array
    confidence: jax.Array


class _Ranking(NamedTuple):
    """Rows by falling confidence; copies and errors, counted from the top."""

    confidence: jax.Array
    shown: jax.Array  # up to and with the row
    before: jax.Array  # shown above the run of equal confidences that holds the row
    through: jax.Array  # shown down to the end of the run
    errors_before: jax.Array
    errors_through: jax.Array
    is_end: jax.Array  # the row is the last of its run
    unknown: jax.Array  # a counted row has no confidence


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
    ranking = _rank(*by_confidence(probs, answers, mask, log_scores), weights)
    risk = _errors_at(ranking, ranking.shown) / ranking.shown
    values = (ranking.shown / ranking.shown[-1:], risk, ranking.confidence)
    return RiskCoverage(*(jnp.where(ranking.unknown, jnp.nan, x) for x in values))


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
    ranking = _rank(*by_confidence(probs, answers, mask, log_scores), weights)
    if ranking.shown.shape[0] == 0:
        return jnp.float32(jnp.nan)
    # Over a run from n + 1 to m with E errors above it and a share e of its own, the risks
    # (E + (k - n) e) / k sum to (m - n) e + (E - n e) (H_m - H_n). The first parts add up to all
    # errors.
    own = _own_share(ranking)
    steps = _harmonic_difference(ranking.before, ranking.through)
    bend = (ranking.errors_before - ranking.before * own) * steps
    total = tree_sum(jnp.where(ranking.is_end, bend, 0)) + ranking.errors_through[-1]
    return jnp.where(ranking.unknown, jnp.nan, total / ranking.shown[-1])


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
        coverage: share of the rows, 0 to 1; NaN results outside.
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
    ranking = _rank(*by_confidence(probs, answers, mask, log_scores), weights)
    if ranking.shown.shape[0] == 0:
        return jnp.float32(jnp.nan)
    coverage = jnp.asarray(coverage, jnp.float32)
    number = jnp.minimum(jnp.floor(coverage * ranking.shown[-1]) + 1, ranking.shown[-1])
    # Sums of float32 weights may end a little below their own total.
    row = jnp.minimum((ranking.shown < number).sum(), ranking.shown.shape[0] - 1)
    errors = _errors_at(jax.tree.map(lambda x: x[row] if x.ndim else x, ranking), number)
    known = (coverage >= 0) & (coverage <= 1) & ~ranking.unknown
    return jnp.where(known, 1 - errors / number, jnp.nan)


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
    ranking = _rank(*by_confidence(probs, answers, mask, log_scores), weights)
    if ranking.shown.shape[0] == 0:
        return jnp.float32(jnp.nan)
    reached = (ranking.through - ranking.errors_through) / ranking.through
    good = ranking.is_end & (reached >= jnp.asarray(accuracy, jnp.float32))
    coverage = jnp.where(good, ranking.through, 0).max() / ranking.shown[-1]  # 0/0 without rows
    return jnp.where(ranking.unknown, jnp.nan, coverage)


@jax.jit
def _rank(key, confidence, right, weights) -> _Ranking:
    num_rows = confidence.shape[0]
    weights = as_weights(weights, num_rows)
    weights = jnp.ones(num_rows, jnp.int32) if weights is None else weights
    unknown = (jnp.isnan(confidence) & (weights != 0)).any()
    # The order and the runs do not depend on the weights: under vmap over weights (the bootstrap)
    # the sort is done once.
    order = jnp.argsort(-key)
    key, confidence, weight = key[order], confidence[order], weights[order]
    shown = jnp.cumsum(weight)
    errors = jnp.where(right[order], 0, weight)
    errors_shown = jnp.cumsum(errors)
    if num_rows == 0:
        first = last = jnp.zeros(0, jnp.int32)
    else:
        first, last = tie_runs(key)
    return _Ranking(
        confidence=confidence,
        shown=shown,
        before=(shown - weight)[first],
        through=shown[last],
        errors_before=(errors_shown - errors)[first],
        errors_through=errors_shown[last],
        is_end=last == jnp.arange(num_rows),
        unknown=unknown,
    )


def _own_share(ranking: _Ranking) -> jax.Array:
    """Share of errors within the run of equal confidences around each row; 0 where none counts."""
    errors = ranking.errors_through - ranking.errors_before
    size = ranking.through - ranking.before
    return errors / jnp.where(size == 0, 1, size)


def _errors_at(ranking: _Ranking, number: jax.Array) -> jax.Array:
    """Expected errors among the first ``number`` rows, which end inside the run of each row."""
    return ranking.errors_before + (number - ranking.before) * _own_share(ranking)


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
