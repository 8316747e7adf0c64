"""Calibration of a confidence against an outcome: against [N, K], plain loops and simulation."""

import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.metrics.intervals import interval


def draw(n=400, seed=0, lift=0.0):
    rng = np.random.default_rng(seed)
    confidence = rng.random(n).astype(np.float32)
    return confidence, rng.random(n) < np.clip(confidence - lift, 0, 1)


@pytest.mark.parametrize("edges", ["right", "left"])
def test_the_bins_are_those_of_the_predictions_that_were_reduced(edge_set, edges):
    """From [24, 4] and from its two columns: the same counts and sums, ties and edges included."""
    probs, answers = (np.asarray(x) for x in edge_set)
    probs = probs.astype(np.float32)
    confidence, correct = probs.max(axis=1), probs.argmax(axis=1) == answers
    whole = metrics.bin_stats(probs, answers, edges=edges)
    found = metrics.binary_bin_stats(confidence, correct, edges=edges)
    for name in ("count", "correct", "confidence"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name), name)
    assert metrics.binary_ece(confidence, correct, edges=edges) == pytest.approx(
        float(metrics.conf_ece(probs, answers, edges=edges)), abs=1e-7
    )


def test_confidences_below_one_half_stay_what_they_are():
    """[c, 1 - c] would turn them round: 0.2 wrong is calibrated to 0.2, not to 0.8."""
    assert metrics.binary_ece([0.25] * 4, [False, False, False, True]) == pytest.approx(0.0)
    assert metrics.binary_ece([0.25] * 4, [False] * 4) == pytest.approx(0.25)


def plain_ece(confidence, correct):
    """conf-ECE by loops in float64."""
    edges, error = metrics.bin_edges(10), 0.0
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        rows = (confidence > low) & (confidence <= high)
        if low == 0:
            rows |= confidence == 0
        if rows.any():
            gap = correct[rows].mean() - confidence[rows].astype(float).mean()
            error += rows.mean() * abs(gap)
    return error


def test_the_error_equals_plain_loops():
    confidence, correct = draw()
    assert metrics.binary_ece(confidence, correct) == pytest.approx(
        plain_ece(confidence, correct), abs=1e-6
    )


def test_without_clusters_the_intervals_are_those_of_the_bootstrap_over_rows():
    confidence, correct = draw(600, lift=0.15)
    rng = np.random.default_rng(1)
    rows = [rng.integers(0, 600, 600) for _ in range(1000)]
    estimate = plain_ece(confidence, correct)
    draws = np.array([plain_ece(confidence[r], correct[r]) for r in rows])
    expected = interval(draws, np.float64(estimate), 0.95, "bias_aware")
    found = metrics.cluster_bootstrap(confidence, correct, seed=2)
    np.testing.assert_allclose(found["conf_ece"], expected, atol=0.01)
    accuracy = np.quantile([correct[r].mean() for r in rows], [0.025, 0.975])
    np.testing.assert_allclose(found["accuracy"], accuracy, atol=0.01)


def test_clusters_widen_the_interval_as_their_correlation_demands():
    """Ten equal rows a cluster: the interval of a tenth of the rows, not of all of them."""
    confidence, correct = draw(80)
    clusters = np.repeat(np.arange(80), 10)
    tenfold = np.repeat(confidence, 10), np.repeat(correct, 10)
    level = metrics.expanded_level(0.95, 80)
    apart = metrics.cluster_bootstrap(confidence, correct, seed=3, level=level)
    grouped = metrics.cluster_bootstrap(*tenfold, clusters=clusters, seed=3)
    for name in apart:  # the very same resamples
        assert grouped[name] == pytest.approx(apart[name]), name
    naive = metrics.cluster_bootstrap(*tenfold, seed=3)["accuracy"]
    wide, narrow = (high - low for low, high in (grouped["accuracy"], naive))
    assert 2.5 < wide / narrow < 4.0  # sqrt(10) = 3.2


def test_names_of_clusters_and_further_columns():
    confidence, correct = draw(60)
    names = [f"doc {i % 7}" for i in range(60)]
    value = np.arange(60.0)
    found = metrics.cluster_bootstrap(confidence, correct, {"value": value}, names)
    again = metrics.cluster_bootstrap(
        confidence, correct, {"value": value}, [i % 7 for i in range(60)]
    )
    assert found == again and found["value"][0] < value.mean() < found["value"][1]


def test_cluster_intervals_hold_the_truth():
    """Outcomes that are right or wrong by whole documents: about 95 of 100 intervals hold it."""
    held = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        shift = np.repeat(rng.choice([-0.2, 0.2], 60), 8)
        confidence = rng.uniform(0.3, 0.7, 480).astype(np.float32)
        correct = rng.random(480) < confidence + shift
        low, high = metrics.cluster_bootstrap(
            confidence, correct, clusters=np.repeat(np.arange(60), 8), num_resamples=200, seed=seed
        )["accuracy"]
        held += low <= 0.5 <= high
    assert 88 <= held <= 99


def test_the_null_quantile_is_what_calibrated_samples_exceed_one_time_in_twenty():
    confidence, _ = draw(300)
    limit = metrics.binary_null_quantile(confidence, num_draws=500)
    rng = np.random.default_rng(5)
    eces = [plain_ece(confidence, rng.random(300) < confidence) for _ in range(300)]
    assert 0.01 < np.mean(np.array(eces) > limit) < 0.10


def test_the_table_by_group_knows_of_clusters():
    confidence, correct = draw(80)
    tenfold = np.repeat(confidence, 10), np.repeat(correct, 10)
    groups, code = np.repeat(["a", "b"], 400), np.repeat(np.arange(80), 10)
    rows = metrics.binary_group_table(*tenfold, groups, num_draws=20, clusters=code)
    alone = metrics.binary_group_table(*tenfold, groups, num_draws=20)
    for row, other, half in zip(rows, alone, (slice(40), slice(40, 80)), strict=True):
        # Ten equal rows are worth one, less what Student's t takes off.
        low, high = metrics.wilson_interval(correct[half].sum(), 40)
        wide = row["accuracy_ci"][1] - row["accuracy_ci"][0]
        assert high - low < wide < 1.1 * (high - low)
        assert row == other | {"accuracy_ci": row["accuracy_ci"]}


def test_the_table_by_group_is_each_group_by_itself():
    confidence, correct = draw(300)
    groups = np.array(["b", "a", "c"])[np.arange(300) % 3]
    rows = metrics.binary_group_table(confidence, correct, groups, num_draws=300)
    assert [row["group"] for row in rows] == ["a", "b", "c"]
    for row in rows:
        mine = groups == row["group"]
        assert row["n"] == 100 and row["accuracy"] == pytest.approx(correct[mine].mean())
        assert row["mean_confidence"] == pytest.approx(confidence[mine].mean(), abs=1e-6)
        ece = plain_ece(confidence[mine], correct[mine])
        assert row["conf_ece"] == pytest.approx(ece, abs=1e-6)
        alone = metrics.binary_null_quantile(confidence[mine], num_draws=300, seed=9)
        assert row["conf_ece_null_q95"] == pytest.approx(alone, rel=0.15)
        low, high = row["accuracy_ci"]
        assert low < row["accuracy"] < high


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([0.5, 1.5], [True, False], "row 1 has the confidence 1.5"),
        ([0.5, float("nan")], [True, False], "row 1 has the confidence nan"),
        ([0.5], [1], "correct must be bool"),
        ([0.5], [True, False], "must be"),
        ([[0.5]], [[True]], "must be"),
    ],
)
def test_bad_input_is_refused(confidence, correct, message):
    with pytest.raises(ValueError, match=message):
        metrics.binary_bin_stats(confidence, correct)
    with pytest.raises(ValueError, match=message):
        metrics.cluster_bootstrap(confidence, correct)


def test_no_rows_and_wrong_clusters_are_refused():
    with pytest.raises(ValueError, match="0 rows"):
        metrics.cluster_bootstrap([], np.zeros(0, bool))
    with pytest.raises(ValueError, match="clusters of shape"):
        metrics.cluster_bootstrap([0.5], [True], clusters=[1, 2])
