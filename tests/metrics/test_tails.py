"""What lies beyond a float's bits, near 0 and near 1: float64 as it is, and log-scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from calib_jax import metrics

CURVES = (metrics.aurc, metrics.accuracy_at_coverage, metrics.coverage_at_accuracy)


@pytest.fixture(scope="module")
def sharp():
    """(log-scores, float64 probabilities, answers) of a model whose confidences round to 1."""
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(2000, 4))
    true = np.exp(1.5 * logits)
    true /= true.sum(axis=1, keepdims=True)
    answers = (true.cumsum(axis=1) < rng.random((2000, 1))).sum(axis=1)
    scores = 20 * logits
    probs = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores, probs / probs.sum(axis=1, keepdims=True), answers


def log_odds(scores):
    ordered = np.sort(scores, axis=1)
    return ordered[:, -1] - np.logaddexp.reduce(ordered[:, :-1], axis=1)


def test_ranking_of_float64_probabilities_is_scikit_learns(sharp):
    _, probs, answers = sharp
    right, confidence = probs.argmax(axis=1) == answers, probs.max(axis=1)
    expected = roc_auc_score(right, confidence)
    assert float(metrics.auroc(probs, answers)) == pytest.approx(expected, abs=1e-6)
    found = float(metrics.auprc(probs, answers))
    assert found == pytest.approx(average_precision_score(right, confidence), abs=1e-6)
    # The rounding to float32 that these are spared.
    assert float(metrics.auroc(probs.astype(np.float32), answers)) < expected - 0.005


@pytest.mark.parametrize("jitted", [False, True])
def test_log_scores_rank_confidences_that_round_to_one(sharp, jitted):
    scores, probs, answers = sharp
    narrow, logs = probs.astype(np.float32), scores.astype(np.float32)
    wrap = jax.jit if jitted else lambda f: f
    found = wrap(lambda p, y, s: metrics.auroc(p, y, log_scores=s))(narrow, answers, logs)
    right = probs.argmax(axis=1) == answers
    assert float(found) == pytest.approx(roc_auc_score(right, log_odds(scores)), abs=2e-5)


def test_the_curve_and_its_relatives_rank_alike(sharp):
    scores, probs, answers = sharp
    # The same order of rows, of confidences that every float can tell apart.
    rank = log_odds(scores).argsort().argsort()
    best = probs.argmax(axis=1)[:, None] == np.arange(4)
    confidence = (0.5 + rank / 5000)[:, None]
    spread = np.where(best, confidence, (1 - confidence) / 3)
    for metric in CURVES:
        found = metric(probs.astype(np.float32), answers, log_scores=scores)
        assert float(found) == pytest.approx(float(metric(spread, answers)), abs=2e-5)


def test_equal_confidences_stay_equal_beside_log_scores():
    probs = np.array([[0.9, 0.05, 0.05], [0.9, 0.1, 0.0], [0.9, 0.07, 0.03], [0.9, 0.09, 0.01]])
    with np.errstate(divide="ignore"):
        logs = np.log(probs)
    answers = [0, 1, 0, 1]
    for p in (probs, jnp.asarray(probs)):
        assert float(metrics.auroc(p, answers, log_scores=logs)) == 0.5
        assert float(metrics.aurc(p, answers, log_scores=logs)) == 0.5


@pytest.mark.parametrize("jitted", [False, True])
def test_nll_is_finite_where_the_log_scores_are(jitted):
    logs = np.float32([[-10, -150], [-10, -11], [0, -1e5]])
    probs = np.float32([[1, 0], [1 / (1 + np.exp(-1)), 1 / (1 + np.e)], [1, 0]])
    answers = np.array([1, 0, 1])
    wrap = jax.jit if jitted else lambda f: f
    rows = wrap(lambda p, y, s: metrics.row_nll(p, y, log_scores=s))(probs, answers, logs)
    np.testing.assert_allclose(rows, [140, np.log1p(np.exp(-1)), 1e5], rtol=1e-6)
    assert np.isinf(metrics.nll(probs, answers))
    # 1e-40 is too small for float32; float64 and its logarithm are not.
    assert float(metrics.nll([[1.0, 1e-40]], [1])) == pytest.approx(-np.log(1e-40), rel=1e-6)


def test_log_scores_that_contradict_the_probabilities_are_not_read():
    probs, logs = [[1.0, 0.0]] * 2, [[0.0, 0.0], [0.0, -200.0]]
    assert metrics.row_nll(probs, [1, 1], log_scores=logs).tolist() == [np.inf, 200]
    for masked in ([[0.0, 9.0, -200.0]], [[0.0, np.nan, -200.0]]):  # under a mask anything may be
        found = metrics.nll([[1.0, 0.0, 0.0]], [2], [[True, False, True]], log_scores=masked)
        assert float(found) == 200
    with pytest.raises(ValueError, match="log_scores must have the shape"):
        metrics.nll(probs, [0, 0], log_scores=[[0.0, 1.0]])


def test_gradients_pass_the_tail():
    def nll(scores):
        return metrics.nll(jax.nn.softmax(scores), jnp.array([1, 0]), log_scores=scores)

    scores = jnp.array([[0.0, -140.0], [0.0, -1.0]])
    expected = (jax.nn.softmax(scores) - jnp.array([[0, 1], [1, 0]])) / 2
    np.testing.assert_allclose(jax.grad(nll)(scores), expected, atol=1e-6)


def test_resamples_groups_and_streams_take_log_scores():
    logs = np.float32([[0, -150], [0, -150], [0, -1], [0, -1]])
    probs, answers = np.asarray(jax.nn.softmax(logs)), np.array([1, 1, 0, 0])
    expected = float(metrics.nll(probs, answers, log_scores=logs))
    fns = {"nll": metrics.nll, "accuracy": metrics.accuracy}
    low, high = metrics.bootstrap_all(fns, probs, answers, num_resamples=50, log_scores=logs)["nll"]
    assert low < expected < high < np.inf
    ends = metrics.paired_bootstrap(
        metrics.nll, probs, probs, answers, num_resamples=50, log_scores=(logs, logs)
    )
    assert ends == (0, 0)
    rows = metrics.group_table(probs, answers, list("aabb"), num_resamples=9, log_scores=logs)
    assert [row["nll"] for row in rows] == pytest.approx([150, np.log1p(np.exp(-1))])
    stream = metrics.streams.combine(
        [metrics.streams.proper_scores(), metrics.streams.confidence_bins()]
    )
    state = stream.update(stream.init(), probs, answers, log_scores=logs)
    assert float(stream.compute(state)["nll"]) == pytest.approx(expected)


def test_the_best_option_of_float64_is_not_rounded_away():
    probs = np.array([[0.5 - 1e-9, 0.5 + 1e-9]])
    assert metrics.predictions(probs).tolist() == [1]
    assert float(metrics.accuracy(probs, [1])) == 1


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit], ids=["eager", "jitted"])
def test_subnormal_probabilities_on_the_device_have_their_own_logarithm(wrap):
    """XLA's arithmetic takes them for 0; the reference is numpy's float64 logarithm."""
    own = np.array([1e-40, 1e-45, 1.2e-38, 1.1754942e-38, 0.0, 0.5, 1.0], np.float32)
    probs = np.stack([1 - own, own], axis=1)
    answers = np.ones(len(own), int)
    found = wrap(lambda p: metrics.row_nll(p, answers))(jnp.asarray(probs))
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(found, -np.log(own.astype(np.float64)), rtol=1e-6, atol=1e-7)
    slope = jax.grad(lambda p: metrics.nll(p, answers[:6]))(jnp.asarray(probs[[0, 1, 2, 3, 5, 6]]))
    assert np.isfinite(slope).all()
    # An answer 90 nats down, of scores whose softmax float32 holds as a subnormal number.
    scores = np.array([[-150.0, -60.0]], np.float32)
    p = jax.nn.softmax(jnp.asarray(scores))
    found = wrap(lambda p: metrics.nll(p, np.array([0]), log_scores=scores))(p)
    assert float(found) == pytest.approx(90.0, abs=1e-4)
