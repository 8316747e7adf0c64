"""The job "study": pairs as they are written, runs that are compared or refused, results."""

import dataclasses
import json

import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.confidence.methods import METHODS
from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError
from calib_jax.jobs import evaluate, study
from calib_jax.main import main
from calib_jax.questions import sources
from calib_jax.reports import predictions, result
from calib_jax.reports.study import authors_csv, figures
from calib_jax.runs import run
from calib_jax.runs.pairs import parse_pairs
from calib_jax.runs.run import Run, as_json, show_if_finished
from calib_jax.training.interrupt import Stopped, StopRequest
from configs.study import get_config as study_config
from tests.conftest import write_tiny_model


def make_scores(seed, sharp=1.0, method="choice", n=60):
    answers = np.random.default_rng(0).integers(0, 4, n).astype(np.int32)
    logits = np.random.default_rng(seed).normal(size=(n, 4)) * sharp
    logits[np.arange(n), answers] += 1.0
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Scores(
        log_scores=np.log(probs).astype(np.float32),
        probs=probs.astype(np.float32),
        mask=np.ones((n, 4), bool),
        answers=answers,
        ids=tuple(f"q{i}" for i in range(n)),
        tasks=("exam",) * n,
        subjects=tuple(("algebra", "chess")[i % 2] for i in range(n)),
        method=method,
    )


def finish_run(folder, config, sharp, changed=None):
    """A folder such as the job "evaluate" leaves, of invented scores."""
    methods = config.confidence.methods.split(",")
    for i, name in enumerate(("exam", "plain")):
        scores = [make_scores(i, sharp, method) for method in methods]
        if changed:
            scores = [dataclasses.replace(s, **changed) for s in scores]
        predictions.write(folder / "predictions" / f"measured-{name}.parquet", *scores)
    (folder / "config.json").write_text(as_json(config))
    (folder / "summary.json").write_text("{}")
    return folder


# The names of the figures that a run would have written.
PICTURES: list[str] = []


@pytest.fixture(autouse=True)
def quick_intervals(monkeypatch):
    """They have tests of their own, and take longer to compile than all else here."""
    monkeypatch.setattr(
        metrics, "paired_bootstrap_all", lambda fns, *_, **__: dict.fromkeys(fns, (-1.0, 1.0))
    )


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """The view's tests look at them, and at the page."""
    for name in ("figure1", "figure2"):
        monkeypatch.setattr(figures, name, lambda cells: None)
    monkeypatch.setattr(run, "render", lambda *_: "")
    monkeypatch.setattr(run.files, "write", lambda folder, drawn: PICTURES.extend(drawn))
    PICTURES.clear()


@pytest.fixture
def config(exam_config):
    config = exam_config
    config.job = config.method = "study"
    config.confidence.methods = "choice,continuation_sum"
    config.report.num_resamples = 20
    return config


@pytest.fixture
def evaluation(config):
    derived = config.copy_and_resolve_references()
    derived.job = derived.method = "evaluate"
    return derived


def start(config, workdir):
    study.main(Run(config, workdir, StopRequest()))
    return result.read(workdir / "summary.json")


def test_finished_runs_are_compared(config, evaluation, tmp_path, capsys):
    for name, sharp in (("base", 0.5), ("mild", 0.5), ("sharp", 4.0)):
        finish_run(tmp_path / name, evaluation, sharp)
    config.study.pairs = (
        f"Mild=run:{tmp_path / 'base'}->run:{tmp_path / 'mild'},"
        f"Sharp=run:{tmp_path / 'base'}->run:{tmp_path / 'sharp'}"
    )
    summary = start(config, tmp_path / "study")
    pairs = summary["pairs"]
    assert list(pairs) == ["Mild", "Sharp"]
    # The groups of subjects stand after their task, pooled over the questions.
    assert list(pairs["Sharp"]) == ["exam", "exam_hard", "exam_soft", "plain"]
    assert pairs["Sharp"]["exam_hard"]["choice"]["n"] == 30
    assert list(pairs["Sharp"]["exam"]) == ["choice", "continuation_sum"]
    found = pairs["Sharp"]["plain"]["choice"]["conf_ece"]
    assert found["change"] == pytest.approx(found["it"] - found["pt"])
    assert found["ratio"] == pytest.approx(found["it"] / found["pt"] - 1)
    low, high = found["change_ci"]
    assert low <= found["change"] <= high
    ranks = [pairs[name]["plain"]["choice"]["conf_ece"]["rank"] for name in pairs]
    assert sorted(ranks) == [1, 2]
    assert pairs["Mild"]["exam"]["choice"]["conf_ece"]["change"] == 0

    rows = {(r["subject"], r["probe"], r["reading"], r["metric"]): r for r in summary["rows"]}
    base, sharp = (f"run:{tmp_path / name}" for name in ("base", "sharp"))
    # The base of two pairs is measured once: three models, four probes, two readings, four metrics.
    assert len(summary["rows"]) == len(rows) == 3 * 4 * 2 * 4
    assert rows[sharp, "plain", "choice", "conf_ece"]["value"] == found["it"]
    assert rows[base, "plain", "choice", "conf_ece"]["n"] == 60
    contrast = next(
        r for r in summary["contrasts"]
        if (r["b"], r["probe"], r["reading"], r["metric"]) == (sharp, "plain", "choice", "conf_ece")
    )  # fmt: skip  # one of all
    assert len(summary["contrasts"]) == 2 * 4 * 2 * 4 and contrast["a"] == base
    assert contrast["difference"] == found["change"]
    assert [contrast["low"], contrast["high"]] == found["change_ci"]

    # Without labels the base gives the aligned model its own, milder confidence back.
    repaired = summary["unlabelled"]["Sharp"]["plain"]["choice"]
    assert repaired["aligned"]["conf_ece"] == pytest.approx(found["it"], abs=1e-6)
    for name in ("daca", "reeval"):
        assert repaired[name]["mean_confidence"] < repaired["aligned"]["mean_confidence"]
        assert repaired[name]["accuracy"] == repaired["aligned"]["accuracy"]

    workdir = tmp_path / "study"
    names = {p.relative_to(workdir).as_posix() for p in workdir.rglob("*") if p.is_file()}
    assert names >= {
        "report.html",
        "tables/table1.tex",
        "tables/unlabelled.md",
        "csv/sce/choice.csv",
        "csv/sce_ovr/continuation_sum.csv",
    }
    assert PICTURES == ["figures/figure1", "figures/figure2"]
    printed = authors_csv.read(workdir / "csv" / "sce_ovr" / "choice.csv")
    change = printed["Sharp"]["plain"]["choice"].changes["conf_ece"]
    assert change.change == pytest.approx(found["change"], abs=5e-4)
    assert "Sharp" in capsys.readouterr().out
    assert show_if_finished(workdir)
    said = capsys.readouterr().out
    assert "Repaired by the base, without labels" in said
    assert "is finished" in said and "exam_soft" in said


@pytest.fixture
def measured(monkeypatch):
    """Stands for the job "evaluate": finishes a folder at once; notes which model it measured."""
    calls = []

    def measure(inner, quietly):
        assert quietly
        if len(calls) == measure.stop_after:
            raise Stopped
        calls.append((inner.config, inner.workdir))
        inner.claim()
        finish_run(inner.workdir, inner.config, sharp=1.0 + len(calls))

    measure.stop_after = -1
    monkeypatch.setattr(evaluate, "main", measure)
    return measure, calls


def test_every_model_is_measured_once_and_a_stopped_study_goes_on(config, measured, tmp_path):
    measure, calls = measured
    a, b, c = (str(write_tiny_model(tmp_path / name, i)) for i, name in enumerate("abc"))
    config.study.pairs = f"one={a}->{b}, two={a}->{c}, three={b}->{c}"
    config.data.eval_size = 8
    measure.stop_after = 2
    with pytest.raises(Stopped):
        start(config, tmp_path / "study")
    assert not (tmp_path / "study" / "summary.json").exists() and len(calls) == 2
    measure.stop_after = -1
    summary = start(config, tmp_path / "study")
    assert [c.model.name for c, _ in calls] == [a, b, c]
    assert len({folder for _, folder in calls}) == 3
    assert all(folder.parent == tmp_path / "study" / "models" for _, folder in calls)
    derived = calls[1][0]
    assert derived.job == "evaluate" and derived.data.eval_size == 8 and not derived.study.pairs
    assert not derived.prompt.chat
    assert list(summary["pairs"]) == ["one", "two", "three"]


def test_two_models_end_to_end(config, tmp_path, tiny_model, monkeypatch):
    """The results of each model's own run have tests of their own."""
    monkeypatch.setattr(
        evaluate.results, "finish",
        lambda inner, *_, **__: result.write(inner.workdir / "summary.json", {}),
    )  # fmt: skip  # what is called, and what is done instead
    aligned = write_tiny_model(tmp_path / "aligned", seed=7)
    config.study.pairs = f"tiny={tiny_model}->{aligned}"
    config.data.eval = config.data.eval.split(",")[1]
    config.batch.token_budget, config.batch.max_buckets = 1024, 1
    summary = start(config, tmp_path / "study")
    found = summary["pairs"]["tiny"]
    assert list(found) == ["plain"] and found["plain"]["choice"]["n"] == 10
    folders = list((tmp_path / "study" / "models").iterdir())
    assert len(folders) == 2
    for folder in folders:
        side = "it" if "aligned" in folder.name else "pt"
        for method in ("choice", "continuation_sum"):
            scores = predictions.read(folder / "predictions" / "measured-plain.parquet", method)
            accuracy = float((scores.predictions == scores.answers).mean())
            assert found["plain"][method]["accuracy"][side] == pytest.approx(accuracy)
    with pytest.raises(UserError, match="another config"):
        config.em.num_bins = 15
        (tmp_path / "study" / "summary.json").unlink()
        start(config, tmp_path / "study")


def test_the_papers_config():
    config = study_config("paper")
    pairs = parse_pairs(config.study.pairs)
    assert len(pairs) == 7 and all(p.base.name and p.aligned.name for p in pairs)
    assert (pairs[0].base.name, pairs[0].aligned.name) == (
        "meta-llama/Llama-2-7b-hf",
        "meta-llama/Llama-2-7b-chat-hf",
    )
    tasks = {name: sources.task_of(name) for name in config.data.eval.split(",")}
    assert len(tasks) == 7 and all(tasks.values())
    # The paper's four groups of MMLU.
    assert sorted(set(tasks["mmlu"].groups.values())) == [
        "humanities",
        "other",
        "social_sciences",
        "stem",
    ]
    assert set(config.confidence.methods.split(",")) <= set(METHODS)
    assert config.data.eval_size == config.data.shots == 0 and not config.prompt.chat
    # Options stand as the data sets have them, but for the task whose answer never moves.
    fixed = [n for n, task in tasks.items() if isinstance(task.fields.answer, int)]
    assert config.data.shuffle_tasks.split(",") == fixed == ["sciq"]
    with pytest.raises(UserError, match="no preset 'papers'"):
        study_config("papers")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seed", 3, "config.seed=3"),
        ("data.eval_size", 5, "config.data.eval_size=5"),
        ("data.shots", 2, "config.data.shots=2"),
        ("prompt.chat", True, "config.prompt.chat=True"),
        ("confidence.methods", "choice", "config.confidence.methods=('choice',)"),
        ("data.eval", "arc_easy", "config.data.eval=('arc_easy',)"),
    ],
)
def test_runs_measured_in_another_way_are_refused(
    config, evaluation, tmp_path, key, value, message
):
    finish_run(tmp_path / "base", evaluation, 1.0)
    with evaluation.unlocked():
        evaluation.update_from_flattened_dict({key: value})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(as_json(evaluation))
    (tmp_path / "other" / "summary.json").write_text("{}")
    config.study.pairs = f"a=run:{tmp_path / 'base'}->run:{tmp_path / 'other'}"
    with pytest.raises(UserError) as error:
        start(config, tmp_path / "study")
    assert message in str(error.value) and f"run:{tmp_path / 'base'}" in str(error.value)
    assert not (tmp_path / "study").exists()


def test_runs_of_other_questions_are_refused(config, evaluation, tmp_path):
    finish_run(tmp_path / "base", evaluation, 1.0)
    finish_run(tmp_path / "other", evaluation, 2.0, {"ids": tuple(f"r{i}" for i in range(60))})
    config.study.pairs = f"a=run:{tmp_path / 'base'}->run:{tmp_path / 'other'}"
    with pytest.raises(
        UserError, match="pair 'a', task exam, .*question 1 is 'q0' in one and 'r0'"
    ):
        start(config, tmp_path / "study")
    assert not (tmp_path / "study" / "summary.json").exists()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "no such run; "),
        (lambda folder: (folder / "config.json").write_text('{"job": "cft"}'), "of the job 'cft'"),
        (lambda folder: (folder / "config.json").write_text("{"), "not a readable config"),
        (
            lambda folder: (folder / "config.json").write_text('{"job": "evaluate"}'),
            "is not finished: it has no summary.json",
        ),
    ],
)
def test_folders_that_are_no_finished_run_are_refused(config, evaluation, tmp_path, make, message):
    finish_run(tmp_path / "base", evaluation, 1.0)
    (tmp_path / "other").mkdir()
    make(tmp_path / "other")
    config.study.pairs = f"a=run:{tmp_path / 'base'}->run:{tmp_path / 'other'}"
    with pytest.raises(UserError, match=message) as error:
        start(config, tmp_path / "study")
    assert str(tmp_path / "other") in str(error.value)
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "config.study.pairs names no pair"),
        ({"study.pairs": "a=o/x->o/y", "model.revision": "v1"}, "config.model.revision is 'v1'"),
        ({"study.pairs": "a=missing->o/y"}, "missing: no such file or folder"),
        ({"study.pairs": "a=o/x->o/y", "confidence.methods": "choise"}, "Did you mean 'choice'"),
        ({"study.published": "none.csv"}, "none.csv: no such file"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(config, tmp_path, changes, message):
    config.update_from_flattened_dict(changes)
    with pytest.raises(UserError) as error:
        start(config, tmp_path / "study")
    assert message in str(error.value)
    assert not (tmp_path / "study").exists()


def test_published_files_need_no_model(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")  # a narrow console wraps the ranges
    line = "m,0.100,50.00%,1,-0.020,-4.00%,1,1.00%,2.00%,1"
    (tmp_path / "p.csv").write_text(f"arc_easy,choice,,,,,,,,\r\n{line}")
    status = main(
        [
            "calib_jax",
            "--config=configs/study.py",
            f"--workdir={tmp_path / 'run'}",
            f"--config.study.published={tmp_path / 'p.csv'}",
        ]
    )
    said = capsys.readouterr()
    assert status == 0, said.err
    assert "0.198–0.202 → 0.298–0.302" in said.out
    assert f"Published figures of {tmp_path / 'p.csv'} (SCE, one-vs-rest)" in unfolded(said.out)
    assert "a range is what the rounding leaves open" in unfolded(said.out)
    assert "changes.md" not in said.out
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["pairs"] == {} and summary["published"]["m"]["arc_easy"]["choice"]["n"] is None
    names = {p.name for p in (tmp_path / "run").rglob("*") if p.is_file()}
    assert names >= {"report.html", "table1.md", "summary.json"}
    assert PICTURES == ["figures/published/figure1", "figures/published/figure2"]
    assert summary["published_files"] == {str(tmp_path / "p.csv"): "sce_ovr"}
    found = summary["published"]["m"]["arc_easy"]["choice"]["conf_ece"]
    assert found["pt"] is None and found["pt_range"] == pytest.approx([0.199, 0.201], abs=1e-4)


def unfolded(text):
    return " ".join(text.split())


def test_settings_that_finished_runs_overrule_are_said(config, evaluation, tmp_path, capsys):
    for name, sharp in (("base", 0.5), ("sharp", 4.0)):
        finish_run(tmp_path / name, evaluation, sharp)
    config.study.pairs = f"a=run:{tmp_path / 'base'}->run:{tmp_path / 'sharp'}"
    before = config.data.eval_size
    config.data.eval_size = 7
    summary = start(config, tmp_path / "study")
    line = f"config.data.eval_size=7. The finished runs were measured with {before}."
    assert summary["not_used"] == [f"Not used: {line}"] and line in unfolded(
        capsys.readouterr().out
    )
    assert summary["questions"][f"run:{tmp_path / 'sharp'}"]["exam"] == 60
