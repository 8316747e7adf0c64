"""Rotary position embeddings, with their scalings."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax.models.config import Rope


def frequencies(rope: Rope, head_dim: int) -> np.ndarray:
    """Inverse frequencies [R / 2] in float32, radians per position, R = the channels that turn.

    f_i = theta^(-2 i / R), divided by ``linear_factor`` or by ``factors``. Under Llama 3.1's
    scaling, wavelengths above ``original_max_length / low_freq_factor`` are stretched by
    ``factor``, those below ``original_max_length / high_freq_factor`` are kept, and those between
    are interpolated.
    """
    turning = int(head_dim * rope.fraction)
    half = np.arange(0, turning, 2, dtype=np.float32) / np.float32(turning)
    inverse = np.float32(1.0) / np.power(np.float32(rope.theta), half, dtype=np.float32)
    inverse = inverse / np.float32(rope.linear_factor)
    if rope.factors is not None:
        inverse = inverse / np.asarray(rope.factors, np.float32)
    scaling = rope.llama3
    if scaling is None:
        return inverse
    wavelength = 2 * math.pi / inverse
    smooth = (scaling.original_max_length / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    smooth = np.clip(smooth, 0.0, 1.0)
    return ((1 - smooth) * inverse / scaling.factor + smooth * inverse).astype(np.float32)


def rotations(rope: Rope, head_dim: int, positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines [..., L, R / 2] in float32 of positions [..., L]."""
    angles = positions.astype(jnp.float32)[..., None] * frequencies(rope, head_dim)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates the first R channels of x [B, L, H, C]: channel i turns with channel i + R/2.

    Args:
      x: queries or keys.
      cos, sin: [L, R / 2], or [B, L, R / 2] where rows differ in their positions.
    """
    R = 2 * cos.shape[-1]
    first, second = jnp.split(x[..., :R], 2, axis=-1)
    cos, sin = cos[..., None, :].astype(x.dtype), sin[..., None, :].astype(x.dtype)
    turned = [first * cos - second * sin, second * cos + first * sin]
    return jnp.concatenate(turned if R == x.shape[-1] else [*turned, x[..., R:]], axis=-1)
