import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax.metrics import ranks
from calib_jax.metrics.tails import confidence_order


@functools.partial(jax.jit, static_argnames=("sought", "lowest_first"))
def _runs(keyed, weights, *, sought, lowest_first):
    return ranks.runs(keyed, weights, sought=sought, lowest_first=lowest_first)


@pytest.mark.parametrize("size", [1, 64, 65, 300])
def test_runs_of_ties_across_blocks(size):
    """Against loops, with runs longer than a block, rows of weight 0, and both directions."""
    rng = np.random.default_rng(size)
    for levels in (1, 3, size):
        key = rng.integers(0, levels, size).astype(np.int32)
        right, unknown = rng.random(size) < 0.5, np.zeros(size, bool)
        for weights in (None, rng.integers(0, 3, size).astype(np.int32)):
            for sought, lowest_first in ((True, False), (False, True)):
                keyed = ranks.Keyed(*map(jnp.asarray, (key, right, unknown)), None)
                counts = _runs(keyed, weights, sought=sought, lowest_first=lowest_first)
                flat = [np.asarray(x).T.ravel()[:size] for x in counts[:5]]
                ends = np.stack(flat[:4])[:, flat[4]]
                copies = np.ones(size, int) if weights is None else weights
                expected, shown, found = [], 0, 0
                for value in sorted(set(key.tolist()), reverse=not lowest_first):
                    before = shown, found
                    shown += copies[key == value].sum()
                    found += copies[(key == value) & (right == sought)].sum()
                    expected.append((shown, found, *before))
                assert ends.T.tolist() == [list(map(int, row)) for row in expected]
                assert (int(counts.all_shown), int(counts.all_found)) == (shown, found)


def test_keys_order_float32_confidences_exactly():
    """Neighbours, subnormal numbers, both zeros and 1: as float64 compares them."""
    near = np.nextafter(np.float32(0.5), np.float32(1))
    top = np.array([0.5, near, 1e-45, 3e-45, 0.0, -0.0, 1.0, 1e-38, 0.5], np.float32)
    key, order = confidence_order(jnp.asarray(top[:, None]), None, None)
    assert order is None
    np.testing.assert_array_equal(
        np.unique(key, return_inverse=True)[1],
        np.unique(top.astype(np.float64), return_inverse=True)[1],
    )


def test_keys_with_log_scores_rise_with_the_log_odds():
    margin = np.r_[np.linspace(0, 12, 400), np.linspace(12, 150, 50)]
    scores = np.stack([margin, 0 * margin], axis=1).astype(np.float32)
    probs = jnp.asarray(1 / (1 + np.exp(np.stack([-margin, margin], axis=1))), jnp.float32)
    key = np.asarray(confidence_order(probs, None, jnp.asarray(scores))[0])
    assert (np.diff(key) >= 0).all() and key[0] >= 0
    assert (np.diff(key[400:]) > 0).all()  # all of them round to 1
