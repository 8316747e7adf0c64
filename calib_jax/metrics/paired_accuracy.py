"""A change of accuracy on the same questions: a score interval and a test, also of few flips.

Only questions that flip tell two models apart, and a bootstrap of two flips is no law of anything:
its interval may be a point. On the host, in float64.
"""

import math
import statistics
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from calib_jax.metrics.settings import checked_settings

_NORMAL = statistics.NormalDist()


class AccuracyChange(NamedTuple):
    """What the flips of N questions say.

    Attributes:
      difference: accuracy after less accuracy before.
      low, high: its interval.
      p_value: two-sided, of no difference; above 1 - level exactly where the interval holds 0.
      gained, lost: questions that only the second, or only the first, answered rightly.
    """

    difference: float
    low: float
    high: float
    p_value: float
    gained: int
    lost: int


@checked_settings
def accuracy_change(before: ArrayLike, after: ArrayLike, level: float = 0.95) -> AccuracyChange:
    """The change of accuracy of two models on N questions, with a score interval and a p-value.

    With g gained and l lost of N, the ends are where the score statistic of a difference D,

        z(D) = (g - l - N D) / sqrt(N (2 q + D (1 - D))),

    is -+ the normal quantile of (1 + level)/2; q is the maximum likelihood estimate of the share
    lost where D is the difference. Without any flip the ends are -+ z^2/(N + z^2).

    The p-value is the larger of the score test's (McNemar's, (g - l)^2/(g + l), without
    correction) and the mid-p of the exact binomial test. Where it is above 1 - level, an interval
    that left 0 out is drawn to 0; so both always say the same.

    Source: Tango 1998, Equivalence test and confidence interval for the difference in proportions
    for the paired-sample design (Statistics in Medicine 17), section 3; Fagerland, Lydersen and
    Laake 2013, The McNemar test for binary matched-pairs data (mid-p).

    Args:
        before, after: [N] bool or 0/1, whether each model was right.
        level: nominal coverage, strictly between 0 and 1.

    Returns:
        NaN for the difference, the interval and the p-value of no questions.

    Raises:
        ValueError: arrays of other shapes, values but 0 and 1, or a level out of range.

    Example:
        >>> found = accuracy_change([1] * 90 + [0] * 10, [1] * 88 + [0] * 12)
        >>> [round(x, 3) for x in found]
        [-0.02, -0.07, 0.018, 0.25, 0, 2]
    """
    before, after = np.asarray(before), np.asarray(after)
    if before.ndim != 1 or before.shape != after.shape:
        raise ValueError(f"expected two arrays [N], got the shapes {before.shape}, {after.shape}")
    if not (np.isin(before, (0, 1)).all() and np.isin(after, (0, 1)).all()):
        raise ValueError("right or wrong must be bool, or 0 and 1")
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}")
    first, second = before.astype(bool), after.astype(bool)
    gained, lost = int(np.sum(second & ~first)), int(np.sum(first & ~second))
    if not len(first):
        return AccuracyChange(math.nan, math.nan, math.nan, math.nan, 0, 0)
    z = _NORMAL.inv_cdf((1 + level) / 2)
    high = _upper(gained, lost, len(first), z)
    low = -_upper(lost, gained, len(first), z)
    flips = gained + lost
    score = 2 * _NORMAL.cdf(-abs(gained - lost) / math.sqrt(flips)) if flips else 1.0
    p_value = max(score, _mid_p(gained, lost))
    if p_value > 1 - level:
        low, high = min(low, 0.0), max(high, 0.0)
    return AccuracyChange((gained - lost) / len(first), low, high, p_value, gained, lost)


def _upper(gained: int, lost: int, count: int, z: float) -> float:
    """The D above (gained - lost)/count at which the score statistic is -z, by bisection."""

    def statistic(d: float) -> float:
        # The likelihood's maximum is a root of 2 N q^2 + b q + c.
        b = (2 * count - gained + lost) * d - gained - lost
        c = -lost * d * (1 - d)
        q = (math.sqrt(max(b * b - 8 * count * c, 0)) - b) / (4 * count)
        variance = count * (2 * q + d * (1 - d))
        return (gained - lost - count * d) / math.sqrt(variance) if variance > 0 else -math.inf

    low, high = (gained - lost) / count, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if statistic(middle) < -z else (middle, high)
    return high


def _mid_p(gained: int, lost: int) -> float:
    """Two-sided: twice P(fewer flips one way) + P(as many), of a fair coin; 1 at most."""
    flips, fewer = gained + lost, min(gained, lost)
    # In logarithms: 2^-flips of thousands of flips is no float.
    logs = [
        math.lgamma(flips + 1) - math.lgamma(k + 1) - math.lgamma(flips - k + 1)
        for k in range(fewer + 1)
    ]
    shares = [math.exp(log - flips * math.log(2)) for log in logs]
    return min(1.0, 2 * math.fsum(shares) - shares[-1])
