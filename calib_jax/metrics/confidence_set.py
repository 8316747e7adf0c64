"""Which of many methods may be the best, and which differ from a reference, on shared resamples.

A table of P methods holds P chances to call one of several equal methods worse. Both procedures
here take what the bootstrap gives anyway, the values of all methods on the same resampled
questions, and hold for the whole family at once. On the host, in float64.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from calib_jax.metrics.intervals import change_interval
from calib_jax.metrics.settings import checked_settings

# What differs by less, relative to the largest estimate, is rounding of float32.
_ROUNDING = 1e-7


class ConfidenceSet(NamedTuple):
    """A model confidence set.

    Attributes:
      p_values: [P] float64: a method is in every set whose 1 - level is below its p-value. 1 for
        the best, NaN for a method that is not eligible.
      members: [P] bool, the methods not shown to be worse than the best: p > 1 - level.
    """

    p_values: np.ndarray
    members: np.ndarray


@checked_settings
def model_confidence_set(
    estimates: ArrayLike, draws: ArrayLike, direction: int = -1, level: float = 0.95
) -> ConfidenceSet:
    """The methods among which the best is found with probability ``level``, by the range of t.

    While several methods remain, every two of them are compared, t_ij = (L_i - L_j) / se(L_i - L_j)
    with the loss L. Where the largest |t| exceeds all but a share 1 - level of its resampled values
    under equality, the worse of that pair leaves. A method's p-value is the largest p-value of the
    steps up to its own, as if the steps went on to the end. Of equal methods one leaves in a share
    1 - level of samples, however many they are. (T_R of the source. Its T_max, of L_i less the mean
    of all, hardly sees that one method is better than many equal ones: the best of 8 by 4 standard
    errors of the difference outs the others in 6 % of samples, by T_R in 93 %.)

    Standard errors and the law of the largest |t| are those of the resamples, centred on their own
    mean, so that a metric's bias (of a binned error) cancels. A step's p-value is (1 + how many
    resampled maxima reach the observed one) / (1 + R), so of fewer than 19 resamples none leaves
    at 95 %. Methods of equal t leave together. Differences below 1e-7 of the largest estimate count
    as ties, so copies of one method stay or leave together.

    A method whose estimate is not finite, or is NaN or infinite in more than half of the
    resamples, is not eligible: no member, p-value NaN. Resamples in which an eligible method has no
    finite value are left out. A single eligible method is the best of one: a member, p-value 1.

    Source: Hansen, Lunde and Nason 2011, The model confidence set (Econometrica 79, 453-497),
    sections 2.1 and 3.1.

    Args:
        estimates: [P] the metric of each method on all questions.
        draws: [R, P] the same on R resamples, the same questions for all methods.
        direction: -1 where lower is better, +1 where higher is.
        level: of the set, strictly between 0 and 1.

    Raises:
        ValueError: shapes that do not match, or an option out of range.

    Example:
        >>> rng = np.random.default_rng(1)
        >>> losses = rng.normal([0.0, 0.0, 1.0], 1, (400, 3))  # questions x methods
        >>> draws = losses[rng.integers(0, 400, (500, 400))].mean(axis=1)
        >>> model_confidence_set(losses.mean(axis=0), draws).members.tolist()
        [True, True, False]
    """
    if direction not in (-1, 1):
        raise ValueError(f"direction must be -1 or +1, got {direction}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}")
    estimates, draws, eligible = _checked(estimates, draws)
    names = np.flatnonzero(eligible)
    first, second = np.triu_indices(len(names), 1)
    loss, drawn = -direction * estimates[names], -direction * draws[:, names]
    t, resampled = _studentised(
        loss[first] - loss[second],
        drawn[:, first] - drawn[:, second],
        _ROUNDING * np.abs(loss).max(initial=0),
    )
    found, left, p_value = np.ones(len(names)), np.ones(len(names), bool), 0.0
    while (inside := left[first] & left[second]).any():
        highest = np.abs(t[inside]).max()
        p_value = max(p_value, _share(resampled[:, inside].max(axis=1), highest))
        reached = inside & (np.abs(t) >= highest * (1 - 1e-9))
        worse = np.where(t > 0, first, second)[reached]
        if p_value == 1:
            break
        found[worse], left[worse] = p_value, False
    p_values = np.full(len(estimates), np.nan)
    p_values[names] = found
    with np.errstate(invalid="ignore"):
        return ConfidenceSet(p_values, p_values > 1 - level)


def step_down_p_values(differences: ArrayLike, draws: ArrayLike) -> np.ndarray:
    """p-values of H differences, adjusted for being H: [H] float64, by the step-down max-t method.

    With t_h = |difference| / se, the largest t is compared with the resampled maximum over all H,
    the next with the maximum over the rest, and so on; a p-value is never less than the one before
    it. At most a share a of families has any true "no difference" with p <= a, whatever the
    dependence, which the resamples show; so it loses less than Holm's method, whose p-values could
    not fall below H / (R + 1).

    Standard errors, centring, ties and the p-value of a step as for ``model_confidence_set``. A
    difference that is not finite, or not in more than half of the resamples, has the p-value NaN
    and does not count among the H; resamples in which one of the rest is not finite are left out.

    Source: Romano and Wolf 2005, Exact and approximate stepdown methods for multiple hypothesis
    testing (JASA 100, 94-108), algorithm 3; p-values as in Westfall and Young 1993.

    Args:
        differences: [H] such as a metric of each method less that of a reference.
        draws: [R, H] the same on R resamples.

    Raises:
        ValueError: shapes that do not match.

    Example:
        >>> rng = np.random.default_rng(1)
        >>> values = rng.normal([0.0, 0.0, 0.5], 1, (400, 3))
        >>> draws = values[rng.integers(0, 400, (500, 400))].mean(axis=1)
        >>> (step_down_p_values(values.mean(axis=0), draws) < 0.05).tolist()
        [False, False, True]
    """
    differences, draws, known = _checked(differences, draws)
    p_values = np.full(len(differences), np.nan)
    names = np.flatnonzero(known)
    t, resampled = _studentised(np.abs(differences[names]), draws[:, names], 0.0)
    order = np.argsort(-t, kind="stable")
    # Column j: the maximum over the j-th largest t and all that follow it.
    maxima = np.maximum.accumulate(resampled[:, order[::-1]], axis=1)[:, ::-1]
    steps = [_share(maximum, t[h]) for h, maximum in zip(order, maxima.T, strict=True)]
    p_values[names[order]] = np.maximum.accumulate(steps) if steps else []
    return p_values


def _checked(values: ArrayLike, draws: ArrayLike) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Both as float64, the draws that are finite wherever that matters, and what is eligible."""
    values, draws = np.asarray(values, np.float64), np.asarray(draws, np.float64)
    if values.ndim != 1 or draws.shape[1:] != values.shape or not len(draws):
        raise ValueError(
            "expected values [P] and draws [R, P] of R >= 1 resamples, got the shapes "
            f"{values.shape} and {draws.shape}"
        )
    finite = np.isfinite(draws)
    eligible = np.isfinite(values) & (finite.mean(axis=0) >= 0.5)
    return values, draws[finite[:, eligible].all(axis=1)], eligible


def _studentised(gap: np.ndarray, draws: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """gap [H], and the size of the centred draws [R, H], over the draws' standard deviation.

    What is at most ``least`` is a tie, and no standard deviation is smaller.
    """
    noise = draws - draws.mean(axis=0) if len(draws) else draws
    spread = noise.std(axis=0) if len(draws) else np.ones(len(gap))
    spread = np.maximum(spread, max(least, np.finfo(np.float64).tiny))
    gap = np.where(np.abs(gap) <= least, 0.0, gap)
    return gap / spread, np.abs(noise) / spread


def _share(maxima: np.ndarray, observed: float) -> float:
    """The share of resampled maxima that reach the observed one, itself among them."""
    return float((1 + np.sum(maxima >= observed)) / (1 + len(maxima)))


def change_p_value(
    first: np.ndarray, last: np.ndarray, level_of: Callable[[float], float] | None = None
) -> float:
    """The smallest 1 - level whose ``change_interval`` leaves 0 out; 1 where none does.

    So p < 0.05 where the 95 % interval lies on one side of 0, and never less than the draws can
    tell, 2 / (R + 1).

    Args:
        first, last: [R + 1] as of ``change_interval``.
        level_of: nominal level -> the level that is taken, as of few clusters; None for itself.
    """
    if first[-1] == last[-1]:
        return 1.0

    def holds_zero(p: float) -> bool:
        level = 1 - p if level_of is None else level_of(1 - p)
        low, high = change_interval(first, last, level, "bias_aware")
        return not (low > 0 or high < 0)

    low, high = 2 / len(first), 1 - 1e-6
    if not holds_zero(low):
        return low
    if holds_zero(high):
        return 1.0
    while high - low > 5e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if holds_zero(middle) else (low, middle)
    return high
