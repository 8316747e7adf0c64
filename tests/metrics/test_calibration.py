import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from calib_jax import metrics

BINNED = ["conf_ece", "cw_ece", "sce_ovr"]
EDGES = ["right", "left"]

# Any numbers in [0, 1], bin edges among them often; a binned metric needs no more.
VALUES = st.one_of(
    st.sampled_from([float(e) for e in metrics.bin_edges(10)]), st.floats(0, 1, width=32)
)
ROWS = hnp.arrays(np.float32, (24, 4), elements=VALUES)
ANSWERS = hnp.arrays(np.int32, 24, elements=st.integers(0, 3))
WEIGHTS = hnp.arrays(np.int32, 24, elements=st.integers(0, 3))
MASKS = hnp.arrays(bool, (24, 4)).map(lambda mask: mask | (np.arange(4) == 1))


def test_edge_set_golden_values(edge_set):
    probs, answers = edge_set
    assert metrics.conf_ece(probs, answers, edges="left") == pytest.approx(0.241666667, abs=1e-6)
    assert metrics.conf_ece(probs, answers, edges="right") == pytest.approx(0.270833333, abs=1e-6)
    # PyCalib's classwise_ECE prints this value too.
    assert metrics.cw_ece(probs, answers, edges="right") == pytest.approx(0.135972222, abs=1e-6)


def test_set_a_golden_values(set_a):
    conf, cw = (metric(*set_a, num_bins=15) for metric in (metrics.conf_ece, metrics.cw_ece))
    assert conf == pytest.approx(0.154659110739, abs=1e-6)
    assert cw == pytest.approx(0.079572744999, abs=1e-6)


@pytest.mark.parametrize("name", BINNED)
@settings(max_examples=30, deadline=None)
@given(probs=ROWS, answers=ANSWERS, edges=st.sampled_from(EDGES), bins=st.sampled_from([1, 10]))
def test_equals_the_definition(ref, name, probs, answers, edges, bins):
    value = getattr(metrics, name)(probs, answers, None, bins, edges)
    assert value == pytest.approx(getattr(ref, name)(probs, answers, None, bins, edges), abs=1e-6)


@pytest.mark.parametrize("name", BINNED)
@settings(max_examples=30, deadline=None)
@given(probs=ROWS, answers=ANSWERS, mask=MASKS, weights=WEIGHTS)
def test_equals_the_definition_with_mask_and_weights(ref, name, probs, answers, mask, weights):
    value = getattr(metrics, name)(probs, answers, mask, weights=weights)
    expected = getattr(ref, name)(probs, answers, mask, weights=weights)
    np.testing.assert_allclose(value, expected, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(probs=ROWS, answers=ANSWERS, seed=st.integers(0, 1000))
def test_bounds_and_permutation(probs, answers, seed):
    overconfidence = metrics.mean_confidence(probs, answers) - metrics.accuracy(probs, answers)
    assert abs(float(overconfidence)) <= float(metrics.conf_ece(probs, answers)) + 1e-6
    order = np.random.default_rng(seed).permutation(24)
    for name in BINNED:
        value = getattr(metrics, name)(probs, answers)
        assert 0 <= float(value) <= 1
        permuted = getattr(metrics, name)(probs[order], answers[order])
        np.testing.assert_allclose(permuted, value, atol=1e-6)


def test_one_bin_is_the_overconfidence(set_a):
    gap = metrics.mean_confidence(*set_a) - metrics.accuracy(*set_a)
    assert metrics.conf_ece(*set_a, num_bins=1) == pytest.approx(float(gap), abs=1e-6)


@pytest.mark.parametrize("name", BINNED)
def test_every_number_of_options_from_1_to_26(ref, draw, name):
    """Options beyond K are masked out of 26 columns: the value is that of the K columns alone."""
    metric = getattr(metrics, name)
    for num_options in range(1, 27):
        probs, answers = draw(40, num_options, seed=num_options)
        wide = np.full((40, 26), 0.5, np.float32)  # what lies under the mask is not read
        wide[:, :num_options] = probs
        mask = np.broadcast_to(np.arange(26) < num_options, (40, 26))
        expected = getattr(ref, name)(probs, answers)
        assert metric(wide, answers, mask) == pytest.approx(expected, abs=1e-6)
        if num_options in (1, 2, 26):
            assert metric(probs, answers) == pytest.approx(expected, abs=1e-6)


def test_cw_ece_over_ragged_options_counts_existing_pairs(draw):
    """One row with a fifth option does not divide everything by 5 instead of 4."""
    probs, answers = draw(1000, 4, sharpness=3.0)
    four = float(metrics.cw_ece(probs, answers))
    wide = np.pad(probs, [(0, 0), (0, 1)])
    mask = np.broadcast_to(np.arange(5) < 4, (1000, 5)).copy()
    mask[0, 4] = True
    assert float(metrics.cw_ece(wide, answers, mask)) == pytest.approx(four, rel=1e-3)


def test_labels_drawn_from_the_probabilities_give_about_zero(draw):
    probs, answers = draw(50_000, 4)
    assert float(metrics.conf_ece(probs, answers)) < 0.01
    assert float(metrics.cw_ece(probs, answers)) < 0.006
    sharper, _ = draw(50_000, 4, sharpness=3.0)
    assert float(metrics.conf_ece(sharper, answers)) > 0.1


@pytest.mark.parametrize("sharpness", [0.5, 2.0])
def test_confidence_replaced_by_bin_accuracy_gives_zero(draw, sharpness):
    probs, answers = draw(3000, 4, sharpness=sharpness)
    kept = probs.max(axis=1) > 0.4  # no bin of a few rows
    probs, answers = probs[kept], answers[kept]
    stats = metrics.bin_stats(probs, answers)
    accuracy = np.asarray(stats.accuracy())[np.asarray(metrics.bin_index(probs.max(axis=1)))]
    # The other options share the rest equally; below 1/4 another option would be predicted.
    assert accuracy.min() > 0.25
    repaired = np.repeat((1 - accuracy)[:, None] / 3, 4, axis=1)
    np.put_along_axis(repaired, probs.argmax(axis=1)[:, None], accuracy[:, None], axis=1)
    assert float(metrics.conf_ece(repaired, answers)) < 1e-6


def test_sce_ovr_measures_sharpness_not_calibration(draw):
    """A certain and perfect model scores 1 - 1/K, a calibrated one by its accuracy alone."""
    certain = np.eye(4, dtype=np.float32)[[0, 1, 2, 3] * 5]
    assert float(metrics.sce_ovr(certain, [0, 1, 2, 3] * 5)) == pytest.approx(0.75)
    assert float(metrics.cw_ece(certain, [0, 1, 2, 3] * 5)) == 0
    # Published levels for calibrated 4-way data: .397, .512, .692 at accuracy .29, .52, .88.
    for concentration, level, at in ((20.0, 0.397, 0.29), (1.0, 0.512, 0.52), (0.08, 0.692, 0.88)):
        rng = np.random.default_rng(0)
        probs = rng.dirichlet(np.full(4, concentration), size=50_000)
        answers = (probs.cumsum(axis=1) < rng.random((50_000, 1))).sum(axis=1).clip(max=3)
        accuracy = float(metrics.accuracy(probs, answers))
        value = float(metrics.sce_ovr(probs, answers))
        assert value == pytest.approx(0.75 * (1 - 2 * (1 - accuracy) / 3), abs=0.02)
        # Those data have somewhat other accuracies; along the formula the slope is 1/2.
        assert value == pytest.approx(level + (accuracy - at) / 2, abs=0.02)
        assert float(metrics.cw_ece(probs, answers)) < 0.01


@pytest.mark.parametrize("equal", [False, True])
def test_conf_ece_at_ten_million_rows_is_exact_to_1e_6(equal):
    """A one-level float32 scatter-add is wrong by 3.7e-3 here, and by more for equal values."""
    num_rows = 10_000_000
    rng = np.random.default_rng(0)
    confidence = 1 - rng.random(num_rows, dtype=np.float32)  # (0, 1]
    if equal:
        confidence[:] = 0.9371
    wrong = (rng.random(num_rows, dtype=np.float32) > 0.8 * confidence).astype(np.int32)
    # One option: the prediction is 0, right where the answer is 0.
    value = float(metrics.conf_ece(confidence[:, None], wrong, num_bins=15))
    index = np.ceil(confidence.astype(np.float64) * 15).astype(np.int64) - 1
    gap = np.bincount(index, weights=confidence.astype(np.float64) - (1 - wrong), minlength=15)
    # Multiplying puts a few rows on an edge into the neighbouring bin: 1e-7 of ECE at most.
    assert value == pytest.approx(np.abs(gap).sum() / num_rows, abs=1e-6)


@pytest.mark.parametrize("name", ["conf_ece", "cw_ece"])
def test_errors_are_functions_of_merged_statistics(draw, name):
    stats_fn = metrics.bin_stats if name == "conf_ece" else metrics.class_bin_stats
    probs, answers = draw(400, 4, sharpness=2.0)
    parts = [stats_fn(probs[i::4], answers[i::4]) for i in range(4)]
    merged = metrics.ece_from_bins(functools.reduce(metrics.merge, parts))
    np.testing.assert_allclose(merged, getattr(metrics, name)(probs, answers), atol=1e-6)


def test_gradient_is_that_of_the_mean_confidence_inside_the_bins(draw):
    probs, answers = draw(64, 4, sharpness=4.0)
    grad = jax.grad(metrics.conf_ece)(jnp.asarray(probs), answers)
    top = np.asarray(grad)[np.arange(64), probs.argmax(axis=1)]
    sign = -np.sign(np.asarray(metrics.bin_stats(probs, answers).gap()))
    np.testing.assert_allclose(top, sign[metrics.bin_index(probs.max(axis=1))] / 64, rtol=1e-5)
    assert np.count_nonzero(grad) == np.count_nonzero(top)
