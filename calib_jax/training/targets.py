"""The E-step's outcome: bins, their accuracies, and the target distribution of Eq. 6."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from calib_jax import metrics

# Eq. 6 divides by 1 - q and by the second probability; both are kept away from 0.
_MIN_MISS = 1e-6
_MIN_SECOND = 1e-12


class EStep(NamedTuple):
    """What one E-step fixes for an epoch; every array is a constant to the M-step.

    Attributes:
      bins: [N] int32, z: the confidence bin of each question.
      bin_accuracy: [M] float32, q: the share of right predictions in each bin, NaN where empty.
      bin_counts: [M] int32.
      targets: [N, K] float32, p of Eq. 6.
    """

    bins: jax.Array
    bin_accuracy: jax.Array
    bin_counts: jax.Array
    targets: jax.Array


@jax.jit
def target_distribution(
    probs: jax.Array, accuracy: jax.Array, mask: jax.Array | None = None
) -> jax.Array:
    """The target p(x) that the M-step draws the option probabilities towards (Eq. 6).

    With q the accuracy of the question's bin, c the option probabilities, c_(2) the second
    largest, and K the number of valid options:

      p_(1) = q                                                   at the largest c
      t_j   = tanh(ln(K - 1) / (1 - q) · c_j / c_(2))             elsewhere
      p_j   = (1 - q) (1 + t_j) / Σ_l (1 + t_l)

    The published form has K = 4. Of equal largest probabilities the first takes q. c_(2) and 1 - q
    are clamped to 1e-12 and 1e-6, so a model that is certain, or a bin that is always right, gives
    finite targets.

    Args:
      probs: [N, K], rows summing to 1 over the valid options; cast to float32.
      accuracy: [N], q of each row, in [0, 1].
      mask: [N, K] bool, None for all valid.

    Returns:
      [N, K] float32, rows summing to 1; 0 where masked.

    Source: Xiao et al., "Restoring Calibration for Aligned LLMs" (ICML 2025), Eq. 6.

    >>> import jax.numpy as jnp
    >>> p = target_distribution(jnp.array([[0.7, 0.2, 0.07, 0.03]]), jnp.array([0.3]))
    >>> [round(float(x), 4) for x in p[0]]
    [0.3, 0.2887, 0.2259, 0.1854]
    """
    probs = probs.astype(jnp.float32)
    mask = jnp.ones(probs.shape, bool) if mask is None else mask
    probs = jnp.where(mask, probs, 0.0)
    first = jax.nn.one_hot(jnp.argmax(probs, axis=-1), probs.shape[-1], dtype=bool)
    others = mask & ~first
    q = accuracy.astype(jnp.float32)[:, None]
    miss = 1.0 - q
    second = jnp.max(jnp.where(others, probs, 0.0), axis=-1, keepdims=True)
    ratio = probs / jnp.maximum(second, _MIN_SECOND)
    count = jnp.sum(others, axis=-1, keepdims=True)
    steepness = jnp.log(jnp.maximum(count, 1).astype(jnp.float32)) / jnp.maximum(miss, _MIN_MISS)
    share = jnp.where(others, 1.0 + jnp.tanh(steepness * ratio), 0.0)
    rest = miss * share / jnp.maximum(jnp.sum(share, axis=-1, keepdims=True), 1.0)
    return jnp.where(first, q, rest)


@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def e_step(
    probs: jax.Array,
    answers: jax.Array,
    mask: jax.Array,
    *,
    num_bins: int = 10,
    edges: str = "right",
) -> EStep:
    """Bins, bin accuracies and targets of the whole training set (Algorithm 1).

    Args:
      probs: [N, K] float32, the current model's option probabilities in eval mode.
      answers: [N] int32.
      mask: [N, K] bool.
      num_bins: M.
      edges: "right", (a, b] as Algorithm 1 prints it, or "left".
    """
    stats = metrics.bin_stats(probs, answers, mask, num_bins=num_bins, edges=edges)
    bins = metrics.bin_index(metrics.confidences(probs, mask), num_bins=num_bins, edges=edges)
    accuracy = stats.accuracy()
    # Every question's own bin holds at least that question, so its accuracy is a number.
    targets = target_distribution(probs, accuracy[bins], mask)
    return EStep(bins, accuracy, stats.count, targets)
