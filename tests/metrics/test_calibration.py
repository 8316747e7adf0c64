import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.metrics.kernels import kernels as metrics

BINNED = ["conf_ece", "cw_ece", "sce_ovr"]
EDGES = ["right", "left"]

# Any numbers in [0, 1], bin edges among them often; a binned metric needs no more.
VALUES = st.one_of(
    st.sampled_from([float(e) for e in metrics.bin_edges(10)]),
    # XLA takes numbers below the smallest normal one for 0; no row that sums to 1 hangs on them.
    st.floats(0, 1, width=32, allow_subnormal=False),
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


def test_set_a_golden_values_of_the_other_norms_and_means(set_a):
    """netcal 1.4, torchmetrics 1.9, uncertainty-calibration 0.1.4, PyCalib; 15 bins."""
    for edges in EDGES:
        figures = evaluate(*set_a, None, None, 15, edges)
        for name, golden in (
            ("mce", 0.222125875236),  # netcal.MCE
            ("rmsce", 0.162092965244),  # uncertainty-calibration, width, p = 2
            ("average_ce", 0.142663789429),  # netcal.ACE
            ("pooled_ece", 0.079124214058),  # PyCalib ece_full, torchmetrics on the ravelled arrays
            ("cw_l2", 0.096429112085),  # uncertainty-calibration, width, p = 2, marginal
        ):
            assert float(figures[name]) == pytest.approx(golden, abs=1e-6), (name, edges)


def test_edge_set_golden_values_of_the_other_norms_and_means(edge_set):
    """On values that lie on edges, 10 bins; each library in the convention that it shares."""
    right = evaluate(*edge_set, None, None, 10, "right")
    assert float(right["mce"]) == pytest.approx(0.543333333333, abs=1e-6)  # PyCalib conf_MCE
    # uncertainty-calibration 0.1.4, get_calibration_error with equal-width bins, p = 2.
    assert float(right["rmsce"]) == pytest.approx(0.314418239555, abs=1e-6)
    left = evaluate(*edge_set, None, None, 10, "left")
    # torchmetrics 1.9 of the float32 probabilities: per class, and of all probabilities at once.
    assert float(left["cw_ece"]) == pytest.approx(0.124305568635, abs=1e-6)
    assert float(left["pooled_ece"]) == pytest.approx(0.097916666667, abs=1e-6)


@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def evaluate(probs, answers, mask, weights, num_bins, edges):
    """All errors of this module at once: one compilation."""
    rows = (probs, answers, mask, num_bins, edges, weights)
    names = "conf_ece cw_ece mce rmsce average_ce pooled_ece overconfidence_error"
    figures = {
        name: getattr(metrics, name)(*rows) for name in (*names.split(), "underconfidence_error")
    }
    figures["by_confidence"] = metrics.overconfidence_error(*rows, by_confidence=True)
    for norm in ("l2", "max"):
        figures[f"cw_{norm}"] = metrics.cw_ece(*rows, norm=norm)
        figures[f"pooled_{norm}"] = metrics.pooled_ece(*rows, norm=norm)
    return figures


@settings(max_examples=30, deadline=None)
@given(probs=ROWS, answers=ANSWERS, mask=MASKS, weights=WEIGHTS, edges=st.sampled_from(EDGES))
def test_norms_and_means_equal_their_definitions(ref, probs, answers, mask, weights, edges):
    weights[0] = max(weights[0], 1)
    found = evaluate(probs, answers, mask, weights, 10, edges)

    def gaps(cells):
        """[(n, signed gap, mean confidence)] of the non-empty bins of (group, value, label, w)."""
        table = {}
        for group, value, label, w in cells:
            cell = table.setdefault((group, ref.bin_of(value, 10, edges)), np.zeros(3))
            cell += np.array([1, label, value], np.float64) * w
        return [(n, hits / n - total / n, total / n) for n, hits, total in table.values() if n]

    top, classes, pooled = [], [], []
    for p, y, valid, w in zip(probs, answers, mask, weights, strict=True):
        options = np.flatnonzero(valid)
        best = options[p[options].argmax()]
        top.append((0, p[best], best == y, int(w)))
        classes += [(k, p[k], k == y, int(w)) for k in options]
        pooled += [(0, p[k], k == y, int(w)) for k in options]
    top, classes, pooled = gaps(top), gaps(classes), gaps(pooled)

    def norms(bins):
        n = sum(count for count, _, _ in bins)
        return {
            "l1": sum(count * abs(g) for count, g, _ in bins) / n,
            "l2": np.sqrt(sum(count * g * g for count, g, _ in bins) / n),
            "max": max(abs(g) for _, g, _ in bins),
        }

    rows = sum(n for n, _, _ in top)
    expected = {
        "mce": norms(top)["max"],
        "rmsce": norms(top)["l2"],
        "average_ce": np.mean([abs(g) for _, g, _ in top]),
        "pooled_ece": norms(pooled)["l1"],
        "pooled_l2": norms(pooled)["l2"],
        "pooled_max": norms(pooled)["max"],
        "cw_l2": norms(classes)["l2"],
        "cw_max": norms(classes)["max"],
        "overconfidence_error": sum(n * max(-g, 0) for n, g, _ in top) / rows,
        "by_confidence": sum(n * max(-g, 0) * c for n, g, c in top) / rows,
        "underconfidence_error": sum(n * max(g, 0) for n, g, _ in top) / rows,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=2e-6, err_msg=name)
    over, under = found["overconfidence_error"], found["underconfidence_error"]
    np.testing.assert_allclose(over + under, found["conf_ece"], atol=1e-6)
    tiny = 1e-6
    assert found["conf_ece"] <= found["rmsce"] + tiny and found["rmsce"] <= found["mce"] + tiny
    assert found["pooled_ece"] <= found["cw_ece"] + tiny
    assert found["cw_ece"] <= found["cw_l2"] + tiny and found["cw_l2"] <= found["cw_max"] + tiny


def test_class_wise_l2_is_the_root_of_the_mean_square(draw):
    probs, answers = draw(200, 3, sharpness=2.0)
    stats = metrics.class_bin_stats(probs, answers)
    of_class = jax.vmap(functools.partial(metrics.ece_from_bins, norm="l2"))(stats)
    expected = np.sqrt(np.mean(np.square(of_class)))
    assert float(metrics.cw_ece(probs, answers, norm="l2")) == pytest.approx(expected, rel=1e-5)


def test_gradient_of_the_root_is_finite_where_the_error_is_zero():
    grad = jax.grad(metrics.rmsce)(jnp.full((4, 2), 0.5), jnp.array([0, 0, 1, 1]))
    assert np.array_equal(grad, np.zeros((4, 2)))


def test_unknown_norm_is_refused():
    with pytest.raises(ValueError, match='norm must be "l1", "l2" or "max", got \'l3\''):
        metrics.conf_ece([[0.5, 0.5]], [0], norm="l3")


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
    merged = functools.reduce(metrics.merge, parts)
    for norm in ("l1", "l2", "max"):
        whole = getattr(metrics, name)(probs, answers, norm=norm)
        np.testing.assert_allclose(metrics.ece_from_bins(merged, norm=norm), whole, atol=1e-6)
    if name == "cw_ece":
        pooled = metrics.ece_from_bins(metrics.pool_classes(merged))
        np.testing.assert_allclose(pooled, metrics.pooled_ece(probs, answers), atol=1e-6)


def test_gradient_is_that_of_the_mean_confidence_inside_the_bins(draw):
    probs, answers = draw(64, 4, sharpness=4.0)
    grad = jax.grad(metrics.conf_ece)(jnp.asarray(probs), answers)
    top = np.asarray(grad)[np.arange(64), probs.argmax(axis=1)]
    sign = -np.sign(np.asarray(metrics.bin_stats(probs, answers).gap()))
    np.testing.assert_allclose(top, sign[metrics.bin_index(probs.max(axis=1))] / 64, rtol=1e-5)
    assert np.count_nonzero(grad) == np.count_nonzero(top)
