import numpy as np
import pytest
from scipy import stats

from calib_jax import metrics
from calib_jax.metrics.thresholds import THRESHOLDS, shares


def by_hand(probs, answers, mask, thresholds, weights):
    """Case by case in float64: [T] kept and [T] errors."""
    found = []
    for threshold in thresholds:
        kept = errors = 0.0
        for p, answer, valid, weight in zip(probs, answers, mask, weights, strict=True):
            p = np.where(valid, p, -1.0)
            if p.max() >= threshold:
                kept += weight
                errors += weight * (p.argmax() != answer)
        found.append((kept, errors))
    return np.array(found).T


def test_counts_are_those_case_by_case_and_intervals_those_of_scipy(draw):
    probs, answers = draw(200, 4)
    mask = np.ones((200, 4), bool)
    mask[::3, 3] = False
    probs = np.where(mask, probs, 0)
    probs /= probs.sum(axis=1, keepdims=True)
    answers = np.where(mask[np.arange(200), answers], answers, 0)
    weights = np.random.default_rng(0).integers(0, 3, 200)
    found = metrics.act_above(probs, answers, mask, weights=weights)
    kept, errors = by_hand(probs, answers, mask, THRESHOLDS, weights)
    np.testing.assert_array_equal(found.kept, kept)
    np.testing.assert_array_equal(found.errors, errors)
    total = weights.sum()
    for i in range(len(THRESHOLDS)):
        ends = stats.binomtest(int(kept[i]), int(total)).proportion_ci(method="wilson")
        assert (found.kept_low[i], found.kept_high[i]) == pytest.approx((ends.low, ends.high))
        if kept[i]:
            ends = stats.binomtest(int(errors[i]), int(kept[i])).proportion_ci(method="wilson")
            assert (found.error_low[i], found.error_high[i]) == pytest.approx((ends.low, ends.high))
            assert found.error_rate[i] == errors[i] / kept[i]


def test_at_the_threshold_is_above_it_however_the_row_was_rounded():
    stated = np.array([[0.9, 0.1], [0.9, 0.1], [0.8999, 0.1001]])
    normalised = np.exp(np.log(stated.astype(np.float32)))
    normalised /= normalised.sum(axis=1, keepdims=True)
    low = np.nextafter(np.float32(0.9), np.float32(0))
    beneath = np.array([[low, 1 - low]] * 2 + [[0.8999, 0.1001]], np.float32)
    for probs in (stated, stated.astype(np.float32), normalised, beneath):
        found = metrics.act_above(probs, [0, 1, 0], thresholds=[0.9])
        assert found.kept.tolist() == [2] and found.error_rate.tolist() == [0.5]


def test_thresholds_0_and_1_in_any_order():
    found = metrics.act_above([[1.0, 0.0], [0.5, 0.5]], [0, 1], thresholds=[1, 0])
    assert found.threshold.tolist() == [1, 0] and found.kept.tolist() == [1, 2]
    assert found.error_rate.tolist() == [0, 0.5]


def test_of_no_cases_nothing_is_known():
    found = metrics.act_above([[0.6, 0.4]], [0], thresholds=[0.9])
    assert found.kept_share.tolist() == [0] and found.errors.tolist() == [0]
    assert np.isnan([found.error_rate, found.error_low, found.error_high]).all()
    empty = metrics.act_above(np.zeros((0, 2)), [])
    assert np.isnan(empty.kept_share).all() and not empty.kept.any()
    with pytest.raises(ValueError, match="all weights are 0"):
        metrics.act_above([[0.6, 0.4]], [0], weights=[0])


def test_all_right_and_all_wrong_have_intervals_with_a_width():
    probs = [[0.95, 0.05]] * 3
    right = metrics.act_above(probs, [0] * 3, thresholds=[0.9])
    wrong = metrics.act_above(probs, [1] * 3, thresholds=[0.9])
    assert right.error_rate == right.error_low == 0 and right.error_high > 0.5
    assert wrong.error_rate == wrong.error_high == 1 and wrong.error_low < 0.5


def test_counts_of_several_sets_are_pooled():
    pooled = shares([0.5, 0.9], [30, 10], [6, 1], 40)
    assert pooled.kept_share.tolist() == [0.75, 0.25]
    assert pooled.error_rate.tolist() == [0.2, 0.1]


@pytest.mark.parametrize("thresholds", [[1.1], [-0.1], [float("nan")], 0.5])
def test_what_is_no_confidence_is_refused(thresholds):
    with pytest.raises(ValueError, match="numbers from 0 to 1"):
        metrics.act_above([[0.6, 0.4]], [0], thresholds=thresholds)


def test_weights_of_another_length_are_refused():
    with pytest.raises(ValueError, match="weights must have shape"):
        metrics.act_above([[0.6, 0.4]], [0], weights=[1, 1])
