"""Binned calibration errors: the distance between confidence and frequency, bin by bin.

All are functions of ``BinStats``. Piecewise differentiable in ``probs``: bins and labels are
constants, the confidences inside a bin are not. ``soft.soft_ece`` softens the bins as well.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from calib_jax.metrics.bins import BinStats, bin_stats, class_bin_stats, merge, ovr_bin_stats
from calib_jax.metrics.checked import checked
from calib_jax.metrics.sums import known_count

_NORMS = ("l1", "l2", "max")


@functools.partial(jax.jit, static_argnames="norm")
def ece_from_bins(stats: BinStats, norm: str = "l1") -> jax.Array:
    """One error from the gaps of all bins, over all axes of ``BinStats``.

    With the gap g_b = |acc_b - conf_b| of each bin b of n_b rows and n = sum_b n_b:

        "l1":   sum_b (n_b / n) g_b                 expected calibration error
        "l2":   sqrt(sum_b (n_b / n) g_b^2)         root mean square calibration error
        "max":  max_b g_b over non-empty bins       maximum calibration error

    so l1 <= l2 <= max. ``BinStats`` [M] of top-label bins give conf-ECE, [K, M] of class-wise
    bins give cw-ECE; merge the statistics of batches first. For [K, M] the l2 value is
    sqrt(mean_k CE_k^2), not the mean of the classes' roots, and "max" is the largest gap of any
    class. Empty bins contribute 0; NaN when all are empty.

    Differentiable in the bins' confidences except where a gap is 0 (subgradient 0 there); "max"
    has the gradient of its worst bin.

    Args:
        stats: of any shape [..., M].
        norm: "l1", "l2" or "max".

    Example:
        >>> stats = bin_stats([[0.75, 0.25], [0.75, 0.25]], [0, 0])
        >>> float(ece_from_bins(stats))
        0.25
    """
    return gap_norm(stats.gap(), stats.count, norm)


def gap_norm(gap: jax.Array, count: jax.Array, norm: str) -> jax.Array:
    """The norms of ``ece_from_bins`` from the bins' sums of signed gaps and counts."""
    if norm not in _NORMS:
        raise ValueError(f'norm must be "l1", "l2" or "max", got {norm!r}')
    total = known_count(count).sum()
    if norm == "l1":
        return jnp.abs(gap).sum() / total
    size = bin_gaps(gap, count)
    if norm == "max":
        return jnp.where(total == 0, jnp.nan, size.max())
    return safe_root((jnp.abs(gap) * size).sum() / total)


def bin_gaps(gap: jax.Array, count: jax.Array) -> jax.Array:
    """|acc_b - conf_b| of each bin from the summed gaps; 0 in an empty bin."""
    return jnp.abs(gap) / jnp.where(count == 0, 1, known_count(count))


def safe_root(x: jax.Array) -> jax.Array:
    """sqrt(max(x, 0)) with gradient 0 instead of infinity at 0; NaN stays NaN."""
    positive = x > 0
    root = jnp.sqrt(jnp.where(positive, x, 1))
    return jnp.where(positive, root, jnp.where(jnp.isnan(x), x, 0))


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges", "norm"))
def conf_ece(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
    *,
    norm: str = "l1",
) -> jax.Array:
    """Confidence (top-label) expected calibration error.

        conf-ECE = sum_m (n_m / N) |acc_m - conf_m|

    over M equal-width bins of c = max_k p_k: acc_m is the share of correct predictions in bin m,
    conf_m the mean of c. Empty bins contribute 0. At least |accuracy - mean confidence|. Won by
    guessing uniformly at chance accuracy, so read it beside ``nll`` and ``brier``; biased upwards
    for small N (about 0.11 at N = 100 for a perfectly calibrated 4-way model with 15 bins): read
    it beside ``debiased_ece``.

    Source: Guo et al. 2017; Xiao et al. 2025 (arXiv 2505.01997), Definition 3.2, whose printed
    1/k belongs to cw-ECE alone. Differentiable piecewise: inside bins, not across edges.

    Args:
        probs: [N, K] option probabilities; cast to float32. Rows are used as they are: not
            renormalised, and not checked (see ``validate``).
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        num_bins: M.
        edges: "right" for bins (a, b], "left" for [a, b); see ``bin_index``.
        weights: [N], how often each row counts; None means once. Weight 0: not at all.
        norm: "l1", "l2" (``rmsce``) or "max" (``mce``); see ``ece_from_bins``.

    Returns:
        float32 scalar in [0, 1]; NaN for no rows.

    Raises:
        ValueError: for shapes that do not fit together, or unknown ``edges`` or ``norm``.

    Example:
        >>> probs = [[0.75, 0.25], [0.75, 0.25], [0.5, 0.5], [0.5, 0.5]]
        >>> float(conf_ece(probs, [0, 0, 0, 1]))   # 1/2 |1 - 0.75| + 1/2 |0.5 - 0.5|
        0.125
        >>> float(conf_ece(probs, [0, 0, 0, 1], norm="max"))
        0.25
    """
    return ece_from_bins(bin_stats(probs, answers, mask, num_bins, edges, weights), norm)


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def mce(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Maximum calibration error: the largest gap of any non-empty top-label bin.

        MCE = max_{m: n_m > 0} |acc_m - conf_m|

    A bin of one row counts as much as a bin of thousands, so at small N this is mostly noise
    (0.36 for a perfectly calibrated 4-way model at N = 100 with 15 bins).

    Source: Naeini et al. 2015. Arguments, return value and differentiability as in ``conf_ece``.

    Example:
        >>> float(mce([[0.75, 0.25], [0.75, 0.25], [0.5, 0.5], [0.5, 0.5]], [0, 0, 0, 1]))
        0.25
    """
    return conf_ece(probs, answers, mask, num_bins, edges, weights, norm="max")


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def rmsce(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Root mean square calibration error of the top label, L2 in place of conf-ECE's L1.

        RMSCE = sqrt(sum_m (n_m / N) (acc_m - conf_m)^2)

    At least conf-ECE, at most MCE. The plug-in estimate; ``debiased_rmsce`` subtracts its bias.

    Source: Hendrycks et al. 2019; Kumar et al. 2019. Arguments, return value and
    differentiability as in ``conf_ece``; the gradient at a value of 0 is taken as 0.

    Example:
        >>> float(rmsce([[0.75, 0.25], [0.75, 0.25]], [0, 0]))
        0.25
    """
    return conf_ece(probs, answers, mask, num_bins, edges, weights, norm="l2")


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def average_ce(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Average calibration error: the unweighted mean gap of the non-empty top-label bins.

        Average-CE = (1 / #{m: n_m > 0}) sum_{m: n_m > 0} |acc_m - conf_m|

    What netcal calls ACE; not the adaptive error that Nixon et al. call ACE (``nixon_ace``), and
    not ``adaptive_ece``. Sparse bins count as much as full ones.

    Source: Neumann et al. 2018. Arguments, return value and differentiability as in ``conf_ece``.

    Example:
        >>> probs = [[0.75, 0.25]] * 3 + [[0.5, 0.5]]
        >>> float(average_ce(probs, [0, 0, 0, 0]))   # (0.25 + 0.5) / 2
        0.375
    """
    stats = bin_stats(probs, answers, mask, num_bins, edges, weights)
    return bin_gaps(stats.gap(), stats.count).sum() / (stats.count != 0).sum()


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges", "by_confidence"))
def overconfidence_error(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
    *,
    by_confidence: bool = False,
) -> jax.Array:
    """The part of conf-ECE that comes from overconfident bins.

        OE = sum_m (n_m / N) max(conf_m - acc_m, 0)

    With ``underconfidence_error`` it adds up to ``conf_ece``. ``by_confidence`` multiplies each
    term by conf_m: the "overconfidence error" of Thulasidasan et al. 2019, which punishes
    confident bins more and adds up to nothing.

    Arguments, return value and differentiability as in ``conf_ece``.

    Example:
        >>> probs, answers = [[0.75, 0.25], [0.75, 0.25], [0.5, 0.5]], [1, 1, 0]
        >>> float(overconfidence_error(probs, answers))   # 2/3 (0.75 - 0)
        0.5
        >>> float(overconfidence_error(probs, answers, by_confidence=True))   # 0.75 of it
        0.375
    """
    stats = bin_stats(probs, answers, mask, num_bins, edges, weights)
    excess = jnp.maximum(-stats.gap(), 0)
    if by_confidence:
        empty = stats.count == 0
        excess *= jnp.where(empty, 0, stats.confidence / jnp.where(empty, 1, stats.count))
    return excess.sum() / known_count(stats.count).sum()


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def underconfidence_error(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
) -> jax.Array:
    """The part of conf-ECE that comes from underconfident bins.

        UE = sum_m (n_m / N) max(acc_m - conf_m, 0)

    With ``overconfidence_error`` it adds up to ``conf_ece``. Not the "UCE" (uncertainty
    calibration error) of other libraries, which compares entropies.

    Arguments, return value and differentiability as in ``conf_ece``.

    Example:
        >>> probs = [[0.75, 0.25], [0.75, 0.25], [0.5, 0.5], [0.5, 0.5]]
        >>> float(underconfidence_error(probs, [0, 0, 1, 1]))   # 2/4 (1 - 0.75)
        0.125
    """
    stats = bin_stats(probs, answers, mask, num_bins, edges, weights)
    return jnp.maximum(stats.gap(), 0).sum() / known_count(stats.count).sum()


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges", "norm"))
def cw_ece(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
    *,
    norm: str = "l1",
) -> jax.Array:
    """Class-wise expected calibration error by label frequency (= SCE of Nixon et al.).

        cw-ECE = (1/K) sum_k sum_m (n_km / N) |freq_km - conf_km|

    where n_km rows have p_k in bin m, freq_km is the share of them whose answer is k, and conf_km
    is their mean p_k. Empty bins contribute 0. Not the pooled "SCE" that puts all N K
    probabilities into common bins (``pooled_ece``), and not ``sce_ovr``. ``norm="l2"`` is
    sqrt((1/K) sum_k CE_k^2) with each class's RMSCE, as in uncertainty-calibration; "max" is the
    largest gap of any bin of any class.

    With ragged options a masked option is in no bin, and N K becomes the number of existing
    (row, option) pairs: K is the mean number of options per row. One five-option row among a
    thousand four-option rows then moves the value by about a thousandth, and columns that are
    masked everywhere change nothing.

    Source: Nixon et al. 2019 (SCE); Kull et al. 2019; Xiao et al. 2025, Definition 3.1.

    Arguments, return value and differentiability as in ``conf_ece``.

    Example:
        >>> probs = [[0.75, 0.25], [0.75, 0.25]]
        >>> float(cw_ece(probs, [0, 0]))   # |1 - 0.75| and |0 - 0.25|
        0.25
    """
    return ece_from_bins(class_bin_stats(probs, answers, mask, num_bins, edges, weights), norm)


@jax.jit
def pool_classes(stats: BinStats) -> BinStats:
    """Class-wise ``BinStats`` [K, M] added up over the classes: [M], what ``pooled_ece`` is of.

    Example:
        >>> pool_classes(class_bin_stats([[0.75, 0.25]], [0], num_bins=2)).count.tolist()
        [1, 1]
    """
    first, rest = jax.tree.map(lambda x: x[0], stats), jax.tree.map(lambda x: x[1:], stats)
    return jax.lax.scan(lambda total, one: (merge(total, one), None), first, rest)[0]


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges", "norm"))
def pooled_ece(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
    *,
    norm: str = "l1",
) -> jax.Array:
    """Full ECE: all N K probabilities of all classes in common bins.

        pooled-ECE = sum_m (n_m / (N K)) |freq_m - conf_m|

    where n_m of the (row, option) pairs have their probability in bin m and freq_m is the share
    of them whose option is the answer. At most cw-ECE: errors of opposite sign in different
    classes cancel. The "sce" of some libraries, PyCalib's ``ece_full``. N K is the number of
    existing pairs where options are ragged.

    Source: Liu et al. 2024 (Full-ECE, arXiv 2406.11345). Arguments, return value and
    differentiability as in ``conf_ece``.

    Example:
        >>> float(pooled_ece([[0.75, 0.25], [0.25, 0.75]], [0, 0]))   # 1 of 2 right in both bins
        0.25
    """
    stats = class_bin_stats(probs, answers, mask, num_bins, edges, weights)
    return ece_from_bins(pool_classes(stats), norm)


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def sce_ovr(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
) -> jax.Array:
    """The "SCE" of published base-versus-instruct tables: one-versus-rest decisions.

        SCE_ovr = (1/K) sum_k sum_m (n_km / N) |acc_km - conf_km|

    as ``cw_ece``, except that acc_km is the share of rows in the bin whose decision "k or not k"
    is right, 1[(prediction = k) = (answer = k)]. It is no calibration error: a perfect and
    certain model scores 1 - 1/K, the worst realistic value, and a perfectly calibrated one about
    (1 - 1/K) |1 - 2 (1 - accuracy) / (K - 1)|. For comparison with published numbers only.

    Arguments, ragged options, return value and differentiability as in ``cw_ece``.

    Example:
        >>> float(sce_ovr([[1.0, 0.0, 0.0, 0.0]], [0]))
        0.75
    """
    return ece_from_bins(ovr_bin_stats(probs, answers, mask, num_bins, edges, weights))
