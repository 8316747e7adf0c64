"""How many questions are needed: a closed form, and the power of the test by simulation."""

import numpy as np
import pytest
from scipy.stats import norm

from calib_jax import metrics

WORLDS = {
    "even": np.linspace(0.25, 1, 1000),
    "sharp": np.random.default_rng(0).beta(8, 1, 1000),
    "low": np.random.default_rng(1).uniform(0.25, 0.45, 1000),
}


def conf_ece(confidence, right):
    """[R, n] each -> [R], ten bins (a, b], by float64 sums."""
    index = np.clip(np.ceil(confidence * 10) - 1, 0, 9)
    gaps = [((right - confidence) * (index == m)).sum(axis=1) for m in range(10)]
    return np.abs(gaps).sum(axis=0) / confidence.shape[1]


@pytest.mark.parametrize(("ece", "power"), [(0.03, 0.8), (0.05, 0.8), (0.1, 0.9)])
def test_one_confidence_is_the_two_sided_test_of_a_share(ece, power):
    c = 0.75
    null, other = np.sqrt(c * (1 - c)), np.sqrt((c - ece) * (1 - c + ece))
    expected = ((norm.ppf(0.975) * null + norm.ppf(power) * other) / ece) ** 2
    assert metrics.questions_needed(ece, [c], power=power) == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("world", WORLDS)
def test_so_many_questions_show_it_four_times_of_five(world):
    """Against draws of the binomial, where the function has the normal limit."""
    rng = np.random.default_rng(2)
    ece = 0.08
    rows = metrics.questions_needed(ece, WORLDS[world])
    confidence = rng.choice(WORLDS[world], (1500, rows))

    def quantile(n):
        c = confidence[:, :n]
        return np.quantile(conf_ece(c, rng.random(c.shape) < c), 0.95)

    def power(n):
        c = confidence[:, :n]
        right = np.maximum(c - ece, 0)
        return np.mean(conf_ece(c, rng.random(c.shape) < right) > quantile(n))

    assert power(rows) == pytest.approx(0.8, abs=0.06)
    assert power(rows // 2) < 0.65


def test_more_power_a_smaller_error_and_a_stricter_test_need_more():
    base = metrics.questions_needed(0.05)
    assert metrics.questions_needed(0.05, power=0.95) > base
    assert metrics.questions_needed(0.05, level=0.01) > base
    assert metrics.questions_needed(0.05, num_bins=30) > base
    # As 1 / ece^2 where the errors are small.
    assert metrics.questions_needed(0.01) == pytest.approx(
        4 * metrics.questions_needed(0.02), rel=0.05
    )


def test_a_certain_model_needs_the_first_wrong_answers():
    rows = metrics.questions_needed(0.05, np.ones(4))
    assert 1 - 0.95 ** (rows - 1) < 0.75 <= 1 - 0.95**rows  # power 0.8 less the level


def test_low_confidences_cannot_fall_below_nothing():
    """Half the rows at 0.02: the rest must bear the error."""
    assert metrics.questions_needed(0.1, [0.02, 0.6]) > 0
    with pytest.raises(ValueError, match="the mean confidence, 0.310, got 0.4"):
        metrics.questions_needed(0.4, [0.02, 0.6])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ece": 0.0}, "ece must lie"),
        ({"ece": np.nan}, "ece must lie"),
        ({"ece": 0.05, "confidences": []}, "one or more"),
        ({"ece": 0.05, "confidences": [1.2]}, "between 0 and 1"),
        ({"ece": 0.05, "confidences": [np.nan]}, "between 0 and 1"),
        ({"ece": 0.05, "power": 0.05}, "level < power"),
        ({"ece": 0.05, "power": 1.0}, "level < power"),
    ],
)
def test_what_means_nothing_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        metrics.questions_needed(**arguments)
