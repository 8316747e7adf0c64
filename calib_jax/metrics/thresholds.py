"""Acting only above a confidence: how many cases that keeps, and how many of them are wrong."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics.checked import checked
from calib_jax.metrics.scores import confidences, correctness
from calib_jax.metrics.settings import checked_settings
from calib_jax.metrics.shares import share_interval, wilson_interval

THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)
# A stated 0.9 is the float32 0.9, or one of its neighbours once the row was made to sum to 1.
_ROUNDING = 1e-6


class ActAbove(NamedTuple):
    """What acting at or above each of T thresholds keeps and gets wrong: float64 arrays [T].

    ``kept`` cases are acted on, ``kept_share`` of all; ``errors`` of them are wrong,
    ``error_rate`` of those acted on. Each share has the ends of its Wilson interval.
    """

    threshold: np.ndarray
    kept: np.ndarray
    kept_share: np.ndarray
    kept_low: np.ndarray
    kept_high: np.ndarray
    errors: np.ndarray
    error_rate: np.ndarray
    error_low: np.ndarray
    error_high: np.ndarray


def shares(
    threshold: ArrayLike | Sequence[float],
    kept: ArrayLike | Sequence[float],
    errors: ArrayLike | Sequence[float],
    total: float,
    level: float = 0.95,
) -> ActAbove:
    """Shares and intervals of counts, which may be sums over several data sets.

    Args:
        threshold: [T].
        kept: [T], cases at or above the threshold.
        errors: [T], those of them that are wrong.
        total: of all cases.
        level: nominal coverage of the intervals, strictly between 0 and 1.

    Returns:
        ``ActAbove``. NaN stands for the shares of no cases: of ``kept`` where ``total`` is 0, of
        errors where ``kept`` is 0.

    Example:
        >>> shares([0.9], [40], [2], 100).error_rate.tolist()
        [0.05]
    """
    threshold, kept, errors = (np.asarray(x, np.float64) for x in (threshold, kept, errors))
    every = np.full_like(kept, total)
    with np.errstate(invalid="ignore", divide="ignore"):
        kept_share, error_rate = kept / every, errors / kept
    return ActAbove(
        threshold,
        kept,
        kept_share,
        *wilson_interval(kept, every, level),
        errors,
        error_rate,
        *wilson_interval(errors, kept, level),
    )


@checked_settings
@checked
def act_above(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    weights: ArrayLike | None = None,
    level: float = 0.95,
    clusters: ArrayLike | None = None,
) -> ActAbove:
    """What is kept, and what of it is wrong, if only answers at or above a confidence are acted on.

        kept(t) = #{i : c_i >= t},   error rate(t) = #{i : c_i >= t, wrong} / kept(t)

    with the confidence c_i = max_k p_ik. Cases of equal confidence are kept or left together, as a
    threshold must; a confidence that lies below the threshold by no more than 1e-6, which is the
    rounding of float32 probabilities, is at it. The thresholds are fixed beforehand, not chosen on
    these rows, so the intervals are those of shares of cases. For the curve over all
    thresholds see ``risk_coverage_curve``.

    Computed on the host, not under ``jit``. Source of the intervals: Wilson 1927; of selective
    answers: El-Yaniv and Wiener 2010.

    Args:
        probs: [N, K] option probabilities.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        thresholds: T confidences, each from 0 to 1, in any order.
        weights: [N], how many copies of the row there are; None means one. The intervals take
            their sum as the number of cases.
        level: nominal coverage of the intervals, strictly between 0 and 1.
        clusters: [N] int or str, of rows that depend on each other, or None; with them the
            intervals are those of ``share_interval``, and there are no weights.

    Returns:
        ``ActAbove``, in the order of ``thresholds``; NaN for the shares of no cases.

    Raises:
        ValueError: a threshold outside of 0 to 1, clusters with weights, or what ``validate`` and
            ``validate_weights`` raise.

    Example:
        >>> probs = [[0.95, 0.05], [0.9, 0.1], [0.8, 0.2], [0.6, 0.4]]
        >>> found = act_above(probs, [0, 1, 0, 0], thresholds=[0.5, 0.9])
        >>> found.kept_share.tolist(), found.error_rate.tolist()
        ([1.0, 0.5], [0.25, 0.5])
        >>> found.error_high.round(2).tolist()   # 1 of 2 says little
        [0.7, 0.91]
    """
    limits = np.asarray(thresholds, np.float64)
    if limits.ndim != 1 or not ((limits >= 0) & (limits <= 1)).all():
        raise ValueError(f"thresholds must be a list of numbers from 0 to 1, got {thresholds}")
    confidence = np.asarray(confidences(probs, mask), np.float64)
    wrong = ~np.asarray(correctness(probs, answers, mask)).astype(bool)
    weight = np.ones(len(confidence)) if weights is None else np.asarray(weights, np.float64)
    if weight.shape != confidence.shape:
        raise ValueError(f"weights must have shape {confidence.shape}, got {weight.shape}")
    above = [confidence >= limit - _ROUNDING for limit in limits]
    kept, errors = ([weight[rows & of].sum() for rows in above] for of in (True, wrong))
    found = shares(limits, kept, errors, float(weight.sum()), level)
    if clusters is None:
        return found
    if weights is not None:
        raise ValueError("clusters and weights cannot be combined: repeat the rows instead")
    cluster = np.asarray(clusters)
    of_kept = np.array([share_interval(rows, cluster, level) for rows in above]).T
    of_errors = np.array([share_interval(wrong[r], cluster[r], level) for r in above]).T
    return found._replace(
        kept_low=of_kept[0], kept_high=of_kept[1], error_low=of_errors[0], error_high=of_errors[1]
    )
