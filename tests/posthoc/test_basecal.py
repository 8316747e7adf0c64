"""BaseCal-ReEval: the pre-trained model's probability of the aligned model's answer."""

import numpy as np
import pytest

from calib_jax import posthoc
from calib_jax.errors import UserError


def test_it_is_the_base_models_probability_of_the_aligned_models_option():
    """Against float64, row by row; offsets of a row and masked options change nothing."""
    rng = np.random.default_rng(0)
    aligned, base = rng.normal(size=(2, 50, 5)) * 3
    mask = np.arange(5) < rng.integers(1, 6, 50)[:, None]
    found = posthoc.re_evaluated(
        np.where(mask, aligned, -np.inf) + 7.0, np.where(mask, base, -np.inf) - 3.0, mask
    )
    for i in range(50):
        valid = mask[i]
        powers = np.exp(base[i][valid] - base[i][valid].max())
        expected = powers[aligned[i][valid].argmax()] / powers.sum()
        assert found[i] == pytest.approx(expected, rel=1e-5)
    assert found.dtype == np.float32 and (found[mask.sum(axis=1) == 1] == 1).all()


def test_of_a_model_against_itself_it_is_the_models_own_confidence():
    log_scores = np.random.default_rng(1).normal(size=(30, 4))
    found = posthoc.re_evaluated(log_scores, log_scores)
    probs = np.exp(log_scores) / np.exp(log_scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, probs.max(axis=1), rtol=1e-6)


def test_scores_of_other_questions_are_refused():
    with pytest.raises(UserError, match="must have the shape of log_scores"):
        posthoc.re_evaluated(np.zeros((3, 4)), np.zeros((2, 4)))
