"""Seeded bootstrap intervals over rows, vectorised over resamples.

A resample of N rows with replacement is the vector of how often each row was drawn, passed to the
metric as its ``weights``. So a metric's work that does not depend on the weights (bins, the sort
behind AUROC) is shared by all resamples, and no [resamples, N] array exists.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics.clusters import units_of
from calib_jax.metrics.draws import (
    in_parts,
    map_draws,
    row_counts,
)
from calib_jax.metrics.settings import checked_settings
from calib_jax.metrics.tails import call
from calib_jax.metrics.validation import validate

# Called as metric_fn(probs, answers, mask, weights=weights); returns a scalar or an array.
MetricFn = Callable[..., jax.Array]
Interval = tuple[float, float] | tuple[np.ndarray, np.ndarray]

METHODS = ("bias_aware", "percentile", "basic")
# Row weights held at once: resamples are run in chunks of this many divided by N.
_CHUNK_ELEMENTS = 1 << 18
# The largest bias considered, in units of the bias that the resampling shows; see bootstrap_all.
_BIAS_FACTOR = 4
# By how many standard deviations of a change the biases of its sides may differ. The mean of the
# |noise| of J bins is sqrt(J) * sqrt(2/pi) times the deviation of its sum: 2.5 at 10 bins, 5 at 40.
_MOST_SPREADS = 4


@checked_settings
def bootstrap(
    metric_fn: MetricFn,
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    method: str = "bias_aware",
    *,
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    log_scores: ArrayLike | None = None,
) -> Interval:
    """Bootstrap interval of one metric; see ``bootstrap_all``.

    Example:
        >>> from calib_jax.metrics.scores import accuracy
        >>> probs, answers = [[0.9, 0.1]] * 100, [0] * 60 + [1] * 40
        >>> low, high = bootstrap(accuracy, probs, answers, seed=1)
        >>> 0.45 < low < 0.6 < high < 0.75
        True
    """
    return bootstrap_all(
        {"metric": metric_fn},
        probs,
        answers,
        mask,
        num_resamples,
        seed,
        level,
        method,
        strata=strata,
        clusters=clusters,
        log_scores=log_scores,
    )["metric"]


@checked_settings
def bootstrap_all(
    metric_fns: Mapping[str, MetricFn],
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    method: str = "bias_aware",
    *,
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    log_scores: ArrayLike | None = None,
) -> dict[str, Interval]:
    """Bootstrap intervals of several metrics, all on the same resampled rows.

    N rows are drawn with replacement R = ``num_resamples`` times. With the estimate t, the
    resampled values t*, their (1 - level)/2 and (1 + level)/2 quantiles q- and q+, the methods are

        "percentile":  [q-, q+]
        "basic":       [2 t - q+, 2 t - q-]
        "bias_aware":  [min(q- - 5 b, 2 t - q+ - 3 b), q+ - b]   where b > 0, else as "percentile"

    b is mean(t*) - t, brought towards 0 by twice its standard error: how much the resampling
    shifts the metric. Means (accuracy, NLL, Brier) have b = 0, so the default leaves them the
    percentile interval. A calibration error is a distance, which noise makes longer: a
    percentile interval of it sits too high, and of a calibrated model's it never holds the truth.
    Resampling shows only a part of that bias: all of it where the gaps are large, 1/(1 + sqrt 2)
    of it where all are 0, about a quarter for the smooth ECE. So "bias_aware" allows for any bias
    between 0 and 4 b. It holds the estimate, is wider for small samples, and becomes the
    percentile interval as N grows. For differences see ``paired_bootstrap_all``.

    How often the intervals of one model hold the truth was measured, metric by metric, for eight
    kinds of models and 50 to 1,000 rows: ``docs/coverage.md``. Those of calibrated models hold 0
    too rarely for smooth, adaptive and root mean square errors, and of sharp models at 50 rows for
    all. So whether a model is calibrated is for ``consistency_test`` to say, and ``low_by_test``
    brings an interval into line with it, as reports do. An interval of the MCE holds the truth in
    about half of the cases, and is not to be used; nor are those of ``auprc`` and ``sce_ovr`` of
    fewer than 100 rows.

    Quantiles are order statistics, rounded outwards, so that an infinite NLL in one resample does
    not spoil the interval. A low end that the methods put below 0 is given as 0 if the estimate
    and every resample are at least 0 (a paired difference is left as it is). Resamples in which a
    metric is NaN (AUROC without a wrong row) are left out of its interval; NaN if none remains.
    Source: Efron 1979; Davison and Hinkley 1997, 5.2 (basic).

    Args:
        metric_fns: name -> function, called as ``fn(probs, answers, mask, weights=weights)``
            inside jit, as every scalar metric of this package can be. Options are bound with
            ``functools.partial(conf_ece, num_bins=15)``. Compiled once per set of function
            objects and shape: make the mapping once and reuse it.
        probs: [N, K] option probabilities.
        answers: [N] int.
        mask: [N, K] bool or None.
        num_resamples: number of resamples.
        seed: the same seed, N, strata and clusters give the same rows.
        level: nominal coverage, strictly between 0 and 1.
        method: "bias_aware", "percentile" or "basic".
        strata: [N] int or str: parts of a design that would have the same sizes if the rows were
            drawn again (so many questions of each task). Each is redrawn by itself. None: one.
        clusters: [N] int or str: rows of one cluster depend on each other (questions of one
            passage, answers of one person, repeats of a question). Whole clusters are redrawn,
            each with all of its rows, within their stratum, and ``level`` becomes that of
            ``expanded_level``. None, or where every row is a cluster of its own: rows are redrawn.
        log_scores: [N, K] or None, for the functions that take them (see ``nll``).

    Returns:
        name -> (low, high), floats; arrays for a metric that returns an array.

    Raises:
        ValueError: arrays that ``validate`` refuses, strata or clusters of another length, a
            cluster in two strata, a bad option.

    Warns:
        SmallStratum: strata of one row or one cluster, which every resample repeats as it is.

    Example:
        >>> from calib_jax.metrics.scores import accuracy, brier
        >>> probs, answers = [[0.75, 0.25]] * 4, [0, 0, 0, 0]
        >>> bootstrap_all({"accuracy": accuracy, "brier": brier}, probs, answers)
        {'accuracy': (1.0, 1.0), 'brier': (0.125, 0.125)}
    """
    validate(probs, answers, mask)
    logs = None if log_scores is None else (log_scores,)
    units = units_of(len(np.asarray(answers)), strata, clusters)
    return _intervals(
        metric_fns, (probs,), logs, answers, mask, num_resamples, seed, level, units, method
    )


@checked_settings
def paired_bootstrap(
    metric_fn: MetricFn,
    before: ArrayLike,
    after: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    method: str = "bias_aware",
    *,
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    log_scores: tuple[ArrayLike, ArrayLike] | None = None,
) -> Interval:
    """Interval of metric(after) - metric(before) on the same questions; see ``bootstrap_all``.

    Each resample takes the same rows on both sides, so what the two share cancels: the interval
    is narrower than one made from two separate intervals.

    Args:
        metric_fn: as in ``bootstrap_all``.
        before: [N, K] probabilities of the first model.
        after: [N, K] probabilities of the second, on the same rows.
        answers, mask, num_resamples, seed, level, method, strata, clusters: as in
            ``bootstrap_all``.
        log_scores: those of both sides, or None.

    Example:
        >>> from calib_jax.metrics.scores import mean_confidence
        >>> before, after = [[0.875, 0.125], [0.75, 0.25]], [[0.625, 0.375], [0.5, 0.5]]
        >>> paired_bootstrap(mean_confidence, before, after, [0, 1])
        (-0.25, -0.25)
    """
    return paired_bootstrap_all(
        {"metric": metric_fn},
        before,
        after,
        answers,
        mask,
        num_resamples,
        seed,
        level,
        method,
        strata=strata,
        clusters=clusters,
        log_scores=log_scores,
    )["metric"]


@checked_settings
def paired_bootstrap_all(
    metric_fns: Mapping[str, MetricFn],
    before: ArrayLike,
    after: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    method: str = "bias_aware",
    *,
    strata: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    log_scores: tuple[ArrayLike, ArrayLike] | None = None,
) -> dict[str, Interval]:
    """``paired_bootstrap`` for several metrics on the same resampled rows.

    With d the difference of the estimates, q- and q+ the quantiles of the resampled differences,
    and b1 and b2 the b of ``bootstrap_all`` of the first and of the last side, "bias_aware" is

        [min(q- - b, 2 d - q+ + b) - c2, max(q+ - b, 2 d - q- + b) + c1],
        b = b2 - b1,   c1 = min(4 b1, 4 s),   c2 = min(4 b2, 4 s)

    with s the standard deviation of the resampled differences: each side's bias may be anything
    between 0 and 4 times what resampling shows of it. Two models' biases differ, the better one's
    being the larger, while those that resampling shows are nearly equal and would cancel; and
    biases cannot differ by more than noise does, so that two models that say the same have the
    interval [0, 0]. For means b1 = b2 = 0: the percentile interval. Of a calibration error it is
    wide, up to twice a percentile interval: whether the conf-ECE has changed,
    ``paired_squared_ece_interval`` tells sooner. ``docs/coverage.md`` shows how often intervals of
    changes hold the truth, which is not what those of one model do.

    Example:
        >>> from calib_jax.metrics.scores import accuracy
        >>> paired_bootstrap_all({"accuracy": accuracy}, [[1.0, 0.0]], [[0.0, 1.0]], [1])
        {'accuracy': (1.0, 1.0)}
    """
    if np.shape(before) != np.shape(after):
        raise ValueError(
            f"before and after must have one shape, got {np.shape(before)} and {np.shape(after)}"
        )
    for name, probs in (("before", before), ("after", after)):
        try:
            validate(probs, answers, mask)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    sides = before, after
    units = units_of(len(np.asarray(answers)), strata, clusters)
    return _intervals(
        metric_fns, sides, log_scores, answers, mask, num_resamples, seed, level, units, method
    )


def _intervals(metric_fns, sides, logs, answers, mask, num_resamples, seed, level, units, method):
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}")
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    sides = tuple(jnp.asarray(side) for side in sides)
    logs = (None,) * len(sides) if logs is None else tuple(jnp.asarray(side) for side in logs)
    answers = jnp.asarray(answers)
    mask = None if mask is None else jnp.asarray(mask)
    fns = tuple(metric_fns.values())
    arrays = fns, sides, logs, answers, mask, units.plan, jnp.uint32(seed), num_resamples
    draws = in_parts(functools.partial(_resampled, *arrays), num_resamples + 1, len(answers))
    level = units.level(level)
    found = {}
    for name, values in zip(metric_fns, draws, strict=True):
        values = [np.asarray(side) for side in values]
        if len(values) == 1:
            low, high = interval(values[0][:-1], values[0][-1], level, method)
        else:
            low, high = change_interval(*values, level, method)
        found[name] = (float(low), float(high)) if np.ndim(low) == 0 else (low, high)
    return found


@functools.partial(jax.jit, static_argnames=("fns", "num_resamples", "count"))
def _resampled(fns, sides, logs, answers, mask, plan, seed, num_resamples, first=0, count=None):
    """Per fn, per side: its values in R resamples, then the estimate; or a part of these."""

    def one(key, number):
        # The estimate is one more "resample", so that each metric is compiled once.
        weights = jnp.where(number == num_resamples, 1, row_counts(key, plan))
        pairs = list(zip(sides, logs, strict=True))
        return [call(fn, side, answers, mask, weights, log) for fn in fns for side, log in pairs]

    chunk = _CHUNK_ELEMENTS // max(answers.shape[0], 1)
    values = map_draws(one, seed, count or num_resamples + 1, chunk, first)
    return [values[i : i + len(sides)] for i in range(0, len(values), len(sides))]


def interval(
    draws: np.ndarray, estimate: np.ndarray | np.floating, level: float, method: str
) -> tuple[np.ndarray, np.ndarray]:
    """Interval over axis 0 of ``draws`` [R, ...] around ``estimate``; see ``bootstrap_all``."""
    low, high = _quantiles(draws, level)
    if method == "percentile":
        return low, high
    with np.errstate(invalid="ignore", divide="ignore"):  # NaN and inf: no bias is known
        basic_low, basic_high = 2 * estimate - high, 2 * estimate - low
        if method == "basic":
            low, high = basic_low, basic_high
        elif (shift := bias(draws, estimate)).any():
            far = np.minimum(low - shift, basic_low + shift) - _BIAS_FACTOR * shift
            low = np.where(shift > 0, far, low)
            high = np.where(shift > 0, high - shift, high)
        natural = ~(draws < 0).any(axis=0) & (estimate >= 0)
        low = np.where(natural, np.maximum(low, 0), low)
    return low, high


def change_interval(
    first: np.ndarray, last: np.ndarray, level: float, method: str
) -> tuple[np.ndarray, np.ndarray]:
    """Interval of last - first, each [R + 1, ...]: R resamples, then the estimate.

    "bias_aware" of ``paired_bootstrap_all``; the other methods are those of ``interval``, of the
    differences. An end below 0 means something.
    """
    draws, estimate = last[:-1] - first[:-1], last[-1] - first[-1]
    low, high = _quantiles(draws, level)
    if method == "percentile":
        return low, high
    with np.errstate(invalid="ignore", divide="ignore"):
        basic_low, basic_high = 2 * estimate - high, 2 * estimate - low
        if method == "basic":
            return basic_low, basic_high
        mine, other = bias(last[:-1], last[-1]), bias(first[:-1], first[-1])
        if mine.any() or other.any():
            net, known = mine - other, (mine > 0) | (other > 0)
            most = _MOST_SPREADS * np.nanstd(draws, axis=0)
            far_low = np.minimum(low - net, basic_low + net)
            far_low -= np.minimum(_BIAS_FACTOR * mine, most)
            far_high = np.maximum(high - net, basic_high + net)
            far_high += np.minimum(_BIAS_FACTOR * other, most)
            low, high = np.where(known, far_low, low), np.where(known, far_high, high)
    return low, high


def _quantiles(draws: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Order statistics at (1 -+ level)/2, rounded outwards, over axis 0; NaN left out."""
    ordered = np.sort(draws, axis=0)  # NaN last
    last = np.maximum(np.sum(~np.isnan(draws), axis=0) - 1, 0)
    low_rank = np.floor((1 - level) / 2 * last).astype(int)
    high_rank = np.ceil((1 + level) / 2 * last).astype(int)
    low, high = (np.take_along_axis(ordered, r[None], axis=0)[0] for r in (low_rank, high_rank))
    return low, high


def bias(draws: np.ndarray, estimate: np.ndarray | np.floating) -> np.ndarray:
    """mean(draws) - estimate less two standard errors; 0 where that is negative or undefined.

    Noise makes a distance longer; what it makes smaller is no distance.
    """
    draws = draws.astype(np.float64)
    known = np.sum(~np.isnan(draws), axis=0)
    mean = np.nansum(draws, axis=0) / known
    spread = np.sqrt(np.nansum((draws - mean) ** 2, axis=0) / (known - 1))
    shift = np.maximum(mean - estimate - 2 * spread / np.sqrt(known), 0)
    return np.where(np.isfinite(shift), shift, 0)
