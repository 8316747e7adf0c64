"""The squared calibration error without bias, of one model and of two, with intervals of its own.

A conf-ECE, and whatever is a root or an absolute value, is too large by what chance adds, which
is more for a better model. The square's expectation can be had exactly, so differences of it are
what two models are compared by.
"""

import functools
import statistics

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics.bins import bin_index, bin_stats
from calib_jax.metrics.checked import checked
from calib_jax.metrics.inputs import as_answers, as_probs, as_weights
from calib_jax.metrics.scores import confidences, correctness, predictions
from calib_jax.metrics.settings import checked_settings
from calib_jax.metrics.sums import known_count, weighted_sum
from calib_jax.metrics.validation import validate


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def squared_ece(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Unbiased estimate of the top label's squared calibration error; it may be negative.

        T = (1/N) sum_m (R_m^2 - Q_m) / (n_m - 1),   R_m = sum_i r_i,  Q_m = sum_i r_i^2

    over the rows i of bin m, with r_i = 1[right] - confidence. (R_m^2 - Q_m) / (n_m (n_m - 1)) is
    the mean of r_i r_j over all pairs of different rows, whose expectation is the square of the
    bin's gap: given how many rows each bin holds, T is unbiased for sum_m (n_m / N) gap_m^2 over
    the bins that it counts. It is in units of probability squared: a conf-ECE of 0.1 that is the
    same everywhere is 0.01. A calibrated model's lies about 0, on either side. Its root, and the
    clipped ``debiased_rmsce``, are biased again.

    A bin of one row holds no pair, and adds 0. Where no bin holds two rows, T is NaN. For its
    interval see ``squared_ece_interval``: a resample repeats rows, and pairs of a row with itself
    bring the bias back.

    Source: Lee et al. 2022, T-Cal (arXiv 2203.01850), the debiased plug-in estimator, in bins of
    equal width; Sun, Chatterjee and Barnett 2024 (arXiv 2408.08998). Differentiable piecewise.

    Args:
        probs: [N, K] option probabilities; cast to float32.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        num_bins: M.
        edges: "right" for bins (a, b], "left" for [a, b); see ``bin_index``.
        weights: [N], how often each row counts; n_m is their sum, so they must be counts.

    Returns:
        float32 scalar.

    Raises:
        ValueError: for shapes that do not fit together, or unknown options.

    Example:
        >>> probs = [[0.75, 0.25]] * 4
        >>> float(squared_ece(probs, [0, 0, 0, 0]))   # each pair 0.25 * 0.25
        0.0625
        >>> float(squared_ece(probs, [0, 0, 0, 1]))   # calibrated
        -0.0625
    """
    stats = bin_stats(probs, answers, mask, num_bins, edges, weights)
    p, valid = as_probs(probs, mask)
    confidence = confidences(p, valid)
    right = predictions(p, valid) == as_answers(answers, p.shape[0])
    count = known_count(stats.count)
    gap = stats.gap() / jnp.where(count == 0, 1, count)
    pairs = ~(count < 2)  # NaN, an overflow, counts and shows
    # n g^2 - S / (n - 1) with S the sum of squares about the mean: nothing large cancels.
    divisor = jnp.where(pairs, jnp.maximum(count - 1, 1), jnp.inf)
    index = bin_index(confidence, num_bins, edges)
    spread = jnp.square(right - confidence - gap[index]) / divisor[index]
    noise = weighted_sum(spread, as_weights(weights, p.shape[0]))
    value = (jnp.where(pairs, count * jnp.square(gap), 0).sum() - noise) / count.sum()
    return jnp.where(pairs.any(), value, jnp.nan)


@checked_settings
def squared_ece_interval(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    level: float = 0.95,
) -> tuple[float, float]:
    """Interval of ``squared_ece``, T -+ z sqrt(Var(psi) / N + second).

        psi_i = 2 r_i g_m - g_m^2,    second = (2 / N^2) sum_m s_m^4

    with g_m and s_m^2 the mean and the variance of r in the row's bin. The first is what T varies
    by where the model is off, of order 1/N; the second what it varies by where all gaps are 0, of
    order 1/N^2. z is the normal quantile of (1 + level)/2. An end below 0 stays as it is: then
    the model may be calibrated, as far as this figure tells.

    Measured coverage: `docs/coverage.md`. Source: Sun, Chatterjee and Barnett 2024.

    Args:
        probs, answers, mask, num_bins, edges: as in ``squared_ece``.
        level: nominal coverage, strictly between 0 and 1.

    Returns:
        (low, high), NaN where T is.

    Raises:
        ValueError: arrays that ``validate`` refuses, or a bad option.

    Example:
        >>> probs = [[0.75, 0.25]] * 100
        >>> low, high = squared_ece_interval(probs, [0] * 40 + [1] * 60)   # a gap of 0.35
        >>> round(low, 3), round(high, 3)
        (0.052, 0.188)
    """
    return _interval([_parts(probs, answers, mask, num_bins, edges)], level)


@checked_settings
def paired_squared_ece_interval(
    before: ArrayLike,
    after: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    level: float = 0.95,
) -> tuple[float, float]:
    """Interval of squared_ece(after) - squared_ece(before) on the same rows.

    As ``squared_ece_interval``, with the difference of the two psi, row by row, so that what the
    two sides share cancels, and the sum of the two ``second``. Of the two terms the larger is
    taken, not the sum: sides that share their rows have less of the second. The difference is
    unbiased, and the interval holds a true change at any sample size that was tried
    (``docs/coverage.md``). It takes rows for independent, and needs some right and some wrong
    answers: where all are right it is all but a point, and reports do not state it.

    Args:
        before, after: [N, K] probabilities of the two models on the same rows.
        answers, mask, num_bins, edges, level: as in ``squared_ece_interval``.

    Example:
        >>> answers = [0] * 50 + [1] * 50
        >>> low, high = paired_squared_ece_interval(
        ...     [[0.9, 0.1]] * 100, [[0.5, 0.5]] * 100, answers)
        >>> round(low, 3), round(high, 3)
        (-0.239, -0.081)
    """
    if np.shape(before) != np.shape(after):
        raise ValueError(
            f"before and after must have one shape, got {np.shape(before)} and {np.shape(after)}"
        )
    sides = [_parts(side, answers, mask, num_bins, edges) for side in (before, after)]
    return _interval(sides, level)


def _parts(probs, answers, mask, num_bins, edges) -> tuple[float, np.ndarray, float]:
    """T, psi [N] and ``second``, in float64."""
    validate(probs, answers, mask)
    confidence = confidences(probs, mask)
    index = np.asarray(bin_index(confidence, num_bins, edges))
    r = np.asarray(correctness(probs, answers, mask), np.float64)
    r -= np.asarray(confidence, np.float64)
    n = np.bincount(index, minlength=num_bins)
    total, squares = (np.bincount(index, x, num_bins) for x in (r, r * r))
    pairs = n > 1
    if not pairs.any():
        return np.nan, r, np.nan
    gap = total / np.maximum(n, 1)
    variance = np.maximum(squares - total * gap, 0)[pairs] / (n[pairs] - 1)
    value = np.sum((total**2 - squares)[pairs] / (n[pairs] - 1)) / len(r)
    psi = 2 * r * gap[index] - gap[index] ** 2
    return float(value), psi, float(2 * np.sum(variance**2)) / len(r) ** 2


def _interval(sides, level: float) -> tuple[float, float]:
    """Of the only side, or of the last less the first."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}")
    value, psi, second = sides[-1]
    if len(sides) == 2:
        value, psi, second = value - sides[0][0], psi - sides[0][1], second + sides[0][2]
    if np.isnan(value):
        return np.nan, np.nan
    first = psi.var(ddof=1) / len(psi)
    variance = first + second if len(sides) == 1 else max(first, second)
    half = statistics.NormalDist().inv_cdf((1 + level) / 2) * float(np.sqrt(variance))
    return value - half, value + half
