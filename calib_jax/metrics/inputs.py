"""The narrow waist as the kernels read it: shapes checked, dtypes brought to float32 and int32.

Shape errors raise at trace time. Values are not looked at (see ``validation``): NaN propagates.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics.validation import rounding


def on_host(array: Any, name: str) -> jax.Array | np.ndarray:
    """What JAX takes: its own arrays as they are, and whatever numpy reads (lists, pandas).

    Raises:
      ValueError: something that does not hold numbers, or a masked array, whose mask numpy drops.
    """
    if isinstance(array, jax.Array):
        return array
    if isinstance(array, np.ma.MaskedArray):
        raise ValueError(f"{name} is a masked array: pass its data, and the mask as mask=...")
    found = np.asarray(array)
    if found.dtype == object:  # pandas' nullable columns
        found = np.array(found.tolist())
    if found.dtype.kind in "OSUMmc":
        raise ValueError(f"{name} must hold numbers, got {found.dtype}")
    return found


def as_probs(probs: ArrayLike, mask: ArrayLike | None = None) -> tuple[jax.Array, jax.Array | None]:
    """``probs`` [N, K] as float32 and ``mask`` [N, K] as bool (None: every option is valid).

    A rounding error below zero (see ``validation.rounding``) is 0.
    """
    probs = jnp.asarray(probs)
    if probs.ndim != 2 or probs.shape[1] == 0:
        raise ValueError(f"probs must have shape [N, K] with K >= 1, got {probs.shape}")
    if mask is not None:
        mask = jnp.asarray(mask)
        if mask.shape != probs.shape:
            raise ValueError(f"mask must have the shape of probs {probs.shape}, got {mask.shape}")
        mask = mask.astype(bool)
    below = -rounding(probs)
    probs = probs.astype(jnp.float32)
    return jnp.where((probs < 0) & (probs >= below), 0, probs), mask


def narrowed(answers: Any) -> Any:
    """Wide integers as int32, which JAX would cut to it; -1 for what is no option's index."""
    if isinstance(answers, np.ndarray) and answers.dtype in (np.int64, np.uint64):
        return np.where((answers < 0) | (answers >= 2**31), -1, answers).astype(np.int32)
    return answers


def as_answers(answers: ArrayLike | Sequence[int], num_rows: int) -> jax.Array:
    """``answers`` [N] as int32; what does not fit that is no option's index, and becomes -1."""
    answers = jnp.asarray(narrowed(answers))
    if answers.shape != (num_rows,):
        hint = ""
        if answers.shape == (num_rows, 1):
            hint = ": pass the column, answers[:, 0]"
        elif answers.ndim == 2:
            hint = " (a mask is passed by name: mask=...)"
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
