"""Rotary embeddings against the formula in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax.models.hf_config import parse_config
from calib_jax.models.rope import frequencies, rotate, rotations

BASE = {
    "model_type": "llama",
    "vocab_size": 8,
    "hidden_size": 64,
    "intermediate_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
}
SCALED = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}


def reference(settings, C=16):
    """[C / 2] float64, one channel at a time, after Llama 3.1's description."""
    result = []
    for i in range(C // 2):
        f = settings["rope_theta"] ** (-2 * i / C)
        if settings["rope_type"] == "llama3":
            wavelength, old = 2 * np.pi / f, settings["original_max_position_embeddings"]
            low, high = settings["low_freq_factor"], settings["high_freq_factor"]
            if wavelength > old / low:
                f /= settings["factor"]
            elif wavelength > old / high:
                smooth = (old / wavelength - low) / (high - low)
                f = (1 - smooth) * f / settings["factor"] + smooth * f
        result.append(f)
    return np.array(result)


@pytest.mark.parametrize("settings", [PLAIN, SCALED], ids=["plain", "llama3"])
def test_rotation_against_complex_numbers(settings):
    config = parse_config({**BASE, "rope_parameters": settings}, "config.json")
    expected = reference(settings)
    np.testing.assert_allclose(frequencies(config.rope, 16), expected, rtol=1e-6)
    L, C = 100, 16
    x = np.random.default_rng(0).normal(size=(2, L, 3, C))
    turned = (x[..., : C // 2] + 1j * x[..., C // 2 :]) * np.exp(
        1j * np.arange(L)[:, None] * expected
    )[:, None, :]
    turn = jax.jit(lambda x: rotate(x, *rotations(config.rope, C, jnp.arange(L))))
    ours = turn(x.astype(np.float32))
    np.testing.assert_allclose(ours, np.concatenate([turned.real, turned.imag], -1), atol=3e-5)


def test_scaling_touches_every_regime():
    """Kept, interpolated and stretched channels are all there, or the test above says little."""
    ratio = reference(SCALED) / reference({**SCALED, "rope_type": "default"})
    assert (ratio == 1).any() and (ratio == 1 / 8).any() and ((ratio > 1 / 8) & (ratio < 1)).any()


def test_products_depend_on_the_distance_alone():
    config = parse_config({**BASE, "rope_parameters": PLAIN}, "config.json")
    rng = np.random.default_rng(1)
    q, k = (np.broadcast_to(rng.normal(size=16), (1, 40, 1, 16)) for _ in range(2))
    cos, sin = rotations(config.rope, 16, jnp.arange(40))
    q, k = (np.asarray(rotate(jnp.asarray(x, jnp.float32), cos, sin))[0, :, 0] for x in (q, k))
    scores = q @ k.T
    for distance in (0, 3, 17):
        diagonal = np.diagonal(scores, -distance)
        np.testing.assert_allclose(diagonal, diagonal[0], rtol=0, atol=2e-5)
    assert np.ptp(scores[:, 0]) > 1


def test_rotation_keeps_the_dtype():
    config = parse_config({**BASE, "rope_parameters": PLAIN}, "config.json")
    x = jnp.ones((1, 4, 1, 16), jnp.bfloat16)
    assert rotate(x, *rotations(config.rope, 16, jnp.arange(4))).dtype == jnp.bfloat16
