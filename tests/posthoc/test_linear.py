"""Vector, matrix and Dirichlet scaling against float64 optima."""

import numpy as np
import pytest
from scipy.optimize import minimize

from calib_jax import posthoc
from calib_jax.errors import UserError

KINDS = {
    "vector": posthoc.VectorScaling,
    "matrix": posthoc.MatrixScaling,
    "dirichlet": posthoc.DirichletScaling,
}


def features_of(kind, log_scores, mask):
    scores = np.where(mask, log_scores.astype(np.float64), 0)
    if kind == "dirichlet":
        shift = np.log(np.where(mask, np.exp(scores), 0).sum(axis=1, keepdims=True))
    else:
        shift = scores.sum(axis=1, keepdims=True) / mask.sum(axis=1, keepdims=True)
    return np.where(mask, scores - shift, 0)


def objective(kind, log_scores, answers, mask, penalty, bias_penalty):
    """x -> (loss, gradient, NLL) in float64, from the definition."""
    features = features_of(kind, log_scores, mask)
    rows, options = features.shape
    off = 1 - np.eye(options)

    def value(x):
        weight, bias = x[:-options], x[-options:]
        if kind == "vector":
            logits = features * weight + bias
        else:
            weight = weight.reshape(options, options)
            logits = features @ weight.T + bias
        logits = np.where(mask, logits, -np.inf)
        top = logits.max(axis=1, keepdims=True)
        probs = np.exp(logits - top)
        total = probs.sum(axis=1, keepdims=True)
        nll = np.mean(np.log(total[:, 0]) + top[:, 0] - logits[np.arange(rows), answers])
        push = probs / total
        push[np.arange(rows), answers] -= 1
        push /= rows
        if kind == "vector":
            spread = weight - weight.mean()
            loss = nll + penalty * np.mean(spread**2)
            slope = (push * features).sum(axis=0) + 2 * penalty * spread / options
        else:
            share = penalty / (options * (options - 1))
            loss = nll + share * np.sum((weight * off) ** 2)
            slope = push.T @ features + 2 * share * weight * off
        loss += bias_penalty * np.mean(bias**2)
        bias_slope = push.sum(axis=0) + 2 * bias_penalty * bias / options
        return loss, np.concatenate([slope.ravel(), bias_slope]), nll

    return value


def parameters(calibrator):
    return np.concatenate([np.ravel(calibrator.weight), calibrator.bias])


@pytest.mark.parametrize("kind", KINDS)
def test_optimum_equals_scipys_with_ragged_masks(ragged, kind):
    log_scores, answers, mask = ragged
    penalty = {"penalty": 0.02} if kind == "vector" else {"penalty": 0.05, "bias_penalty": 0.02}
    fitted = KINDS[kind].fit(log_scores, answers, mask, **penalty)
    value = objective(kind, log_scores, answers, mask, penalty["penalty"], 0.02)
    options = log_scores.shape[1]
    start = np.ones(options) if kind == "vector" else np.eye(options).ravel()
    best = minimize(
        lambda x: value(x)[:2],
        np.concatenate([start, np.zeros(options)]),
        jac=True,
        method="BFGS",
        options={"gtol": 1e-9, "maxiter": 5000},
    )
    loss, gradient, nll = value(parameters(fitted))
    assert fitted.converged and fitted.gradient <= 1e-5
    assert np.abs(gradient).max() < 5e-5
    assert 0 <= loss - best.fun + 1e-9 < 2e-6
    assert nll == pytest.approx(value(best.x)[2], abs=2e-5)


@pytest.mark.parametrize(
    # scikit-learn 1.9.1, LogisticRegression(C=inf) on the same features.
    ("kind", "nll"),
    [("matrix", 0.9166138386), ("dirichlet", 0.9163463100)],
)
def test_golden_nll_without_penalty(set_a, kind, nll):
    log_scores, answers = set_a
    fitted = KINDS[kind].fit(log_scores, answers, penalty=0.0, bias_penalty=0.0)
    probs = np.asarray(fitted(log_scores), np.float64)
    assert -np.log(probs[np.arange(10_000), answers]).mean() == pytest.approx(nll, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_offset_per_row_does_not_matter(ragged, kind):
    log_scores, answers, mask = ragged
    fitted = KINDS[kind].fit(log_scores, answers, mask)
    shifted = log_scores + (np.arange(400)[:, None] % 5).astype(np.float32)
    np.testing.assert_allclose(fitted(shifted, mask), fitted(log_scores, mask), atol=1e-5)


def test_large_penalty_on_the_vector_is_temperature_scaling(ragged):
    log_scores, answers, mask = ragged
    fitted = posthoc.VectorScaling.fit(log_scores, answers, mask, penalty=100.0)
    temperature = posthoc.fit_temperature(log_scores, answers, mask)
    np.testing.assert_allclose(fitted.weight, 1 / temperature, rtol=5e-3)
    np.testing.assert_allclose(fitted.bias, 0, atol=5e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_an_option_that_never_exists_changes_nothing(ragged, kind):
    log_scores, answers, mask = ragged
    four = mask.copy()
    four[:, 4] = False
    kept = answers < 4
    log_scores, answers, four = log_scores[kept], answers[kept], four[kept]
    fitted = KINDS[kind].fit(log_scores, answers, four)
    probs = np.asarray(fitted(log_scores, four))
    assert fitted.converged and np.isfinite(parameters(fitted)).all()
    assert (probs[:, 4] == 0).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)
    assert fitted.bias[4] == pytest.approx(0, abs=1e-3)


def test_all_right_ends_without_nan(ragged):
    log_scores, _, mask = ragged
    for kind, cls in KINDS.items():
        fitted = cls.fit(log_scores, log_scores.argmax(axis=1), mask)
        assert np.isfinite(np.asarray(fitted(log_scores, mask))).all(), kind


def test_wrong_width_and_shapes_are_refused(ragged):
    log_scores, answers, mask = ragged
    fitted = posthoc.MatrixScaling.fit(log_scores, answers, mask)
    with pytest.raises(UserError, match="fitted to 5 options, these scores have 4"):
        fitted(log_scores[:, :4])
    with pytest.raises(UserError, match="one K"):
        posthoc.MatrixScaling([[1.0, 0.0]], [0.0, 0.0])
    with pytest.raises(UserError, match="penalty must be >= 0"):
        posthoc.VectorScaling.fit(log_scores, answers, mask, penalty=-1)


@pytest.mark.parametrize(
    "name", ["vector", "matrix", "structured_matrix", "dirichlet", "platt", "beta"]
)
def test_tiny_logits_give_no_nan(set_a, name):
    log_scores, answers = 1e-9 * set_a[0][:500], set_a[1][:500]
    fitted = posthoc.METHODS[name].fit(log_scores, answers)
    probs = np.asarray(fitted(log_scores))
    assert np.isfinite(probs).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)
    nll = -np.log(probs[np.arange(500), answers]).mean()
    assert nll < (1.05 if name in ("vector", "matrix") else 1.39)
