"""The figures of next-token predictions."""

import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.reports.lifecycle.measure import INTERVALS, measure


def test_figures_are_those_of_the_metrics(make_tokens):
    tokens = make_tokens(lift=0.25)
    row = measure(tokens, num_resamples=100)
    assert row["n"] == 120 and row["documents"] == 40
    assert row["intervals"] == INTERVALS["positions"][0]
    assert row["accuracy"] == pytest.approx(tokens.correct.mean())
    assert row["mean_confidence"] == pytest.approx(tokens.confidences.mean(), abs=1e-6)
    assert row["overconfidence"] == pytest.approx(row["mean_confidence"] - row["accuracy"])
    assert row["nll"] == pytest.approx(-tokens.log_probs.mean(), rel=1e-5)
    assert row["conf_ece"] == metrics.binary_ece(tokens.confidences, tokens.correct)
    assert row["conf_ece"] > row["conf_ece_null_q95"] > 0
    for name in ("accuracy", "mean_confidence", "conf_ece", "nll"):
        low, high = row[f"{name}_ci"]
        assert low < row[name] < high
    assert row["counts"] == tokens.counts and "groups" not in row


def test_calibrated_predictions_have_an_interval_from_zero(make_tokens):
    row = measure(make_tokens(200), num_resamples=100)
    assert row["conf_ece"] <= row["conf_ece_null_q95"] and row["conf_ece_ci"][0] == 0


def test_one_position_a_document_is_an_ordinary_bootstrap(make_tokens):
    tokens = make_tokens(50, 1, relations=("P1", "P2"))
    row = measure(tokens, num_resamples=50)
    assert row["intervals"] == INTERVALS["positions"][1]
    of_facts = measure(tokens, "facts", num_resamples=50)
    assert "document" not in of_facts.pop("intervals") and row.pop("intervals")
    assert of_facts == row
    wilson = metrics.wilson_interval(tokens.correct.sum(), 50)
    assert row["accuracy_ci"] == [float(end) for end in wilson]
    assert [group["group"] for group in row["groups"]] == ["P1", "P2"]
    mine = np.array(tokens.relations) == "P2"
    assert row["groups"][1]["accuracy"] == pytest.approx(tokens.correct[mine].mean())


def test_bins_and_edges_reach_the_error(make_tokens):
    tokens = make_tokens()
    five = measure(tokens, num_bins=5, edges="left", num_resamples=20)["conf_ece"]
    assert five == metrics.binary_ece(tokens.confidences, tokens.correct, 5, "left")
    assert five != measure(tokens, num_resamples=20)["conf_ece"]
