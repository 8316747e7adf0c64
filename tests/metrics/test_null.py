import functools

import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.metrics import null

ECE15 = functools.partial(metrics.conf_ece, num_bins=15)


def test_calibrated_four_way_model_at_100_rows(draw):
    """Mean conf-ECE 0.110 and 95 % quantile 0.153 in an independent simulation of 300 samples.

    Softmax of N(0, 1.5^2) scores, 15 bins; the quantile's own standard error there is 0.004.
    """
    found = []
    for seed in range(10):
        scores = 1.5 * np.random.default_rng(seed).normal(size=(100, 4))
        probs = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
        draws = metrics.null_distribution(ECE15, probs, num_draws=300)
        found.append((draws.mean(), np.quantile(draws, 0.95)))
    np.testing.assert_allclose(np.mean(found, axis=0), (0.110, 0.153), atol=0.008)


def test_answers_follow_the_probabilities_and_the_mask():
    probs = np.array([[0.0, 0.5, 0.25, 0.25, 0.0], [1.0, 0, 0, 0, 0], [0, 0, 0, 0, 1.0]])
    mask = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1]], bool)

    def spy(probs, answers, mask, weights):
        return answers

    drawn = metrics.null_distribution(spy, probs, mask, num_draws=4000)
    assert drawn.shape == (4000, 3)
    share = np.bincount(drawn[:, 0], minlength=5) / 4000
    np.testing.assert_allclose(share, probs[0], atol=0.03)
    assert share[0] == share[4] == 0  # probability 0 is never drawn
    assert (drawn[:, 1] == 0).all() and (drawn[:, 2] == 4).all()


def test_draws_do_not_depend_on_the_other_metrics_or_the_chunk(draw, monkeypatch):
    probs, _ = draw(60, 4)
    both = {"ece": metrics.conf_ece, "nll": metrics.nll}
    draws = metrics.null_all(both, probs, num_draws=50, seed=3)
    alone = metrics.null_distribution(metrics.nll, probs, num_draws=50, seed=3)
    np.testing.assert_allclose(draws["nll"], alone, rtol=1e-6)
    other = metrics.null_distribution(metrics.nll, probs, num_draws=50, seed=4)
    assert (other != alone).any()
    from calib_jax.metrics import intervals, null

    monkeypatch.setattr(intervals, "_CHUNK_ELEMENTS", 700)
    null._drawn.clear_cache()
    chunked = metrics.null_distribution(metrics.nll, probs, num_draws=50, seed=3)
    null._drawn.clear_cache()
    np.testing.assert_allclose(chunked, alone, rtol=1e-6)


def test_quantile_is_an_order_statistic_and_grows_with_the_level(draw):
    probs, _ = draw(60, 4)
    draws = np.sort(metrics.null_distribution(metrics.conf_ece, probs, num_draws=101))
    low = metrics.null_quantile(metrics.conf_ece, probs, level=0.5, num_draws=101)
    assert low == draws[50]
    # Above it lie four draws, and 5/102 is a p below 0.05; 6/102 is none.
    assert metrics.null_quantile(metrics.conf_ece, probs, num_draws=101) == draws[96]


def test_undefined_draws_are_left_out():
    """One row of probability 0.5: AUROC is NaN whatever is drawn."""
    assert np.isnan(metrics.null_quantile(metrics.auroc, [[0.5, 0.5]], num_draws=20))
    # Two rows: defined in about half of the draws, and then 0 or 1.
    quantile = metrics.null_quantile(metrics.auroc, [[0.9, 0.1], [0.6, 0.4]], num_draws=200)
    assert quantile == 1.0


def test_bad_options_and_arrays():
    with pytest.raises(ValueError, match="level"):
        metrics.null_quantile(metrics.nll, [[1.0]], level=1.0)
    with pytest.raises(ValueError, match="num_draws"):
        metrics.null_quantile(metrics.nll, [[1.0]], num_draws=0)
    with pytest.raises(ValueError, match="row 1 sums to 0.9"):
        metrics.null_quantile(metrics.nll, [[0.5, 0.5], [0.5, 0.4]])
    assert np.isnan(metrics.null_quantile(metrics.nll, np.ones((0, 2))))


def test_the_low_end_is_above_0_exactly_where_the_test_rejects():
    rng = np.random.default_rng(0)
    for level in (0.5, 0.9, 0.95):
        for count in (19, 21, 50, 99, 100):
            # Few distinct values, so that ties with the draws occur.
            draws = rng.integers(0, 8, (count, 60)) / 8
            observed = rng.integers(0, 10, 60) / 8
            p = (1 + (draws >= observed).sum(axis=0)) / (1 + count)
            np.testing.assert_allclose(null.p_value(draws, observed), p)
            above = observed > null.upper_quantile(draws, level)
            np.testing.assert_array_equal(above, p <= 1 - level + 1e-12)
            for low in (np.zeros(60), np.full(60, -0.25), observed * 0.5):
                found = metrics.low_by_test(low, observed, draws, level)
                np.testing.assert_array_equal(found > 0, p <= 1 - level + 1e-12)
                assert (found[found > 0] <= observed[found > 0]).all() and (found >= 0).all()
    assert np.isnan(metrics.low_by_test(0.0, np.float64(np.nan), np.zeros(9)))
