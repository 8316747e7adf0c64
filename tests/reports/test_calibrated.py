"""summary["posthoc"]: out of fold, on the scores before training."""

import numpy as np
import pytest

from calib_jax import metrics, posthoc
from calib_jax.errors import UserError
from calib_jax.reports import calibrated

OPTIONS = {"folds": 3, "seed": 1, "num_resamples": 20}


def test_figures_are_those_of_the_cross_fitted_probabilities(run):
    scores = run[1]["before"]["near"]
    found, _ = calibrated.measure(
        ["temperature"], {"before": {"near": scores}, "after": {}}, {"near": "in"}, **OPTIONS
    )
    row = found["temperature"]["near"]
    probs = posthoc.cross_fit(
        "temperature", scores.log_scores, scores.answers, scores.mask, folds=3, seed=1
    )
    assert row["nll"] == pytest.approx(float(metrics.nll(probs, scores.answers)), rel=1e-5)
    accuracy = float(np.mean(scores.predictions == scores.answers))
    assert row["accuracy"] == pytest.approx(accuracy) and row["folds"] == 3
    low, high = row["conf_ece_ci"]
    assert low <= row["conf_ece"] <= high and row["domain"] == "in"


def test_several_states_are_named(run):
    states = {name: {"near": run[1][name]["near"]} for name in ("before", "after")}
    renamed = {"one": states["before"], "two": states["after"]}
    found, _ = calibrated.measure(["fixed_temperature"], renamed, {"near": ""}, **OPTIONS)
    assert list(found) == ["one + fixed_temperature", "two + fixed_temperature"]
    assert list(calibrated.measure(["fixed_temperature"], states, {"near": ""}, **OPTIONS)[0]) == [
        "fixed_temperature"
    ]


def test_refused_by_name_with_the_reason(run):
    for name, reason in calibrated.NEEDS_MORE.items():
        assert name in posthoc.METHODS
        with pytest.raises(UserError, match=f"{name!r}, which needs {reason}"):
            calibrated.check([name])
    with pytest.raises(UserError, match="'heat'; choose from: .*temperature"):
        calibrated.check(["heat"])
    with pytest.raises(UserError, match="temperature on near: .*folds"):
        calibrated.measure(
            ["temperature"],
            {"m": {"near": run[1]["before"]["near"]}},
            {"near": ""},
            **OPTIONS | {"folds": 61},
        )
