"""The temperature's interval against float64 scipy, at the bounds, with weights and clusters."""

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

from calib_jax import posthoc
from calib_jax.errors import UserError


def reference(scores, answers, weights=None, unit=None):
    """Float64: the ends by root finding on the written-out likelihood."""
    rows = np.arange(len(answers))
    weights = np.ones(len(rows)) if weights is None else weights
    unit = rows if unit is None else unit

    def total(log_t):
        return weights @ log_softmax(scores * np.exp(-log_t), axis=1)[rows, answers]

    def slopes(log_t):
        probs = softmax(scores * np.exp(-log_t), axis=1)
        mean = (probs * scores).sum(axis=1)
        return mean - scores[rows, answers], (probs * (scores - mean[:, None]) ** 2).sum(axis=1)

    best = brentq(lambda log_t: weights @ slopes(log_t)[0], -4, 6, xtol=1e-14)
    first, variance = slopes(best)
    squares = (np.bincount(unit, weights * first) ** 2).sum()
    if (unit == rows).all():
        squares = weights @ first**2
    scale = min(1, weights @ variance / squares)

    def beyond(log_t):
        return 2 * scale * (total(best) - total(log_t)) - 1.959963984540054**2

    return np.exp([brentq(beyond, best - 3, best), brentq(beyond, best, best + 5)])


@pytest.fixture(scope="module")
def overconfident():
    rng = np.random.default_rng(5)
    scores = rng.normal(0, 1.5, (200, 4))
    answers = (softmax(scores, axis=1).cumsum(axis=1) < rng.random((200, 1))).sum(axis=1).clip(0, 3)
    return (2 * scores).astype(np.float32), answers


def test_ends_are_those_of_float64(overconfident):
    scores, answers = overconfident
    found = posthoc.temperature_interval(scores, answers)
    np.testing.assert_allclose(found, reference(scores.astype(np.float64), answers), rtol=1e-4)
    low, high = found
    assert low < posthoc.fit_temperature(scores, answers) < high
    inner = posthoc.temperature_interval(scores, answers, level=0.5)
    assert low < inner[0] < inner[1] < high


def test_rows_that_contradict_the_model_widen_it(overconfident):
    # Half of the rows are far more confident than the others, and no oftener right.
    scores, answers = overconfident
    scores = scores * np.where(np.arange(200) % 2, 4, 0.5)[:, None].astype(np.float32)
    found = posthoc.temperature_interval(scores, answers)
    np.testing.assert_allclose(found, reference(scores.astype(np.float64), answers), rtol=1e-4)


def test_weights_are_repeats_and_clusters_undo_them(overconfident):
    scores, answers = overconfident
    once = posthoc.temperature_interval(scores, answers)
    weights = np.full(200, 3.0, np.float32)
    found = posthoc.temperature_interval(scores, answers, weights=weights)
    wide = scores.astype(np.float64)
    np.testing.assert_allclose(found, reference(wide, answers, weights), rtol=1e-4)
    assert found[1] - found[0] < 0.7 * (once[1] - once[0])
    # The same three answers again and again are worth one.
    names = np.repeat([f"q{i}" for i in range(200)], 3)
    thrice = np.repeat(scores, 3, axis=0), np.repeat(answers, 3)
    found = posthoc.temperature_interval(*thrice, clusters=names)
    unit = np.repeat(np.arange(200), 3)
    expected = reference(np.repeat(wide, 3, axis=0), thrice[1], unit=unit)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_allclose(found, once, rtol=0.05)


def test_ends_that_the_rows_do_not_fix_are_the_bounds():
    scores = np.array([[2.0, 0.0]] * 6)
    with pytest.warns(posthoc.CalibrationWarning, match="lower bound"):
        posthoc.fit_temperature(scores, [0] * 6)
    low, high = posthoc.temperature_interval(scores, [0] * 6)
    assert low == pytest.approx(0.01) and 0.5 < high < 1000
    low, high = posthoc.temperature_interval(scores, [1] * 6)
    assert low > 1 and high == pytest.approx(1000)
    assert posthoc.temperature_interval(0 * scores, [0] * 6) == pytest.approx((0.01, 1000))


def test_zeros_are_read_as_the_fit_reads_them(overconfident):
    scores, answers = overconfident
    mask = np.ones(scores.shape, bool)
    zero = scores < scores.max(axis=1, keepdims=True) - 7
    rounded = np.where(zero, -np.inf, scores)
    with pytest.warns(posthoc.CalibrationWarning):
        low, high = posthoc.temperature_interval(rounded, answers, mask)
        fitted = posthoc.Temperature.fit(rounded, answers, mask)
    assert zero.any() and low < fitted.temperature < high


def test_refused(overconfident):
    with pytest.raises(ValueError, match="level must lie strictly between"):
        posthoc.temperature_interval(*overconfident, level=1.0)
    with pytest.raises(UserError, match="clusters must have shape"):
        posthoc.temperature_interval(*overconfident, clusters=["a"])
