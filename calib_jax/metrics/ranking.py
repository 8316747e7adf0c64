"""How well confidence ranks right answers above wrong ones. Piecewise constant in ``probs``."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from calib_jax.metrics.inputs import as_answers, as_weights
from calib_jax.metrics.scores import confidences, predictions
from calib_jax.metrics.sums import tree_sum


@jax.jit
def auroc(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Area under the ROC curve of confidence for correctness.

        AUROC = P(c_right > c_wrong) + 1/2 P(c_right = c_wrong)

    over pairs of a correctly and a wrongly answered row, c = max_k p_k: ties count half
    (mid-rank). 0.5: confidence says nothing about correctness. Source: Hanley and McNeil 1982.

    Args:
        probs: [N, K] option probabilities; cast to float32.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        weights: [N], how often each row counts; None means once.

    Returns:
        float32 scalar in [0, 1]; NaN when all counted rows are right, or all are wrong.

    Example:
        >>> probs = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]]
        >>> float(auroc(probs, [0, 1, 0, 1]))   # of 4 pairs, 3 in order
        0.75
    """
    confidence = confidences(probs, mask)
    num_rows = confidence.shape[0]
    right = predictions(probs, mask) == as_answers(answers, num_rows)
    weights = as_weights(weights, num_rows)
    if num_rows == 0:
        return jnp.float32(jnp.nan)
    weights = jnp.ones(num_rows, jnp.int32) if weights is None else weights
    unknown = (jnp.isnan(confidence) & (weights != 0)).any()

    # The order and the ends of each run of ties do not depend on the weights: under vmap over
    # weights (the bootstrap) the sort is done once.
    order = jnp.argsort(confidence)
    confidence = confidence[order]
    position = jnp.arange(num_rows)
    changes = confidence[1:] != confidence[:-1]
    starts = jnp.concatenate([jnp.ones(1, bool), changes])
    ends = jnp.concatenate([changes, jnp.ones(1, bool)])
    first = jax.lax.cummax(jnp.where(starts, position, 0))
    last = jax.lax.cummin(jnp.where(ends, position, num_rows - 1), reverse=True)

    positive = jnp.where(right, weights, 0)
    negative = jnp.where(right, 0, weights)[order]
    up_to = jnp.cumsum(negative)
    # Wrong rows below the tie, plus half of those in it, as a share of all wrong rows.
    twice_below = up_to[last] + (up_to - negative)[first]
    share_below = twice_below.astype(jnp.float32) / (2 * up_to[-1].astype(jnp.float32))
    area = tree_sum(positive[order] * share_below) / tree_sum(positive)
    return jnp.where(unknown, jnp.nan, area)
