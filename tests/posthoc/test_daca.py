"""DACA: the temperature that matches the pre-trained model where the two agree."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from calib_jax import posthoc
from calib_jax.errors import UserError


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


@pytest.fixture(scope="module")
def pair():
    """Aligned scores, three times as sharp as the pre-trained ones where the two agree."""
    rng = np.random.default_rng(0)
    pretrained = rng.normal(size=(300, 4))
    aligned = 3 * pretrained + np.where(rng.random((300, 1)) < 0.3, rng.normal(size=(300, 4)), 0)
    return aligned, pretrained


def test_planted_temperature_is_found_exactly():
    pretrained = np.random.default_rng(1).normal(size=(300, 4))
    fitted = posthoc.DACA.fit(2.5 * pretrained, reference_log_scores=pretrained + 4.0)
    assert fitted.temperature == pytest.approx(2.5, rel=1e-5)
    assert (fitted.agreement, fitted.rows, fitted.status) == (300, 300, "converged")


def test_minimises_the_divergence_over_the_agreement_rows(pair):
    aligned, pretrained = pair
    agrees = aligned.argmax(axis=1) == pretrained.argmax(axis=1)
    target = softmax(pretrained[agrees])

    def divergence(temperature):
        probs = softmax(aligned[agrees] / temperature)
        return np.mean(np.sum(target * np.log(target / probs), axis=1))

    best = minimize_scalar(divergence, bounds=(0.5, 20), method="bounded", options={"xatol": 1e-9})
    fitted = posthoc.DACA.fit(aligned, reference_log_scores=pretrained)
    assert 200 < fitted.agreement == agrees.sum() < 300
    assert fitted.temperature == pytest.approx(best.x, rel=2e-6)
    # Disagreement rows, answers and their weights do not matter.
    kept = posthoc.DACA.fit(
        aligned, np.zeros(300, int), weights=agrees, reference_log_scores=pretrained
    )
    assert kept.temperature == pytest.approx(fitted.temperature, rel=1e-6)
    assert kept.rows == kept.agreement


def test_lower_error_than_the_aligned_model_without_labels(set_a):
    from calib_jax import metrics

    log_scores, answers = set_a
    fitted = posthoc.DACA.fit(log_scores, reference_log_scores=log_scores / 2)
    ece = float(metrics.conf_ece(fitted(log_scores), answers, num_bins=15))
    assert fitted.temperature == pytest.approx(2, rel=1e-5) and ece < 0.02


def test_refuses_what_it_cannot_use(pair):
    aligned, pretrained = pair
    with pytest.raises(UserError, match="reference_log_scores"):
        posthoc.DACA.fit(aligned)
    with pytest.raises(UserError, match="must have the shape"):
        posthoc.DACA.fit(aligned, reference_log_scores=pretrained[:10])
    with pytest.raises(UserError, match="agree on none of 300 rows"):
        posthoc.DACA.fit(aligned, reference_log_scores=-aligned)
