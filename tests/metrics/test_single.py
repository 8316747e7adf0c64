"""A single option, K = 1: a given answer with a confidence in it.

Where every other option has less than c, so that the given one stays on top, rows of many options
have the same top label: all that is of the top label must then be the same number.
"""

import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.metrics.draws import answer_limits, draw_answers
from calib_jax.metrics.null import null_values

N, K = 80, 24


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(3)
    c = rng.uniform(0.06, 0.99, N).astype(np.float32)
    right = rng.random(N) < c**1.5
    rest = np.repeat((1 - c[:, None].astype(np.float64)) / (K - 1), K - 1, axis=1)
    wide = np.concatenate([c[:, None], rest], axis=1).astype(np.float32)
    return (c[:, None], np.where(right, 0, -1)), (wide, np.where(right, 0, 1))


@pytest.mark.parametrize(
    "metric",
    ["accuracy", "mean_confidence", "conf_ece", "smooth_ece", "adaptive_ece", "rmsce", "mce"]
    + ["squared_ece", "auroc", "aurc", "auprc"],
)
def test_what_is_of_the_top_label_is_of_the_given_answer(rows, metric):
    single, wide = (float(getattr(metrics, metric)(*arrays)) for arrays in rows)
    assert single == pytest.approx(wide, abs=1e-6)


def test_tests_intervals_and_gates_are_the_same(rows):
    for test in (metrics.kuiper_test, metrics.spiegelhalter_test):
        single, wide = (test(*arrays).p_value for arrays in rows)
        assert single == pytest.approx(wide, rel=1e-4)
    single, wide = (metrics.squared_ece_interval(*arrays) for arrays in rows)
    np.testing.assert_allclose(single, wide, atol=1e-5)
    single, wide = (metrics.bootstrap(metrics.conf_ece, *a, num_resamples=50) for a in rows)
    np.testing.assert_allclose(single, wide, atol=1e-5)
    single, wide = (metrics.act_above(*arrays) for arrays in rows)
    for a, b in zip(single, wide, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_proper_scores_are_those_of_a_yes_or_no(rows):
    """In float64: (c - y)^2, and -ln c or -ln(1 - c)."""
    (probs, answers), _ = rows
    c, y = probs[:, 0].astype(np.float64), answers == 0
    assert float(metrics.brier(probs, answers)) == pytest.approx(np.mean((c - y) ** 2), rel=1e-5)
    nll = -np.mean(np.log(np.where(y, c, 1 - c)))
    assert float(metrics.nll(probs, answers)) == pytest.approx(nll, rel=1e-5)
    # On the device, where no precision beyond float32 is read.
    assert float(metrics.nll.kernel(*map(np.asarray, (probs, answers)))) == pytest.approx(nll, 1e-5)
    assert float(metrics.cw_ece(probs, answers)) == float(metrics.conf_ece(probs, answers))


def test_the_ends_of_the_scale():
    probs, answers = np.array([[1.0], [1.0], [0.0], [0.0]], np.float32), np.array([0, -1, -1, 0])
    assert metrics.row_nll(probs, answers).tolist() == [0.0, np.inf, 0.0, np.inf]
    logs = np.log(np.array([[1.0], [1 - 1e-12], [1.0], [1e-60]]))
    with_logs = np.asarray(metrics.row_nll(probs, answers, log_scores=logs))
    np.testing.assert_allclose(with_logs[[1, 3]], -np.log([1e-12, 1e-60]), rtol=1e-4)
    # So near to 1 the log-scores still rank.
    near = np.array([[1.0], [1.0]], np.float32), np.array([0, -1])
    odds = np.array([[-1e-12], [-1e-9]])
    assert float(metrics.auroc(*near, log_scores=odds)) == 1
    assert float(metrics.auroc(*near, log_scores=odds[::-1])) == 0


def test_drawn_answers_are_right_as_often_as_the_confidence_says():
    import jax

    limits = answer_limits(np.repeat(np.array([[0.0], [0.3], [1.0]]), 2000, axis=0))
    drawn = np.asarray(draw_answers(jax.random.key(0), limits)).reshape(3, -1)
    np.testing.assert_allclose((drawn == 0).mean(axis=1), [0, 0.3, 1], atol=0.04)


def test_the_null_is_the_top_labels(rows):
    fns = {"conf_ece": metrics.conf_ece}
    single, wide = (null_values(fns, *arrays, None, 20, 0)["conf_ece"] for arrays in rows)
    np.testing.assert_allclose(single, wide, atol=1e-5)


@pytest.mark.parametrize(
    "probs, answers, said",
    [
        ([[0.4], [1.4]], [0, -1], "row 1 does not hold probabilities"),
        ([[0.4], [-0.1]], [0, -1], "row 1 does not hold probabilities"),
        ([[0.4], [np.nan]], [0, -1], "row 1 does not hold probabilities"),
        ([[0.4], [0.5]], [0, 1], "row 1 has answer 1 and a single option"),
        ([[0.4], [0.5]], [-2, 0], "row 0 has answer -2"),
    ],
)
def test_what_is_no_confidence_is_refused(probs, answers, said):
    with pytest.raises(ValueError, match=said):
        metrics.conf_ece(np.array(probs), np.array(answers))
