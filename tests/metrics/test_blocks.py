"""Rows taken a block at a time give what all rows give at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.metrics.blocks import ROWS, by_blocks


@pytest.mark.parametrize("num_rows", [5, 2 * ROWS - 1, 2 * ROWS, 2 * ROWS + 1, 3 * ROWS + 777])
def test_blocks_are_all_rows_in_order(num_rows):
    values = np.random.default_rng(0).integers(0, 99, (num_rows, 2)).astype(np.float32)

    def parts(x, nothing, number):  # sums of 8 rows, exact in float32
        assert nothing is None
        x = jnp.pad(x, [(0, -len(x) % 8), (0, 0)]).reshape(-1, 8, 2)
        number = jnp.pad(number, (0, -len(number) % 8)).reshape(-1, 8)
        return {"x": x.sum(axis=1), "number": number.sum(axis=1)}

    rows = values, None, np.arange(num_rows, dtype=np.int32)
    found = jax.jit(lambda: by_blocks(parts, jnp.asarray(values), None, jnp.asarray(rows[2])))()
    expected = jax.jit(lambda: parts(*rows))()
    assert {name: x.tolist() for name, x in found.items()} == {
        name: x.tolist() for name, x in expected.items()
    }


def test_statistics_of_many_rows_are_those_of_numpy():
    num_rows = 2 * ROWS + 12345
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.ones(3), num_rows).astype(np.float32)
    answers = rng.integers(0, 3, num_rows).astype(np.int32)
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == answers
    index = np.searchsorted(metrics.bin_edges(10)[1:-1], confidence)
    sums = np.bincount(index, confidence.astype(np.float64), 10)

    stats = metrics.bin_stats(probs, answers)
    assert stats.count.tolist() == np.bincount(index, minlength=10).tolist()
    assert stats.correct.tolist() == np.bincount(index, right, 10).astype(int).tolist()
    np.testing.assert_allclose(np.asarray(stats.confidence), sums, rtol=1e-6)
    gaps = np.bincount(index, right - confidence.astype(np.float64), 10)
    assert abs(float(metrics.conf_ece(probs, answers)) - np.abs(gaps).sum() / num_rows) < 1e-7

    stats = metrics.class_bin_stats(probs, answers)
    for k in range(3):
        index = np.searchsorted(metrics.bin_edges(10)[1:-1], probs[:, k])
        assert stats.count[k].tolist() == np.bincount(index, minlength=10).tolist()
        own = np.bincount(index, probs[:, k].astype(np.float64), 10)
        np.testing.assert_allclose(np.asarray(stats.confidence[k]), own, rtol=1e-6)

    smooth = metrics.smooth_stats(probs, answers)
    node = np.round(confidence * 8192).astype(int)
    assert smooth.count.tolist() == np.bincount(node, minlength=8193).tolist()
    offset = np.bincount(node, confidence.astype(np.float64) * 8192 - node, 8193)
    np.testing.assert_allclose(np.asarray(smooth.offset), offset, atol=1e-4)


def test_many_rows_have_the_gradient_of_their_weighted_sum():
    num_rows = 2 * ROWS + 3
    probs = jnp.tile(jnp.array([[0.75, 0.25]], jnp.float32), (num_rows, 1))
    answers = jnp.zeros(num_rows, jnp.int32)
    slope = jax.grad(lambda p: metrics.conf_ece(p, answers))(probs)  # |1 - c| of every row
    np.testing.assert_allclose(np.asarray(slope[:, 0]) * num_rows, -1, rtol=1e-6)
    assert not np.asarray(slope[:, 1]).any()
