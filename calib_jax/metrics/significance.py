"""Tests of the hypothesis "the model is calibrated", with p-values; run on the host, in float64."""

import math
from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics.intervals import MetricFn
from calib_jax.metrics.null import null_values, p_value, upper_quantile
from calib_jax.metrics.settings import checked_settings
from calib_jax.metrics.validation import validate


@dataclass(frozen=True)
class TestResult:
    """Outcome of a test of calibration.

    Attributes:
        statistic: larger means further from calibrated (``spiegelhalter_test``: signed).
        p_value: probability, under calibration, of a statistic at least this large. Small: the
            data speak against calibration. NaN where the data cannot tell (no rows, no variance).
        null_mean: mean of the statistic under calibration, from draws; None where it is not drawn.
        null_q95: its 95 % quantile; None likewise.
    """

    __test__ = False  # the name begins with Test, and pytest would collect it

    statistic: float
    p_value: float
    null_mean: float | None = None
    null_q95: float | None = None


@checked_settings
def consistency_test(
    metric_fn: MetricFn,
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_draws: int = 1000,
    seed: int = 0,
) -> TestResult:
    """Is the metric larger than answers drawn from the probabilities themselves would make it?

        p = (1 + #{draws >= observed}) / (1 + draws)

    Exact for any N and any metric that grows with miscalibration (conf_ece, cw_ece, smooth_ece):
    under perfect calibration P(p <= a) <= a. The smallest p is 1 / (1 + num_draws). Which
    departures it sees is the metric's affair: conf_ece looks at the top label only. "Perfect
    calibration" includes that answers of different rows are independent given the probabilities;
    where they are not (questions of one passage), p is too small: ``cluster_consistency_test``.

    Source: Broecker and Smith 2007 (consistency resampling; the rows are kept as they are, see
    ``null_all``); Widmann et al. 2019; the +1: Phipson and Smyth 2010.

    Args:
        metric_fn: called as ``fn(probs, answers, mask, weights=weights)``, scalar.
        probs: [N, K] option probabilities.
        answers: [N] int.
        mask: [N, K] bool or None.
        num_draws, seed: as in ``null_all``.

    Returns:
        ``TestResult`` with the metric as its statistic, and ``null_mean`` and ``null_q95``. A draw
        that is NaN counts as at least the observed value; an observed NaN gives a NaN p-value.

    Raises:
        ValueError: arrays that ``validate`` refuses, or num_draws < 1.

    Example:
        >>> from calib_jax.metrics.calibration import conf_ece
        >>> probs = [[0.9375, 0.0625]] * 32
        >>> result = consistency_test(conf_ece, probs, [0] * 16 + [1] * 16)
        >>> result.statistic, round(result.p_value, 3)
        (0.4375, 0.001)
        >>> consistency_test(conf_ece, probs, [0] * 30 + [1] * 2).p_value   # exactly calibrated
        1.0
    """
    values = null_values({"metric": metric_fn}, probs, answers, mask, num_draws, seed)["metric"]
    draws, observed = values[:-1], float(values[-1])
    known = draws[~np.isnan(draws)]
    return TestResult(
        statistic=observed,
        p_value=float(p_value(draws, observed)),
        null_mean=float(known.mean()) if known.size else math.nan,
        null_q95=float(upper_quantile(draws, 0.95)),
    )


def spiegelhalter_test(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    alternative: str = "two-sided",
) -> TestResult:
    """Spiegelhalter's z: is the top label's Brier score what calibration would make it?

        z = sum_i (a_i - c_i)(1 - 2 c_i) / sqrt(sum_i (1 - 2 c_i)^2 c_i (1 - c_i))

    c_i is the row's confidence max_k p_ik and a_i 1 if its prediction is right. z is standard
    normal under calibration as N grows. z > 0: the Brier score is worse than expected, as it is
    for an overconfident model (where c > 1/2); z < 0: better, as for an underconfident one. Rows
    of c = 1/2 weigh nothing, and the two sides of 1/2 pull in opposite directions.

    Source: Spiegelhalter 1986, section on prediction.

    Args:
        probs: [N, K] option probabilities; used in the precision given.
        answers: [N] int.
        mask: [N, K] bool or None.
        alternative: "two-sided" (p = 2 (1 - Phi(|z|))), "greater" (p = 1 - Phi(z), as MAPIE 1.6
            prints; blind to underconfidence) or "less".

    Returns:
        ``TestResult`` with z as its statistic. Where no row has any variance (no rows, or c = 1/2
        or 1 in all of them): NaN, or infinite if a certain prediction is wrong.

    Raises:
        ValueError: arrays that ``validate`` refuses, or an unknown alternative.

    Example:
        >>> result = spiegelhalter_test([[0.75, 0.25]] * 16, [0] * 12 + [1] * 4)
        >>> result.statistic, result.p_value
        (0.0, 1.0)
        >>> spiegelhalter_test([[0.75, 0.25]] * 3, [1, 1, 1]).statistic
        3.0
    """
    if alternative not in ("greater", "two-sided", "less"):
        raise ValueError(
            f'alternative must be "greater", "two-sided" or "less", got {alternative!r}'
        )
    confidence, right = _top_label(probs, answers, mask)
    slope = 1 - 2 * confidence
    z = _ratio(
        np.sum((right - confidence) * slope),
        np.sqrt(np.sum(slope**2 * confidence * (1 - confidence))),
    )
    if math.isnan(z):
        return TestResult(z, math.nan)
    tail = {"greater": z, "two-sided": abs(z), "less": -z}[alternative]
    return TestResult(z, _normal_tail(tail) * (2 if alternative == "two-sided" else 1))


def ks_test(probs: ArrayLike, answers: ArrayLike, mask: ArrayLike | None = None) -> TestResult:
    """Kolmogorov-Smirnov test of the cumulative differences between correctness and confidence.

        D = max_k |C_k| / s,  C_k = sum_{i <= k} (a_i - c_i),  s^2 = sum_i c_i (1 - c_i)

    over the rows in increasing order of confidence c (a_i: is the prediction right). No bins.
    Under calibration C / s tends to a Brownian motion on [0, 1], whose maximal size gives the
    p-value. Rows of one confidence enter together (C is read where c changes), so the result is a
    function of the data; with ties the p-value is on the safe side. MAPIE 1.6 breaks ties at
    random by adding noise of 1e-8; without ties the two agree.

    Source: Arrieta-Ibarra et al. 2022 (ECCE-MAD); Tygert 2022 (the p-value).

    Args:
        probs: [N, K] option probabilities; used in the precision given.
        answers: [N] int.
        mask: [N, K] bool or None.

    Returns:
        ``TestResult`` with D as its statistic; NaN and infinite as in ``spiegelhalter_test``.

    Raises:
        ValueError: arrays that ``validate`` refuses.

    Example:
        >>> result = ks_test([[0.75, 0.25]] * 12, [1] * 12)
        >>> result.statistic, round(result.p_value, 6)   # 9 too few right, s = 3/2
        (6.0, 0.0)
    """
    walk, scale = _cumulative_differences(probs, answers, mask)
    statistic = _ratio(np.abs(walk).max(), scale)
    return TestResult(statistic, _maximum_tail(statistic))


def kuiper_test(probs: ArrayLike, answers: ArrayLike, mask: ArrayLike | None = None) -> TestResult:
    """Kuiper test: the range of the cumulative differences, (max_k C_k - min_k C_k) / s, C_0 = 0.

    C and s as in ``ks_test``, ties likewise. Where C goes up and down again (underconfident here,
    overconfident there) the range sees what the maximum may miss. MAPIE 1.6 leaves C_0 = 0 out of
    the range, which differs only where C has one sign throughout.

    Source: Arrieta-Ibarra et al. 2022 (ECCE-R); Feller 1951 (the range of a Brownian motion).

    Arguments, return value and errors as in ``ks_test``.

    Example:
        >>> kuiper_test([[0.75, 0.25]] * 12, [1] * 12).statistic
        6.0
    """
    walk, scale = _cumulative_differences(probs, answers, mask)
    statistic = _ratio(walk.max() - walk.min(), scale)
    return TestResult(statistic, _range_tail(statistic))


def benjamini_hochberg(p_values: ArrayLike) -> np.ndarray:
    """p-values of many tests, adjusted so that rejecting below a keeps the false discoveries at a.

        q_(i) = min over j >= i of min(1, m p_(j) / j),    p_(1) <= ... <= p_(m)

    Of the groups whose adjusted value is at most 0.05, at most one in twenty is calibrated in
    truth, on average: for tests that are independent or positively dependent.

    Source: Benjamini and Hochberg 1995; scipy's ``false_discovery_control``.

    Args:
        p_values: of any shape, in [0, 1]; NaN is no test: it stays, and is not counted in m.

    Returns:
        float64 of the same shape.

    Raises:
        ValueError: a p-value outside of [0, 1].

    Example:
        >>> benjamini_hochberg([0.01, 0.04, 0.03, 0.5]).round(4).tolist()
        [0.04, 0.0533, 0.0533, 0.5]
    """
    values = np.asarray(p_values, np.float64)
    known = values[~np.isnan(values)]
    if ((known < 0) | (known > 1)).any():
        wrong = known[(known < 0) | (known > 1)][0]
        raise ValueError(f"p-values must lie between 0 and 1, got {wrong}")
    order = np.argsort(-known)
    ranks = len(known) - np.arange(len(known))
    adjusted = np.empty_like(known)
    adjusted[order] = np.minimum.accumulate(np.minimum(known[order] * len(known) / ranks, 1))
    found = np.full(values.shape, np.nan)
    found[~np.isnan(values)] = adjusted
    return found


def _top_label(probs, answers, mask) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and correctness of each row's first most probable valid option, float64 [N]."""
    validate(probs, answers, mask)
    probs, answers = np.asarray(probs).astype(np.float64), np.asarray(answers)
    if not len(probs):
        return np.zeros(0), np.zeros(0)
    predicted = probs.argmax(axis=1)  # masked options hold 0, and some valid one does not
    confidence = np.minimum(probs[np.arange(len(probs)), predicted], 1)
    return confidence, (predicted == answers).astype(np.float64)


def _cumulative_differences(probs, answers, mask) -> tuple[np.ndarray, float]:
    """0 and C where the confidence changes, and s; of ``ks_test``."""
    confidence, right = _top_label(probs, answers, mask)
    order = np.argsort(confidence, kind="stable")
    confidence, right = confidence[order], right[order]
    ends = np.append(confidence[1:] != confidence[:-1], True)[: len(confidence)]
    walk = np.cumsum(right - confidence)[ends]
    return np.append(0.0, walk), np.sqrt(np.sum(confidence * (1 - confidence)))


def _ratio(distance: float, scale: float) -> float:
    """distance / scale; NaN for 0 / 0, infinite where certainty was wrong."""
    if scale == 0:
        return math.nan if distance == 0 else math.copysign(math.inf, distance)
    return float(distance / scale)


def _normal_tail(z: float) -> float:
    """1 - Phi(z), without cancellation."""
    return math.erfc(z / math.sqrt(2)) / 2


def _maximum_tail(x: float) -> float:
    """P(max |B_t| >= x) for a Brownian motion on [0, 1]; two series, each where it is short."""
    if not 0 < x < math.inf:
        return math.nan if math.isnan(x) else float(x <= 0)
    if x > 1:  # reflections: no cancellation in the tail
        return 4 * sum((-1) ** k * _normal_tail((2 * k + 1) * x) for k in range(20))
    terms = (
        (-1) ** k / (k + 0.5) * math.exp(-(((k + 0.5) * math.pi / x) ** 2) / 2) for k in range(20)
    )
    return 1 - 2 / math.pi * sum(terms)


def _range_tail(x: float) -> float:
    """P(max B_t - min B_t >= x) for a Brownian motion on [0, 1]; as ``_maximum_tail``."""
    if not 0 < x < math.inf:
        return math.nan if math.isnan(x) else float(x <= 0)
    if x > 1:
        return 8 * sum((-1) ** (k - 1) * k * _normal_tail(k * x) for k in range(1, 40))
    halves = (k + 0.5 for k in range(20))
    terms = (
        (8 / x**2 + 2 / (h * math.pi) ** 2) * math.exp(-2 * (h * math.pi / x) ** 2) for h in halves
    )
    return 1 - sum(terms)
