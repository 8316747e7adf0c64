import math

import numpy as np
import pytest
import scipy.special
import scipy.stats

from calib_jax import metrics
from calib_jax.metrics import significance


def _greater(probs, answers):
    return metrics.spiegelhalter_test(probs, answers, alternative="greater")


@pytest.fixture(scope="module")
def calibrated():
    """The recipe of set A at scale 1 and seed 3: answers drawn from the probabilities."""
    uniform = np.random.Generator(np.random.PCG64(3)).random((10_000, 9))
    normal = np.sqrt(-2 * np.log1p(-uniform[:, :4])) * np.cos(2 * np.pi * uniform[:, 4:8])
    probs = scipy.special.softmax(1.5 * normal, axis=1)
    answers = (np.cumsum(probs, axis=1) < uniform[:, 8:]).sum(axis=1).clip(max=3)
    return probs, answers


@pytest.mark.parametrize(
    ("test", "on_set_a", "p_value"),
    [
        (metrics.ks_test, 40.776658792508, 0.770733896499),
        (metrics.kuiper_test, 40.963088288756, 0.956425527709),
        (_greater, 54.641197768199, 0.559782948289),
    ],
)
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_against_mapie(set_a, calibrated, test, on_set_a, p_value, dtype):
    """MAPIE 1.6.0 (its noise of 1e-8 against ties is the 2e-9 between us)."""
    result = test(set_a[0].astype(dtype), set_a[1])
    assert result.statistic == pytest.approx(on_set_a, abs=1e-6)
    assert result.p_value < 1e-300
    assert test(calibrated[0].astype(dtype), calibrated[1]).p_value == pytest.approx(
        p_value, abs=1e-6
    )


def test_two_sided_spiegelhalter(calibrated, draw):
    greater, two, less = (
        metrics.spiegelhalter_test(*calibrated, alternative=a)
        for a in ("greater", "two-sided", "less")
    )
    assert greater.statistic == two.statistic == less.statistic < 0
    assert greater.p_value + less.p_value == pytest.approx(1)
    assert two.p_value == pytest.approx(2 * less.p_value)
    # Underconfident, two options: only the two-sided test sees it.
    flat, labels = draw(500, 2, sharpness=0.5)
    assert _greater(flat, labels).p_value > 0.99
    assert metrics.spiegelhalter_test(flat, labels).p_value < 1e-3
    with pytest.raises(ValueError, match="alternative"):
        metrics.spiegelhalter_test(*calibrated, alternative="both")


@pytest.mark.parametrize("tail", [significance._maximum_tail, significance._range_tail])
def test_tails_are_distributions_and_the_series_meet(tail):
    grid = np.linspace(0.01, 6, 300)
    values = np.array([tail(x) for x in grid])
    assert (np.diff(values) <= 1e-15).all() and values[0] == 1 and 0 < values[-1] < 1e-7
    assert tail(1.0) == pytest.approx(tail(np.nextafter(1.0, 2)), abs=1e-14)
    assert tail(0.0) == 1 and tail(math.inf) == 0 and math.isnan(tail(math.nan))


def test_tails_against_simulated_walks():
    steps = np.random.default_rng(0).choice([-1.0, 1.0], size=(2000, 1000))
    walk = np.pad(np.cumsum(steps, axis=1), ((0, 0), (1, 0))) / np.sqrt(1000)
    # A walk of 1000 steps stays 0.02 to 0.05 inside of what Brownian motion reaches.
    for x in (0.8, 1.2, 2.0):
        share = (np.abs(walk).max(axis=1) >= x - 0.02).mean()
        assert share == pytest.approx(significance._maximum_tail(x), abs=0.04)
        share = (np.ptp(walk, axis=1) >= x - 0.04).mean()
        assert share == pytest.approx(significance._range_tail(x), abs=0.04)


def test_p_values_are_uniform_for_calibrated_models():
    rng = np.random.default_rng(1)
    rows = rng.dirichlet(np.full(3, 0.8), size=(200, 150))
    answers = (np.cumsum(rows, axis=2) < rng.random((200, 150, 1))).sum(axis=2).clip(max=2)
    tests = {
        "ks": metrics.ks_test,
        "kuiper": metrics.kuiper_test,
        "spiegelhalter": metrics.spiegelhalter_test,
        "consistency": lambda p, y: metrics.consistency_test(metrics.conf_ece, p, y, num_draws=99),
    }
    for name, test in tests.items():
        p_values = np.sort([test(p, y).p_value for p, y in zip(rows, answers, strict=True)])
        distance = np.abs(p_values - (np.arange(200) + 0.5) / 200).max()
        # 1.63 / sqrt(200) = 0.115 is the 1 % limit; walks of 150 steps shift KS and Kuiper a bit.
        assert distance < 0.15, (name, distance)


def test_overconfidence_is_found(draw):
    probs, answers = draw(300, 4, seed=5, sharpness=2.0)
    for test in (metrics.ks_test, metrics.kuiper_test, metrics.spiegelhalter_test):
        assert test(probs, answers).p_value < 1e-4
    result = metrics.consistency_test(metrics.conf_ece, probs, answers, num_draws=199)
    assert result.p_value == 1 / 200
    assert result.null_mean < result.null_q95 < result.statistic
    assert result.statistic == pytest.approx(float(metrics.conf_ece(probs, answers)), abs=1e-6)


@pytest.mark.parametrize("test", [metrics.ks_test, metrics.kuiper_test])
def test_ties_and_order_of_rows_do_not_matter(test):
    probs = np.repeat([[0.6, 0.4], [0.8, 0.2]], 50, axis=0)
    answers = np.r_[np.arange(50) % 2, np.arange(50) % 4 == 0].astype(int)
    result = test(probs, answers)
    order = np.random.default_rng(0).permutation(100)
    again = test(probs[order], answers[order])
    assert again.statistic == pytest.approx(result.statistic, rel=1e-12)
    # -5 from the first confidence (25 right of 30), -3 more from the second (37 of 40).
    assert result.statistic == pytest.approx(8 / np.sqrt(50 * 0.24 + 50 * 0.16))


def test_kuiper_sees_what_goes_up_and_down():
    """C rises to 8 (32 right of an expected 24) and falls to -8 (16 right of 32)."""
    probs = np.repeat([[0.6, 0.4], [0.8, 0.2]], 40, axis=0)
    answers = np.repeat([0, 1, 0, 1], [32, 8, 16, 24])
    scale = np.sqrt(40 * 0.24 + 40 * 0.16)
    assert metrics.ks_test(probs, answers).statistic == pytest.approx(8 / scale)
    assert metrics.kuiper_test(probs, answers).statistic == pytest.approx(16 / scale)
    # C of one sign throughout: C_0 = 0 is part of the range.
    low, high = metrics.ks_test(probs[:40], 1 - answers[:40]), 24 - 8
    assert low.statistic == metrics.kuiper_test(probs[:40], 1 - answers[:40]).statistic
    assert low.statistic == pytest.approx(high / np.sqrt(40 * 0.24))


def test_masked_options_are_not_predicted():
    probs, answers = np.array([[0.5, 0.25, 0.25, 0.0]] * 8), np.arange(8) % 3
    mask = np.array([[1, 1, 1, 0]] * 8, bool)
    with_mask = metrics.ks_test(probs, answers, mask)
    assert with_mask == metrics.ks_test(probs[:, :3], answers)


def test_nothing_to_test():
    every = (metrics.ks_test, metrics.kuiper_test, metrics.spiegelhalter_test)
    for test in every:
        assert math.isnan(test(np.ones((0, 2)), np.zeros(0, int)).p_value)
        certain = np.array([[1.0, 0.0]] * 3)
        assert math.isnan(test(certain, [0, 0, 0]).statistic)
        wrong = test(certain, [0, 1, 0])
        assert wrong.statistic == math.inf and wrong.p_value == 0
        with pytest.raises(ValueError, match="row 0 sums to"):
            test([[0.5, 0.4]], [0])
    with pytest.raises(ValueError, match="num_draws"):
        metrics.consistency_test(metrics.nll, [[1.0]], [0], num_draws=0)
    empty = metrics.consistency_test(metrics.conf_ece, np.ones((0, 2)), np.zeros(0, int))
    assert math.isnan(empty.p_value)


@pytest.mark.parametrize("count", [1, 7, 200])
def test_benjamini_hochberg_is_scipy_s(count):
    p_values = np.random.default_rng(count).beta(0.5, 1, count).round(2)  # with ties
    expected = scipy.stats.false_discovery_control(p_values)
    np.testing.assert_allclose(metrics.benjamini_hochberg(p_values), expected, rtol=1e-12)
    # What is no test is not counted, and shapes stay.
    holed = np.insert(p_values, 0, math.nan)[None]
    np.testing.assert_allclose(metrics.benjamini_hochberg(holed)[0, 1:], expected, rtol=1e-12)
    assert math.isnan(metrics.benjamini_hochberg(holed)[0, 0])
    with pytest.raises(ValueError, match=r"between 0 and 1, got 1\.5"):
        metrics.benjamini_hochberg([0.5, 1.5])
