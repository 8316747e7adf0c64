"""The job "compare": runs that are shared, stopped and read back; what is refused."""

import dataclasses
import hashlib
import json

import numpy as np
import pytest

from calib_jax import posthoc
from calib_jax.errors import UserError
from calib_jax.jobs import compare
from calib_jax.reports import predictions
from calib_jax.runs import base_model, subruns
from calib_jax.runs.run import Run, show_if_finished
from calib_jax.training.interrupt import Stopped, StopRequest
from tests.jobs.series.conftest import start
from tests.reports.compare.conftest import make_scores


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_comparison_from_model_to_page(config, tmp_path, capsys):
    workdir = tmp_path / "run"
    result = start(config, workdir)
    found = result["comparisons"][0]
    assert list(found["rows"]) == ["before", "fixed_temperature", "temperature", "cft"]
    assert found["reference"] == "cft" and found["seeds"] == [0]
    assert {k: p["splits"] for k, p in found["parts"].items()} == {"in": ["exam"], "out": ["other"]}
    for domain in ("in", "out"):
        accuracy = {m: found["rows"][m][domain]["accuracy"]["value"] for m in found["rows"]}
        assert accuracy["before"] == accuracy["temperature"] == accuracy["fixed_temperature"]
        nll = {m: found["rows"][m][domain]["nll"]["value"] for m in found["rows"]}
        assert len(set(nll.values())) == 4
    # What CFT started from is what was scored once.
    for split in ("exam", "other"):
        paths = [
            workdir / run / "predictions" / f"before-{split}.parquet"
            for run in ("before-seed0", "cft-seed0")
        ]
        assert digest(paths[0]) == digest(paths[1])
    # The temperature is that of the training questions, which are not reported.
    fitted_on = predictions.read(workdir / "before-seed0/predictions/calibration-train.parquet")
    assert len(fitted_on) == 24
    from calib_jax.posthoc import fit_temperature

    t = fit_temperature(fitted_on.log_scores, fitted_on.answers, fitted_on.mask)
    assert result["fitted"]["Temp. scale, fitted"]["seed 0"].startswith(f"T = {t:.3f}")
    config_of_run = json.loads((workdir / "cft-seed0" / "config.json").read_text())
    assert config_of_run["job"] == "finetune" and config_of_run["train"]["sft"] == "sft1"

    # The methods with the mean and the seed, each compared with CFT.
    assert {(row["subject"], row["seed"]) for row in result["rows"]} == {
        (method, seed) for method in found["rows"] for seed in (None, 0)
    }
    assert {(row["a"], row["b"]) for row in result["contrasts"]} == {
        ("cft", method) for method in found["rows"] if method != "cft"
    }
    assert list(result["runs"]) == ["before-seed0", "cft-seed0"]
    names = {p.relative_to(workdir).as_posix() for p in workdir.rglob("*") if p.is_file()}
    assert names >= {"report.html", "tables/table2.md", "tables/versus.tex", "tables/results.csv"}
    page = (workdir / "report.html").read_text()
    assert "Temp. scale, fitted" in page and "beats" in page
    capsys.readouterr()
    assert show_if_finished(workdir)
    said = capsys.readouterr().out
    assert "is finished" in said and "CFT" in said and "conf-ECE" in said


def test_a_killed_comparison_continues(config, tmp_path, trained, monkeypatch):
    train, calls = trained
    loads = []
    load = base_model.load
    monkeypatch.setattr(base_model, "load", lambda *args: loads.append(1) or load(*args))
    config.compare.methods = "cft,rcft,label_smoothing,ece_only"
    config.compare.seeds = "3,5"
    train.stop_after = 3
    with pytest.raises(Stopped):
        start(config, tmp_path / "run")
    assert not (tmp_path / "run" / "summary.json").exists()
    train.stop_after = -1
    result = start(config, tmp_path / "run")
    names = [name for name, _, _ in calls]
    assert names == [f"{m}-seed{k}" for k in (3, 5) for m in config.compare.methods.split(",")]
    # Once in either half: what is frozen is handed on.
    assert len(loads) == 2 and len({id(model) for _, _, model in calls}) == 2
    settings = {name: c.train for name, c, _ in calls}
    assert [settings[f"{m}-seed5"].sft for m in ("cft", "rcft", "ece_only", "label_smoothing")] == [
        "sft1",
        "sft2",
        "none",
        "sft1",
    ]
    assert settings["label_smoothing-seed3"].label_smoothing == 0.1
    assert settings["label_smoothing-seed3"].ece_weight == 0
    assert settings["cft-seed3"].label_smoothing == 0
    row = result["comparisons"][0]["rows"]["cft"]["in"]["conf_ece"]
    assert len(row["per_seed"]) == 2 and row["sd"] > 0
    # Finished: nothing is done again, and no model loaded, to write the tables anew.
    (tmp_path / "run" / "summary.json").unlink()
    again = start(config, tmp_path / "run")
    assert len(calls) == 8 and len(loads) == 2
    assert again["comparisons"] == result["comparisons"]
    assert result["comparisons"][0]["guesser"]["in"]["num_options"] == [3, 4]
    # A run of other questions is no part of it.
    path = tmp_path / "run/cft-seed3/predictions/after-exam.parquet"
    scores = predictions.read(path)
    predictions.write(path, scores.take(range(1, len(scores))))
    with pytest.raises(UserError, match="cft-seed3 was measured on other questions"):
        start(config, tmp_path / "run")


def test_methods_have_settings_of_their_own(config, tmp_path, trained, capsys):
    """Each run has its own, the rest what all have, and the finished table says which."""
    _, calls = trained
    config.compare.methods = "before,cft,rcft,sft,released"
    config.compare.seeds = "3,5"
    config.compare.settings = (
        "cft:train.ece_weight=3, cft:em.num_bins=5,rcft:train.learning_rate=1e-5,"
        "sft:train.epochs=2,released:train.alpha=0.9,cft:train.packing=False"
    )
    result = start(config, tmp_path / "run")
    for name, run, _ in calls:
        method, _, seed = name.partition("-seed")
        assert run.seed == int(seed) and run.compare.settings == ""
        found = (run.train.ece_weight, run.em.num_bins, run.train.learning_rate, run.train.epochs)
        assert (
            found
            == {
                "cft": (3.0, 5, 1e-2, 1),
                "rcft": (1.0, 10, 1e-5, 1),
                "sft": (0.0, 10, 1e-2, 2),
                "released": (0.0, 10, 1e-2, 1),
            }[method]
        )
        assert run.train.alpha == (0.9 if method == "released" else 0.5)
        assert run.train.packing == (method != "cft")
    assert len(calls) == 8
    settings = result["comparisons"][0]["settings"]
    assert settings["cft"] == {
        "method": "SFT1 + 3 · ECE",
        "λ": "3",
        "learning rate": "0.01",
        "epochs": "1",
        "its own": "train.ece_weight=3, em.num_bins=5, train.packing=False",
    }
    assert settings["released"]["method"] == "(1 − α) · SFT1 + α · 10⁻³ · CAL, α = 0.9"
    assert settings["sft"]["λ"] == "" and settings["before"] == {"method": "the model as it is"}
    text = (tmp_path / "run" / "tables" / "settings.md").read_text()
    assert "| RCFT | SFT2 + 1 · ECE | 1 | 1e-05 | 1 | train.learning_rate=1e-5 |" in text
    assert r"$\alpha$" in (tmp_path / "run" / "tables" / "settings.tex").read_text()
    capsys.readouterr()
    assert show_if_finished(tmp_path / "run")
    said = capsys.readouterr().out
    assert "epochs" in said and "1e-05" in said


def test_full_fine_tuning_is_given_a_model_of_its_own(config, tmp_path, monkeypatch):
    config.train.method = "full"
    loaded = iter("abc")
    monkeypatch.setattr(base_model, "load", lambda *_: next(loaded))
    given = []

    def train(run, model, before):
        given.append(model)
        run.workdir.mkdir()
        (run.workdir / "summary.json").write_text("{}")

    whole = subruns.Subruns(Run(config, tmp_path, StopRequest()), train)
    before = subruns.Before(tmp_path, {}, None, {}, {})
    for name in ("first", "second"):
        whole.train(name, config, before)
    assert given == ["a", "b"]
    config.train.method = "lora"
    for name in ("third", "fourth"):
        whole.train(name, config, before)
    # What was loaded to train itself is no base of adapters.
    assert given == ["a", "b", "c", "c"]
    config.train.method = "full"
    monkeypatch.setattr(base_model, "load", lambda *_: "d")
    whole.train("fifth", config, before)
    assert given[-1] == "d"


def test_cross_fitting_and_other_calibrators(config, tmp_path, trained):
    config.compare.methods = "before,temperature,histogram,cft"
    config.compare.calibration = "cross"
    config.posthoc.folds = 3
    result = start(config, tmp_path / "run")
    rows = result["comparisons"][0]["rows"]
    assert rows["temperature"]["in"]["nll"]["value"] != rows["before"]["in"]["nll"]["value"]
    assert result["comparisons"][0]["labels"]["histogram"] == "Histogram binning"
    assert not (tmp_path / "run/before-seed0/predictions/calibration-train.parquet").exists()
    assert "out of fold" in result["methods"]["Temp. scale, fitted"] or "folds" in str(
        result["methods"]
    )


def test_a_temperature_after_training_is_fitted_out_of_fold(config, tmp_path, trained):
    """SFT is trained for it, whether or not it has a row of its own, and keeps its predictions."""
    config.compare.methods = "before,sft+temperature,cft"
    config.posthoc.folds = 3
    result = start(config, tmp_path / "run")
    rows, labels = result["comparisons"][0]["rows"], result["comparisons"][0]["labels"]
    assert list(rows) == ["before", "sft+temperature", "cft"]
    assert labels["sft+temperature"] == "SFT only, then Temp. scale, fitted"
    assert [name for name, _, _ in trained[1]] == ["sft-seed0", "cft-seed0"]
    sft = predictions.read(tmp_path / "run/sft-seed0/predictions/after-exam.parquet", "choice")
    expected = posthoc.cross_fit_scores("temperature", sft, folds=3, seed=config.seed)
    nll = -np.log(expected.probs[np.arange(len(sft)), sft.answers]).mean()
    assert rows["sft+temperature"]["in"]["nll"]["value"] == pytest.approx(nll, rel=1e-5)
    # The training questions are not scored for it: it has learnt them.
    assert not (tmp_path / "run/before-seed0/predictions/calibration-train.parquet").exists()
    assert "cross-fitted to it on each" in result["methods"][labels["sft+temperature"]]


def test_every_seed_starts_from_its_own_adapter(config, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(base_model, "load", lambda config, _: loaded.append(config.model.adapter))
    config.model.adapter = "aligned-seed{seed}/adapter"
    config.train.method = "lora"
    whole = subruns.Subruns(Run(config, tmp_path, StopRequest()), lambda *_, **__: None)
    assert whole.settings(3).model.adapter == "aligned-seed3/adapter"
    heard = []
    for seed in (0, 0, 1):
        whole._held(whole.settings(seed))
        heard.append(whole._heard)
        whole._model = whole._model or whole._loaded(whole.settings(seed)) or "a model"
    assert loaded == ["aligned-seed0/adapter", "aligned-seed1/adapter"]
    assert heard[0] is heard[1] is not heard[2]


@pytest.mark.parametrize("calibration", ["train", "cross"])
@pytest.mark.filterwarnings("ignore::calib_jax.posthoc.CalibrationWarning")
def test_a_head_reads_the_states_of_the_model_as_it_is(config, tmp_path, trained, calibration):
    config.compare.methods = "before,temperature,ridge_head"
    config.compare.calibration = calibration
    if calibration == "cross":
        config.posthoc.folds = 3
    result = start(config, tmp_path / "run")
    found = result["comparisons"][0]
    assert found["labels"]["ridge_head"] == "Ridge head on the state"
    rows = found["rows"]
    assert rows["ridge_head"]["in"]["nll"]["value"] != rows["before"]["in"]["nll"]["value"]
    assert "ridge_head" not in found["unchanged"] and "temperature" in found["unchanged"]
    place = tmp_path / "run/before-seed0/predictions"
    kept = {path.name for path in place.glob("*.npy")}
    train = {"calibration-train.states.npy"} if calibration == "train" else set()
    assert kept == {"before-exam.states.npy", "before-other.states.npy"} | train
    read_back = predictions.read(place / "before-exam.parquet", "choice", states=True)
    assert read_back.states.shape[0] == 12 and np.ptp(read_back.states, axis=0).max() > 0
    # What was interrupted after one split goes on from there, to the same figures.
    (tmp_path / "run/summary.json").unlink()
    (tmp_path / "run/before-seed0/summary.json").unlink()
    (place / "before-other.parquet").unlink()
    again = start(config, tmp_path / "run")
    assert again["comparisons"][0]["rows"] == rows


def test_a_temperature_at_its_bound_is_told(config):
    scores = make_scores(0, 3.0)
    wrong = dataclasses.replace(scores, answers=scores.probs.argmin(axis=1).astype(np.int32))
    found, said, warns = compare.calibrate(config, "temperature", {"exam": scores}, wrong)
    np.testing.assert_allclose(found["exam"].probs, 0.25, atol=0.01)
    assert said == ["T = 1000.000"] and "upper bound 1000, all but the uniform guesser" in warns[0]
    assert compare.remark("Temp. scale", [0], *warns).startswith("Temp. scale (seed 0): the scores")
    assert not compare.calibrate(config, "fixed_temperature", {"exam": scores}, wrong)[2]


def test_rows_of_another_comparison_stand_in_the_table(config, tmp_path, trained):
    start(config, tmp_path / "first")
    config.compare.beside = str(tmp_path / "first")
    config.report.title = "second"
    result = start(config, tmp_path / "second")
    assert [c["model"] for c in result["comparisons"]] == ["second", "tiny0"]
    text = (tmp_path / "second" / "tables" / "table2.md").read_text()
    assert "*second*" in text and text.count("| CFT |") == 2
    config.compare.beside = str(tmp_path / "first" / "cft-seed0")
    with pytest.raises(UserError, match="is not of the job 'compare'"):
        start(config, tmp_path / "third")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("compare.methods", "before,ctf", "names 'ctf'; choose from: .* Did you mean 'cft'"),
        ("compare.methods", "temprature", "Did you mean 'temperature'"),
        ("compare.methods", "cft,cft", "names 'cft' twice"),
        ("compare.methods", " ,", "names nothing"),
        ("compare.methods", "daca", "needs the pre-trained model's log-scores"),
        ("compare.methods", "sft+daca", "names 'daca', which needs"),
        ("compare.methods", "temperature+temperature", "names 'temperature'; choose from: cft"),
        ("compare.methods", "sft+ridge_head", "names 'ridge_head'; choose from: temperature"),
        ("compare.methods", "temperature+sft", "the trained method first: sft.temperature"),
        ("compare.methods", "before+temperature", "which is 'temperature' alone"),
        ("compare.methods", "sft+", "write a trained method and one post-hoc method"),
        ("compare.methods", "sft+temperature+platt", "one post-hoc method"),
        ("compare.methods", "sft+cft", "names 'cft'; choose from: temperature"),
        ("compare.methods", "sft+temperature,sft+temperature", "twice; leave one out"),
        ("compare.seeds", "0,one", "holds 'one'; expected whole numbers"),
        ("compare.seeds", "-1", "holds '-1'"),
        ("compare.seeds", "", "is empty"),
        ("compare.seeds", "1,1", "holds 1 twice"),
        (
            "compare.calibration",
            "test",
            "config.compare.calibration is 'test'; choose from: train, cross",
        ),
        ("train.ece_weight", 0.0, "cft: .* it would learn no calibration"),
        (
            "compare.settings",
            "rcft:train.epochs=2",
            "a method that config.compare.methods .* does not name",
        ),
        (
            "compare.settings",
            "cft:train.early_stopping=1",
            "config.data.validation, which is empty",
        ),
        ("compare.beside", "nowhere", "no such file"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    config, tmp_path, field, value, message
):
    section, _, key = field.partition(".")
    config[section][key] = value
    with pytest.raises(UserError, match=message):
        start(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
