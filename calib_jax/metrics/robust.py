"""Intervals and tests that stay right where rows of one cluster depend on each other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics.bins import bin_stats, class_bin_stats
from calib_jax.metrics.draws import group_codes, map_draws, random_words
from calib_jax.metrics.intervals import wilson_interval
from calib_jax.metrics.null import upper_quantile
from calib_jax.metrics.significance import TestResult
from calib_jax.metrics.smooth import smooth_ece_from_stats, smooth_stats
from calib_jax.metrics.validation import validate

# Row weights held at once: draws are made in chunks of this many divided by N.
_CHUNK_ELEMENTS = 1 << 18
# All signs turned give the same value but for float32's rounding: such a draw counts as a tie.
_ROUNDING = 1e-6


def share_interval(
    right: ArrayLike, clusters: ArrayLike | None = None, level: float = 0.95
) -> tuple[float, float]:
    """Interval of a share of N rows, such as an accuracy, that may lie in clusters.

    Wilson's interval at the effective number of rows n* = N / d (z / t)^2, where the design effect

        d = G/(G - 1) sum_g e_g^2 / (N p (1 - p)),   e_g = sum of (right - p) over cluster g

    is how many times as large as of independent rows the variance is, and t, Student's quantile
    with G - 1 degrees of freedom, stands for the few clusters that d is estimated from. d is at
    least 1, and where all rows are right or all wrong, which says nothing of it, what it would be
    if the rows of a cluster were all alike: sum_g n_g^2 / N. Where every row is a cluster of its
    own, or without clusters, it is ``wilson_interval``.

    Source: Kish 1965 (design effect); Korn and Graubard 1998 (t); Franco et al. 2019 (Wilson's
    interval at the effective sample size).

    Args:
        right: [N] bool, or 0 and 1.
        clusters: [N] int or str, or None.
        level: nominal coverage, strictly between 0 and 1.

    Returns:
        (low, high), NaN without rows; [0, 1] of a single cluster, which tells nothing.

    Example:
        >>> [round(end, 3) for end in share_interval([1, 0] * 20)]
        [0.352, 0.648]
        >>> [round(end, 3) for end in share_interval([1] * 20 + [0] * 20, np.arange(40) // 4)]
        [0.199, 0.801]
    """
    right = np.asarray(right).astype(np.float64)
    num_rows, effective = len(right), float(len(right))
    code = (
        np.arange(num_rows) if clusters is None else group_codes(clusters, num_rows, "clusters")[1]
    )
    sizes = np.bincount(code)
    if len(sizes) < num_rows:
        from scipy.special import ndtri, stdtrit  # without clusters, scipy need not be imported

        count, share = len(sizes), right.mean()
        if count < 2:
            return 0.0, 1.0
        design = (sizes**2).sum() / num_rows
        if 0 < share < 1:
            sums = np.bincount(code, right - share)
            design = count / (count - 1) * (sums**2).sum() / (num_rows * share * (1 - share))
        ratio = ndtri((1 + level) / 2) / stdtrit(count - 1, (1 + level) / 2)
        effective = num_rows / max(design, 1) * ratio**2
    low, high = wilson_interval(right.sum() * (effective / max(num_rows, 1)), effective, level)
    return float(low), float(high)


def clustered_null(
    probs: ArrayLike,
    answers: ArrayLike,
    clusters: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    num_draws: int = 1000,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """What calibration errors show by chance where rows of a cluster depend on each other.

    ``null_all`` draws every row's answer independently. A calibrated model of three questions on
    one passage may yet be right on all or on none of them, and then such draws are too small.
    Here the residuals stay as they are, onehot(y) - p, and those of a whole cluster are all kept or
    all multiplied by -1, with a fair coin: each has mean 0 under calibration, whatever the
    dependence within the cluster, so the sums over bins keep their covariance. Right as the number
    of clusters grows, and exact if a cluster's residuals are as likely as their opposites.

    Source: Liu 1988; Cameron, Gelbach and Miller 2008 (wild cluster bootstrap, the null imposed).

    Args:
        probs: [N, K] option probabilities.
        answers: [N] int.
        clusters: [N] int or str.
        mask: [N, K] bool or None.
        num_bins, edges: of conf_ece and cw_ece.
        num_draws, seed: of the signs.

    Returns:
        conf_ece, cw_ece and smooth_ece: float [num_draws + 1] each, the observed value last.

    Raises:
        ValueError: arrays that ``validate`` refuses, clusters of another length, num_draws < 1.

    Example:
        >>> draws = clustered_null([[0.75, 0.25]] * 4, [0, 0, 0, 0], [7, 7, 7, 7])["conf_ece"]
        >>> sorted(set(draws.tolist()))   # one cluster: its residuals or their opposites
        [0.25]
    """
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}")
    validate(probs, answers, mask)
    names, code = group_codes(clusters, len(np.asarray(answers)), "clusters")
    arrays = jnp.asarray(probs), jnp.asarray(answers), None if mask is None else jnp.asarray(mask)
    of_row = jnp.asarray(code, jnp.int32)
    draws = _signed(*arrays, of_row, jnp.uint32(seed), len(names), num_bins, edges, num_draws)
    keys = ("conf_ece", "cw_ece", "smooth_ece")
    return {key: np.asarray(values) for key, values in zip(keys, draws, strict=True)}


@functools.partial(jax.jit, static_argnames=("num_clusters", "num_bins", "edges", "num_draws"))
def _signed(probs, answers, mask, code, seed, num_clusters, num_bins, edges, num_draws):
    num_rows = probs.shape[0]
    bins = {"num_bins": num_bins, "edges": edges}
    pairs = probs.size if mask is None else mask.sum()

    def one(key, number):
        coins = random_words(key, num_clusters) >> 31
        # What is summed in a bin is linear in the weights, so the signs can be the weights.
        signs = jnp.where(number == num_draws, 1, 2 * coins.astype(jnp.int32) - 1)[code]
        top = bin_stats(probs, answers, mask, **bins, weights=signs)
        classes = class_bin_stats(probs, answers, mask, **bins, weights=signs)
        smooth = smooth_stats(probs, answers, mask, weights=signs)
        return [
            jnp.abs(top.gap()).sum() / num_rows,
            jnp.abs(classes.gap()).sum() / pairs,
            smooth_ece_from_stats(smooth, total=num_rows),
        ]

    return map_draws(one, seed, num_draws + 1, _CHUNK_ELEMENTS // max(num_rows, 1))


def cluster_consistency_test(
    probs: ArrayLike,
    answers: ArrayLike,
    clusters: ArrayLike,
    mask: ArrayLike | None = None,
    metric: str = "conf_ece",
    num_bins: int = 10,
    edges: str = "right",
    num_draws: int = 1000,
    seed: int = 0,
) -> TestResult:
    """``consistency_test`` that allows for dependence within clusters; see ``clustered_null``.

        p = (1 + #{draws >= observed}) / (1 + draws)

    The test of independent rows rejects calibrated models too often where rows of a cluster are
    right or wrong together.

    Args:
        metric: "conf_ece", "cw_ece" or "smooth_ece".
        probs, answers, clusters, mask, num_bins, edges, num_draws, seed: as in ``clustered_null``.

    Returns:
        ``TestResult`` as of ``consistency_test``.

    Example:
        >>> probs, clusters = [[0.75, 0.25]] * 40, [i // 2 for i in range(40)]
        >>> cluster_consistency_test(probs, [1] * 40, clusters).p_value < 0.01
        True
        >>> cluster_consistency_test(probs, [1] * 40, [0] * 40).p_value   # one tells nothing
        1.0
    """
    arrays = probs, answers, clusters, mask, num_bins, edges, num_draws, seed
    found = clustered_null(*arrays)
    if metric not in found:
        raise ValueError(f"metric must be one of {', '.join(found)}, got {metric!r}")
    draws, observed = found[metric][:-1], float(found[metric][-1])
    return TestResult(
        statistic=observed,
        p_value=chance_p_value(found[metric]),
        null_mean=float(draws.mean()),
        null_q95=float(upper_quantile(draws, 0.95)),
    )


def chance_p_value(values: np.ndarray) -> float:
    """(1 + #{draws >= observed}) / (1 + draws), of [R + 1] values with the observed one last."""
    draws, observed = values[:-1], values[-1] * (1 - _ROUNDING)
    return float((1 + np.sum(~(draws < observed))) / len(values))
