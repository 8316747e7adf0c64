"""The job "lifecycle" on two tiny models: results, a stop in between, and bad input."""

import json
from pathlib import Path

import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.api import load_model
from calib_jax.confidence.readout import plan_reading
from calib_jax.jobs import lifecycle
from calib_jax.main import main
from calib_jax.questions import prepare
from calib_jax.questions.pairs import PairEncoder
from calib_jax.reports import predictions
from calib_jax.reports.lifecycle import predictions as next_tokens
from calib_jax.runs import base_model
from calib_jax.training.interrupt import Stopped, StopRequest
from tests.conftest import make_questions, write_questions, write_tiny_model
from tests.jobs.conftest import StopWhen


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Two tiny models, a text, a folder of facts and a file of questions, all invented."""
    folder = tmp_path_factory.mktemp("lifecycle")
    for name, seed in (("small", 1), ("large", 2)):
        write_tiny_model(folder / name, seed)
    (folder / "text.txt").write_text(
        "\n\n".join(f"Paragraph {i} tells A to B." + " On it goes." * i for i in range(9)) + "\n\nx"
    )
    for i in range(2):
        rows = [{"sub_label": f"S{j}", "obj_label": f"O{j}"} for j in range(4 + i)]
        path = folder / "facts" / f"P{i}.jsonl"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    templates = [{"relation": f"P{i}", "template": "[X] is in [Y] ."} for i in range(2)]
    path = folder / "facts" / "templates.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in templates))
    write_questions(folder / "quiz.jsonl", make_questions(10, options=(4, 4)))
    return folder


@pytest.fixture
def call(inputs, tmp_path, capsys):
    """Runs the job in this process: (status, standard output, standard error)."""

    def run(*more, workdir=tmp_path / "run"):
        settings = {
            "lifecycle.models": f"1m={inputs / 'small'},2m={inputs / 'large'}",
            "lifecycle.text": inputs / "text.txt",
            "lifecycle.positions": 2,
            "lifecycle.context_length": 24,
            "lifecycle.facts": inputs / "facts",
            "lifecycle.facts_size": 6,
            "lifecycle.tasks": inputs / "quiz.jsonl",
            "data.shots": 0,
            "batch.token_budget": 64,
            "report.num_resamples": 20,
        }
        given = [flag.split("=")[0] for flag in more]
        flags = [
            f"--config.{key}={value}"
            for key, value in settings.items()
            if f"--config.{key}" not in given
        ]
        config = "--config=configs/lifecycle.py:debug"
        status = main(["calib_jax", config, f"--workdir={workdir}", *flags, *more])
        said = capsys.readouterr()
        return status, said.out, said.err

    run.workdir = tmp_path / "run"
    return run


class StopAfter(StopRequest):
    """A SIGTERM at the n-th time that the run asks for one."""

    def __init__(self, left):
        super().__init__()
        self.left = left

    def install(self):
        pass

    def check(self):
        self.left -= 1
        if self.left < 0:
            raise Stopped


@pytest.fixture
def loads(monkeypatch):
    """Models come on one device, which compiles faster; the labels of those that were loaded."""
    names = []

    def load(config, quantize):
        names.append(Path(config.model.name).name)
        return load_model(config.model.name)

    monkeypatch.setattr(base_model, "load", load)
    return names


def light(scores, domain, **options):
    """In the place of ``measure.measure``, which has its own tests and compiles for long."""
    values = {
        "accuracy": float((scores.predictions == scores.answers).mean()),
        "conf_ece": metrics.binary_ece(scores.confidences, scores.predictions == scores.answers),
        "mean_confidence": float(scores.confidences.mean()),
    }
    ends = {f"{name}_ci": [value, value] for name, value in values.items()}
    return {"n": len(scores), **values, **ends, "conf_ece_null_q95": 0.1}


def test_a_series_from_text_to_report_and_again_after_a_stop(
    call, loads, undrawn, tmp_path, monkeypatch
):
    monkeypatch.setattr(lifecycle.measure, "measure", light)
    status, out, err = call()
    assert status == 0, err
    folder = call.workdir
    result = json.loads((folder / "summary.json").read_text())
    assert result["axis"] == "scale" and list(result["models"]) == ["1m", "2m"]
    assert result["models"]["2m"]["place"] == 2e6
    assert result["models"]["1m"]["fingerprint"] != result["models"]["2m"]["fingerprint"]
    assert result["data"]["text"]["documents"] == 10

    for label in ("1m", "2m"):
        row = result[label]
        assert set(row) == {"text", "facts", "quiz", "quiz_vocabulary"}
        # Of ten documents the last is too short, and debug takes eight.
        assert row["text"]["n"] == 16 and row["text"]["documents"] == 8
        assert "resampl" not in row["text"]["intervals"] and "documents" in row["text"]["intervals"]
        assert row["facts"]["n"] == 6 and [g["n"] for g in row["facts"]["groups"]] == [3, 3]
        where = folder / "models" / label / "predictions"
        for part in ("text", "facts"):
            tokens = next_tokens.read(where / f"{part}.parquet")
            assert row[part]["conf_ece"] == pytest.approx(
                metrics.binary_ece(tokens.confidences, tokens.correct), abs=1e-6
            )
            assert row[part]["accuracy"] == pytest.approx(tokens.correct.mean())
            assert row[part]["nll"] == pytest.approx(-tokens.log_probs.mean(), rel=1e-5)
        quiz = predictions.read(where / "measured-quiz.parquet")
        assert row["quiz"]["mean_confidence"] == pytest.approx(float(quiz.confidences.mean()))
        whole = next_tokens.read(where / "quiz_vocabulary.parquet")
        assert whole.ids == quiz.ids and row["quiz_vocabulary"]["n"] == len(quiz)
        # Of the right letter both know the same.
        np.testing.assert_allclose(
            whole.log_probs, quiz.log_scores[np.arange(len(quiz)), quiz.answers], atol=1e-6
        )
        assert (np.exp(whole.log_probs) <= whole.confidences + 1e-6).all()
    assert result["1m"]["text"]["nll"] != result["2m"]["text"]["nll"]

    for name in ("curves", "reliability_text", "reliability_facts_2m", "reliability_quiz"):
        assert f"figures/{name}" in undrawn
    assert (folder / "report.html").read_text() == "Calibration over scale"
    (kept,) = [
        row
        for row in result["rows"]
        if (row["subject"], row["probe"], row["metric"]) == ("2m", "facts", "conf_ece")
    ]
    assert kept["value"] == result["2m"]["facts"]["conf_ece"] and kept["n"] == 6
    assert (folder / "tables" / "lifecycle.csv").read_text().count("\n") == 1 + 4 * 2
    assert not list(folder.rglob("partial"))
    assert "text" in out and "1m" in out and "Numbers: " in out
    assert result["data"]["text"]["skipped_empty"] == 0 and "documents skipped: 1 too short" in out

    status, out, _ = call()
    assert status == 0 and "is finished" in out and "conf-ECE" in out

    # --- Stopped in the first model's text: what was scored by then is not scored again. ----------
    again, first = tmp_path / "again", tmp_path / "again" / "models" / "1m"
    monkeypatch.setattr("calib_jax.main.StopRequest", lambda: StopAfter(3))
    status, _, err = call(workdir=again)
    assert status == 143 and "same command continues" in err
    assert not (again / "summary.json").exists() and loads == ["small", "large", "small"]
    held = (first / "partial" / "text.jsonl").read_bytes().count(b"\n") - 1
    assert 0 < held < 16 and not (first / "predictions").exists()
    # --- Once more, in the second model: the first one's files stay as they are. ------------------
    monkeypatch.setattr("calib_jax.main.StopRequest", lambda: StopWhen(again / "models" / "2m"))
    status, out, err = call(workdir=again)
    assert status == 143 and "same command continues" in err
    assert f"text.jsonl holds {held} of " in out
    before = {path: path.stat().st_mtime_ns for path in first.rglob("*") if path.is_file()}
    assert len(before) == 5
    monkeypatch.setattr("calib_jax.main.StopRequest", lambda: StopAfter(10**6))
    assert call(workdir=again)[0] == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert loads[3:] == ["small", "large", "large"]
    other = json.loads((again / "summary.json").read_text())
    for label in ("1m", "2m"):
        for part in ("text", "facts"):
            ours, theirs = (r[label][part] for r in (result, other))
            assert ours["counts"] == theirs["counts"]
            assert ours["conf_ece"] == pytest.approx(theirs["conf_ece"], rel=1e-4)

    # --- Without its summary, everything is read back and no weights are. -------------------------
    (again / "summary.json").unlink()
    assert call(workdir=again)[0] == 0 and len(loads) == 6


def test_tasks_alone_are_measured_also_over_the_whole_vocabulary(
    call, inputs, loads, undrawn, monkeypatch
):
    monkeypatch.setattr(lifecycle.measure, "measure", light)
    status, out, err = call(
        f"--config.lifecycle.models=1m={inputs / 'small'}",
        "--config.lifecycle.text=",
        "--config.lifecycle.facts=",
        "--config.lifecycle.positions=1",
        "--config.lifecycle.context_length=512",
        "--config.lifecycle.facts_size=1000",
    )
    assert status == 0, err
    assert "quiz_vocabulary" in out
    folder = call.workdir / "models" / "1m"
    found = next_tokens.read(folder / "predictions" / "quiz_vocabulary.parquet")
    assert not (folder / "partial").exists()

    # By hand, in float64: the token after the prompt against the right letter's.
    model = load_model(str(inputs / "small"))
    questions = prepare([], [str(inputs / "quiz.jsonl")]).evals["quiz"]
    encoder = PairEncoder(model.tokenizer, model.config.max_length)
    reading = plan_reading(questions, None, ("choice",), encoder)
    assert found.ids == tuple(question.id for question in questions) and len(found) == 10
    for n, question in enumerate(questions):
        pair = reading.groups[n][question.answer]
        logits = np.asarray(model.logits(pair.tokens[None]))[0, -2].astype(np.float64)
        probs = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        assert found.confidences[n] == pytest.approx(probs.max(), abs=1e-5)
        assert found.predictions[n] == probs.argmax()
        assert found.correct[n] == (probs.argmax() == pair.tokens[-1])
        assert found.log_probs[n] == pytest.approx(np.log(probs[pair.tokens[-1]]), abs=1e-4)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["lifecycle.text=none.txt"], "none.txt: there is no such file"),
        (["lifecycle.facts=none"], "none: there is no such file or folder"),
        (["lifecycle.tasks=no_such_task", "data.shots=5"], "no task 'no_such_task'; there are arc"),
        (["lifecycle.tasks=x=mmlu_", "data.shots=5"], "no task 'mmlu_'; did you mean 'mmlu'?"),
        (["lifecycle.text=", "lifecycle.facts=", "lifecycle.tasks="], "nothing to measure"),
        (["lifecycle.positions=2000"], "no document of config.lifecycle.text is long enough"),
        (["lifecycle.positions=0"], "config.lifecycle.positions is 0"),
        (["lifecycle.context_length=0"], "config.lifecycle.context_length is 0"),
        (["lifecycle.context_length=600"], "was made for 512. Set it to at most 512."),
        (["lifecycle.text_size=-1"], "config.lifecycle.text_size is -1"),
        (["lifecycle.patterns=some"], "choose from: auto, sentences, first, all"),
        (["lifecycle.tasks=a=mmlu,a_vocabulary=mmlu"], "no task can be called 'a_vocabulary'"),
        (["lifecycle.axis=steps"], "did you mean 'step'"),
        (["lifecycle.models=1m=no/such/folder"], "no/such/folder: no such file or folder"),
        (["lifecycle.models=1m=./a,1M=./b"], "the label '1M' appears twice"),
        (["confidence.methods=choice,continuation_sum"], "names several methods"),
        (["em.edges=up"], "config.em.edges is 'up'"),
        (["lifecycle.positons=1"], "positions"),
    ],
)
def test_bad_input_is_one_message_before_any_weights(call, inputs, monkeypatch, flags, message):
    monkeypatch.setattr(base_model, "load", lambda *_: pytest.fail("weights were loaded"))
    if "lifecycle.context_length=600" in flags:
        # Only where a text is as long as that.
        (inputs / "long.txt").write_text("abc " * 300)
        flags = [*flags, f"lifecycle.text={inputs / 'long.txt'}", "lifecycle.positions=100"]
    status, _, err = call(*(f"--config.{flag}" for flag in flags))
    assert status == 1 and message in err, err
    assert err.startswith("calib_jax: ") and "Traceback" not in err and not call.workdir.exists()


def test_a_wrong_column_is_named_with_its_file(call, inputs):
    path = inputs / "columns.jsonl"
    path.write_text(json.dumps({"a": "x", "b": "y"}) + "\n")
    status, _, err = call(f"--config.lifecycle.text={path}")
    assert status == 1 and f"{path}: no column 'text'" in err and "among a, b" in err
