"""Letter priors: planted biases are found and removed, by the papers' formulas."""

import numpy as np
import pytest

from calib_jax import metrics, posthoc
from calib_jax.errors import UserError

BIAS = np.array([1.5, 0.3, 0.0, -0.8])


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def test_batch_calibration_is_the_papers_formula():
    log_scores = np.random.default_rng(0).normal(size=(50, 4)) * 2
    probs = softmax(log_scores)
    expected = probs / probs.mean(axis=0)
    expected /= expected.sum(axis=1, keepdims=True)
    fitted = posthoc.BatchCalibration.fit(log_scores)
    np.testing.assert_allclose(fitted(log_scores), expected, atol=1e-6)


def test_batch_calibration_recovers_accuracy_lost_to_a_bias():
    rng = np.random.default_rng(1)
    answers = rng.integers(0, 4, 2000)
    fair = rng.normal(size=(2000, 4)) + 2.0 * (answers[:, None] == np.arange(4))
    before = float(metrics.accuracy(softmax(fair), answers))
    biased = float(metrics.accuracy(softmax(fair + BIAS), answers))
    repaired = posthoc.BatchCalibration.fit(fair + BIAS)(fair + BIAS)
    after = float(metrics.accuracy(repaired, answers))
    assert biased < before - 0.15 and after > before - 0.05


def test_ragged_means_are_over_the_rows_that_have_the_letter():
    log_scores = np.log([[0.5, 0.3, 0.2], [0.9, 0.1, 1.0], [0.8, 0.2, 1.0]])
    mask = np.array([[True, True, True], [True, True, False], [True, True, False]])
    fitted = posthoc.BatchCalibration.fit(log_scores, mask=mask)
    np.testing.assert_allclose(np.exp(fitted.log_prior), [2.2 / 3, 0.2, 0.2], rtol=1e-6)
    weighted = posthoc.BatchCalibration.fit(log_scores, mask=mask, weights=[1, 3, 0])
    np.testing.assert_allclose(np.exp(weighted.log_prior), [3.2 / 4, 0.6 / 4, 0.2], rtol=1e-6)


def test_a_letter_never_seen_is_neither_raised_nor_lowered():
    log_scores = np.log([[0.5, 0.5, 1.0], [0.5, 0.5, 1.0]])
    mask = np.array([[True, True, False]] * 2)
    fitted = posthoc.BatchCalibration.fit(log_scores, mask=mask)
    assert (
        fitted([[0.0, 0.0, 0.0]]).tolist()
        == posthoc.FixedTemperature(1.0)([[0.0, 0.0, 0.0]]).tolist()
    )


def test_contextual_calibration_averages_several_prompts():
    prompts = np.log([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1]]) + 3.0
    fitted = posthoc.ContextualCalibration.fit(content_free_log_scores=prompts)
    np.testing.assert_allclose(np.exp(fitted.log_prior), [0.6, 0.3, 0.1], rtol=1e-6)
    np.testing.assert_allclose(fitted(np.log([[0.6, 0.3, 0.1]])), [[1 / 3] * 3], rtol=1e-6)


def cyclic(content, bias):
    """[P, S, K] log-scores of letters when content (k + s) mod K stands under letter k."""
    size = content.shape[1]
    shifts = [np.roll(content, -s, axis=1) for s in range(size)]
    return np.stack(shifts, axis=1) + bias


def test_pride_finds_the_planted_prior_exactly():
    content = np.random.default_rng(2).normal(size=(3, 4)) * 3
    fitted = posthoc.PriDe.fit(permuted_log_scores=cyclic(content, BIAS))
    np.testing.assert_allclose(np.exp(fitted.log_prior), softmax(BIAS), rtol=1e-5)
    np.testing.assert_allclose(fitted(content + BIAS), softmax(content), atol=1e-6)


def test_pride_with_fewer_options_in_some_questions():
    content = np.random.default_rng(3).normal(size=(2, 4))
    scores = np.full((2, 4, 4), -np.inf)
    scores[0] = cyclic(content[:1], BIAS)[0]
    scores[1, :3, :3] = cyclic(content[1:, :3], BIAS[:3])[0]
    fitted = posthoc.PriDe.fit(permuted_log_scores=scores)
    full, three = softmax(BIAS), softmax(BIAS[:3])
    expected = [*((full[:3] + three) / 2), full[3]]
    np.testing.assert_allclose(np.exp(fitted.log_prior), expected, rtol=1e-5)


def test_missing_or_broken_priors_are_refused():
    with pytest.raises(UserError, match="content_free_log_scores"):
        posthoc.ContextualCalibration.fit([[0.0, 1.0]])
    with pytest.raises(UserError, match="permuted_log_scores"):
        posthoc.PriDe.fit([[0.0, 1.0]])
    scores = cyclic(np.zeros((2, 4)), BIAS)
    scores[1, 3] = -np.inf
    with pytest.raises(UserError, match="row 1 of permuted_log_scores does not hold as many"):
        posthoc.PriDe.fit(permuted_log_scores=scores)
    with pytest.raises(UserError, match="fitted to 2 options"):
        posthoc.BatchCalibration.fit([[0.0, 1.0]])([[0.0, 1.0, 2.0]])
