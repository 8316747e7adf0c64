import functools

import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.metrics import intervals

ALL = {
    "accuracy": metrics.accuracy,
    "conf_ece": metrics.conf_ece,
    "cw_ece": metrics.cw_ece,
    "nll": metrics.nll,
    "brier": metrics.brier,
    "auroc": metrics.auroc,
    "mean_confidence": metrics.mean_confidence,
    "top_letter_share": metrics.top_letter_share,
}


def test_equals_gathered_resamples(draw):
    """Weights are how often a row was drawn: the same rows gathered give the same quantiles."""
    probs, answers = draw(60, 3, seed=1)
    mask = np.ones((60, 3), bool)

    def spy(probs, answers, mask, weights):
        return weights

    low, high = metrics.bootstrap(spy, probs, answers, mask, num_resamples=1, seed=5)
    np.testing.assert_array_equal(low, high)
    assert low.sum() == 60 and low.max() > 1
    again = np.repeat(np.arange(60), low)
    interval = metrics.bootstrap_all(ALL, probs, answers, mask, num_resamples=1, seed=5)
    for name, metric in ALL.items():
        expected = float(metric(probs[again], answers[again]))
        assert interval[name] == pytest.approx((expected, expected), abs=1e-6)


def test_accuracy_interval_is_the_binomial_one(draw):
    probs, answers = draw(1000, 4, seed=2)
    accuracy = float(metrics.accuracy(probs, answers))
    low, high = metrics.bootstrap(metrics.accuracy, probs, answers, num_resamples=4000)
    half = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 1000)
    assert low == pytest.approx(accuracy - half, abs=0.15 * half)
    assert high == pytest.approx(accuracy + half, abs=0.15 * half)
    narrow = metrics.bootstrap(metrics.accuracy, probs, answers, level=0.5)
    assert low < narrow[0] < accuracy < narrow[1] < high


def test_conf_ece_interval_against_a_numpy_bootstrap(ref, draw):
    probs, answers = draw(150, 4, seed=3, sharpness=2.0)
    rng = np.random.default_rng(0)
    draws = [ref.conf_ece(probs[rows], answers[rows]) for rows in rng.integers(0, 150, (500, 150))]
    low, high = metrics.bootstrap(metrics.conf_ece, probs, answers, num_resamples=2000)
    np.testing.assert_allclose([low, high], np.quantile(draws, [0.025, 0.975]), atol=0.02)


def test_seed_decides(draw):
    probs, answers = draw(100, 4)
    same = [metrics.bootstrap(metrics.nll, probs, answers, seed=s) for s in (3, 3, 4)]
    assert same[0] == same[1] != same[2]


def test_chunks_do_not_matter(draw, monkeypatch):
    probs, answers = draw(100, 4)
    whole = metrics.bootstrap(metrics.nll, probs, answers, num_resamples=37)
    monkeypatch.setattr(intervals, "_CHUNK_ELEMENTS", 500)
    intervals._resampled.clear_cache()
    assert metrics.bootstrap(metrics.nll, probs, answers, num_resamples=37) == whole
    intervals._resampled.clear_cache()


def test_paired_interval_takes_the_same_rows_on_both_sides(draw):
    before, answers = draw(400, 4, sharpness=3.0)
    after, _ = draw(400, 4)
    fns = {"nll": metrics.nll, "accuracy": metrics.accuracy}
    same = metrics.paired_bootstrap_all(fns, before, before, answers)
    assert same == dict.fromkeys(fns, (0.0, 0.0))
    changed = metrics.paired_bootstrap_all(fns, before, after, answers)
    change = float(metrics.nll(after, answers) - metrics.nll(before, answers))
    assert changed["nll"][0] < change < changed["nll"][1] < 0
    # The predictions are the same on both sides, so accuracy cannot have changed; an interval of
    # each side alone is 0.1 wide.
    assert changed["accuracy"] == (0.0, 0.0)


def test_paired_shapes_must_agree():
    with pytest.raises(ValueError, match="before and after"):
        metrics.paired_bootstrap(metrics.nll, np.ones((3, 2)), np.ones((3, 1)), [0, 0, 0])


def test_infinite_and_undefined_resamples():
    probs = np.array([[0.9, 0.1]] * 29 + [[1.0, 0.0]])
    answers = np.array([0] * 29 + [1])
    low, high = metrics.bootstrap(metrics.nll, probs, answers)
    assert np.isfinite(low) and high == np.inf
    # One wrong row in 30: absent from a third of the resamples, which are left out.
    assert not np.isnan(metrics.bootstrap(metrics.auroc, probs, answers)).any()
    assert np.isnan(metrics.bootstrap(metrics.auroc, probs, answers * 0)).all()


def test_array_valued_metrics_and_bound_options(draw):
    probs, answers = draw(200, 4)

    def bin_accuracy(probs, answers, mask, weights):
        return metrics.bin_stats(probs, answers, mask, num_bins=5, weights=weights).accuracy()

    low, high = metrics.bootstrap(bin_accuracy, probs, answers)
    assert low.shape == high.shape == (5,)
    assert np.isnan(low[0]) and np.isnan(high[0])  # no confidence below 1/4
    assert (low[2:] < high[2:]).all()
    one_bin = functools.partial(metrics.conf_ece, num_bins=1)
    intervals = metrics.bootstrap_all({"1": one_bin, "10": metrics.conf_ece}, probs, answers)
    assert intervals["1"] != intervals["10"]


@pytest.mark.parametrize("bad", [{"level": 1.0}, {"level": 0.0}, {"num_resamples": 0}])
def test_bad_options(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        metrics.bootstrap(metrics.nll, np.ones((3, 1)), np.zeros(3, int), **bad)


def test_no_rows():
    low, high = metrics.bootstrap(metrics.accuracy, np.ones((0, 2)), np.zeros(0, int))
    assert np.isnan(low) and np.isnan(high)
