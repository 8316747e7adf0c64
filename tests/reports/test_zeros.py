"""What NLL reads rounded zeros as: near the NLL before rounding, and what calibrators read."""

import dataclasses

import numpy as np
import pytest

from calib_jax import metrics, posthoc
from calib_jax.confidence.scores import Scores
from calib_jax.reports import catalogue, measure, remarks, zeros


def scores_of(log_scores, answers):
    of = (None,) * len(answers)
    powers = np.exp(log_scores)
    probs = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
    mask = np.ones(probs.shape, bool)
    names = tuple(f"q{i}" for i in range(len(answers)))
    return Scores(log_scores.astype(np.float32), probs, mask, answers, names, of, of)


def rounded(scores, decimals):
    with np.errstate(divide="ignore"):
        return scores_of(
            np.log(np.round(scores.probs.astype(np.float64), decimals)), scores.answers
        )


def overconfident(n, scale, seed=0):
    """Logits of standard deviation 1.5, answers by their softmax, reported ``scale`` times."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(n, 4))
    answers = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1).astype(np.int32)
    return scores_of(scale * logits, answers)


@pytest.mark.parametrize(("scale", "decimals"), [(2, 2), (3, 2), (2, 1), (1, 2), (2, 3)])
def test_the_nll_is_near_that_before_rounding(scale, decimals):
    """Over 4 samples of 1,000; half of the unit, the least that a zero can cost, falls short."""
    true, found, least = np.zeros(3)
    for seed in range(4):
        exact = overconfident(1000, scale, seed)
        given = rounded(exact, decimals)
        arrays = given.probs, given.answers, given.mask
        assert scale == 1 or np.isinf(float(metrics.nll(*arrays)))
        true += float(metrics.nll(exact.probs, exact.answers)) / 4
        found += float(metrics.nll(*arrays, log_scores=zeros.as_read(given))) / 4
        half = np.where(given.probs == 0, 0.5 / 10**decimals, given.probs)
        half = half / half.sum(axis=1, keepdims=True)
        least += float(metrics.nll(half.astype(np.float32), given.answers)) / 4
    assert found == pytest.approx(true, rel=0.06)
    assert abs(found - true) < abs(least - true) + 0.002


def test_a_measurement_reads_what_a_calibrator_reads():
    before = rounded(overconfident(60, 3), 2)
    row = {"n": 60, **zeros.figures(before)}
    with pytest.warns(posthoc.CalibrationWarning, match="rounded to 2 decimals"):
        fitted = posthoc.Temperature.fit(before.log_scores, before.answers, before.mask)
    assert row["zero_read_as"] == pytest.approx(np.exp(float(fitted.floor)), rel=1e-5)
    given = np.exp(before.log_scores)  # rounded: its rows do not quite sum to 1
    read = np.where(given == 0, row["zero_read_as"] * given.sum(axis=1, keepdims=True), given)
    read /= read.sum(axis=1, keepdims=True)
    # What is not 0 stays as it was given.
    own = np.where(given == 0, read, before.probs)[np.arange(60), before.answers]
    found = measure.values_of(before, 10, "right", catalogue.LOG)["nll"]
    assert found == pytest.approx(-np.log(own).mean(), rel=1e-5)
    (note,) = remarks.zero_notes({"before": row})
    assert f"half of the unit, {row['zero_read_as']:.2g}" in note


@pytest.mark.parametrize("hard", [True, False])
def test_zeros_that_are_not_rounded_stay(hard):
    scores = overconfident(50, 2)
    logs = scores.log_scores.copy()
    lowest = logs.argmin(axis=1)
    logs[np.arange(50), lowest] = -np.inf
    if hard:
        logs = np.where(np.arange(4) == logs.argmax(axis=1)[:, None], 0, -np.inf)
    given = dataclasses.replace(scores_of(logs, scores.answers), answers=lowest.astype(np.int32))
    assert np.array_equal(zeros.as_read(given), logs.astype(np.float32))
    row = zeros.figures(given)
    assert row["zero_probability_rows"] == 50 and "zero_read_as" not in row
    assert ("rounding_unit" in row) == hard
