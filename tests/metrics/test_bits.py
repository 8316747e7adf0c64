import jax.numpy as jnp
import numpy as np

from calib_jax.metrics.bits import of_order_bits, order_bits


def test_bits_order_as_float64_does_and_come_back():
    rng = np.random.default_rng(0)
    values = rng.integers(0, 2**32, 4000, dtype=np.uint64).astype(np.uint32).view(np.float32)
    values = np.r_[values[~np.isnan(values)], [0, 1e-45, -1e-45, np.inf, -np.inf]].astype(
        np.float32
    )
    bits = np.asarray(order_bits(jnp.asarray(values)))
    np.testing.assert_array_equal(
        np.argsort(bits, kind="stable"), np.argsort(values.astype(np.float64), kind="stable")
    )
    back = np.asarray(of_order_bits(jnp.asarray(bits)))
    np.testing.assert_array_equal(back.view(np.int32), values.view(np.int32))
    zero, nan = order_bits(jnp.array([-0.0, jnp.nan]))
    assert zero == 0 and nan > order_bits(jnp.array(jnp.inf))
