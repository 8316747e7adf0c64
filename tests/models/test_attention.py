"""attend() against loops in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax.models.attention import attend


def reference(q, k, v, window, scale=6**-0.5, cap=None):
    """One query at a time."""
    B, L, H, _ = q.shape
    out, repeat = np.zeros_like(q), H // k.shape[2]
    for b in range(B):
        for h in range(H):
            for i in range(L):
                first = 0 if window is None else max(0, i - window + 1)
                keys, values = k[b, first : i + 1, h // repeat], v[b, first : i + 1, h // repeat]
                scores = keys @ q[b, i, h] * scale
                if cap is not None:
                    scores = cap * np.tanh(scores / cap)
                weights = np.exp(scores - scores.max())
                out[b, i, h] = weights @ values / weights.sum()
    return out


@functools.cache
def arrays(G, scale=1.0):
    rng = np.random.default_rng(G)
    q = scale * rng.normal(size=(2, 9, 4, 6))
    return q, rng.normal(size=(2, 9, G, 6)), rng.normal(size=(2, 9, G, 6))


@pytest.mark.parametrize("window", [None, 1, 3, 9, 20])
@pytest.mark.parametrize("G", [1, 2, 4])
def test_against_loops(G, window):
    q, k, v = arrays(G)
    ours = attend(*(jnp.asarray(x, jnp.float32) for x in (q, k, v)), window=window)
    np.testing.assert_allclose(ours, reference(q, k, v, window), atol=2e-6)


@pytest.mark.parametrize("window", [None, 3])
def test_scale_and_soft_cap(window):
    q, k, v = arrays(2)
    inputs = [jnp.asarray(x, jnp.float32) for x in (q, k, v)]
    ours = attend(*inputs, window=window, scale=0.9, softcap=1.5)
    np.testing.assert_allclose(ours, reference(q, k, v, window, 0.9, 1.5), atol=2e-6)
    uncapped = attend(*inputs, window=window, scale=0.9)
    assert np.abs(ours - uncapped).max() > 0.05


def test_a_window_known_only_at_run_time():
    inputs = [jnp.asarray(x, jnp.float32) for x in arrays(2)]
    compiled = jax.jit(lambda window: attend(*inputs, window=window))
    for window in (1, 4, 9):
        np.testing.assert_allclose(compiled(window), attend(*inputs, window=window), atol=1e-6)


def test_large_scores_do_not_overflow():
    q, k, v = arrays(2, scale=1e4)
    ours = attend(*(jnp.asarray(x, jnp.float32) for x in (q, k, v)))
    np.testing.assert_allclose(ours, reference(q, k, v, None), atol=1e-4)


def test_bfloat16_keeps_its_dtype_and_stays_near():
    q, k, v = arrays(2)
    ours = attend(*(jnp.asarray(x, jnp.bfloat16) for x in (q, k, v)), window=3)
    assert ours.dtype == jnp.bfloat16
    np.testing.assert_allclose(ours.astype(np.float32), reference(q, k, v, 3), atol=0.05)


def test_unknown_implementation():
    with pytest.raises(ValueError, match="'flash'"):
        attend(*(jnp.zeros((1, 1, 1, 2)),) * 3, implementation="flash")
