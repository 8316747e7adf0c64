"""The job "report" from the command line: results, and bad input that leaves nothing behind."""

import dataclasses
import io
import json
import os
import re
import sys

import numpy as np
import pytest

from calib_jax import metrics, posthoc
from calib_jax.characters import prepare_console
from calib_jax.jobs import report
from calib_jax.main import main
from calib_jax.reports import predictions
from calib_jax.runs import results
from tests.reports.conftest import build_scores


@pytest.fixture
def call(tmp_path, capsys):
    """Runs the job in this process: (status, standard output, standard error)."""

    def run(text, *more):
        status = main(
            [
                "calib_jax",
                "--config=configs/report.py",
                f"--workdir={tmp_path / 'run'}",
                f"--config.report.predictions={text}",
                "--config.report.num_resamples=20",
                *more,
            ]
        )
        said = capsys.readouterr()
        return status, said.out, said.err

    run.workdir = tmp_path / "run"
    return run


def rows(seed, n=40):
    rng = np.random.default_rng(seed)
    probs = rng.dirichlet(np.ones(4), n)
    answers = np.random.default_rng(0).integers(0, 4, n)
    return [
        {"id": f"q{i}", "probs": p.tolist(), "answer": int(a), "subject": "ab"[i % 2]}
        for i, (p, a) in enumerate(zip(probs, answers, strict=True))
    ]


def write(path, content):
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


@pytest.mark.slow
def test_names_and_texts_that_are_no_utf8_on_a_console_that_is_none(call, tmp_path, monkeypatch):
    found = [
        {**row, "id": f"{row['id']}\ud800", "question": "日本 \udc00", "subject": None}
        for row in rows(1)
    ]
    path = write(tmp_path / os.fsdecode(b"caf\xe9.jsonl"), found)
    console = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", console)
    prepare_console()
    title = "$\\frac{ 日本 → \x07"
    status, _, err = call(f"before:test={path}", f"--config.report.title={title}")
    assert status == 0, err
    console.flush()
    assert r"caf\udce9.jsonl" in console.buffer.getvalue().decode("ascii")
    page = (call.workdir / "report.html").read_text(encoding="utf-8")
    assert r"caf\udce9.jsonl" in page and "日本 →" in page
    config = json.loads((call.workdir / "config.json").read_text(encoding="utf-8"))
    assert config["report"]["predictions"] == f"before:test={path}"
    stored = predictions.read(call.workdir / "predictions" / "before-test.parquet")
    assert stored.ids[0] == r"q0\ud800" and stored.questions[0] == r"日本 \udc00"


def test_before_and_after_from_two_files(call, tmp_path):
    a, b = write(tmp_path / "a.jsonl", rows(1)), write(tmp_path / "b.jsonl", rows(2)[::-1])
    status, out, err = call(
        f"before:test={a},after:test={b}",
        "--config.report.in_domain=test",
        "--config.posthoc.methods=temperature",
        "--config.report.ordered=True",
    )
    assert status == 0, err
    assert "probabilities: column 'probs'" in out and "0-based index (0 occurs)" in out
    names = {path.name for path in call.workdir.iterdir()}
    assert names >= {
        "config.json",
        "summary.json",
        "report.html",
        "reliability.png",
        "tables",
        "predictions",
    }
    summary = json.loads((call.workdir / "summary.json").read_text())
    assert summary["data"][str(b)]["reordered"] and summary["before"]["test"]["domain"] == "in"
    probs = np.array([r["probs"] for r in rows(1)])
    expected = metrics.conf_ece(probs, np.array([r["answer"] for r in rows(1)]))
    assert summary["before"]["test"]["conf_ece"] == pytest.approx(float(expected), abs=1e-6)
    difference = summary["after"]["test"]["nll"] - summary["before"]["test"]["nll"]
    assert summary["change"]["test"]["nll"] == pytest.approx(difference)
    fitted = summary["posthoc"]["temperature"]["test"]
    assert fitted["n"] == 40
    # The calibrator fitted to all rows: kept, named, on the page, and the refit's bits.
    calibrator = posthoc.load(call.workdir / fitted["calibrator"])
    before = predictions.read(call.workdir / "predictions" / "before-test.parquet")
    again = posthoc.Temperature.fit(before.log_scores, before.answers, before.mask)
    assert calibrator == again
    low, high = fitted["parameters"]["temperature_ci"]
    assert low <= again.temperature == fitted["parameters"]["temperature"] <= high
    page = (call.workdir / "report.html").read_text(encoding="utf-8")
    assert f"temperature {again.temperature:.3f} [{low:.3f}, {high:.3f}]" in page
    every = {"before", "after", "temperature (post hoc)"}
    assert summary["best"]["methods"]["test"]["conf_ece"].keys() == every
    table = (call.workdir / "tables" / "methods.md").read_text()
    assert "model confidence set" in table and "**" in table
    thresholds = np.array([r["answer"] for r in rows(1)])[:, None] <= np.arange(4)
    ranked = ((probs.cumsum(axis=1) - thresholds) ** 2).sum(axis=1).mean() / 3
    assert summary["before"]["test"]["rps"] == pytest.approx(ranked, abs=1e-6)
    assert len(summary["change"]["test"]["rps_ci"]) == 2
    assert "ranked prob. score" in out
    assert predictions.read(call.workdir / "predictions" / "after-test.parquet").ids[0] == "q0"

    status, out, _ = call(
        f"before:test={a},after:test={b}",
        "--config.report.in_domain=test",
        "--config.posthoc.methods=temperature",
        "--config.report.ordered=True",
    )
    assert status == 0 and "is finished" in out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probs": [0.5, 0.5, 0.5, 0.5]}, r"row 4 (id 'q3') sums to 2"),
        ({"answer": 4}, "row 4 (id 'q3') has answer 4, outside 0..3 of its 4 options (1 bad row"),
        ({"id": "q0"}, "row 4 (id 'q0') repeats the id of row 1"),
        ({"probs": [0.5, 0.5]}, "--config.report.ragged=True"),
    ],
)
def test_bad_input_leaves_nothing_behind(call, tmp_path, changes, message):
    content = rows(1)
    content[3] |= changes
    status, _, err = call(write(tmp_path / "a.jsonl", content))
    assert status == 1 and message in err and str(tmp_path / "a.jsonl") in err
    assert err.startswith("calib_jax: ") and "Traceback" not in err
    assert not call.workdir.exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.report.out_of_domain=x", "names 'x'; the splits are all"),
        ("--config.report.answer_base=2", "answer_base is '2'"),
        ("--config.report.writers=wandb", "no effect in the job 'report'"),
        ("--config.posthoc.methods=nothing", "methods names 'nothing'"),
        ("--config.posthoc.methods=daca", "'daca', which needs the pre-trained model's"),
        ("--config.posthoc.folds=1", "folds is 1"),
        ("--config.em.num_bins=0", "num_bins is 0"),
        ("--config.seed=-1", "config.seed is -1"),
        ("--config.report.num_resamples=0", "num_resamples is 0"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_written(call, tmp_path, flag, message):
    status, _, err = call(write(tmp_path / "a.jsonl", rows(1)), flag)
    assert status == 1 and message in err and not call.workdir.exists()


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.posthoc.methods=temperature", "no options to share it"),
        ("--config.report.ordered=True", "no options to be in an order"),
    ],
)
def test_what_free_answers_do_not_have_is_refused(call, tmp_path, flag, message):
    lines = [{"confidence": 0.1 * (i % 10), "correct": i % 2} for i in range(20)]
    status, _, err = call(write(tmp_path / "a.jsonl", lines), flag)
    assert status == 1 and message in err and not call.workdir.exists()


def test_too_few_questions_for_the_folds_are_refused_before_anything_is_written(call, tmp_path):
    path = write(tmp_path / "a.jsonl", rows(1)[:3])
    flags = "--config.posthoc.methods=temperature", "--config.report.answer_base=0"
    status, _, err = call(path, *flags)
    assert status == 1 and "folds is 5, but all has 3 question(s)" in err
    assert not call.workdir.exists()


def test_no_file_named(call):
    status, _, err = call("")
    assert status == 1 and "names no file" in err


def test_a_known_task_s_subjects_are_grouped():
    scores = dataclasses.replace(
        build_scores(4), tasks=("mmlu",) * 4, subjects=("anatomy", "philosophy", "anatomy", None)
    )
    assert report._groups("mmlu", scores)["anatomy"] == "stem"
    assert not report._groups("other", scores)
    found = results.grouped({"mmlu": scores}, {"mmlu": report._groups("mmlu", scores)})
    assert list(found) == ["mmlu", "mmlu_stem", "mmlu_humanities"]
    assert found["mmlu_stem"].ids == ("q-0", "q-2")


def test_predictions_of_another_system_and_a_file_left_out(call, tmp_path):
    names = ["Billing", "Technical", "Sales"]
    probs = np.random.default_rng(4).dirichlet(np.ones(3), 40)
    truth = [names[i % 3] for i in range(40)]
    rows = zip(range(40), probs, truth, strict=True)
    lines = ["ticket,Billing,Technical,Sales,truth"]
    lines += [f"t{i},{a},{b},{c},{t}" for i, (a, b, c), t in rows]
    (tmp_path / "system.csv").write_text("\n".join(lines) + "\n")
    status, _, err = call(tmp_path / "system.csv")
    assert status == 1 and "--config.report.columns=Billing,Technical" in err
    assert not call.workdir.exists()
    flag = "--config.report.columns=Billing,Technical,Sales,answer=truth,id=ticket"
    status, out, err = call(tmp_path / "system.csv", flag)
    assert status == 0, err
    assert "most-chosen class" in out and "letter" not in out
    found = json.loads((call.workdir / "summary.json").read_text())["measured"]["all"]
    right = probs.argmax(axis=1) == [names.index(t) for t in truth]
    assert found["accuracy"] == pytest.approx(right.mean())
    assert found["classes"] == names and found["by_class"][1]["n"] == truth.count("Technical")


def test_what_a_folder_holds_beside_predictions_is_named(call, tmp_path):
    folder = tmp_path / "out" / "model"
    folder.mkdir(parents=True)
    sample = {"doc": {}, "arguments": [["Q", "x"]], "resps": [["lol"]], "filtered_resps": ["lol"]}
    write(folder / "samples_gsm8k.jsonl", [sample])
    quiz = [
        {
            "doc_id": i,
            "doc": {},
            "target": i % 2,
            "arguments": [["Q", "a"], ["Q", "b"]],
            "filtered_resps": [[-1.0 - i % 3, False], [-2.0, False]],
        }
        for i in range(12)
    ]
    write(folder / "samples_quiz.jsonl", quiz)
    status, out, err = call(tmp_path / "out")
    assert status == 0, err
    assert re.search(r"samples_gsm8k.jsonl:\n  left out: .*multiple_choice", out)
    data = json.loads((call.workdir / "summary.json").read_text())["data"]
    assert "multiple_choice" in data[str(folder / "samples_gsm8k.jsonl")]["left_out"]
    assert "left out" in (call.workdir / "report.html").read_text()


@pytest.mark.slow
def test_rows_of_one_passage_are_counted_and_drawn_together(call, tmp_path):
    content = [{**row, "passage": f"text {i // 4}"} for i, row in enumerate(rows(1))]
    path = write(tmp_path / "p.jsonl", content)
    status, said, _ = call(path)
    assert status == 0 and "40 questions in 10 clusters" in said
    summary = json.loads((call.workdir / "summary.json").read_text())
    row = summary["measured"]["all"]
    assert row["n"] == 40 and row["n_clusters"] == 10
    kept = predictions.read(call.workdir / "predictions" / "measured-all.parquet")
    right = kept.predictions == kept.answers
    assert row["accuracy_ci"] == pytest.approx(metrics.share_interval(right, kept.units))
    assert {group["n_clusters"] for group in row["groups"]} == {10}
    assert "40 questions in 10 clusters" in (call.workdir / "report.html").read_text()


def test_more_folds_than_clusters_are_refused(call, tmp_path):
    content = [{**row, "passage": f"text {i // 20}"} for i, row in enumerate(rows(1))]
    path = write(tmp_path / "p.jsonl", content)
    status, _, said = call(path, "--config.posthoc.methods=temperature")
    assert status == 1 and "has 2 question(s), those of one cluster counted as one" in said
    assert not call.workdir.exists()
