"""Calibration errors with less small-sample bias than the plug-in: debiased L2 and L1, ECE sweep.

The plug-in ECE of a perfectly calibrated model is not 0 but falls like sqrt(M / N); these take
out what sampling noise in the bins' accuracies adds.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics.adaptive import class_stats, top_stats
from calib_jax.metrics.bins import BinStats
from calib_jax.metrics.bits import of_order_bits, order_bits
from calib_jax.metrics.calibration import ece_from_bins, safe_root
from calib_jax.metrics.checked import checked
from calib_jax.metrics.equal_mass import (
    edge_stats,
    inner_edges,
    pair_weights,
    sort_mass,
    split_starts,
)
from calib_jax.metrics.inputs import as_answers, as_probs, as_weights
from calib_jax.metrics.scores import confidences, predictions
from calib_jax.metrics.sums import known_count


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges", "binning"))
def debiased_rmsce(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
    *,
    binning: str = "mass",
) -> jax.Array:
    """Root mean square calibration error of the top label, with its bias subtracted.

        sqrt(max(0, sum_m (n_m / N) ((acc_m - conf_m)^2 - acc_m (1 - acc_m) / (n_m - 1))))

    The subtracted term is an unbiased estimate of the variance of acc_m, so the sum (not its
    root) is unbiased for the squared error of the binned model. A bin of fewer than two rows
    adds 0; a negative sum is clipped to 0, so 0 means "no error beyond noise".

    Source: Kumar et al. 2019 (arXiv 1909.10155), section 5; uncertainty-calibration's
    ``get_calibration_error(p=2, debias=True, mode="top-label")``. Differentiable piecewise:
    inside bins; the gradient where the value is 0 is 0.

    Args:
        probs: [N, K] option probabilities; cast to float32.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        num_bins: M.
        edges: "right" or "left"; see ``bin_index`` and ``adaptive_bin_stats``.
        weights: [N], how often each row counts; n_m is their sum, so they must be counts.
        binning: "mass" (the source's) for equal-mass bins, "width" for equal-width bins.

    Returns:
        float32 scalar in [0, 1]; NaN for no rows.

    Raises:
        ValueError: for shapes that do not fit together, or unknown options.

    Example:
        >>> probs = [[0.75, 0.25]] * 4
        >>> float(debiased_rmsce(probs, [0, 0, 0, 1]))   # calibrated
        0.0
        >>> float(debiased_rmsce(probs, [0, 0, 0, 0]))   # no variance to subtract
        0.25
    """
    stats = top_stats(probs, answers, mask, num_bins, edges, weights, binning)
    return safe_root(_debiased_square(stats))


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges", "binning"))
def cw_debiased_rmsce(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
    *,
    binning: str = "mass",
) -> jax.Array:
    """Class-wise ("marginal") ``debiased_rmsce``.

        sqrt((1/K) sum_k max(0, square_k))

    where square_k is the debiased squared error of class k's probabilities against its label
    frequency, clipped class by class, as uncertainty-calibration does. With ragged options a
    class counts in proportion to the rows in which it exists.

    Source: Kumar et al. 2019, definition 2.2. Arguments, return value and differentiability as
    in ``debiased_rmsce``.

    Example:
        >>> float(cw_debiased_rmsce([[0.75, 0.25]] * 4, [0, 0, 0, 0]))
        0.25
    """
    stats = class_stats(probs, answers, mask, num_bins, edges, weights, binning)
    pairs = known_count(stats.count).sum(axis=-1)
    square = jnp.maximum(jax.vmap(_debiased_square)(stats), 0)
    return safe_root(jnp.where(pairs == 0, 0, square * pairs).sum() / pairs.sum())


def _debiased_square(stats: BinStats) -> jax.Array:
    """The debiased square over the bins [M], possibly negative; NaN when all are empty."""
    count, accuracy, gap = _filled(stats)
    variance = accuracy * (1 - accuracy) / jnp.maximum(count - 1, 1)
    # Times NaN, a bin of one row must not hide it.
    square = jnp.where(count < 2, 0 * gap, jnp.square(gap) - variance)
    return (count * square).sum() / count.sum()


def _filled(stats: BinStats) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Count, accuracy and mean gap of each bin as float32, both 0 in an empty bin."""
    count = known_count(stats.count)
    divisor = jnp.where(count == 0, 1, count)
    return count, stats.correct / divisor, stats.gap() / divisor


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges", "binning"))
def debiased_ece(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
    *,
    binning: str = "width",
) -> jax.Array:
    """conf-ECE (L1) minus an estimate of its bias.

        max(0, 2 ECE - E[ECE*]),    E[ECE*] = sum_m (n_m / N) E|g_m + s_m Z|

    g_m = acc_m - conf_m is the gap of bin m, s_m^2 = acc_m (1 - acc_m) / n_m the variance of its
    accuracy and Z standard normal: E[ECE*] - ECE is what noise would add once more. The mean of
    the folded normal is taken in closed form,

        E|g + s Z| = s sqrt(2/pi) exp(-g^2 / 2 s^2) + g erf(g / (s sqrt 2)),

    where uncertainty-calibration draws 1,000 samples. It is not unbiased: of calibrated models it
    takes out some 40 % of the bias (a bin that is all right or all wrong shows no variance, and
    the clipped absolute value adds some). ``squared_ece`` is. A value below 0 is clipped to 0.

    Source: Kumar et al. 2019; Broecker 2012. Arguments, return value and differentiability as in
    ``debiased_rmsce``, except that ``binning`` is "width" by default, to stand beside
    ``conf_ece``.

    Example:
        >>> probs = [[0.75, 0.25]] * 4
        >>> float(debiased_ece(probs, [0, 0, 0, 1]))   # calibrated
        0.0
        >>> float(debiased_ece(probs, [0, 0, 0, 0]))   # no variance
        0.25
    """
    count, accuracy, gap = _filled(
        top_stats(probs, answers, mask, num_bins, edges, weights, binning)
    )
    variance = accuracy * (1 - accuracy) / jnp.maximum(count, 1)
    noisy = variance > 0
    deviation = jnp.sqrt(jnp.where(noisy, variance, 1))
    ratio = gap / deviation
    folded = deviation * np.sqrt(2 / np.pi) * jnp.exp(-jnp.square(ratio) / 2)
    folded += gap * jax.scipy.special.erf(ratio / np.sqrt(2))
    size = jnp.abs(gap)
    expected = jnp.where(noisy, folded, size)
    return jnp.maximum((count * (2 * size - expected)).sum() / count.sum(), 0)


@checked
@functools.partial(jax.jit, static_argnames=("edges", "max_bins"))
def sweep_num_bins(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    edges: str = "right",
    weights: ArrayLike | None = None,
    *,
    max_bins: int = 256,
) -> jax.Array:
    """The number of equal-mass bins that ``sweep_ece`` uses, int32.

    The largest b such that with 1, 2, ..., b bins the bins' accuracies never fall from one bin to
    the next. Piecewise constant: no gradient.

    Arguments as in ``sweep_ece``.

    Example:
        >>> probs = [[0.5, 0.5], [0.75, 0.25], [0.8, 0.2], [0.9, 0.1]]
        >>> int(sweep_num_bins(probs, [1, 0, 1, 0]))   # two bins 1/2, 1/2; three 1/2, 0, 1
        2
    """
    confidence, correct, weights = _sweep_inputs(probs, answers, mask, weights)
    return _sweep(confidence, correct, weights, edges, max_bins)[0]


@checked
@functools.partial(jax.jit, static_argnames=("edges", "max_bins", "norm"))
def sweep_ece(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    edges: str = "right",
    weights: ArrayLike | None = None,
    *,
    max_bins: int = 256,
    norm: str = "l1",
) -> jax.Array:
    """Monotonic-sweep ECE: as many equal-mass bins as keep the accuracies monotone.

    ``adaptive_ece`` of the top label with b bins, where b is the largest number such that with
    1, ..., b bins the accuracy never falls from one bin to the next: a true calibration curve is
    taken to rise, so a fall means that the bins are too small. No number of bins to choose.

    Source: Roelofs et al. 2022 (arXiv 2012.08668), Algorithm 1 (ECE_SWEEP, equal mass). There b
    may grow to N; here to ``max_bins``, a static shape under jit, reached only by data whose
    curve is monotone that far. Tied confidences are never split, as in ``adaptive_bin_stats``.
    One sort, then O(max_bins log N) per b up to the first fall. Differentiable piecewise: inside
    the bins that the sweep ends with.

    Args:
        probs: [N, K] option probabilities; cast to float32.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        edges: whether rows tied with an edge go below it ("right") or above it ("left").
        weights: [N], how often each row counts; see ``adaptive_bin_stats``.
        max_bins: most bins tried; also at most the number of rows.
        norm: "l1", "l2" or "max"; see ``ece_from_bins``.

    Returns:
        float32 scalar in [0, 1]; NaN for no rows.

    Raises:
        ValueError: for shapes that do not fit together, or unknown options.

    Example:
        >>> probs = [[0.5, 0.5], [0.5, 0.5], [0.75, 0.25], [0.75, 0.25]]
        >>> float(sweep_ece(probs, [0, 1, 0, 0]))   # 1/2 |1 - 0.75|
        0.125
    """
    confidence, correct, counts = _sweep_inputs(probs, answers, mask, weights)
    num_bins, ordered, weighed = _sweep(confidence, correct, counts, edges, max_bins)
    inner = inner_edges(ordered, weighed, num_bins, max_bins, edges)
    counts = pair_weights(counts, None)
    stats = edge_stats(confidence[:, None], correct[:, None], counts, inner[None], edges)
    return ece_from_bins(stats, norm)


def _sweep_inputs(probs, answers, mask, weights) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    probs, mask = as_probs(probs, mask)
    correct = predictions(probs, mask) == as_answers(answers, len(probs))
    return confidences(probs, mask), correct, as_weights(weights, len(probs))


def _sweep(confidence, correct, weights, edges, max_bins):
    """Number of bins, ascending confidences and the weight at or before each."""
    if edges not in ("right", "left"):
        raise ValueError(f'edges must be "right" or "left", got {edges!r}')
    if isinstance(max_bins, bool) or int(max_bins) != max_bins or max_bins < 1:
        raise ValueError(f"max_bins must be an integer >= 1, got {max_bins!r}")
    confidence = jax.lax.stop_gradient(confidence)
    num_rows = len(confidence)
    if weights is None:
        # Confidence and, in the last bit, correctness: one sort of integers, and nothing to gather.
        weights, bits = jnp.ones(num_rows, jnp.int32), order_bits(confidence).astype(jnp.uint32)
        packed = jnp.sort((bits << 1) | correct.astype(jnp.uint32))
        ordered = of_order_bits((packed >> 1).astype(jnp.int32))
        mass, hits = jnp.cumsum(weights), jnp.cumsum((packed & 1).astype(jnp.int32))
    else:
        ordered, mass = sort_mass(confidence, None, weights)
        hits = jnp.cumsum(jnp.where(correct, weights, 0)[jnp.argsort(order_bits(confidence))])
    if num_rows == 0:
        return jnp.int32(1), ordered, mass
    total = mass[-1]
    # Fractional weights are masses: there the rows that have any are counted.
    whole = jnp.all(mass == jnp.round(mass))
    limit = jnp.where(whole, total, (weights > 0).sum())
    limit = jnp.minimum(max_bins, limit).astype(jnp.int32)

    def monotone(num_bins):
        start = split_starts(mass, num_bins, max_bins)
        # How many rows lie below each edge: up to the last, or before the first, of a tie.
        if edges == "right":
            value = ordered.at[jnp.searchsorted(mass, start)].get(mode="clip")
            below = jnp.searchsorted(ordered, value, side="right")
        else:
            value = ordered.at[jnp.searchsorted(mass, start, side="right")].get(mode="clip")
            below = jnp.searchsorted(ordered, value)
        below = jnp.where((start < total) & (jnp.arange(1, max_bins) < num_bins), below, num_rows)
        count, right = (
            jnp.diff(jnp.where(below == 0, 0, sums[below - 1]), prepend=0, append=sums[-1])
            for sums in (mass, hits)
        )
        # Empty bins say nothing: they neither fall nor are fallen from.
        accuracy = jnp.where(count > 0, right / jnp.where(count > 0, count, 1), -jnp.inf)
        highest = jax.lax.cummax(accuracy)
        return jnp.all((count <= 0) | (accuracy >= highest))

    num_bins = jax.lax.while_loop(
        lambda b: (b < limit) & monotone(b + 1), lambda b: b + 1, jnp.int32(1)
    )
    return num_bins, ordered, mass
