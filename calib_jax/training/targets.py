"""The E-step's outcome: bins, their accuracies, and the target distribution of Eq. 6."""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from calib_jax import metrics
from calib_jax.metrics.equal_mass import inner_edges, sort_mass

# Eq. 6 divides by 1 - q and by the second probability; both are kept away from 0.
_MIN_MISS = 1e-6
_MIN_SECOND = 1e-12


class EStep(NamedTuple):
    """What one E-step fixes for an epoch; every array is a constant to the M-step.

    Attributes:
      bins: [N] int32, z: the confidence bin of each question.
      bin_accuracy: [M] float32, q: the share of right predictions in each bin, shrunk where asked
        for; NaN where empty.
      bin_counts: [M] int32, the questions that q was taken from.
      targets: [N, K] float32, p of Eq. 6.
    """

    bins: jax.Array | np.ndarray
    bin_accuracy: jax.Array | np.ndarray
    bin_counts: jax.Array | np.ndarray
    targets: jax.Array | np.ndarray


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
    chex.assert_rank(probs, 2)
    chex.assert_equal_shape([probs, mask])
    chex.assert_shape(accuracy, probs.shape[:1])
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


def shrunk_accuracy(correct: jax.Array, count: jax.Array, shrinkage: float) -> jax.Array:
    """q of each bin: (correct_m + κ q̄) / (n_m + κ), q̄ the overall accuracy.

    Args:
      correct, count: [M], right predictions and questions of each bin.
      shrinkage: κ >= 0, in questions; 0 leaves q_m = correct_m / n_m, NaN where empty.

    Returns:
      [M] float32; an empty bin has q̄ under shrinkage.
    """
    chex.assert_rank([correct, count], 1)
    chex.assert_equal_shape([correct, count])
    correct, count = correct.astype(jnp.float32), count.astype(jnp.float32)
    if not shrinkage:
        return correct / count
    return (correct + shrinkage * correct.sum() / count.sum()) / (count + shrinkage)


@functools.partial(jax.jit, static_argnames=("num_bins", "edges", "binning", "shrinkage"))
def e_step(
    probs: jax.Array,
    answers: jax.Array,
    mask: jax.Array,
    held_out: jax.Array | None = None,
    *,
    num_bins: int = 10,
    edges: str = "right",
    binning: str = "width",
    shrinkage: float = 0.0,
) -> EStep:
    """Bins, bin accuracies and targets of the whole training set (Algorithm 1).

    A model that has learnt its questions by heart answers them better than others, and targets that
    are made of that ask for a confidence which it earns nowhere else. ``held_out`` takes the
    accuracies from questions that no step learns.

    Args:
      probs: [N, K] float32, the current model's option probabilities in eval mode.
      answers: [N] int32.
      mask: [N, K] bool; questions may differ in their number of options.
      held_out: [N] bool, the questions that alone make q; None for all of them, as in the paper.
      num_bins: M.
      edges: "right", (a, b] as Algorithm 1 prints it, or "left".
      binning: "width", M equal parts of [0, 1]; or "mass", M parts with equally many questions
        (``metrics.adaptive_bin_stats``; equal confidences stay together).
      shrinkage: κ, see ``shrunk_accuracy``; at least 1 with ``held_out``, because a bin in which a
        question lies may hold none that makes q.
    """
    chex.assert_rank(probs, 2)
    chex.assert_equal_shape([probs, mask])
    chex.assert_shape(answers, probs.shape[:1])
    chex.assert_type([probs, mask], [jnp.float32, bool])
    confidences = metrics.confidences(probs, mask)
    if binning == "mass":
        edges_M = inner_edges(*sort_mass(confidences, None, None), num_bins, num_bins, edges)
        past = jnp.greater if edges == "right" else jnp.greater_equal
        bins = past(confidences[:, None], edges_M).sum(axis=1, dtype=jnp.int32)
    else:
        bins = metrics.bin_index(confidences, num_bins=num_bins, edges=edges)
    correct = jnp.argmax(jnp.where(mask, probs, -1.0), axis=-1) == answers
    if held_out is None:
        counted = jnp.ones_like(correct)
    else:
        chex.assert_shape(held_out, probs.shape[:1])
        counted, shrinkage = held_out, max(shrinkage, 1.0)
    count = jax.ops.segment_sum(counted.astype(jnp.int32), bins, num_bins)
    hits = jax.ops.segment_sum((correct & counted).astype(jnp.int32), bins, num_bins)
    accuracy = shrunk_accuracy(hits, count, shrinkage)
    # A question's own bin holds at least that question, or is shrunk: its accuracy is a number.
    targets = target_distribution(probs, accuracy[bins], mask)
    return EStep(bins, accuracy, count, targets)
