"""Equal-mass bins and the errors made of them: adaptive ECE, Nixon's ACE, thresholded TACE.

The bins are a function of the multiset of rows: equal probabilities always share a bin, so the
order of the rows never matters, and an integer weight is as many copies of the row.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from calib_jax.metrics.bins import BinStats, bin_stats, class_bin_stats, group_bin_stats
from calib_jax.metrics.bits import order_bits
from calib_jax.metrics.calibration import bin_gaps, ece_from_bins
from calib_jax.metrics.checked import checked
from calib_jax.metrics.equal_mass import equal_mass_stats, pair_weights
from calib_jax.metrics.inputs import answer_matrix, as_answers, as_probs, as_weights
from calib_jax.metrics.scores import confidences, predictions
from calib_jax.metrics.sums import known_count, tree_sum


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def adaptive_bin_stats(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
) -> tuple[BinStats, jax.Array]:
    """Top-label statistics in M bins of equally many rows, and the edges of these bins.

    The sorted confidences are split into M parts of N // M rows, the first N mod M of them one
    row longer. The edge between two parts is the mid-point of the values on its two sides; where
    these are equal the edge is that value, and with ``edges="right"`` all rows that have it go
    below the edge, with "left" above. Edges that coincide leave empty bins between them: fewer,
    larger bins, never a split tie. With N < M each row gets a bin, the other bins are empty.

    The bins belong to these very rows: statistics of different batches must not be merged.

    Args:
        probs, answers, mask, num_bins, edges: as in ``bin_stats``.
        weights: [N]. Whole numbers count rows as so many copies. If any is fractional, they are
            masses: the edges then lie at shares i/M of the total.

    Returns:
        ``BinStats`` of shape [M], and float32 edges [M + 1] from 0 to 1.

    Example:
        >>> stats, edges = adaptive_bin_stats([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0]], [0, 0, 1], \
num_bins=2)
        >>> stats.count.tolist(), edges.tolist()
        ([2, 1], [0.0, 0.875, 1.0])
    """
    probs, mask = as_probs(probs, mask)
    correct = predictions(probs, mask) == as_answers(answers, len(probs))
    weights = as_weights(weights, len(probs))
    confidence = confidences(probs, mask)[:, None]
    found = equal_mass_stats(confidence, correct[:, None], None, weights, num_bins, edges)
    return jax.tree.map(lambda x: x[0], found)


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def adaptive_class_bin_stats(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
) -> tuple[BinStats, jax.Array]:
    """Class-wise statistics in equal-mass bins: per option k, its rows split by p_k.

    As ``adaptive_bin_stats`` for each option by itself; a masked option of a row is in no bin.

    Returns:
        ``BinStats`` of shape [K, M], and float32 edges [K, M + 1].

    Example:
        >>> stats, _ = adaptive_class_bin_stats([[0.9, 0.1], [0.6, 0.4]], [0, 1], num_bins=2)
        >>> stats.count.tolist(), stats.correct.tolist()
        ([[1, 1], [1, 1]], [[0, 1], [0, 1]])
    """
    probs, mask = as_probs(probs, mask)
    labels = answer_matrix(as_answers(answers, len(probs)), probs.shape[1])
    weights = as_weights(weights, len(probs))
    return equal_mass_stats(probs, labels, mask, weights, num_bins, edges)


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges", "norm"))
def adaptive_ece(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
    *,
    norm: str = "l1",
) -> jax.Array:
    """Adaptive expected calibration error: conf-ECE in bins of equally many rows.

        adaptive-ECE = sum_m (n_m / N) |acc_m - conf_m|

    over the equal-mass bins of ``adaptive_bin_stats``, which never split tied confidences.
    The rule of uncertainty-calibration's ``get_ece_em`` (HELM's ``ece_10_bin``). Libraries that
    split by rank (torch-uncertainty) give a value that depends on the order of tied rows.

    Source: Nguyen and O'Connor 2015; Kumar et al. 2019. Differentiable piecewise: inside bins.

    Args:
        probs: [N, K] option probabilities; cast to float32.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        num_bins: M.
        edges: whether rows tied with an edge go below it ("right") or above it ("left").
        weights: [N], how often each row counts; see ``adaptive_bin_stats``.
        norm: "l1", "l2" or "max"; see ``ece_from_bins``.

    Returns:
        float32 scalar in [0, 1]; NaN for no rows.

    Raises:
        ValueError: for shapes that do not fit together, or unknown options.

    Example:
        >>> probs = [[0.75, 0.25], [0.75, 0.25], [1.0, 0.0], [1.0, 0.0]]
        >>> float(adaptive_ece(probs, [0, 1, 0, 0], num_bins=2))   # 1/2 |0.5 - 0.75|
        0.125
    """
    stats, _ = adaptive_bin_stats(probs, answers, mask, num_bins, edges, weights)
    return ece_from_bins(stats, norm)


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges", "norm"))
def cw_adaptive_ece(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
    *,
    norm: str = "l1",
) -> jax.Array:
    """Class-wise adaptive ECE: ``cw_ece`` in equal-mass bins of each class's own.

        cw-adaptive-ECE = (1/K) sum_k sum_m (n_km / N) |freq_km - conf_km|

    Bins are weighted by their rows, as in uncertainty-calibration's marginal ``get_ece_em``;
    ``nixon_ace`` weights all bins of a class equally. The two differ where N is not a multiple
    of M or values are tied.

    Arguments, return value and differentiability as in ``adaptive_ece``; ragged options and
    norms as in ``cw_ece``.

    Example:
        >>> float(cw_adaptive_ece([[0.75, 0.25], [0.25, 0.75]], [0, 0], num_bins=2))
        0.5
    """
    stats, _ = adaptive_class_bin_stats(probs, answers, mask, num_bins, edges, weights)
    return ece_from_bins(stats, norm)


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def nixon_ace(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Adaptive calibration error as Nixon et al. define it: the mean over classes and ranges.

        ACE = (1 / (K R)) sum_k sum_r |freq_kr - conf_kr|

    over the R non-empty equal-mass ranges of each class (R = M unless values are tied). Not the
    "average" calibration error that netcal calls ACE (``average_ce``), nor the top-label error
    that others do (``adaptive_ece``). With ragged options a class counts in proportion to the
    rows in which it exists, as in ``cw_ece``.

    Source: Nixon et al. 2019, section 3. Arguments, return value and differentiability as in
    ``adaptive_ece``.

    Example:
        >>> float(nixon_ace([[0.75, 0.25], [0.25, 0.75]], [0, 0], num_bins=2))
        0.5
    """
    stats, _ = adaptive_class_bin_stats(probs, answers, mask, num_bins, edges, weights)
    ranges = (stats.count != 0).sum(axis=-1)
    of_class = bin_gaps(stats.gap(), stats.count).sum(axis=-1) / jnp.maximum(ranges, 1)
    pairs = known_count(stats.count).sum(axis=-1)
    return (of_class * pairs).sum() / pairs.sum()


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges", "denominator", "binning"))
def tace(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
    *,
    threshold: float = 0.01,
    denominator: str = "retained",
    binning: str = "mass",
) -> jax.Array:
    """Thresholded adaptive calibration error: class-wise, of the probabilities above a threshold.

        TACE = (1/K) sum_k (1 / D_k) sum_m n_km |freq_km - conf_km|

    where only the probabilities p_k > ``threshold`` are binned, by mass, for each class alone.
    Without it the many near-zero probabilities of many classes hide the error of the rest.

    ``denominator`` decides what D_k is: "retained", the number of probabilities kept of class k
    (so TACE may exceed the ACE; a class of which nothing is kept adds 0), or "all", the number of
    its rows (so TACE is the part of ``cw_adaptive_ece`` that large probabilities cause).
    "retained" with ``binning="width"`` is robustness_metrics' thresholded SCE; its TACE has
    the same denominator, but edges of its own that move with the rounding of i N / M.

    Source: Nixon et al. 2019, section 3.

    Args:
        probs, answers, mask, num_bins, edges, weights: as in ``adaptive_ece``.
        threshold: probabilities at or below it are left out. May be traced.
        denominator: "retained" or "all".
        binning: "mass" or "width" (equal-width bins with ``edges`` as in ``bin_index``).

    Returns:
        float32 scalar in [0, 1]; NaN for no rows. Differentiable piecewise: inside bins.

    Raises:
        ValueError: for shapes that do not fit together, or unknown options.

    Example:
        >>> probs = [[1.0, 0.0], [0.75, 0.25]]
        >>> float(tace(probs, [0, 0], num_bins=1))   # classes: |1 - 0.875|, |0 - 0.25|
        0.1875
        >>> float(tace(probs, [0, 0], num_bins=1, denominator="all"))
        0.125
    """
    if denominator not in ("retained", "all"):
        raise ValueError(f'denominator must be "retained" or "all", got {denominator!r}')
    probs, mask = as_probs(probs, mask)
    num_rows, num_options = probs.shape
    labels = answer_matrix(as_answers(answers, num_rows), num_options)
    weights = as_weights(weights, num_rows)
    # NaN stays in, and a subnormal probability is above a threshold of 0.
    kept = order_bits(probs) > order_bits(jnp.asarray(threshold, jnp.float32))
    kept = kept if mask is None else kept & mask
    if _by_mass(binning):
        stats, _ = equal_mass_stats(probs, labels, kept, weights, num_bins, edges)
    else:
        stats = group_bin_stats(probs, labels, kept, weights, num_bins=num_bins, edges=edges)
    weight = pair_weights(weights, jnp.ones_like(probs, bool) if mask is None else mask)
    assert weight is not None  # None only without both
    pairs = tree_sum(weight).astype(jnp.float32)
    total = jnp.abs(stats.gap()).sum(axis=-1)
    if denominator == "all":
        return total.sum() / pairs.sum()
    retained = known_count(stats.count).sum(axis=-1)
    return (total / jnp.where(retained == 0, 1, retained) * pairs).sum() / pairs.sum()


def top_stats(probs, answers, mask, num_bins, edges, weights, binning) -> BinStats:
    """``bin_stats`` for binning "width", ``adaptive_bin_stats`` for "mass"."""
    if _by_mass(binning):
        return adaptive_bin_stats(probs, answers, mask, num_bins, edges, weights)[0]
    return bin_stats(probs, answers, mask, num_bins, edges, weights)


def class_stats(probs, answers, mask, num_bins, edges, weights, binning) -> BinStats:
    """``class_bin_stats`` for binning "width", ``adaptive_class_bin_stats`` for "mass"."""
    if _by_mass(binning):
        return adaptive_class_bin_stats(probs, answers, mask, num_bins, edges, weights)[0]
    return class_bin_stats(probs, answers, mask, num_bins, edges, weights)


def _by_mass(binning: str) -> bool:
    if binning not in ("mass", "width"):
        raise ValueError(f'binning must be "mass" or "width", got {binning!r}')
    return binning == "mass"
