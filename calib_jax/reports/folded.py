"""Figures of cross-fitted scores that hold rows against one another: within the folds."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax import metrics
from calib_jax.confidence.scores import Scores
from calib_jax.metrics.clusters import units_of
from calib_jax.metrics.draws import map_draws, row_counts
from calib_jax.metrics.intervals import interval
from calib_jax.reports import catalogue

# Row weights held at once, over the folds and the resamples of a chunk.
_CHUNK = 1 << 18


def figures(scores: Scores, seed: int, num_resamples: int) -> dict[str, float | list[float]]:
    """AUROC, AUPRC and AURC by ``metrics.within_folds``, with bootstrap intervals ``<metric>_ci``.

    Args:
      scores: with ``folds``.
      seed, num_resamples: of the bootstrap.
    """
    assert scores.folds is not None
    arrays = scores.probs, scores.answers, scores.mask, scores.log_scores, scores.folds
    counts = {"num_folds": int(scores.folds.max()) + 1, "num_resamples": num_resamples}
    units = units_of(len(scores), None, scores.units)
    found = np.asarray(_draws(*arrays, units.plan, jnp.uint32(seed), **counts), np.float64)
    row: dict[str, float | list[float]] = {}
    for metric, values in zip(catalogue.ranked(), found.T, strict=True):
        ends = interval(values[:-1], values[-1], units.level(0.95), "bias_aware")
        row |= {metric.key: float(values[-1]), f"{metric.key}_ci": [float(end) for end in ends]}
    return row


@functools.partial(jax.jit, static_argnames=("num_folds", "num_resamples"))
def _draws(
    probs, answers, mask, log_scores, folds, plan, seed, *, num_folds, num_resamples
) -> jax.Array:
    """[R + 1, 3]: R resamples of the rows, then all of them once."""

    def one(key, number):
        weights = jnp.where(number == num_resamples, 1, row_counts(key, plan))
        values = [
            metrics.within_folds(
                metric.function,
                probs,
                answers,
                mask,
                weights,
                folds=folds,
                num_folds=num_folds,
                log_scores=log_scores,
            )
            for metric in catalogue.ranked()
            if metric.function is not None
        ]
        return [jnp.stack(values)]

    chunk = _CHUNK // max(answers.shape[0] * num_folds, 1)
    return map_draws(one, seed, num_resamples + 1, chunk)[0]
