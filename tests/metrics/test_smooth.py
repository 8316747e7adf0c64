import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.metrics.kernels import kernels as metrics


def smoothed(values, confidence, sigma, points):
    """(1/N) sum_i v_i K_s(t, c_i) in float64, the reflected Gaussian as a sum of its images."""
    values, confidence = np.asarray(values, float), np.asarray(confidence, float)
    total = np.zeros(len(points))
    reach = range(-1, 2) if sigma < 0.2 else range(-3, 4)
    for image in reach:
        for start in (confidence, -confidence):
            z = (points[:, None] - (start + 2 * image)) / sigma
            total += np.exp(-z * z / 2) @ values
    return total / (sigma * np.sqrt(2 * np.pi) * len(values))


def reference(probs, answers, sigma=None, cells=2000):
    """smECE by float64 mid-point quadrature over the rows; the fixed point by bisection."""
    probs = np.asarray(probs, np.float32)
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == answers
    points = (np.arange(cells) + 0.5) / cells
    residual = right - confidence.astype(float)
    if sigma is not None:
        return np.abs(smoothed(residual, confidence, sigma, points)).mean()
    low, high = 1e-3, 1.0
    for _ in range(20):
        middle = (low + high) / 2
        value = np.abs(smoothed(residual, confidence, middle, points)).mean()
        low, high = (middle, high) if value > middle else (low, middle)
    return middle


@pytest.mark.parametrize("sharpness", [1.0, 3.0])
def test_against_sums_over_the_rows(draw, sharpness):
    probs, answers = draw(250, 4, seed=3, sharpness=sharpness)
    for sigma in (0.01, 0.05, 0.3):
        found = metrics.smooth_ece(probs, answers, sigma=sigma)
        assert found == pytest.approx(reference(probs, answers, sigma), abs=1e-6)
    found = metrics.smooth_ece(probs, answers)
    assert found == pytest.approx(reference(probs, answers), abs=1e-6)
    assert metrics.smooth_ece(probs, answers, sigma=found) == pytest.approx(float(found), abs=1e-6)


def test_against_relplot_away_from_the_ends():
    """relplot 1.0.3 at a chosen bandwidth, on confidences between 0.5 and 0.8."""
    rng = np.random.Generator(np.random.PCG64(7))
    confidence = 0.5 + 0.3 * rng.random(2000)
    right = rng.random(2000) < confidence - 0.2 * np.sin(12 * confidence)
    probs = np.stack([confidence, 1 - confidence], axis=1)
    for sigma, golden in ((0.02, 0.112735235673), (0.05, 0.110469824884)):
        found = metrics.smooth_ece(probs, 1 - right.astype(int), sigma=sigma)
        assert found == pytest.approx(golden, abs=1e-6)


def test_the_edge_set_and_what_relplot_makes_of_it(edge_set):
    probs, answers = edge_set
    for sigma in (None, 0.05):
        found = metrics.smooth_ece(probs, answers, sigma=sigma)
        assert found == pytest.approx(reference(probs, answers, sigma, 20_000), abs=1e-6)
    # relplot 1.0.3 prints 0.141516986483 and 0.176125239660: there a row at exactly 1 has half
    # the weight of another. With such rows halved the difference is its coarser grid.
    halved = np.where(probs[:, 0] == 1, 0.5, 1.0).astype(np.float32)
    assert metrics.smooth_ece(probs, answers, weights=halved) == pytest.approx(0.1415, abs=2e-3)
    assert metrics.smooth_ece(probs, answers, sigma=0.05, weights=halved) == pytest.approx(
        0.1761, abs=2e-3
    )


def test_set_a(set_a):
    """Overconfident everywhere: |r| smooths to |mean gap|, below which no bandwidth can get."""
    probs, answers = set_a
    gap = metrics.mean_confidence(probs) - metrics.accuracy(probs, answers)
    assert metrics.smooth_ece(probs, answers) == pytest.approx(0.153304983393, abs=1e-6)
    assert metrics.smooth_ece(probs, answers) == pytest.approx(float(gap), abs=1e-6)
    assert metrics.smooth_ece(probs, answers, sigma=0.05) == pytest.approx(0.153304983393, abs=1e-6)
    # relplot 1.0.3: 0.153911956093 and 0.153643640112.
    assert metrics.smooth_ece(probs, answers) == pytest.approx(0.153911956093, abs=1e-3)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**31), levels=st.sampled_from([1, 3, 1 << 20]))
def test_properties(seed, levels):
    rng = np.random.default_rng(seed)
    top = (1 - rng.integers(0, levels, 60) / (2 * levels)).astype(np.float32)
    probs = np.stack([top, 1 - top], axis=1)
    answers, weights = rng.integers(0, 2, 60), rng.integers(0, 3, 60)
    weights[0] = 1
    value = metrics.smooth_ece(probs, answers)
    order = rng.permutation(60)
    assert metrics.smooth_ece(probs[order], answers[order]) == pytest.approx(float(value), abs=2e-7)
    gap = metrics.accuracy(probs, answers) - metrics.mean_confidence(probs)
    assert abs(gap) - 1e-6 <= value <= 1
    errors = [float(metrics.smooth_ece(probs, answers, sigma=s)) for s in (0.01, 0.1, 1.0)]
    assert errors[0] >= errors[1] - 1e-6 and errors[1] >= errors[2] - 1e-6
    # The bound of many small gaps: never above the mean |correct - confidence|.
    assert errors[0] <= np.abs((probs.argmax(1) == answers) - top).mean() + 1e-6
    repeated = np.repeat(np.arange(60), weights)
    assert metrics.smooth_ece(probs, answers, sigma=0.05, weights=weights) == pytest.approx(
        reference(probs[repeated], answers[repeated], 0.05), abs=3e-6
    )


def test_weights_merging_and_no_rows(draw):
    probs, answers = draw(60, 3)
    junk = np.concatenate([probs, np.full((5, 3), np.nan, np.float32)])
    labels = np.concatenate([answers, np.full(5, 99, np.int32)])
    whole = metrics.smooth_stats(probs, answers)
    for dtype in (np.int32, bool, np.float32):
        weights = (np.arange(65) < 60).astype(dtype)
        found = metrics.smooth_ece(junk, labels, weights=weights)
        assert found == pytest.approx(float(metrics.smooth_ece(probs, answers)), abs=1e-7)
    parts = [metrics.smooth_stats(probs[:20], answers[:20])]
    parts += [metrics.smooth_stats(probs[20:], answers[20:]), metrics.SmoothStats.empty()]
    merged = parts[2].merge(parts[0]).merge(parts[1])
    np.testing.assert_array_equal(merged.count, whole.count)
    np.testing.assert_array_equal(merged.correct, whole.correct)
    assert whole.count.dtype == jnp.int32 and int(whole.count.sum()) == 60
    for sigma in (None, 0.1):
        assert metrics.smooth_ece_from_stats(merged, sigma) == pytest.approx(
            float(metrics.smooth_ece(probs, answers, sigma=sigma)), abs=1e-7
        )
    both = jax.tree.map(lambda *x: jnp.stack(x), *parts[:2])
    for sigma in (None, 0.1):
        found = metrics.smooth_ece_from_stats(both, sigma)
        expected = metrics.smooth_ece(probs[:20], answers[:20], sigma=sigma)
        assert found.shape == (2,) and found[0] == pytest.approx(float(expected), abs=1e-6)
    assert np.isnan(metrics.smooth_ece_from_stats(metrics.SmoothStats.empty()))
    assert np.isnan(metrics.smooth_ece(np.ones((0, 3)), np.zeros(0, int)))
    assert np.isnan(metrics.smooth_ece(probs, answers, weights=np.zeros(60, int)))
    assert np.isnan(metrics.smooth_ece(junk, labels))
    assert metrics.smooth_ece([[0.5, 0.5]], [1]) == pytest.approx(0.5, abs=1e-6)


def test_masks_and_low_precision(draw):
    probs, answers = draw(50, 3)
    wide = np.concatenate([probs, np.full((50, 2), 7.0, np.float32)], axis=1)
    mask = np.arange(5) < np.full((50, 1), 3)
    assert metrics.smooth_ece(wide, answers, mask) == metrics.smooth_ece(probs, answers)
    low = jnp.asarray(probs, jnp.bfloat16)
    expected = metrics.smooth_ece(low.astype(jnp.float32), answers)
    assert metrics.smooth_ece(low, answers) == expected
    assert metrics.smooth_ece(low, answers).dtype == jnp.float32


def test_bandwidths_that_are_not_resolved(draw):
    probs, answers = draw(50, 3)
    assert np.isnan(metrics.smooth_ece(probs, answers, sigma=1e-4))
    assert np.isfinite(metrics.smooth_ece(probs, answers, sigma=1 / 2048))
    # Right and certain: no residual anywhere.
    assert metrics.smooth_ece([[1.0, 0.0]] * 3, [0, 0, 0]) == pytest.approx(0, abs=1e-7)
    # A gap smaller than the smallest bandwidth is reported as it is.
    sure = np.tile(np.float32([[4095 / 4096, 1 / 4096]]), (3, 1))
    assert metrics.smooth_ece(sure, [0, 0, 0]) == pytest.approx(1 / 4096, abs=1e-7)


def test_calibrated_goes_to_zero(draw):
    probs, answers = draw(100_000, 4, seed=5)
    assert metrics.smooth_ece(probs, answers) < 0.01


def test_many_rows_at_one_node_keep_their_sum():
    """What a running float32 sum would lose: many equal offsets, many confidences of one."""
    confidence = np.full(1 << 21, 0.70003, np.float32)
    confidence[::2] = 1.0
    probs = np.stack([confidence, 1 - confidence], axis=1)
    stats = metrics.smooth_stats(probs, np.zeros(1 << 21, np.int32))
    assert int(stats.count[8192]) == 1 << 20
    node = round(0.70003 * 8192)
    expected = (float(confidence[1]) * 8192 - node) * (1 << 20)
    assert float(stats.offset[node]) == pytest.approx(expected, rel=1e-3)
    exact = (1 - float(confidence[1])) / 2
    assert metrics.smooth_ece_from_stats(stats) == pytest.approx(exact, abs=1e-7)


def test_gradient_against_finite_differences(draw):
    probs, answers = (jnp.asarray(x) for x in draw(40, 3, seed=8, sharpness=2.0))
    probs = 0.9 * probs + 0.1 / 3  # a step does not leave [0, 1]

    def along(step, sigma):
        return metrics.smooth_ece(probs + step * direction, answers, sigma=sigma)

    direction = jnp.asarray(np.random.default_rng(1).normal(size=probs.shape), jnp.float32)
    for sigma in (None, 0.1):
        gradient = jax.grad(metrics.smooth_ece)(probs, answers, sigma=sigma)
        assert np.isfinite(gradient).all()
        slope = float((gradient * direction).sum())
        difference = (along(1e-3, sigma) - along(-1e-3, sigma)) / 2e-3
        assert slope == pytest.approx(float(difference), rel=0.01)
    flat = jax.grad(metrics.smooth_ece)(jnp.asarray([[1.0, 0.0]]), jnp.asarray([0]))
    assert np.isfinite(flat).all()


def test_bootstrap(draw):
    probs, answers = draw(200, 3, sharpness=2.0)
    low, high = metrics.bootstrap(metrics.smooth_ece, probs, answers, num_resamples=100)
    assert low < float(metrics.smooth_ece(probs, answers)) < high


def test_vmap_and_partial(draw):
    probs, answers = zip(*(draw(50, 4, seed=s) for s in range(3)), strict=True)
    fixed = functools.partial(metrics.smooth_ece, sigma=0.1)
    for metric in (metrics.smooth_ece, fixed):
        batched = jax.vmap(metric)(np.stack(probs), np.stack(answers))
        for b in range(3):
            assert batched[b] == pytest.approx(float(metric(probs[b], answers[b])), abs=1e-6)
