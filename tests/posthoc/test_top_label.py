"""Platt and beta calibration against scikit-learn and netcal, frozen on the golden set."""

import numpy as np
import pytest
from scipy.optimize import brentq, minimize
from scipy.special import expit, log_expit, logsumexp

from calib_jax import metrics, posthoc
from calib_jax.posthoc.top_label import top_label, top_label_data, with_log_odds

GRID = [0.26, 0.31, 0.41, 0.51, 0.62, 0.71, 0.85, 0.95, 0.9999]


def test_platt_on_the_golden_set(set_a):
    # scikit-learn 1.9.1: _SigmoidCalibration, and LogisticRegression(C=inf), on ln(c / (1 - c)).
    fitted = posthoc.PlattScaling.fit(*set_a)
    assert fitted.slope == pytest.approx(0.50268587, abs=2e-7)
    assert fitted.intercept == pytest.approx(-0.33061803, abs=2e-7)
    fitted = posthoc.PlattScaling.fit(*set_a, smooth_targets=False)
    assert fitted.slope == pytest.approx(0.50300237, abs=2e-7)
    assert fitted.intercept == pytest.approx(-0.33106756, abs=2e-7)


def test_beta_on_the_golden_set(set_a, row_at):
    # netcal 1.4.0 BetaCalibration, whose optimiser stops within 1e-5.
    netcal = [0.2947382, 0.3218208, 0.3726625, 0.4221865, 0.4788524, 0.5302667, 0.6328294,
              0.7596352, 0.9863134]  # fmt: skip  # numbers, several on a line
    fitted = posthoc.BetaCalibration.fit(*set_a, smooth_targets=False)
    np.testing.assert_allclose(fitted(row_at(GRID))[:, 0], netcal, atol=1e-5)
    # scikit-learn 1.9.1 LogisticRegression(C=inf) on ln c and -ln(1 - c).
    expected = [0.52404752, 0.49881554, -0.31674408]
    np.testing.assert_allclose([fitted.a, fitted.b, fitted.intercept], expected, atol=2e-7)


@pytest.mark.parametrize("seed", range(4))
def test_beta_finds_the_best_that_is_not_negative(seed):
    # Answers that fall with the confidence push a or b against 0.
    rng = np.random.default_rng(seed)
    log_scores = rng.normal(size=(60, 3)) * 2
    answers = np.where(
        rng.random(60) < [0.9, 0.7, 0.4, 0.2][seed],
        log_scores.argmin(axis=1),
        log_scores.argmax(axis=1),
    )
    fitted = posthoc.BetaCalibration.fit(log_scores, answers)
    data = top_label_data(log_scores, answers, None, None)
    right = data.correct.sum()
    targets = np.where(data.correct == 1, (right + 1) / (right + 2), 1 / (62 - right))

    def loss(x):
        logit = x[0] * data.log_top - x[1] * data.log_rest + x[2]
        return np.mean(np.logaddexp(0, logit) - targets * logit)

    best = minimize(loss, np.zeros(3), bounds=[(0, None), (0, None), (None, None)], tol=1e-12)
    assert loss([fitted.a, fitted.b, fitted.intercept]) <= best.fun + 1e-7


def test_confidences_that_round_to_one_stay_apart():
    top = top_label([[40.0, 0.0], [60.0, 0.0]])
    assert np.exp(top.log_top).tolist() == [1.0, 1.0]
    np.testing.assert_allclose(top.log_rest, [-40, -60], rtol=1e-6)


def tempered(scores, log_odds):
    """Float64: ln of a row at the temperature that gives its best option these log-odds."""
    scores = np.asarray(scores, np.float64) - np.max(scores)
    best = scores.argmax()
    others = np.delete(scores, best)
    if not len(others):
        return np.zeros(1)
    log_odds = max(log_odds, -np.log(len(others)))

    def gap(inverse):
        return -logsumexp(inverse * others) - log_odds

    # T >= 1/2; from there the others keep their proportions.
    inverse = 2.0 if gap(2.0) <= 0 else brentq(gap, 0, 2, xtol=1e-15) if gap(0) < 0 else 0.0
    share = inverse * others - logsumexp(inverse * others)
    return np.insert(log_expit(-log_odds) + share, best, log_expit(log_odds))


def test_each_row_is_tempered_to_its_confidence(ragged):
    log_scores, _, mask = ragged
    log_odds = np.random.default_rng(0).normal(0, 2, len(mask)).astype(np.float32)
    top = top_label(log_scores, mask)
    probs, logs = (np.asarray(with_log_odds(top, log_odds, logs)) for logs in (False, True))
    assert probs.dtype == logs.dtype == np.float32
    for i, valid in enumerate(mask):
        expected = tempered(log_scores[i][valid], float(log_odds[i]))
        np.testing.assert_allclose(logs[i][valid], expected, atol=2e-4)
        np.testing.assert_allclose(probs[i][valid], np.exp(expected), atol=1e-6)
    assert (probs[~mask] == 0).all() and (logs[~mask] == -np.inf).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("sharpness", [1e-4, 1.0, 90.0])
def test_any_gaps_keep_order_and_prediction(sharpness):
    # Gaps from 1e-7 to hundreds of nats within a row, and log-odds that ask for anything.
    rng = np.random.default_rng(1)
    scores = sharpness * rng.normal(size=(400, 5)) * np.exp(rng.uniform(-7, 1, (400, 5)))
    scores = scores.astype(np.float32)
    log_odds = (rng.normal(size=400) * np.exp(rng.uniform(-8, 4, 400))).astype(np.float32)
    top = top_label(scores)
    for logs in (False, True):
        found = np.asarray(with_log_odds(top, log_odds, logs))
        assert not np.isnan(found).any()
        np.testing.assert_array_equal(found.argmax(axis=1), np.asarray(top.scores).argmax(axis=1))
        by_score = np.take_along_axis(found, scores.argsort(axis=1, kind="stable"), axis=1)
        assert (np.diff(by_score[:, :-1], axis=1) >= -1e-6 * abs(by_score[:, 1:-1])).all()
    expected = np.maximum(expit(log_odds.astype(np.float64)), 1 / 5)
    confidence = np.asarray(with_log_odds(top, log_odds)).max(axis=1)
    np.testing.assert_allclose(confidence, expected, atol=3e-7)


@pytest.mark.parametrize(
    ("row", "log_odds", "expected"),
    [
        ([0.0, 3.0, 3.0, 1.0], np.log(1 / 3), [0.25] * 4),  # c' = 1/K: uniform
        ([0.0, 3.0, 3.0, 1.0], -9.0, [0.25] * 4),  # below: read as 1/K
        ([2.0, 2.0], np.log(9), [0.9, 0.1]),  # an exact tie, which no temperature breaks
        ([1.0, 1.0, 1.0], np.log(4), [0.8, 0.1, 0.1]),
        ([0.0, -90.0, -180.0], np.log(2), None),
        ([0.0, -90.0, -180.0], np.inf, [1.0, 0.0, 0.0]),
        ([0.0, -1e-6, -3.0], np.log(3), None),  # a near tie: T stays at 1/2
    ],
)
def test_edges(row, log_odds, expected):
    row = np.array([row], np.float32)
    found = np.asarray(with_log_odds(top_label(row), np.float32([log_odds])))[0]
    if expected is None:
        expected = np.exp(tempered(row[0], log_odds))
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert found.argmax() == row[0].argmax()


@pytest.mark.parametrize("name", ["platt", "beta", "histogram", "isotonic"])
def test_near_chance_the_error_goes_and_the_accuracy_stays(name):
    # Right in 32 % of cases, says 62 %. A second option that overtakes would leave an error of .15.
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 0.25, (2000, 4))
    chances = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    answers = (chances.cumsum(axis=1) < rng.random((2000, 1))).sum(axis=1).clip(0, 3)
    probs = posthoc.cross_fit(name, 6 * scores, answers)
    np.testing.assert_array_equal(probs.argmax(axis=1), scores.argmax(axis=1))
    assert float(metrics.conf_ece(probs, answers)) < 0.05
    assert float(metrics.nll(probs, answers)) < np.log(4)


@pytest.mark.parametrize("cls", [posthoc.PlattScaling, posthoc.BetaCalibration])
class TestBoth:
    def test_all_right_stays_finite(self, cls, ragged):
        log_scores, _, mask = ragged
        probs = np.asarray(cls.fit(log_scores, log_scores.argmax(axis=1), mask)(log_scores, mask))
        # (N + 1) / (N + 2), Platt's target.
        np.testing.assert_allclose(probs.max(axis=1), 401 / 402, atol=1e-4)

    def test_separable_rows_without_smoothing_are_said_so(self, cls):
        log_scores = np.array([[2.0, 0.0], [3.0, 0.0], [0.5, 0.0], [0.2, 0.0]])
        with pytest.warns(posthoc.CalibrationWarning, match="no finite optimum"):
            fitted = cls.fit(log_scores, [0, 0, 1, 1], smooth_targets=False)
        assert np.isfinite(np.asarray(fitted(log_scores))).all()

    def test_a_single_option_stays_certain_and_says_nothing(self, cls):
        log_scores = np.array([[2.0, 0.0], [3.0, 0.0], [1.0, 0.0], [1.0, -np.inf]])
        fitted = cls.fit(log_scores, [0, 0, 1, 0])
        assert fitted == cls.fit(log_scores[:3], [0, 0, 1])
        assert fitted(log_scores)[3].tolist() == [1.0, 0.0]
