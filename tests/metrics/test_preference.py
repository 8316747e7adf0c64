import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax import metrics


def test_against_float64():
    rng = np.random.default_rng(0)
    chosen, rejected = rng.normal(-30, 3, 200), rng.normal(-31, 3, 200)
    rate, weights = rng.random(200), rng.integers(0, 3, 200)
    low, high = chosen.astype(np.float32).astype(float), rejected.astype(np.float32).astype(float)
    ratio = 1 / (1 + np.exp(high - low))
    for w in (None, weights):
        found = metrics.preference_collapse(chosen, rejected, rate, weights=w)
        expected = [ratio, ratio - rate, (ratio > rate).astype(float)]
        for value, rows in zip(found, expected, strict=True):
            assert value == pytest.approx(np.average(rows, weights=w), abs=1e-6)


def test_stable_in_the_logs():
    found = metrics.preference_collapse([-1000.0, -2000.0], [-1001.0, -1000.0], 0.5)
    assert found.mean_ratio == pytest.approx((1 / (1 + np.exp(-1)) + 0) / 2, abs=1e-6)
    assert found.share_above == 0.5
    # A ratio that rounds to 1 still exceeds a rate that does not, and nothing exceeds 1.
    assert metrics.preference_collapse([0.0], [-50.0], 0.9999999).share_above == 1
    assert metrics.preference_collapse([0.0], [-50.0], 1.0).share_above == 0
    assert metrics.preference_collapse([0.0], [-50.0], 0.0).share_above == 1
    assert metrics.preference_collapse([-np.inf], [-5.0], 0.5).mean_ratio == 0
    assert metrics.preference_collapse([-5.0], [-np.inf], 0.5).mean_ratio == 1
    assert np.isnan(metrics.preference_collapse([-np.inf], [-np.inf], 0.5).mean_ratio)


def test_unknown_rate_no_pairs_and_weight_zero():
    found = metrics.preference_collapse([-1.0, -1.0], [-1.0, -1.0])
    assert found.mean_ratio == 0.5
    assert np.isnan(found.mean_excess) and np.isnan(found.share_above)
    assert all(np.isnan(value) for value in metrics.preference_collapse([], [], 0.5))
    kept = metrics.preference_collapse([-1.0, np.nan], [-1.0, 0.0], 0.25, weights=[1, 0])
    assert [float(value) for value in kept] == [0.5, 0.25, 1.0]
    assert all(np.isnan(x) for x in metrics.preference_collapse([np.nan], [0.0], 0.25))
    low = metrics.preference_collapse(jnp.asarray([-1.0], jnp.bfloat16), jnp.asarray([-1.0]), 0.5)
    assert low.mean_ratio.dtype == jnp.float32


def test_gradient():
    slope = jax.grad(lambda x: metrics.preference_collapse(x, jnp.zeros(2), 0.5).mean_excess)
    np.testing.assert_allclose(slope(jnp.zeros(2)), [0.125, 0.125], atol=1e-7)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="must both have shape"):
        metrics.preference_collapse([0.0, 1.0], [0.0])
    with pytest.raises(ValueError, match="preference_rate must be"):
        metrics.preference_collapse([0.0, 1.0], [0.0, 0.0], [0.5])
