"""Platt and beta calibration against scikit-learn and netcal, frozen on the golden set."""

import numpy as np
import pytest
from scipy.optimize import minimize

from calib_jax import posthoc
from calib_jax.posthoc.top_label import top_label, top_label_data

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


@pytest.mark.parametrize("cls", [posthoc.PlattScaling, posthoc.BetaCalibration])
class TestBoth:
    def test_others_keep_their_proportions(self, cls, ragged):
        log_scores, answers, mask = ragged
        before = np.asarray(posthoc.FixedTemperature(1.0)(log_scores, mask))
        after = np.asarray(cls.fit(log_scores, answers, mask)(log_scores, mask))
        np.testing.assert_allclose(after.sum(axis=1), 1, atol=1e-6)
        assert (after[~mask] == 0).all()
        best = np.arange(5) == before.argmax(axis=1)[:, None]
        ratio = np.where(mask & ~best, after / np.where(mask, before, 1), np.nan)
        low, high = np.nanmin(ratio, axis=1), np.nanmax(ratio, axis=1)
        np.testing.assert_allclose(low, high, rtol=1e-4)

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
