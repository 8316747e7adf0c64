"""The ranked probability score, of options that stand in an order (star ratings, severities)."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from calib_jax.metrics.checked import checked
from calib_jax.metrics.inputs import as_answers, as_probs, as_weights
from calib_jax.metrics.sums import weighted_mean


@checked
@jax.jit
def row_rps(probs: ArrayLike, answers: ArrayLike, mask: ArrayLike | None = None) -> jax.Array:
    """Ranked probability score of each row (see ``rps``), float32 [N], between 0 and 1.

    Example:
        >>> row_rps([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]], [0, 0]).tolist()
        [1.0, 0.5]
    """
    probs, mask = as_probs(probs, mask)
    valid = jnp.ones(probs.shape, bool) if mask is None else mask
    answers = as_answers(answers, probs.shape[0])
    below = jnp.cumsum(jnp.where(valid, probs, 0), axis=1)
    reached = answers[:, None] <= jnp.arange(probs.shape[1], dtype=jnp.int32)
    # After the last valid option both are 1: what is left there is rounding.
    last = probs.shape[1] - 1 - jnp.argmax(valid[:, ::-1], axis=1)
    counted = valid & (jnp.arange(probs.shape[1]) != last[:, None])
    distance = jnp.where(counted, jnp.square(below - reached), 0).sum(axis=1)
    total = distance / jnp.maximum(valid.sum(axis=1) - 1, 1)
    return jnp.where(jnp.isnan(below[:, -1]), jnp.nan, total)


@checked
@jax.jit
def rps(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Mean ranked probability score: the Brier score of "at most this option", over the options.

        (1/N) sum_i (1 / (K_i - 1)) sum_{j < K_i} (F_ij - 1[y_i <= j])^2,  F_ij = sum_{k <= j} p_ik

    The valid options of a row stand in the order of their indices, lowest first; where they have no
    order the score means nothing. Probability far from the answer costs more than probability
    beside it, which NLL and Brier do not see. Normalised by K - 1, so that 1 is certainty at the
    one end and the answer at the other, whatever K; half of ``brier`` for K = 2; 0 for K = 1.
    Strictly proper.

    Source: Epstein 1969; Murphy 1971; Gneiting and Raftery 2007, section 4.2 (without the factor).

    Args:
        probs: [N, K] option probabilities; cast to float32.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere. What is masked takes
            no place in the order.
        weights: [N], how often each row counts; None means once.

    Returns:
        float32 scalar; NaN for no rows.

    Example:
        >>> far, near = [[0.5, 0.0, 0.5]], [[0.5, 0.5, 0.0]]
        >>> float(rps(far, [0])), float(rps(near, [0]))   # NLL and Brier are equal
        (0.25, 0.125)
    """
    values = row_rps(probs, answers, mask)
    return weighted_mean(values, as_weights(weights, values.shape[0]))
