"""The schedule's shape, and what weight decay reaches."""

import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax.training.optimizer import OptimizerConfig


def test_warm_up_then_cosine():
    schedule = OptimizerConfig(1.0, 100, 0.1).schedule()
    values = np.array([float(schedule(i)) for i in range(101)])
    assert values[0] == 0 and values[10] == pytest.approx(1)
    assert (np.diff(values[:11]) > 0).all() and (np.diff(values[10:]) < 0).all()
    assert values[55] == pytest.approx(0.5, abs=1e-6)
    assert values[100] == pytest.approx(0, abs=1e-6)


def test_no_warm_up_starts_at_the_peak():
    assert float(OptimizerConfig(2.0, 10, 0.0).schedule()(0)) == pytest.approx(2)


def test_weight_decay_spares_norms():
    params = {"layers": {"attn_norm": jnp.ones((2, 3)), "q_proj": jnp.ones((2, 3, 3))}}
    tx = OptimizerConfig(0.1, 10, 0.0, weight_decay=0.5, clip_norm=0.0).transformation()
    zeros = {"layers": {name: jnp.zeros_like(x) for name, x in params["layers"].items()}}
    updates, _ = tx.update(zeros, tx.init(params), params)
    assert (updates["layers"]["attn_norm"] == 0).all()
    np.testing.assert_allclose(updates["layers"]["q_proj"], -0.05, rtol=1e-5)
