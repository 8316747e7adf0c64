import functools
import math

import jax
import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.metrics import draws, intervals

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
    low, high = metrics.bootstrap(
        metrics.conf_ece, probs, answers, num_resamples=2000, method="percentile"
    )
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


def test_methods_on_known_draws():
    """The three formulas, on draws whose quantiles and mean are plain."""
    draws, estimate = np.arange(1025) / 1024, np.float64(0.125)
    shift = 0.375 - 2 * np.std(draws, ddof=1) / np.sqrt(1025)  # the mean is 0.5
    known = functools.partial(intervals.interval, draws, estimate, 0.5)
    np.testing.assert_allclose(known("percentile"), (0.25, 0.75))
    np.testing.assert_allclose(known("basic", signed=True), (-0.5, 0))
    low = min(0.25 - 5 * shift, 0.25 - 0.75 - 3 * shift)
    np.testing.assert_allclose(known("bias_aware", signed=True), (low, 0.75 - shift))
    # Nothing drawn is negative, so a low end below 0 reads 0.
    assert known("bias_aware")[0] == known("basic")[0] == 0
    mirrored = functools.partial(intervals.interval, -draws, -estimate, 0.5)
    np.testing.assert_allclose(mirrored("bias_aware", signed=True), (shift - 0.75, -low))
    np.testing.assert_allclose(mirrored("bias_aware"), mirrored("percentile"))


def test_default_interval_of_a_biased_metric_holds_the_truth(draw):
    """Calibrated rows: the true error is 0, which no percentile interval reaches."""
    probs, answers = draw(100, 4)
    percentile = metrics.bootstrap(metrics.conf_ece, probs, answers, method="percentile")
    low, high = metrics.bootstrap(metrics.conf_ece, probs, answers)
    assert low == 0 < percentile[0]
    assert high < percentile[1]
    assert low < float(metrics.conf_ece(probs, answers)) < high
    same = [metrics.bootstrap(metrics.brier, probs, answers, method=m) for m in intervals.METHODS]
    np.testing.assert_allclose(same[0], same[1], atol=0.01)


def test_counts_are_drawing_with_replacement():
    """Mean, variance, covariance and the count distribution of a multinomial; every sum is N."""
    num_rows = 200  # beyond the size up to which every row is drawn one by one
    plan = draws.strata(num_rows)
    assert len(plan.slot_rank) < num_rows

    def counts(key):
        return draws.row_counts(key, plan)

    drawn = np.asarray(jax.jit(jax.vmap(counts))(jax.random.split(jax.random.key(0), 4000)))
    assert (drawn.sum(axis=1) == num_rows).all()
    # 800,000 counts: the standard errors of these figures are about 0.001.
    np.testing.assert_allclose(drawn.var(), 1 - 1 / num_rows, atol=0.01)
    share = np.bincount(drawn.ravel(), minlength=7)[:7] / drawn.size
    binomial = [
        math.comb(num_rows, k) * (1 / num_rows) ** k * (1 - 1 / num_rows) ** (num_rows - k)
        for k in range(7)
    ]
    np.testing.assert_allclose(share, binomial, atol=0.002)
    spread = drawn.mean(axis=0).std() * np.sqrt(4000)  # one standard deviation if rows are alike
    assert 0.85 < spread < 1.15
    halves = drawn[:, : num_rows // 2].sum(axis=1)
    np.testing.assert_allclose(halves.var(), num_rows / 4, rtol=0.1)


@pytest.mark.parametrize("sizes", [(3, 57), (300, 500)])
def test_strata_keep_their_sizes(draw, sizes):
    names = np.repeat(["b", "a"], sizes)
    order = np.random.default_rng(0).permutation(sum(sizes))
    names = names[order]
    probs, answers = draw(sum(sizes), 3)

    def spy(probs, answers, mask, weights):
        return weights

    low, _ = metrics.bootstrap(spy, probs, answers, num_resamples=1, strata=names)
    assert low[names == "b"].sum() == sizes[0] and low[names == "a"].sum() == sizes[1]
    assert low.max() > 1
    numbers = np.where(names == "b", 7, -2)  # any labels: only who is with whom matters...
    again, _ = metrics.bootstrap(spy, probs, answers, num_resamples=1, strata=numbers)
    np.testing.assert_array_equal(low, again)  # ...and their sorted order


def test_strata_narrow_the_interval(draw):
    """Accuracy that differs between groups only: no variance is left within them."""
    probs = np.tile(np.float32([0.75, 0.25]), (200, 1))
    answers = np.repeat([0, 1], 100)
    wide = metrics.bootstrap(metrics.accuracy, probs, answers)
    assert wide[0] < 0.45 and wide[1] > 0.55
    assert metrics.bootstrap(metrics.accuracy, probs, answers, strata=answers) == (0.5, 0.5)
    pair = metrics.paired_bootstrap(
        metrics.accuracy, probs, probs[:, ::-1], answers, strata=answers
    )
    assert pair == (0.0, 0.0)


def test_bad_input_is_refused():
    good, answers = np.full((3, 2), 0.5), np.zeros(3, int)
    with pytest.raises(ValueError, match="row 1 sums to"):
        metrics.bootstrap(metrics.nll, good + [[0, 0], [0, 0.1], [0, 0]], answers)
    with pytest.raises(ValueError, match="after: row 2 does not hold probabilities"):
        after = np.array([[0.5, 0.5], [0.5, 0.5], [-1.0, 2.0]])
        metrics.paired_bootstrap(metrics.nll, good, after, answers)
    with pytest.raises(ValueError, match="strata must have shape"):
        metrics.bootstrap(metrics.nll, good, answers, strata=[1, 2])
    with pytest.raises(ValueError, match="integers or strings, got NoneType"):
        metrics.bootstrap(metrics.nll, good, answers, strata=["a", None, "b"])
    with pytest.raises(ValueError, match="integers or strings, got float"):
        metrics.bootstrap(metrics.nll, good, answers, strata=[0.5, 1.0, 2.0])


@pytest.mark.parametrize(
    "bad", [{"level": 1.0}, {"level": 0.0}, {"num_resamples": 0}, {"method": "bca"}]
)
def test_bad_options(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        metrics.bootstrap(metrics.nll, np.ones((3, 1)), np.zeros(3, int), **bad)


def test_no_rows():
    low, high = metrics.bootstrap(metrics.accuracy, np.ones((0, 2)), np.zeros(0, int))
    assert np.isnan(low) and np.isnan(high)
