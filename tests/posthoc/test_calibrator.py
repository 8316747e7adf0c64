"""What all calibrators promise: the argmax, rows that sum to 1, and files that are read back."""

import json
import warnings

import jax
import numpy as np
import pytest

import calib_jax
from calib_jax import posthoc
from calib_jax.errors import UserError
from tests.posthoc.conftest import OF_SCORES

TEMPERATURES = {"temperature", "fixed_temperature", "daca"}
PRESERVING = {*TEMPERATURES, "platt", "beta", "histogram", "isotonic"}


@pytest.fixture(scope="module")
def fitted(ragged, options):
    """name -> calibrator fitted to the ragged set, where a masked option holds 0."""
    log_scores, answers, mask = ragged
    scores = np.where(mask, log_scores, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", posthoc.CalibrationWarning)
        return {
            name: cls.fit(scores, answers, mask, **options(name, scores))
            for name, cls in OF_SCORES.items()
        }


def test_registry():
    assert calib_jax.posthoc is posthoc
    assert set(posthoc.METHODS) == {
        "temperature", "fixed_temperature", "vector", "matrix", "structured_matrix", "dirichlet",
        "platt", "beta", "histogram", "isotonic", "batch_calibration", "contextual_calibration",
        "pride", "daca", "ridge_head",
    }  # fmt: skip  # names, several on a line
    assert set(posthoc.METHODS) - set(OF_SCORES) == {"ridge_head"}
    for name, cls in posthoc.METHODS.items():
        assert cls.name == name
    declared = {name for name, cls in posthoc.METHODS.items() if cls.preserves_argmax}
    assert declared == PRESERVING


@pytest.mark.parametrize("name", sorted(OF_SCORES))
def test_probabilities_of_any_row(fitted, ragged, name):
    log_scores, _, mask = ragged
    probs = fitted[name](log_scores, mask)
    assert probs.dtype == np.float32
    probs = np.asarray(probs)
    assert (probs[~mask] == 0).all() and (probs >= 0).all() and (probs <= 1).all()
    np.testing.assert_allclose(probs.sum(axis=1), 1, atol=2e-6)
    # Under jit, and with the mask left to -inf.
    np.testing.assert_allclose(jax.jit(fitted[name])(log_scores), probs, atol=1e-6)


@pytest.mark.parametrize("name", sorted(PRESERVING))
def test_declared_argmax_is_kept_with_ties_and_masks(fitted, ragged, name):
    log_scores, _, mask = ragged
    probs = np.asarray(fitted[name](log_scores, mask))
    masked = np.where(mask, log_scores, -np.inf)
    ties = masked == masked.max(axis=1, keepdims=True)
    assert (ties.sum(axis=1) > 1).sum() > 3  # the set does hold ties
    np.testing.assert_array_equal(probs.argmax(axis=1), masked.argmax(axis=1))
    if name in TEMPERATURES:  # the others may break a tie, in favour of the first
        np.testing.assert_array_equal(probs == probs.max(axis=1, keepdims=True), ties)


def change_counts(draws, options):
    """method -> rows whose best option changed, over random sets with a letter bias."""
    changed = dict.fromkeys(OF_SCORES, 0)
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        log_scores = np.round(rng.normal(size=(400, 5)) * 2 + [2, 0, 0, 0, -2], 1)
        answers = rng.integers(0, 5, 400)
        for name, cls in OF_SCORES.items():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", posthoc.CalibrationWarning)
                calibrator = cls.fit(log_scores, answers, **options(name, log_scores))
            probs = np.asarray(calibrator(log_scores))
            changed[name] += (probs.argmax(axis=1) != log_scores.argmax(axis=1)).sum()
    return changed


def test_the_declaration_is_true_both_ways(options):
    changed = change_counts(3, options)
    for name, cls in OF_SCORES.items():
        assert (changed[name] == 0) == cls.preserves_argmax, (name, changed[name])


@pytest.mark.parametrize("name", sorted(OF_SCORES))
def test_round_trip_gives_the_same_bits(fitted, ragged, name, tmp_path):
    log_scores, _, mask = ragged
    path = tmp_path / "new" / f"{name}.json"
    fitted[name].save(path)
    again = posthoc.load(path)
    assert again == fitted[name] and type(again) is posthoc.METHODS[name]
    before, after = (np.asarray(c(log_scores, mask)) for c in (fitted[name], again))
    assert before.tobytes() == after.tobytes()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    # Strict JSON: no NaN, no Infinity.
    json.loads(path.read_text(), parse_constant=lambda text: pytest.fail(text))


def test_calibrators_are_frozen():
    with pytest.raises(AttributeError):
        posthoc.FixedTemperature(1.5).temperature = 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, 'key "format"'),
        ({"format": None}, 'key "format"'),
        ({"version": 2}, 'key "version" is 2'),
        ({"version": "1"}, 'key "version"'),
        ({"method": "no_such"}, "key \"method\" is 'no_such'"),
        ({"method": ["temperature"]}, 'key "method"'),
        ({"parameters": [1.5]}, 'key "parameters"'),
        ({"parameters": {}}, 'key "temperature" in "parameters" is missing'),
        (
            {"parameters": {"temperature": 1.5, "status": "converged", "bias": 0}},
            'key "bias" in "parameters" is unknown to temperature',
        ),
        (
            {"parameters": {"temperature": -1, "status": "converged"}},
            r'"temperature" must lie in \[1e-06, 1e\+06\], got -1',
        ),
        ({"parameters": {"temperature": "x", "status": "converged"}}, '"temperature"'),
        ({"parameters": {"temperature": float("nan"), "status": "converged"}}, '"temperature"'),
        ({"parameters": {"temperature": None, "status": "converged"}}, '"temperature"'),
        ({"parameters": {"temperature": 1.5, "status": "fine"}}, '"status" must be one of'),
        ({"parameters": {"temperature": 1.5, "status": []}}, '"status" must be one of'),
    ],
)
def test_damaged_files_name_file_and_key(tmp_path, change, message):
    path = tmp_path / "damaged.json"
    posthoc.Temperature(1.5).save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=f"damaged.json: .*{message}"):
        posthoc.load(path)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", '"text"', "\x00\xff"])
def test_foreign_files_name_the_file(tmp_path, text):
    path = tmp_path / "foreign.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match="foreign.json"):
        posthoc.load(path)
    with pytest.raises(UserError, match="absent.json: cannot be read"):
        posthoc.load(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("vector", "weight", [1.0, "x", 1.0, 1.0, 1.0]),
        ("vector", "weight", 3.0),
        ("vector", "bias", [0.0]),
        ("matrix", "weight", [[1.0], [2.0]]),
        ("matrix", "weight", [1.0, 2.0]),
        ("dirichlet", "steps", -1),
        ("dirichlet", "converged", 1),
        ("histogram", "values", [1.5]),
        ("histogram", "edges", [0.0]),
        ("isotonic", "values", []),
        ("pride", "log_prior", "abcde"),
        ("daca", "agreement", 1.5),
    ],
)
def test_damaged_parameters_name_the_key(fitted, tmp_path, name, key, value):
    path = tmp_path / "damaged.json"
    fitted[name].save(path)
    document = json.loads(path.read_text())
    document["parameters"][key] = value
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=f'damaged.json: {name}: .*"{key}"'):
        posthoc.load(path)
