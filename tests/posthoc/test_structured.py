"""Structured matrix scaling against float64 optima of scipy, and what it wins and costs."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp

from calib_jax import posthoc
from calib_jax.errors import UserError

BIAS = np.array([1.0, 0.3, -0.4, -0.9])


def objective(log_scores, answers, mask, weights, temperature, penalties):
    """(A, b) -> the loss, from its definition."""
    scores = np.where(mask, log_scores, 0).astype(np.float64)
    mean = scores.sum(axis=1, keepdims=True) / mask.sum(axis=1, keepdims=True)
    z = np.where(mask, scores - mean, 0) / temperature
    options = z.shape[1]
    for_bias, for_diagonal, for_rest = penalties

    def value(x):
        matrix, bias = x[: options**2].reshape(options, options), x[options**2 :]
        logits = np.where(mask, z @ matrix.T + bias, -np.inf)
        nll = logsumexp(logits, axis=1) - logits[np.arange(len(z)), answers]
        diagonal = np.diag(matrix)
        rest = (matrix**2).sum() - (diagonal**2).sum()
        penalty = for_bias * options * (bias**2).sum()
        penalty += for_diagonal * options * ((diagonal - 1) ** 2).sum()
        penalty += for_rest * options * (options - 1) * rest
        return (weights @ nll + penalty) / weights.sum()

    return value


def parameters(fitted):
    """The optimum, before it was averaged with the temperature."""
    matrix, identity = np.array(fitted.weight) * fitted.temperature, np.eye(len(fitted.bias))
    matrix = identity + (matrix - identity) / fitted.share
    return np.concatenate([matrix.ravel(), np.array(fitted.bias) / fitted.share])


@pytest.mark.parametrize("penalty", [1.0, None])
def test_optimum_equals_scipys_with_masks_and_weights(ragged, penalty):
    log_scores, answers, mask = (array[:150] for array in ragged)
    weights = np.random.default_rng(0).integers(0, 4, 150)
    fitted = posthoc.StructuredMatrixScaling.fit(
        log_scores, answers, mask, weights=weights, penalty=penalty
    )
    temperature = posthoc.Temperature.fit(log_scores, answers, mask, weights=weights).temperature
    assert fitted.temperature == pytest.approx(temperature, rel=1e-6)
    value = objective(log_scores, answers, mask, weights, fitted.temperature, fitted.penalties)
    start = np.concatenate([np.eye(5).ravel(), np.zeros(5)])
    best = minimize(value, start, method="BFGS", jac="3-point", options={"gtol": 1e-8})
    assert fitted.share == 1 or penalty is None
    assert fitted.converged and value(parameters(fitted)) <= best.fun + 1e-9
    np.testing.assert_allclose(value(parameters(fitted)), best.fun, atol=1e-6)
    if penalty:  # a flat optimum would say nothing of the place
        np.testing.assert_allclose(parameters(fitted), best.x, atol=1e-4)


def sample(rng, rows, bias):
    """Scores that are too sharp by a factor of 2 and hold a letter's offset; answers; truth."""
    content = rng.normal(0, 3, (rows, 4))
    true = np.exp(log_softmax(content / 2, axis=1))
    answers = (true.cumsum(axis=1) < rng.random((rows, 1))).sum(axis=1).clip(max=3)
    return (content + bias).astype(np.float32), answers, true


def excess(fitted, scores, true):
    """Expected NLL above the least possible."""
    return np.sum(true * (np.log(true) - np.asarray(fitted.log_probs(scores))), axis=1).mean()


@pytest.mark.parametrize("rows", [100, 200])
def test_a_letters_bias_is_undone_and_without_one_little_is_lost(rows):
    rng = np.random.default_rng(1)
    for bias, least, most in ((BIAS, 0.008, 1.0), (0 * BIAS, -0.002, 0.002)):
        scores, _, true = sample(rng, 5000, bias)
        won = []
        for _ in range(12):
            own, answers, _ = sample(rng, rows, bias)
            one, other = (
                excess(posthoc.METHODS[name].fit(own, answers), scores, true)
                for name in ("temperature", "structured_matrix")
            )
            won.append(one - other)
        assert least < np.mean(won) < most, (rows, bias, np.mean(won))


def test_a_large_penalty_leaves_the_temperature():
    own, answers, _ = sample(np.random.default_rng(2), 200, BIAS)
    fitted = posthoc.StructuredMatrixScaling.fit(own, answers, penalty=1e7)
    plain = posthoc.Temperature.fit(own, answers)
    np.testing.assert_allclose(fitted(own), plain(own), atol=1e-5)


def test_how_much_the_rows_show_decides_how_far_it_goes():
    rng = np.random.default_rng(3)
    shares = {}
    for name, rows, bias in (("nothing", 100, 0), ("little", 100, 0.5), ("much", 400, 1)):
        drawn = (sample(rng, rows, bias * BIAS)[:2] for _ in range(9))
        shares[name] = [posthoc.StructuredMatrixScaling.fit(*one).share for one in drawn]
    nothing, little, much = (np.median(found) for found in shares.values())
    assert nothing < 0.2 and nothing < little < much and much > 0.95


def test_weights_are_counts_and_edges_end_without_nan():
    own, answers, _ = sample(np.random.default_rng(4), 60, BIAS)
    weights = np.random.default_rng(5).integers(0, 3, 60)
    twice = np.repeat(np.arange(60), weights)
    weighted = posthoc.StructuredMatrixScaling.fit(own, answers, weights=weights)
    repeated = posthoc.StructuredMatrixScaling.fit(own[twice], answers[twice])
    np.testing.assert_allclose(weighted(own), repeated(own), atol=1e-4)
    for right in (own.argmax(axis=1), own.argmin(axis=1), np.zeros(60, int)):  # all right or wrong
        probs = np.asarray(posthoc.StructuredMatrixScaling.fit(own, right)(own))
        assert np.isfinite(probs).all()
    one = posthoc.StructuredMatrixScaling.fit(own[:1], answers[:1])
    assert np.isfinite(np.asarray(one(own))).all()
    single = posthoc.StructuredMatrixScaling.fit(np.zeros((3, 1)), np.zeros(3, int))
    assert np.asarray(single(np.zeros((1, 1)))).tolist() == [[1.0]]


@pytest.mark.parametrize("penalty", [0, -1.0, np.nan, np.inf])
def test_bad_penalties_are_refused(penalty):
    with pytest.raises(UserError, match="structured_matrix: the penalty must be > 0"):
        posthoc.StructuredMatrixScaling.fit([[0.0, 1.0]], [0], penalty=penalty)
