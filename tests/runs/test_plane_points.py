"""Finished runs as points, from folders that are written by hand."""

import json

import numpy as np
import pytest

from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError
from calib_jax.reports import predictions
from calib_jax.reports.regimes.plane import paths
from calib_jax.runs import plane_points


def row(accuracy, conf_ece, chance=0.1, n=4):
    return {
        "n": n, "accuracy": accuracy, "accuracy_ci": [accuracy - 0.1, accuracy + 0.1],
        "conf_ece": conf_ece, "conf_ece_null_q95": chance,
    }  # fmt: skip  # a row of a summary


def write(folder, summary, log=()):
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps({"schema": 2, **summary}))
    if log:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))


def finetune(method, seed=0, after=None, validation=5):
    states = {"before": {"exam": row(0.3, 0.4)}, "after": {"exam": after} if after else {}}
    data = {"seed": seed, "n": {"train": 8, "validation": validation}}
    return {"job": "finetune", "method": method, "data": data, **states}


def ask(folder, state, ids):
    probs = np.full((len(ids), 2), 0.5, np.float32)
    scores = Scores(
        np.log(probs), probs, np.ones_like(probs, bool), np.zeros(len(ids), np.int32),
        tuple(ids), ("exam",) * len(ids), (None,) * len(ids),
        questions=tuple(f"What is {i}?" for i in ids), choices=(("a", "b"),) * len(ids),
    )  # fmt: skip  # columns
    (folder / "predictions").mkdir(exist_ok=True)
    predictions.write(folder / "predictions" / f"{state}-exam.parquet", scores)


def line(kind, epoch, accuracy, **more):
    found = {"step": epoch + 1, "epoch": epoch, "kind": kind, "accuracy": accuracy}
    return {**found, "conf_ece": accuracy / 2, **more}


LOG = [
    line("estep", 0, 0.2), {"step": 1, "epoch": 0, "kind": "train", "loss": 1.0},
    line("eval", 0, 0.4, split="validation"), line("eval", 0, 0.9, split="pairs"),
    line("estep", 1, 0.6), line("estep", 1, 0.65), line("eval", 1, 0.5, split="validation"),
]  # fmt: skip  # the log of two epochs; the second has two E-steps


def test_a_run_has_its_states_and_a_path_for_each_kind_of_question(tmp_path):
    write(tmp_path / "cft", finetune("cft", 3, row(0.6, 0.05)), LOG)
    points, left_out = plane_points.read(str(tmp_path / "cft"))
    assert not left_out
    before, after = points[:2]
    assert (before.method, before.accuracy, before.subject) == ("before", 0.3, True)
    assert (after.path, after.seed, after.accuracy_ci, after.within) == (
        "cft, seed 3", 3, (0.5, 0.7), True,
    )  # fmt: skip  # a tuple
    found = {
        asked.split(" of ")[0]: [(p.epoch, p.accuracy, p.n, p.within) for p in those]
        for (asked, _), those in paths(points[2:]).items()
    }
    # A training path never joins a held-out one; E-steps precede an epoch, evaluations follow it.
    assert found == {
        "training questions": [(0, 0.2, 8, None), (1, 0.6, 8, None)],
        "validation": [(1, 0.4, 5, None), (2, 0.5, 5, None)],
    }


def test_only_the_same_questions_share_a_name(tmp_path):
    for name, ids in (("one", "abcd"), ("same", "dcba"), ("other", "abce")):
        write(tmp_path / name, finetune(name, after=row(0.5, 0.2)))
        for state in ("before", "after"):
            ask(tmp_path / name, state, ids)
    folders = ",".join(str(tmp_path / name) for name in ("one", "same", "other"))
    asked = {p.path: p.questions for p in plane_points.read(folders)[0]}
    assert asked["one: one, seed 0"] == asked["same: same, seed 0"]
    assert asked["one: one, seed 0"] != asked["other: other, seed 0"]
    assert asked["one: one, seed 0"].startswith("exam (4 questions, ")


def test_a_series_has_every_method_and_seed_and_the_model_before_once(tmp_path):
    labels = {"before": "as it is", "temperature": "Temp. scale", "cft": "CFT"}
    runs = {f"{m}-seed{s}": f"elsewhere/{m}-seed{s}" for s in (0, 1) for m in ("before", "cft")}
    summary = {"job": "compare", "comparisons": [{"labels": labels}], "runs": runs}
    write(tmp_path / "demo", summary)
    for name in runs:
        method, seed = name.split("-seed")
        after = None if method == "before" else row(0.5 + int(seed) / 10, 0.2)
        write(tmp_path / "demo" / name, finetune(method, int(seed), after))
        for state in ("before", "after") if after else ("before",):
            ask(tmp_path / "demo" / name, state, "abcd")
    points, left_out = plane_points.read(str(tmp_path / "demo"))
    assert [(p.path, p.accuracy) for p in points] == [
        ("before", 0.3), ("CFT, seed 0", 0.5), ("CFT, seed 1", 0.6),
    ]  # fmt: skip  # pairs
    assert len({p.questions for p in points}) == 1
    assert len(left_out) == 1 and left_out[0].startswith("Temp. scale is post hoc")


def test_stages_are_one_path_in_order(tmp_path):
    letters = {"start": {"exam": row(0.3, 0.4)}, "sft": {"exam": row(0.5, 0.2)}}
    write(tmp_path / "chain", {"job": "stages", "letters": letters})
    points, _ = plane_points.read(str(tmp_path / "chain"))
    assert [(p.path, p.stage, p.subject) for p in points] == [
        ("stages", "start", False), ("stages", "sft", True),
    ]  # fmt: skip  # triples


def test_what_is_no_such_run_is_refused(tmp_path):
    write(tmp_path / "study", {"job": "study"})
    for text, said in (
        (f"{tmp_path / 'study'}", "run of the job 'study'"),
        (f"{tmp_path / 'none'}", "no such file"),
    ):
        with pytest.raises(UserError, match=said):
            plane_points.read(text)
    write(tmp_path / "cft", finetune("cft"))
    with pytest.raises(UserError, match="twice"):
        plane_points.read(f"{tmp_path / 'cft'},{tmp_path}/./cft")
