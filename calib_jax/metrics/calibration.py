"""Binned calibration errors: the distance between confidence and frequency, bin by bin.

All are functions of ``BinStats``. Piecewise differentiable in ``probs``: bins and labels are
constants, the confidences inside a bin are not.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from calib_jax.metrics.binning import BinStats, bin_stats, class_bin_stats, group_bin_stats
from calib_jax.metrics.inputs import answer_matrix, as_answers, as_probs, as_weights
from calib_jax.metrics.scores import predictions


@jax.jit
def ece_from_bins(stats: BinStats) -> jax.Array:
    """Mean gap over what the bins hold, sum_b n_b |acc_b - conf_b| / sum_b n_b, over all axes.

    ``BinStats`` [M] of top-label bins give conf-ECE, [K, M] of class-wise bins give cw-ECE; merge
    the statistics of batches first. Empty bins contribute 0; NaN when all are empty.

    Example:
        >>> stats = bin_stats([[0.75, 0.25], [0.75, 0.25]], [0, 1])
        >>> float(ece_from_bins(stats))
        0.25
    """
    return jnp.abs(stats.gap()).sum() / stats.count.sum()


@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def conf_ece(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Confidence (top-label) expected calibration error.

        conf-ECE = sum_m (n_m / N) |acc_m - conf_m|

    over M equal-width bins of c = max_k p_k: acc_m is the share of correct predictions in bin m,
    conf_m the mean of c. Empty bins contribute 0. At least |accuracy - mean confidence|. Won by
    guessing uniformly at chance accuracy, so read it beside ``nll`` and ``brier``; biased upwards
    for small N (about 0.11 at N = 100 for a perfectly calibrated 4-way model with 15 bins).

    Source: Guo et al. 2017; Xiao et al. 2025 (arXiv 2505.01997), Definition 3.2, whose printed
    1/k belongs to cw-ECE alone.

    Args:
        probs: [N, K] option probabilities; cast to float32.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        num_bins: M.
        edges: "right" for bins (a, b], "left" for [a, b); see ``bin_index``.
        weights: [N], how often each row counts; None means once. Weight 0: not at all.

    Returns:
        float32 scalar in [0, 1]; NaN for no rows.

    Example:
        >>> probs = [[0.75, 0.25], [0.75, 0.25], [0.5, 0.5], [0.5, 0.5]]
        >>> float(conf_ece(probs, [0, 0, 0, 1]))   # 1/2 |1 - 0.75| + 1/2 |0.5 - 0.5|
        0.125
    """
    return ece_from_bins(bin_stats(probs, answers, mask, num_bins, edges, weights))


@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def cw_ece(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Class-wise expected calibration error by label frequency (= SCE of Nixon et al.).

        cw-ECE = (1/K) sum_k sum_m (n_km / N) |freq_km - conf_km|

    where n_km rows have p_k in bin m, freq_km is the share of them whose answer is k, and conf_km
    is their mean p_k. Empty bins contribute 0. Not the pooled "SCE" that puts all N K
    probabilities into common bins, and not ``sce_ovr``.

    With ragged options a masked option is in no bin, and N K becomes the number of existing
    (row, option) pairs: K is the mean number of options per row. One five-option row among a
    thousand four-option rows then moves the value by about a thousandth, and columns that are
    masked everywhere change nothing.

    Source: Nixon et al. 2019 (SCE); Kull et al. 2019; Xiao et al. 2025, Definition 3.1.

    Arguments and return value as in ``conf_ece``.

    Example:
        >>> probs = [[0.75, 0.25], [0.75, 0.25]]
        >>> float(cw_ece(probs, [0, 0]))   # |1 - 0.75| and |0 - 0.25|
        0.25
    """
    return ece_from_bins(class_bin_stats(probs, answers, mask, num_bins, edges, weights))


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

    Arguments, ragged options and return value as in ``cw_ece``.

    Example:
        >>> float(sce_ovr([[1.0, 0.0, 0.0, 0.0]], [0]))
        0.75
    """
    probs, mask = as_probs(probs, mask)
    num_rows, num_options = probs.shape
    predicted = answer_matrix(predictions(probs, mask), num_options)
    right = predicted == answer_matrix(as_answers(answers, num_rows), num_options)
    stats = group_bin_stats(
        probs, right, mask, as_weights(weights, num_rows), num_bins=num_bins, edges=edges
    )
    return ece_from_bins(stats)
