"""The jobs "compare" and "sweep": runs that are shared, stopped and read back; what is refused."""

import dataclasses
import hashlib
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from calib_jax.api import make_mesh
from calib_jax.errors import UserError
from calib_jax.jobs import compare, finetune, sweep
from calib_jax.reports import predictions
from calib_jax.reports.figures.canvas import drawn, new_figure
from calib_jax.reports.result import read, write
from calib_jax.reports.views import comparison as views
from calib_jax.runs import base_model, split_scores, subruns
from calib_jax.runs.run import Run, as_json, show_if_finished
from calib_jax.training.interrupt import Stopped, StopRequest
from configs.compare import get_config as compare_config
from configs.sweep import get_config as sweep_config
from tests.conftest import make_questions, write_questions
from tests.reports.compare.conftest import Few, make_scores


def fill(config, folder, model):
    """The config on the tiny model and invented questions, an in-domain and another split."""
    for i, (name, count) in enumerate((("train", 24), ("test", 12), ("other", 10))):
        questions = make_questions(count, i, options=(3, 4))
        questions = [
            dataclasses.replace(q, question=f"{name}: {q.question}", task=None) for q in questions
        ]
        write_questions(folder / f"{name}.jsonl", questions)
    config.model.name = str(model)
    config.data.train = f"exam={folder / 'train.jsonl'}"
    config.data.eval = f"exam={folder / 'test.jsonl'},{folder / 'other.jsonl'}"
    config.data.train_size = config.data.eval_size = 0
    config.prompt.max_length = 256
    config.batch.max_buckets = 1
    config.train.learning_rate = 1e-2
    config.report.num_resamples = 5
    return config


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """A run's own report and all figures have tests of their own, and take most of the time."""

    def finish(run, setting, states, extra, quietly=False):
        rows = {
            state: {s: {"domain": setting.domains[s], "n": len(x)} for s, x in splits.items()}
            for state, splits in states.items()
        }
        found = {"fingerprint": "f", "data": setting.data, **rows, **extra}
        write(run.workdir / "summary.json", found)

    monkeypatch.setattr(split_scores, "finish", finish)
    one = jax.devices()[:1]
    monkeypatch.setattr(base_model, "make_mesh", lambda shape: make_mesh((1, 1, 1), one))
    monkeypatch.setattr(compare.measure, "catalogue", Few)
    logged = dict.fromkeys(("conf_ece", "accuracy", "mean_confidence", "nll"), 0.5)
    monkeypatch.setattr(split_scores, "figures", lambda *_: logged)
    monkeypatch.setattr(views.diagrams, "draw_all", lambda *_: {})
    monkeypatch.setattr(views.frontier, "draw", drawn(lambda *_: new_figure(1, 1)))


@pytest.fixture
def config(tmp_path, tiny_model):
    config = fill(compare_config("debug"), tmp_path, tiny_model)
    config.compare.methods = "before,fixed_temperature,temperature,cft"
    return config


@pytest.fixture
def trained(monkeypatch):
    """Stands for training: finishes a folder at once, less sure than before; notes its calls."""
    calls = []

    def train(run, model=None, before=None):
        config, workdir = run.config, run.workdir
        if len(calls) == train.stop_after:
            raise Stopped
        calls.append((workdir.name, config, model))
        (workdir / "predictions").mkdir(parents=True)
        (workdir / "config.json").write_text(as_json(config))
        for path in before.glob("before-*.parquet"):
            scores = predictions.read(path)
            sharp = 0.5 + 0.1 * len(calls)
            probs = np.where(scores.mask, scores.probs**sharp, 0)
            scores = dataclasses.replace(scores, probs=probs / probs.sum(axis=1, keepdims=True))
            name = path.name.replace("before", "after")
            predictions.write(workdir / "predictions" / name, scores)
        write(workdir / "summary.json", {})

    train.stop_after = -1
    monkeypatch.setattr(finetune, "main", train)
    return train, calls


def start(config, workdir, job=compare):
    job.main(Run(config, workdir, StopRequest()))
    return read(workdir / "summary.json")


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
    before = SimpleNamespace(calibration=wrong, scores={"exam": scores})
    found, said, warns = compare.calibrate(config, "temperature", before)
    np.testing.assert_allclose(found["exam"].probs, 0.25, atol=0.01)
    assert said == ["T = 1000.000"] and "upper bound 1000, all but the uniform guesser" in warns[0]
    assert compare.remark("Temp. scale", [0], *warns).startswith("Temp. scale (seed 0): the scores")
    assert not compare.calibrate(config, "fixed_temperature", before)[2]


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


# --- Sweep ----------------------------------------------------------------------------------------


@pytest.fixture
def sweeping(tmp_path, tiny_model):
    return fill(sweep_config("debug"), tmp_path, tiny_model)


def test_a_sweep_runs_every_weight_with_every_number_of_bins(sweeping, tmp_path, trained, capsys):
    _, calls = trained
    sweeping.sweep.ece_weight, sweeping.sweep.num_bins = "0,0.3,10", "5,20"
    result = start(sweeping, tmp_path / "run", sweep)
    assert [name for name, _, _ in calls] == [
        "lambda0-seed0",
        "lambda0.3-bins5-seed0",
        "lambda0.3-bins20-seed0",
        "lambda10-bins5-seed0",
        "lambda10-bins20-seed0",
    ]
    assert [(c.train.ece_weight, c.em.num_bins) for _, c, _ in calls] == [
        (0, 10),
        (0.3, 5),
        (0.3, 20),
        (10, 5),
        (10, 20),
    ]
    rows = result["comparisons"][0]["rows"]
    assert list(rows) == ["before", *result["points"]]
    # Every setting is measured with the same bins.
    scores = predictions.read(tmp_path / "run/lambda10-bins5-seed0/predictions/after-exam.parquet")
    from calib_jax import metrics

    expected = float(metrics.conf_ece(scores.probs, scores.answers, scores.mask, num_bins=10))
    found = rows["lambda10-bins5"]["in"]["conf_ece"]["value"]
    assert found == pytest.approx(expected, abs=1e-6)
    assert set(result["frontier"]) == {"in", "out"} and all(result["frontier"].values())
    assert (tmp_path / "run/figures/frontier_conf_ece.png").is_file()
    assert {row["subject"] for row in result["rows"]} == set(rows)
    assert {row["a"] for row in result["contrasts"]} == {"before"}
    assert "Pareto" in (tmp_path / "run" / "report.html").read_text()
    capsys.readouterr()
    assert show_if_finished(tmp_path / "run") and "λ = 0.3, M = 20" in capsys.readouterr().out


def test_a_sweep_that_cannot_be_is_refused(sweeping, tmp_path):
    for field, value, message in (
        ("ece_weight", "0,-1", "holds '-1'; expected numbers of at least 0"),
        ("ece_weight", "nan", "holds 'nan'"),
        ("num_bins", "0", "holds '0'"),
        ("num_bins", "2.5", "expected whole numbers"),
    ):
        config = sweeping.copy_and_resolve_references()
        config.sweep[field] = value
        with pytest.raises(UserError, match=message):
            start(config, tmp_path / "run", sweep)
    sweeping.train.sft = "none"
    with pytest.raises(UserError, match="no loss"):
        start(sweeping, tmp_path / "run", sweep)
    assert not (tmp_path / "run").exists()
