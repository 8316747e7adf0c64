"""Figures of pairs and text against plain numpy, and what is written read back."""

import dataclasses

import numpy as np
import pytest

from calib_jax.confidence.preference import PreferenceScores
from calib_jax.confidence.running_text import TextLosses
from calib_jax.errors import UserError
from calib_jax.reports.pairs import measure, predictions


def make_scores(seed, n=40, shift=0.0):
    rng = np.random.default_rng(seed)
    lengths = np.random.default_rng(7).integers(1, 9, (2, n)).astype(np.int32)
    logps = rng.normal(-12, 4, (2, n)) + [[shift], [-shift]]
    rates = np.where(np.arange(n) % 4 == 0, np.nan, 0.8)
    return PreferenceScores(*logps, *lengths, rates, tuple(f"p{i}" for i in range(n)))


def make_losses(seed, n=12):
    rng = np.random.default_rng(seed)
    sizes = np.random.default_rng(7).integers(5, 90, (3, n)).astype(np.int32)
    ids = tuple(f"d{i}" for i in range(n))
    return TextLosses(rng.gamma(9, 7, n), *sizes, ids, {"documents": n})


def test_pairs_of_one_model():
    scores, reference = make_scores(0, shift=1.0), make_scores(1)
    row = measure.measure_pairs(scores, reference, beta=0.3, num_resamples=300)
    plain = scores.chosen - scores.rejected
    normalised = scores.normalised_margins
    ratio = 1 / (1 + np.exp(-plain))
    known = ~np.isnan(scores.rates)
    rewards = 0.3 * (plain - (reference.chosen - reference.rejected))
    expected = {
        "accuracy": np.mean(plain > 0),
        "accuracy_normalised": np.mean(normalised > 0),
        "mean_margin": np.mean(plain),
        "mean_margin_normalised": np.mean(normalised),
        "chosen_log_prob": np.mean(scores.chosen),
        "rejected_log_prob": np.mean(scores.rejected),
        "mean_ratio": np.mean(ratio),
        "mean_ratio_normalised": np.mean(1 / (1 + np.exp(-normalised))),
        "mean_excess_normalised": np.mean((1 / (1 + np.exp(-normalised)))[known] - 0.8),
        "mean_excess": np.mean(ratio[known] - 0.8),
        "share_above_rate": np.mean(ratio[known] > 0.8),
        "mean_reward_margin": np.mean(rewards),
        "reward_accuracy": np.mean(rewards > 0),
    }
    for name, value in expected.items():
        assert row[name] == pytest.approx(value, abs=1e-5), name
        low, high = row[f"{name}_ci"]
        assert low <= row[name] <= high and low < high, name
    assert row["n"] == 40 and row["num_rated"] == 30
    assert row["preference_rate"] == pytest.approx(0.8)
    # The interval of a mean, against the normal one.
    half = 1.96 * plain.std() / np.sqrt(40)
    ends = np.array(row["mean_margin_ci"]) - row["mean_margin"]
    np.testing.assert_allclose(ends, [-half, half], rtol=0.2)


def test_change_is_paired():
    before = make_scores(0)
    after = dataclasses.replace(before, chosen=before.chosen + 2.0)
    row = measure.change_pairs(before, after, num_resamples=50)
    np.testing.assert_allclose([row["mean_margin"], *row["mean_margin_ci"]], 2.0, atol=1e-5)
    assert row["rejected_log_prob"] == 0 and row["rejected_log_prob_ci"] == [0, 0]
    moved = np.mean(after.margins > 0) - np.mean(before.margins > 0)
    assert row["accuracy"] == pytest.approx(moved)
    with pytest.raises(ValueError, match="other pairs"):
        measure.change_pairs(before, dataclasses.replace(after, ids=("x",) * 40))


def test_few_pairs_state_no_interval_and_no_rates_no_collapse():
    few = make_scores(0, n=3)
    assert measure.measure_pairs(few, num_resamples=10)["accuracy_ci"] == [None, None]
    unknown = dataclasses.replace(make_scores(0), rates=np.full(40, np.nan))
    row = measure.measure_pairs(unknown, num_resamples=10)
    assert "mean_excess" not in row and "preference_rate" not in row and "mean_ratio" in row
    with pytest.raises(ValueError, match="no pairs"):
        measure.measure_pairs(make_scores(0, n=0))


def test_text_and_its_drift():
    before, after = make_losses(0), make_losses(1)
    row = measure.measure_text(before, num_resamples=200)
    for name, size in (("nll", "tokens"), ("nll_per_word", "words"), ("nll_per_byte", "bytes")):
        value = before.nll.sum() / getattr(before, size).sum()
        assert row[name] == pytest.approx(value)
        assert row[f"{name}_ci"][0] < value < row[f"{name}_ci"][1]
    assert row["perplexity"] == pytest.approx(np.exp(row["nll"]))
    np.testing.assert_allclose(row["perplexity_ci"], np.exp(row["nll_ci"]))
    change = measure.change_text(before, after, num_resamples=200)
    moved = (after.nll.sum() - before.nll.sum()) / before.tokens.sum()
    assert change["nll"] == pytest.approx(moved)
    assert change["perplexity_ratio"] == pytest.approx(np.exp(moved))
    with pytest.raises(ValueError, match="other documents"):
        measure.change_text(before, make_losses(1, n=11))


def test_files_are_read_back_bit_for_bit(tmp_path):
    scores, losses = make_scores(0), make_losses(0)
    predictions.write_pairs(tmp_path / "pairs.parquet", scores)
    predictions.write_text(tmp_path / "text.parquet", losses)
    for found, given in (
        (predictions.read_pairs(tmp_path / "pairs.parquet"), scores),
        (predictions.read_text(tmp_path / "text.parquet"), losses),
    ):
        for field in dataclasses.fields(given):
            value, expected = getattr(found, field.name), getattr(given, field.name)
            np.testing.assert_array_equal(value, expected)
            assert getattr(value, "dtype", None) == getattr(expected, "dtype", None)
    with pytest.raises(UserError, match="not a file of scored"):
        predictions.read_text(tmp_path / "pairs.parquet")
    with pytest.raises(UserError, match="no such file"):
        predictions.read_pairs(tmp_path / "nothing.parquet")
