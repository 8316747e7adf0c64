import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metrics.kernels import kernels as metrics


def test_edges_are_float32_of_i_over_m_and_not_linspace():
    edges = metrics.bin_edges(10)
    assert edges.dtype == np.float32 and edges.shape == (11,)
    assert edges.tolist() == [float(np.float32(i / 10)) for i in range(11)]
    for num_bins in (1, 3, 7, 15, 100):
        np.testing.assert_array_equal(
            metrics.bin_edges(num_bins), (np.arange(num_bins + 1) / num_bins).astype(np.float32)
        )


@pytest.mark.parametrize("num_bins", [0, -1, 2.5, True])
def test_edges_refuse_what_is_no_number_of_bins(num_bins):
    with pytest.raises(ValueError, match="num_bins"):
        metrics.bin_edges(num_bins)


def test_unknown_edge_convention_is_refused():
    with pytest.raises(ValueError, match='"right" or "left"'):
        metrics.bin_index(jnp.array([0.5]), edges="both")


@pytest.mark.parametrize("edges", ["right", "left"])
# Both ways of finding a bin: comparing with all edges (up to 64), or guessing and correcting.
@pytest.mark.parametrize("num_bins", [1, 2, 3, 10, 15, 64, 65, 100, 1000, 4999])
def test_bin_index_is_exact_on_edges_and_their_neighbours(num_bins, edges):
    table = metrics.bin_edges(num_bins)
    up, down = np.nextafter(table, np.float32(2)), np.nextafter(table, np.float32(-1))
    random = np.random.default_rng(0).random(5000).astype(np.float32)
    values = np.concatenate([table, up, down, random]).clip(0, 1)
    if edges == "right":  # (a, b]: the number of inner edges below the value
        expected = np.searchsorted(table[1:-1], values, side="left")
    else:
        expected = np.searchsorted(table[1:-1], values, side="right")
    np.testing.assert_array_equal(metrics.bin_index(values, num_bins, edges), expected)


@pytest.mark.parametrize("edges", ["right", "left"])
def test_bin_index_of_tenths_by_the_definition(ref, edges):
    values = (np.arange(21) / 20).astype(np.float32)
    expected = [ref.bin_of(v, 10, edges) for v in values]
    np.testing.assert_array_equal(metrics.bin_index(values, 10, edges), expected)
    assert expected[0] == 0 and expected[-1] == 9
    assert expected[6] == {"right": 2, "left": 3}[edges]


@pytest.mark.parametrize("num_bins", [10, 100])
def test_bin_index_stays_inside_for_any_float(num_bins):
    values = jnp.array([-1.0, -0.0, 2.0, 1e30, jnp.inf, -jnp.inf, jnp.nan])
    index = metrics.bin_index(values, num_bins)
    assert index.dtype == jnp.int32
    assert index[:6].tolist() == [0, 0] + [num_bins - 1] * 3 + [0]
    assert 0 <= int(index[6]) < num_bins


@pytest.mark.parametrize("edges", ["right", "left"])
def test_bin_stats_by_hand(edges):
    probs = jnp.array([[0.75, 0.25], [0.5, 0.5], [0.25, 0.75], [0.0, 1.0]])
    stats = metrics.bin_stats(probs, jnp.array([0, 1, 0, 1]), num_bins=4, edges=edges)
    right = edges == "right"
    assert stats.count.dtype == stats.correct.dtype == jnp.int32
    assert stats.count.tolist() == ([0, 1, 2, 1] if right else [0, 0, 1, 3])
    assert stats.correct.tolist() == ([0, 0, 1, 1] if right else [0, 0, 0, 2])
    assert stats.confidence.tolist() == ([0, 0.5, 1.5, 1.0] if right else [0, 0, 0.5, 2.5])
    np.testing.assert_array_equal(
        stats.accuracy(), [np.nan, 0, 0.5, 1] if right else [np.nan, np.nan, 0, np.float32(2 / 3)]
    )
    np.testing.assert_array_equal(
        stats.mean_confidence()[2:], [0.75, 1] if right else [0.5, np.float32(2.5 / 3)]
    )
    assert np.isnan(stats.mean_confidence()[0]) and stats.gap()[0] == 0


def test_class_bin_stats_leave_masked_options_out(draw):
    probs, answers = draw(50, 4)
    mask = np.ones((50, 4), bool)
    mask[:30, 3] = False
    probs[:30, 3] = 0
    answers = np.where(answers == 3, 0, answers)
    stats = metrics.class_bin_stats(probs, answers, mask, num_bins=5)
    assert stats.count.shape == (4, 5)
    assert stats.count.sum(axis=1).tolist() == [50, 50, 50, 20]
    assert stats.correct.sum(axis=1).tolist() == np.bincount(answers, minlength=4).tolist()
    np.testing.assert_allclose(
        np.asarray(stats.confidence).sum(axis=1), probs.astype(np.float64).sum(axis=0), rtol=1e-6
    )


def test_weights_repeat_rows(draw):
    probs, answers = draw(40, 4, seed=3)
    times = np.random.default_rng(1).integers(0, 4, 40)
    again = np.repeat(np.arange(40), times)
    for stats_fn in (metrics.bin_stats, metrics.class_bin_stats):
        repeated = stats_fn(probs[again], answers[again])
        for dtype in (np.int64, np.float32):
            weighted = stats_fn(probs, answers, weights=times.astype(dtype))
            assert weighted.count.dtype == (jnp.int32 if dtype is np.int64 else jnp.float32)
            np.testing.assert_array_equal(weighted.count, repeated.count)
            np.testing.assert_array_equal(weighted.correct, repeated.correct)
            np.testing.assert_allclose(weighted.confidence, repeated.confidence, rtol=1e-6)


def test_rows_of_weight_zero_count_nothing_even_when_nan(draw):
    probs, answers = draw(40, 4)
    padded = np.concatenate([probs, np.full((24, 4), np.nan, np.float32)])
    padded_answers = np.concatenate([answers, np.full(24, -1, np.int32)])
    weights = np.arange(64) < 40
    for stats_fn in (metrics.bin_stats, metrics.class_bin_stats):
        whole, part = stats_fn(probs, answers), stats_fn(padded, padded_answers, weights=weights)
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), edges=st.sampled_from(["right", "left"]))
def test_merged_shards_equal_the_whole_in_any_order(seed, edges):
    rng = np.random.default_rng(seed)
    probs = rng.choice(np.arange(21) / 20, size=(64, 3)).astype(np.float32)  # many on edges
    answers = rng.integers(0, 3, 64)
    order = rng.permutation(64)
    for stats_fn, shape in ((metrics.bin_stats, (10,)), (metrics.class_bin_stats, (3, 10))):
        whole = stats_fn(probs, answers, edges=edges)
        parts = order.reshape(4, 16)
        shards = [stats_fn(probs[part], answers[part], edges=edges) for part in parts]
        merged = functools.reduce(metrics.merge, shards, metrics.BinStats.empty(*shape))
        np.testing.assert_array_equal(merged.count, whole.count)
        np.testing.assert_array_equal(merged.correct, whole.correct)
        assert int(merged.count.sum()) == 64 * (1 if len(shape) == 1 else 3)
        np.testing.assert_allclose(merged.confidence, whole.confidence, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(merged.gap(), whole.gap(), atol=2e-6)


def test_many_merges_do_not_drift():
    """A plain float32 total over 30,000 batches loses 1e-4 of the mean here."""
    batch = metrics.bin_stats(np.full((100, 1), 0.6123, np.float32), np.zeros(100, int))

    @jax.jit
    def stream(batch):
        empty = metrics.BinStats.empty(10)
        return jax.lax.fori_loop(0, 30_000, lambda _, total: total.merge(batch), empty)

    total = stream(batch)
    assert int(total.count.sum()) == 3_000_000
    assert abs(float(total.mean_confidence()[6]) - np.float32(0.6123)) < 1e-7


def test_bin_stats_are_a_pytree_that_vmaps(draw):
    probs, answers = zip(*(draw(30, 4, seed=s) for s in range(3)), strict=True)
    batched = jax.vmap(metrics.bin_stats)(np.stack(probs), np.stack(answers))
    assert batched.count.shape == (3, 10)
    for b in range(3):
        single = metrics.bin_stats(probs[b], answers[b])
        np.testing.assert_array_equal(batched.count[b], single.count)
        np.testing.assert_allclose(batched.confidence[b], single.confidence, rtol=1e-6)
