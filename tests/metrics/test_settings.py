"""Bad seeds, counts and levels, and arrays that hold no numbers, are one clear message."""

import inspect

import numpy as np
import pytest

from calib_jax import metrics, posthoc
from calib_jax.errors import UserError

BAD = {
    "seed": (-1, 2.5, "a", None, True, 2**32, np.float32(1)),
    "num_resamples": (0, -1, 2.5, "a", None),
    "num_draws": (0, -1, 2.5, "a", None),
    "folds": (1, 0, 2.5, "a", None),
    "level": (0, 1, 2, "a", None, float("nan"), True),
}
# folds is an array there; the others know no such setting from here.
OTHERS = {("within_folds", "folds")}


def cases():
    for module in (metrics, posthoc):
        for name in module.__all__:
            function = getattr(module, name)
            if not callable(function) or inspect.isclass(function):
                continue
            for setting in sorted(inspect.signature(function).parameters.keys() & BAD.keys()):
                if (name, setting) not in OTHERS:
                    yield pytest.param(module, function, setting, id=f"{name}-{setting}")


@pytest.mark.parametrize(("module", "function", "setting"), cases())
def test_bad_settings_are_named_before_anything_is_computed(module, function, setting):
    required = {
        name: None
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD
    }
    kind = ValueError if module is metrics else UserError
    for value in BAD[setting]:
        with pytest.raises(kind, match=f"^{setting} must .*, got "):
            function(**{**required, setting: value})


def test_whole_numbers_of_every_kind_are_taken():
    arrays = np.array([[0.5, 0.5]] * 8), np.array([0, 1] * 4)
    for seed in (3, np.int64(3), np.uint8(3)):
        low, high = metrics.bootstrap(metrics.conf_ece, *arrays, seed=seed, num_resamples=20)
        assert low <= high


def test_what_is_no_array_is_named():
    probs, answers = np.array([[0.5, 0.5]] * 4), np.array([0, 1, 0, 1])
    with pytest.raises(ValueError, match="probs is None"):
        metrics.conf_ece(None, answers)
    with pytest.raises(ValueError, match="num_bins must be an integer >= 1, got 'a'"):
        metrics.bin_edges("a")
    logs = np.log(probs)
    logs[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"row 2 of log_scores holds NaN \(1 bad row of 4\)"):
        metrics.nll(probs, answers, log_scores=logs)
    mask = np.array([[True, True]] * 2 + [[True, False]] * 2)
    masked = np.where(mask, [[0.5, 0.5]] * 2 + [[1.0, 0.0]] * 2, 0)
    assert np.isfinite(float(metrics.nll(masked, [0, 1, 0, 0], mask, log_scores=logs)))


def test_calibrators_say_what_is_wrong(tmp_path):
    scores, answers = np.log([[0.75, 0.25]] * 8), np.array([0, 0, 0, 1] * 2)
    with pytest.raises(UserError, match="is a folder: name the file, such as .*temperature.json"):
        posthoc.FixedTemperature(2.0).save(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match='"temperature" must be a finite number, got'):
        posthoc.FixedTemperature("hot")
    with pytest.raises(UserError, match="weights must hold numbers"):
        posthoc.fit_temperature(scores, answers, weights=["x"] * 8)
    with pytest.raises(UserError, match="log_scores must hold numbers"):
        posthoc.fit_temperature([["x", "y"]], [0])
    scores[1, 0] = np.nan
    with pytest.raises(UserError, match=r"row 1 of log_scores holds NaN or \+inf"):
        posthoc.cross_fit("temperature", scores, answers)


def test_a_single_cluster_and_none_that_has_a_name_make_no_folds():
    with pytest.raises(UserError, match="all rows lie in one cluster, .* smaller clusters"):
        posthoc.fold_numbers(6, folds=2, clusters=["a"] * 6)
    with pytest.raises(UserError, match="clusters must be integers or strings, got NoneType"):
        posthoc.fold_numbers(6, folds=2, clusters=[None] * 6)
    with pytest.raises(UserError, match="0 rows cannot make 2 folds: more rows are needed"):
        posthoc.fold_numbers(0, folds=2)
