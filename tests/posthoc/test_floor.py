"""Rounded probabilities: the true temperature is found, and calibration does not suffer."""

import warnings

import numpy as np
import pytest

from calib_jax import metrics, posthoc
from tests.posthoc.conftest import OF_SCORES


def draw(num_options, num_rows=1000, seed=0, decimals=2):
    """(probabilities rounded, ln of them before, answers): overconfident by T = 2."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(num_rows, num_options))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    answers = (true.cumsum(axis=1) < rng.random((num_rows, 1))).sum(axis=1)
    probs = true**2 / (true**2).sum(axis=1, keepdims=True)
    return np.round(probs, decimals), np.log(probs), np.minimum(answers, num_options - 1)


def fitted_to(probs, answers, method="temperature"):
    with np.errstate(divide="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", posthoc.CalibrationWarning)
        scores, mask = np.log(probs), np.ones(probs.shape, bool)
        fitted = posthoc.METHODS[method].fit(scores, answers, mask)
        return fitted, np.asarray(fitted(scores, mask)), scores, mask


@pytest.mark.parametrize("num_options", [2, 5, 77])
def test_the_true_temperature_is_found(num_options):
    probs, exact, answers = draw(num_options, num_rows=3000)
    fitted, after, _, _ = fitted_to(probs, answers)
    unrounded = posthoc.fit_temperature(exact, answers)
    assert fitted.temperature == pytest.approx(2, abs=0.2)
    assert fitted.temperature == pytest.approx(unrounded, rel=0.1)
    assert -15 < fitted.floor <= np.log(0.005) + 1e-9
    before = probs / probs.sum(axis=1, keepdims=True)
    gained = float(metrics.conf_ece(before, answers)) - float(metrics.conf_ece(after, answers))
    assert gained > 0.03
    best = float(metrics.nll(posthoc.apply_temperature(exact, unrounded), answers))
    assert float(metrics.nll(after, answers)) < best + 0.15


@pytest.mark.parametrize("method", ["temperature", "vector", "platt", "isotonic"])
def test_no_method_makes_the_error_worse(method):
    probs, _, answers = draw(5)
    _, after, _, _ = fitted_to(probs, answers, method)
    before = probs / probs.sum(axis=1, keepdims=True)
    assert float(metrics.conf_ece(after, answers)) < float(metrics.conf_ece(before, answers))


def test_the_floor_is_kept_and_read(tmp_path):
    probs, _, answers = draw(5)
    fitted, after, scores, mask = fitted_to(probs, answers)
    fitted.save(tmp_path / "t.json")
    again = posthoc.load(tmp_path / "t.json")
    assert again == fitted
    np.testing.assert_array_equal(again(scores, mask), after)
    text = (tmp_path / "t.json").read_text()
    (tmp_path / "t.json").write_text(text.replace('"floor"', '"flour"'))
    with pytest.raises(ValueError, match='"flour" in "parameters" is unknown'):
        posthoc.load(tmp_path / "t.json")


def test_files_of_before_floors_open(tmp_path):
    posthoc.Temperature(2.0).save(tmp_path / "t.json")
    text = (tmp_path / "t.json").read_text()
    (tmp_path / "t.json").write_text(text.replace('    "floor": null,\n', ""))
    assert posthoc.load(tmp_path / "t.json") == posthoc.Temperature(2.0)


def test_unrounded_zeros_get_the_same_care():
    _, exact, answers = draw(5)
    probs = np.exp(exact)
    probs[probs < 2e-3] = 0  # cut off, not rounded: the rest has all its digits
    fitted, after, _, _ = fitted_to(probs, answers)
    assert fitted.temperature == pytest.approx(2, abs=0.25)
    assert float(metrics.conf_ece(after, answers)) < 0.06


def test_a_uniform_guesser_is_called_one():
    rng = np.random.default_rng(0)
    scores, answers = 3 * rng.normal(size=(400, 4)), rng.integers(0, 4, 400)
    with pytest.warns(posthoc.CalibrationWarning, match="uniform guesser"):
        posthoc.Temperature.fit(scores, answers)
    with pytest.warns(posthoc.CalibrationWarning, match="hardly differ: .* lower bound"):
        posthoc.Temperature.fit(1e-9 * scores, scores.argmax(axis=1))
    with pytest.warns(posthoc.CalibrationWarning, match="differ by far too much: .* upper bound"):
        posthoc.Temperature.fit(1e7 * scores, answers)


def test_log_probs_are_the_logarithms_of_what_every_method_gives(ragged, options):
    log_scores, answers, mask = ragged
    for name, cls in OF_SCORES.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", posthoc.CalibrationWarning)
            fitted = cls.fit(log_scores, answers, mask, **options(name, log_scores))
        logs, probs = fitted.log_probs(log_scores, mask), fitted(log_scores, mask)
        np.testing.assert_allclose(np.exp(logs), probs, atol=1e-5, err_msg=name)
        assert (np.asarray(logs)[~mask] == -np.inf).all()
