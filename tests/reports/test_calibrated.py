"""summary["posthoc"]: out of fold, on the scores before training."""

import numpy as np
import pytest

from calib_jax import metrics, posthoc
from calib_jax.errors import UserError
from calib_jax.reports import calibrated

OPTIONS = {"folds": 3, "seed": 1, "num_resamples": 20}


def test_figures_are_those_of_the_cross_fitted_probabilities(run):
    scores = run[1]["before"]["near"]
    found = calibrated.measure(
        ["temperature"], {"before": {"near": scores}, "after": {}}, {"near": "in"}, **OPTIONS
    )
    row = found.figures["temperature"]["near"]
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
    found = calibrated.measure(["fixed_temperature"], renamed, {"near": ""}, **OPTIONS)
    assert list(found.figures) == ["one + fixed_temperature", "two + fixed_temperature"]
    found = calibrated.measure(["fixed_temperature"], states, {"near": ""}, **OPTIONS)
    assert list(found.figures) == ["fixed_temperature"]


def test_the_fit_to_all_rows_is_kept_and_named(run, tmp_path):
    scores = run[1]["before"]["near"]
    names = ["temperature", "platt", "histogram"]
    splits = {"a b": scores, "a_b": scores}
    found = calibrated.measure(
        names, {"m": splits}, dict.fromkeys(splits, ""), pseudo_count=3.0, **OPTIONS
    )
    assert len(found.files) == 6  # "a b" and "a_b" would be the same file
    arrays = scores.log_scores, scores.answers, scores.mask
    refitted = {
        "temperature": posthoc.Temperature.fit(*arrays),
        "platt": posthoc.PlattScaling.fit(*arrays),
        "histogram": posthoc.HistogramBinning.fit(*arrays, pseudo_count=3.0),
    }
    for name in names:
        for split in splits:
            row = found.figures[name][split]
            file = tmp_path / row["calibrator"]
            found.files[row["calibrator"]].save(file)
            again = posthoc.load(file)
            assert again == refitted[name]
            one, two = (np.asarray(c(*arrays[::2])) for c in (again, refitted[name]))
            assert one.tobytes() == two.tobytes()
    row = found.figures["temperature"]["a b"]
    assert row["parameters"]["temperature"] == refitted["temperature"].temperature
    interval = posthoc.temperature_interval(*arrays)
    assert row["parameters"]["temperature_ci"] == list(interval)
    assert found.figures["platt"]["a b"]["parameters"] == {
        "slope": refitted["platt"].slope,
        "intercept": refitted["platt"].intercept,
    }
    assert "parameters" not in found.figures["histogram"]["a b"]


def test_ranking_is_within_the_folds(run):
    scores = run[1]["before"]["near"]
    found = calibrated.measure(["temperature"], {"m": {"near": scores}}, {"near": ""}, **OPTIONS)
    row = found.figures["temperature"]["near"]
    crossed = posthoc.cross_fit_scores("temperature", scores, folds=3, seed=1)
    expected = posthoc.fold_numbers(len(scores), 3, seed=1, answers=scores.answers)
    np.testing.assert_array_equal(crossed.folds, expected)
    right, confidence = scores.predictions == scores.answers, crossed.probs.max(axis=1)
    areas, sizes = [], []
    for fold in range(3):
        own = crossed.folds == fold
        gaps = confidence[own & right][:, None] - confidence[own & ~right]
        areas.append(np.mean((gaps > 0) + (gaps == 0) / 2))
        sizes.append(own.sum())
    assert row["auroc"] == pytest.approx(np.average(areas, weights=sizes), abs=1e-6)
    assert row["auroc_ci"][0] < row["auroc"] < row["auroc_ci"][1]


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
