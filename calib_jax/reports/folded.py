"""Figures of cross-fitted scores that hold rows against one another: within the folds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.metrics.clusters import units_of
from calib_jax.metrics.draws import map_draws, row_counts
from calib_jax.metrics.intervals import interval
from calib_jax.metrics.within import mean_over_folds
from calib_jax.reports import catalogue, zeros

# Row weights held at once: resamples are run in chunks of this many divided by N.
_CHUNK = 1 << 18


def figures(scores: Scores, seed: int, num_resamples: int) -> dict[str, float | list[float]]:
    """AUROC, AUPRC and AURC by ``metrics.within_folds``, with bootstrap intervals ``<metric>_ci``.

    Args:
      scores: with ``folds``.
      seed, num_resamples: of the bootstrap.
    """
    assert scores.folds is not None
    # Each fold's rows side by side, padded to the largest: a fold's metric is computed of its own.
    order, sizes = np.argsort(scores.folds, kind="stable"), np.bincount(scores.folds)
    inside = np.arange(sizes.max()) < sizes[:, None]
    place = np.zeros(inside.shape, np.int32)
    place[inside] = order
    rows = scores.probs, scores.answers, scores.mask, zeros.as_read(scores)
    arrays = tuple(np.asarray(x)[place] for x in rows), place, inside.astype(np.int32)
    units = units_of(len(scores), None, scores.units)
    plan = units.plan, jnp.uint32(seed)
    found = np.asarray(_draws(*arrays, *plan, num_resamples=num_resamples), np.float64)
    row: dict[str, float | list[float]] = {}
    for metric, values in zip(catalogue.ranked(), found.T, strict=True):
        ends = interval(values[:-1], values[-1], units.level(0.95), "bias_aware")
        row |= {metric.key: float(values[-1]), f"{metric.key}_ci": [float(end) for end in ends]}
    return row


@functools.partial(jax.jit, static_argnames="num_resamples")
def _draws(rows, place, inside, plan, seed, *, num_resamples) -> jax.Array:
    """[R + 1, 3]: R resamples of the rows, then all of them once."""

    def one(key, number):
        weights = jnp.where(number == num_resamples, 1, row_counts(key, plan))
        own = weights[place] * inside
        values = [
            mean_over_folds(metric.function, rows, own, 0)
            for metric in catalogue.ranked()
            if metric.function is not None
        ]
        return [jnp.stack(values)]

    return map_draws(one, seed, num_resamples + 1, _CHUNK // max(place.size, 1))[0]
