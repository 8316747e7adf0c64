"""Intervals of shares, such as accuracies: of independent rows, and of rows in clusters."""

import statistics

import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics.draws import group_codes
from calib_jax.metrics.settings import checked_settings


@checked_settings
def wilson_interval(
    correct: ArrayLike, count: ArrayLike, level: float = 0.95
) -> tuple[np.ndarray, np.ndarray]:
    """Wilson's score interval of a share, such as an accuracy: (low, high), float64 [...].

        (p + z^2/2n -+ z sqrt(p (1 - p)/n + z^2/4n^2)) / (1 + z^2/n),   p = correct/n, n = count

    z is the normal quantile of (1 + level)/2. It stays within [0, 1] and has width at p = 0 and
    1, where a bootstrap collapses to a point.

    Source: Wilson 1927, Probable inference, the law of succession, and statistical inference.

    Args:
        correct: [...] how many of them.
        count: [...] of how many; NaN where 0.
        level: nominal coverage, strictly between 0 and 1.

    Raises:
        ValueError: a level outside of that, or counts that are none.

    Example:
        >>> low, high = wilson_interval([0, 5, 10], [10, 10, 10])
        >>> low.round(3).tolist(), high.round(3).tolist()
        ([0.0, 0.237, 0.722], [0.278, 0.763, 1.0])
    """
    count = np.asarray(count, np.float64)
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}")
    if (np.asarray(correct) < 0).any() or (np.asarray(correct) > count * (1 + 1e-12)).any():
        raise ValueError("correct must lie between 0 and count")
    n = np.where(count > 0, count, np.nan)
    share, z2 = np.asarray(correct) / n, statistics.NormalDist().inv_cdf((1 + level) / 2) ** 2
    middle = share + z2 / (2 * n)
    half = np.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n)))
    low, high = (middle - half) / (1 + z2 / n), (middle + half) / (1 + z2 / n)
    # Where the share is 0 or 1, so is that end, exactly.
    return np.where(share == 0, 0, low), np.where(share == 1, 1, high)


@checked_settings
def share_interval(
    right: ArrayLike, clusters: ArrayLike | None = None, level: float = 0.95
) -> tuple[float, float]:
    """Interval of a share of N rows, such as an accuracy, that may lie in clusters.

    Wilson's interval at the number of independent rows that they are worth, see
    ``effective_rows``. Where every row is a cluster of its own, or without clusters, it is
    ``wilson_interval``.

    Source: Franco et al. 2019 (Wilson's interval at the effective sample size).

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
    right = _as_shares(right)
    effective = effective_rows(right, clusters, level)
    if len(right) and not effective:
        return 0.0, 1.0
    low, high = wilson_interval(right.sum() * (effective / max(len(right), 1)), effective, level)
    return float(low), float(high)


@checked_settings
def effective_rows(
    right: ArrayLike, clusters: ArrayLike | None = None, level: float = 0.95
) -> float:
    """How many independent rows N rows in clusters are worth for an interval of their share.

    n* = N / d (z / t)^2, where the design effect

        d = G/(G - 1) sum_g e_g^2 / (N p (1 - p)),   e_g = sum of (right - p) over cluster g

    is how many times as large as of independent rows the variance is, and t, Student's quantile
    with G - 1 degrees of freedom, stands for the few clusters that d is estimated from. d is at
    least 1, and where all rows are right or all wrong, which says nothing of it, what it would be
    if the rows of a cluster were all alike: sum_g n_g^2 / N.

    Source: Kish 1965 (design effect); Korn and Graubard 1998 (t).

    Args:
        right: [N] bool, or 0 and 1.
        clusters: [N] int or str, or None.
        level: of the interval, strictly between 0 and 1.

    Returns:
        n*; N where every row is a cluster of its own, and 0 of a single cluster, which tells
        nothing.

    Example:
        >>> effective_rows([1, 0] * 20), effective_rows([1, 0] * 20, ["a"] * 40)
        (40.0, 0.0)
        >>> round(effective_rows([1] * 20 + [0] * 20, np.arange(40) // 4), 1)
        6.8
    """
    right = _as_shares(right)
    num_rows = len(right)
    if clusters is None:
        return float(num_rows)
    sizes = np.bincount(code := group_codes(clusters, num_rows, "clusters")[1])
    if len(sizes) == num_rows:
        return float(num_rows)
    from scipy.special import ndtri, stdtrit  # without clusters, scipy need not be imported

    count, share = len(sizes), right.mean()
    if count < 2:
        return 0.0
    design = (sizes**2).sum() / num_rows
    if 0 < share < 1:
        sums = np.bincount(code, right - share)
        design = count / (count - 1) * (sums**2).sum() / (num_rows * share * (1 - share))
    ratio = ndtri((1 + level) / 2) / stdtrit(count - 1, (1 + level) / 2)
    return float(num_rows / max(design, 1) * ratio**2)


@checked_settings
def pooled_interval(
    correct: ArrayLike, count: ArrayLike, low: ArrayLike, high: ArrayLike, level: float = 0.95
) -> tuple[float, float]:
    """Interval of the share of several independent sets together, from each one's own interval.

    The width of Wilson's interval says how many independent rows n*_i the n_i of a set were taken
    for (see ``share_interval``); together they are worth

        n* = (sum_i n_i)^2 / sum_i n_i^2 / n*_i

    which is sum_i n_i of independent rows: each set's design effect n_i / n*_i counts as often as
    the set has rows. A set of which its own interval says nothing counts as one row.

    Args:
        correct: [S] how many of each set.
        count: [S] of how many; a set of 0 does not matter.
        low, high: [S] the sets' own intervals, by ``share_interval`` at the same ``level``.
        level: nominal coverage, strictly between 0 and 1.

    Returns:
        (low, high), NaN without rows; of a single set its own interval.

    Example:
        >>> low, high = wilson_interval([5, 30], [10, 40])
        >>> [round(end, 3) for end in pooled_interval([5, 30], [10, 40], low, high)]
        [0.562, 0.809]
        >>> [round(float(end), 3) for end in wilson_interval(35, 50)]
        [0.562, 0.809]
    """
    held = np.asarray(count, np.float64) > 0
    k, n, low, high = (np.asarray(x, np.float64)[held] for x in (correct, count, low, high))
    if len(n) == 1:
        return float(low[0]), float(high[0])
    z2 = statistics.NormalDist().inv_cdf((1 + level) / 2) ** 2
    # With a = z^2/n* the width 2h obeys (1 - 4 h^2) a^2 + 4 (p (1 - p) - 2 h^2) a - 4 h^2 = 0.
    h2, spread = ((high - low) / 2) ** 2, k / n * (1 - k / n)
    first, half = 1 - 4 * h2, 2 * (spread - 2 * h2)
    with np.errstate(divide="ignore"):
        a = 4 * h2 / (half + np.sqrt(half**2 + 4 * first * h2))
    effective = np.clip(z2 / a, 1, n)
    total, worth = n.sum(), n.sum() ** 2 / max((n**2 / effective).sum(), 1e-300)
    ends = wilson_interval(k.sum() / max(total, 1) * worth, worth, level)
    return float(ends[0]), float(ends[1])


def _as_shares(right: ArrayLike) -> np.ndarray:
    right = np.asarray(right).astype(np.float64)
    if right.ndim != 1 or not np.isin(right, (0, 1)).all():
        raise ValueError("right must be [N] of True and False, or 0 and 1")
    return right
