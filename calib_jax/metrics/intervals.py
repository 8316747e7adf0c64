"""Seeded bootstrap intervals over rows, vectorised over resamples.

A resample of N rows with replacement is the vector of how often each row was drawn, passed to the
metric as its ``weights``. So a metric's work that does not depend on the weights (bins, the sort
behind AUROC) is shared by all resamples of a chunk, and no [resamples, N] array exists.
"""

import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

# Called as metric_fn(probs, answers, mask, weights=weights); returns a scalar or an array.
MetricFn = Callable[..., jax.Array]
Interval = tuple[float, float] | tuple[np.ndarray, np.ndarray]

# Row weights held at once: resamples are run in chunks of this many divided by N.
_CHUNK_ELEMENTS = 1 << 18


def bootstrap(
    metric_fn: MetricFn,
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Percentile bootstrap interval of one metric; see ``bootstrap_all``.

    Example:
        >>> from calib_jax.metrics.scores import accuracy
        >>> probs, answers = [[0.9, 0.1]] * 100, [0] * 60 + [1] * 40
        >>> low, high = bootstrap(accuracy, probs, answers, seed=1)
        >>> 0.45 < low < 0.6 < high < 0.75
        True
    """
    return bootstrap_all({"metric": metric_fn}, probs, answers, mask, num_resamples, seed, level)[
        "metric"
    ]


def bootstrap_all(
    metric_fns: Mapping[str, MetricFn],
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Percentile bootstrap intervals of several metrics, all on the same resampled rows.

    N rows are drawn with replacement ``num_resamples`` times; the interval runs between the
    (1 - level)/2 and (1 + level)/2 quantiles of the metric over the resamples. Quantiles are
    order statistics, rounded outwards, so that an infinite NLL in one resample does not spoil
    the interval. Resamples in which a metric is NaN (AUROC without a wrong row) are left out of
    its interval; NaN if none remains. The resampled ECE is biased upwards more than the ECE
    itself, so an interval of a tiny ECE may lie above it. Source: Efron 1979.

    Args:
        metric_fns: name -> function, called as ``fn(probs, answers, mask, weights=weights)``
            inside jit, as every scalar metric of this package can be. Options are bound with
            ``functools.partial(conf_ece, num_bins=15)``. Compiled once per set of function
            objects and shape: make the mapping once and reuse it.
        probs: [N, K] option probabilities.
        answers: [N] int.
        mask: [N, K] bool or None.
        num_resamples: number of resamples.
        seed: the same seed and N give the same rows.
        level: nominal coverage, strictly between 0 and 1.

    Returns:
        name -> (low, high), floats; arrays for a metric that returns an array.

    Example:
        >>> from calib_jax.metrics.scores import accuracy, brier
        >>> probs, answers = [[0.75, 0.25]] * 4, [0, 0, 0, 0]
        >>> bootstrap_all({"accuracy": accuracy, "brier": brier}, probs, answers)
        {'accuracy': (1.0, 1.0), 'brier': (0.125, 0.125)}
    """
    return _intervals(metric_fns, (probs,), answers, mask, num_resamples, seed, level)


def paired_bootstrap(
    metric_fn: MetricFn,
    before: ArrayLike,
    after: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval of metric(after) - metric(before) on the same questions; see ``bootstrap_all``.

    Each resample takes the same rows on both sides, so what the two share cancels: the interval
    is narrower than one made from two separate intervals.

    Args:
        metric_fn: as in ``bootstrap_all``.
        before: [N, K] probabilities of the first model.
        after: [N, K] probabilities of the second, on the same rows.
        answers, mask, num_resamples, seed, level: as in ``bootstrap_all``.

    Example:
        >>> from calib_jax.metrics.scores import mean_confidence
        >>> before, after = [[0.875, 0.125], [0.75, 0.25]], [[0.625, 0.375], [0.5, 0.5]]
        >>> paired_bootstrap(mean_confidence, before, after, [0, 1])
        (-0.25, -0.25)
    """
    return paired_bootstrap_all(
        {"metric": metric_fn}, before, after, answers, mask, num_resamples, seed, level
    )["metric"]


def paired_bootstrap_all(
    metric_fns: Mapping[str, MetricFn],
    before: ArrayLike,
    after: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """``paired_bootstrap`` for several metrics on the same resampled rows.

    Example:
        >>> from calib_jax.metrics.scores import accuracy
        >>> paired_bootstrap_all({"accuracy": accuracy}, [[1.0, 0.0]], [[0.0, 1.0]], [1])
        {'accuracy': (1.0, 1.0)}
    """
    if np.shape(before) != np.shape(after):
        raise ValueError(
            f"before and after must have one shape, got {np.shape(before)} and {np.shape(after)}"
        )
    return _intervals(metric_fns, (before, after), answers, mask, num_resamples, seed, level)


def _intervals(metric_fns, sides, answers, mask, num_resamples, seed, level):
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}")
    sides = tuple(jnp.asarray(side) for side in sides)
    answers = jnp.asarray(answers)
    mask = None if mask is None else jnp.asarray(mask)
    draws = _resampled(
        tuple(metric_fns.values()), sides, answers, mask, jnp.uint32(seed), num_resamples
    )
    return {
        name: _percentiles(np.asarray(values), level)
        for name, values in zip(metric_fns, draws, strict=True)
    }


@functools.partial(jax.jit, static_argnames=("fns", "num_resamples"))
def _resampled(fns, sides, answers, mask, seed, num_resamples):
    """Each fn's values over the resamples, [R, ...]: of one side, or last minus first of two."""
    num_rows = answers.shape[0]
    chunk = max(1, min(num_resamples, _CHUNK_ELEMENTS // max(num_rows, 1)))
    padded = -(-num_resamples // chunk) * chunk

    def one(number):
        # fold_in: resample r does not depend on the chunk or on how many there are.
        key = jax.random.fold_in(jax.random.key(seed), number)
        rows = jax.random.randint(key, (num_rows,), 0, max(num_rows, 1))
        weights = jnp.zeros(num_rows, jnp.int32).at[rows].add(1)
        values = [[fn(side, answers, mask, weights=weights) for fn in fns] for side in sides]
        if len(values) == 1:
            return values[0]
        return [last - first for first, last in zip(*values, strict=True)]

    draws = jax.lax.map(one, jnp.arange(padded), batch_size=chunk)
    return [values[:num_resamples] for values in draws]


def _percentiles(draws: np.ndarray, level: float) -> Interval:
    """Outward-rounded percentile interval over axis 0, NaN left out; floats for scalars."""
    ordered = np.sort(draws, axis=0)  # NaN last
    known = np.sum(~np.isnan(draws), axis=0)
    last = np.maximum(known - 1, 0)
    low_rank = np.floor((1 - level) / 2 * last).astype(int)
    high_rank = np.ceil((1 + level) / 2 * last).astype(int)
    low = np.take_along_axis(ordered, low_rank[None], axis=0)[0]
    high = np.take_along_axis(ordered, high_rank[None], axis=0)[0]
    return (float(low), float(high)) if draws.ndim == 1 else (low, high)
