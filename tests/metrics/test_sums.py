import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax.metrics.sums import tree_sum, weighted_mean, weighted_sum


@pytest.mark.parametrize("num_rows", [0, 1, 2, 7, 8, 9, 63, 64, 65, 1000])
def test_tree_sum_is_a_sum_over_axis_0(num_rows):
    x = np.arange(num_rows * 6).reshape(num_rows, 2, 3)
    assert tree_sum(jnp.asarray(x, jnp.int32)).dtype == jnp.int32
    np.testing.assert_array_equal(tree_sum(jnp.asarray(x, jnp.int32)), x.sum(axis=0))


def test_tree_sum_keeps_float32_precision():
    x = np.random.default_rng(0).random(1_000_001).astype(np.float32)
    exact = x.sum(dtype=np.float64)
    assert abs(float(tree_sum(jnp.asarray(x))) - exact) < 2e-7 * exact


def test_weight_zero_hides_nan_and_inf():
    values = jnp.array([1.0, jnp.nan, jnp.inf, 3.0])
    weights = jnp.array([1, 0, 0, 3])
    assert float(weighted_sum(values, weights)) == 10.0
    assert float(weighted_mean(values, weights)) == 2.5
    assert np.isnan(weighted_mean(values, None))


def test_mean_of_nothing_is_nan():
    assert np.isnan(weighted_mean(jnp.zeros(0), None))
    assert np.isnan(weighted_mean(jnp.ones(3), jnp.zeros(3, jnp.int32)))
