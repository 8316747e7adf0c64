"""What the fits accept: -inf in its two meanings, and errors that name the row."""

import warnings

import numpy as np
import pytest

from calib_jax import posthoc
from calib_jax.errors import UserError
from calib_jax.posthoc.inputs import centred_scores, masked_softmax
from tests.posthoc.conftest import OF_SCORES


def test_without_a_mask_minus_infinity_means_no_such_option():
    scores, valid = centred_scores([[1.0, -np.inf, 0.0]])
    assert valid.tolist() == [[True, False, True]]
    probs = masked_softmax(scores, valid)
    assert probs[0, 1] == 0 and np.isclose(probs.sum(), 1)


def test_with_a_mask_minus_infinity_is_a_probability_of_zero():
    mask = np.array([[True, True, False]])
    scores, _ = centred_scores([[0.0, -np.inf, -np.inf]], mask)
    assert scores.tolist() == [[0.0, -104.0, 0.0]]
    at_one = posthoc.FixedTemperature(1.0)([[0.0, -np.inf, -np.inf]], mask)
    assert at_one.tolist() == [[1.0, 0.0, 0.0]]  # what it was
    warm = posthoc.FixedTemperature(50.0)([[0.0, -np.inf, -np.inf]], mask)
    assert 0 < warm[0, 1] < warm[0, 0] and warm[0, 2] == 0


def test_a_zero_probability_never_overtakes_a_finite_score():
    scores, _ = centred_scores([[0.0, -500.0, -np.inf]], np.ones((1, 3), bool))
    assert scores.tolist() == [[0.0, -500.0, -500.0]]


def test_probabilities_with_exact_zeros_fit_every_method(options):
    # A saturated softmax: log gives -inf on options that exist, some of them right.
    rng = np.random.default_rng(3)
    with np.errstate(divide="ignore"):
        log_scores = np.log(np.round(rng.dirichlet(np.full(5, 0.1), size=400), 3))
    answers = rng.integers(0, 5, 400)
    mask = np.ones(log_scores.shape, bool)
    for name, cls in OF_SCORES.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", posthoc.CalibrationWarning)
            fitted = cls.fit(log_scores, answers, mask, **options(name, log_scores))
        probs = np.asarray(fitted(log_scores, mask))
        assert np.isfinite(probs).all(), name
        np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5, err_msg=name)


def test_zeros_are_counted_in_a_warning():
    mask = np.ones((2, 2), bool)
    with pytest.warns(posthoc.CalibrationWarning, match="1 of 2 rows holds .* right answer in 0"):
        posthoc.fit_temperature([[0.0, -np.inf], [0.0, 1.0]], [0, 0], mask)


def test_probabilities_instead_of_logs_are_noticed():
    with pytest.warns(posthoc.CalibrationWarning, match="look like probabilities"):
        posthoc.fit_temperature([[0.75, 0.25]] * 4, [0, 0, 0, 1])


@pytest.mark.parametrize(
    ("log_scores", "answers", "mask", "message"),
    [
        ([[0.0, np.nan]], [0], None, "row 0 of log_scores holds NaN"),
        ([[0.0, 1.0], [np.inf, 0.0]], [0, 0], None, "row 1 of log_scores holds NaN or .inf"),
        ([[-np.inf, -np.inf]], [0], None, "row 0 of log_scores has no valid option"),
        ([[-np.inf, -np.inf]], [0], [[True, True]], "-inf everywhere"),
        ([[0.0, 1.0], [0.0, 1.0]], [0, 2], None, r"row 1 has an answer outside 0..1 \(1 bad row"),
        ([[0.0, -np.inf]], [1], None, "pass mask for a probability of 0"),
        ([[0.0, 1.0]], [1], [[True, False]], "row 0 has a masked answer"),
        ([[0.0, 1.0]], [0.5], None, "answers must be integers"),
        ([[0.0, 1.0]], [0, 1], None, "answers must be integers of shape"),
        ([0.0, 1.0], [0], None, "must have shape"),
        (np.zeros((0, 4)), np.zeros(0, int), None, "no rows"),
        ([[0.0, 1.0]], [0], [[1, 1]], "mask must be bool"),
        ([[0.0, 1.0]], None, None, "answers are needed"),
    ],
)
def test_bad_input_names_the_row(log_scores, answers, mask, message):
    with pytest.raises(UserError, match=message):
        posthoc.fit_temperature(log_scores, answers, mask)


@pytest.mark.parametrize("weights", [[0.0, 0.0], [1.0], [1.0, -1.0], [1.0, np.nan]])
def test_bad_weights(weights):
    with pytest.raises(UserError, match="weight"):
        posthoc.fit_temperature([[0.0, 1.0], [0.0, 1.0]], [0, 1], weights=weights)
