"""The narrow waist as the kernels read it: shapes checked, dtypes brought to float32 and int32.

Shape errors raise at trace time. Values are not looked at (see ``validation``): NaN propagates.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


def as_probs(probs: ArrayLike, mask: ArrayLike | None = None) -> tuple[jax.Array, jax.Array | None]:
    """``probs`` [N, K] as float32 and ``mask`` [N, K] as bool (None: every option is valid)."""
    probs = jnp.asarray(probs)
    if probs.ndim != 2 or probs.shape[1] == 0:
        raise ValueError(f"probs must have shape [N, K] with K >= 1, got {probs.shape}")
    if mask is not None:
        mask = jnp.asarray(mask)
        if mask.shape != probs.shape:
            raise ValueError(f"mask must have the shape of probs {probs.shape}, got {mask.shape}")
        mask = mask.astype(bool)
    return probs.astype(jnp.float32), mask


def as_answers(answers: ArrayLike, num_rows: int) -> jax.Array:
    """``answers`` [N] as int32."""
    answers = jnp.asarray(answers)
    if answers.shape != (num_rows,):
        hint = " (a mask is passed by name: mask=...)" if answers.ndim == 2 else ""
        raise ValueError(f"answers must have shape ({num_rows},), got {answers.shape}{hint}")
    # An empty list arrives as float; anything else must already be integers.
    if not jnp.issubdtype(answers.dtype, jnp.integer) and num_rows:
        raise ValueError(f"answers must be integers (option indices), got {answers.dtype}")
    return answers.astype(jnp.int32)


def as_weights(weights: ArrayLike | None, num_rows: int) -> jax.Array | None:
    """``weights`` [N]: bool and integers become int32 (exact counts), floats float32."""
    if weights is None:
        return None
    weights = jnp.asarray(weights)
    if weights.shape != (num_rows,):
        raise ValueError(f"weights must have shape ({num_rows},), got {weights.shape}")
    if jnp.issubdtype(weights.dtype, jnp.floating):
        return weights.astype(jnp.float32)
    return weights.astype(jnp.int32)


def answer_matrix(answers: jax.Array, num_options: int) -> jax.Array:
    """[N, K] bool, True at each row's answer (nowhere where the answer is out of range)."""
    return answers[:, None] == jnp.arange(num_options, dtype=jnp.int32)
