"""Rotary position embeddings, with the frequency scaling of Llama 3.1."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax.models.config import ModelConfig


def frequencies(config: ModelConfig) -> np.ndarray:
    """Inverse frequencies [C / 2] in float32, radians per position.

    f_i = theta^(-2 i / C); under Llama 3.1's scaling, wavelengths above
    ``original_max_length / low_freq_factor`` are stretched by ``factor``, those below
    ``original_max_length / high_freq_factor`` are kept, and those between are interpolated.
    """
    half = np.arange(0, config.head_dim, 2, dtype=np.float32) / np.float32(config.head_dim)
    inverse = np.float32(1.0) / np.power(np.float32(config.rope_theta), half, dtype=np.float32)
    scaling = config.rope_scaling
    if scaling is None:
        return inverse
    wavelength = 2 * math.pi / inverse
    smooth = (scaling.original_max_length / wavelength - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    smooth = np.clip(smooth, 0.0, 1.0)
    return ((1 - smooth) * inverse / scaling.factor + smooth * inverse).astype(np.float32)


def rotations(config: ModelConfig, length: int) -> tuple[jax.Array, jax.Array]:
    """Cosines and sines [L, C / 2] in float32 of positions 0 to L - 1."""
    angles = jnp.arange(length, dtype=jnp.float32)[:, None] * frequencies(config)
    return jnp.cos(angles), jnp.sin(angles)


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates x [B, L, H, C] in the half-split layout: channel i turns with channel i + C/2."""
    first, second = jnp.split(x, 2, axis=-1)
    cos, sin = cos[:, None, :].astype(x.dtype), sin[:, None, :].astype(x.dtype)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
