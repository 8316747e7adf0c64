"""The job "grade": a model's answers as questions, which then train what they are for."""

import numpy as np
import pytest

from calib_jax.errors import UserError
from calib_jax.jobs import finetune, grade
from calib_jax.questions import local
from calib_jax.questions.graded import LEVELS
from calib_jax.reports import predictions, read_metrics
from calib_jax.reports.result import read as read_result
from calib_jax.runs import split_scores
from calib_jax.runs.run import Run
from calib_jax.training.interrupt import StopRequest
from configs.finetune import get_config
from tests.jobs.series.conftest import fill


@pytest.fixture
def graded(exam_config, tmp_path):
    config = exam_config
    config.job = config.method = "grade"
    config.confidence.methods = "choice"
    grade.main(Run(config, tmp_path / "graded", StopRequest()))
    return tmp_path / "graded"


def test_answers_become_questions_that_both_objectives_learn_from(
    graded, tmp_path, tiny_model, one_device, monkeypatch
):
    rows = read_result(graded / "summary.json")["graded"]
    assert set(rows) == {"exam", "plain"}
    row = rows["plain"]
    scores = predictions.read(graded / "predictions" / "measured-plain.parquet", "choice")
    right = scores.predictions == np.asarray(scores.answers)
    assert row["n"] == len(scores) and row["right"] == right.sum()
    asked = {form: local.load(graded / path) for form, path in row["files"].items()}
    for i, (yes_no, level) in enumerate(zip(asked["yes_no"], asked["levels"], strict=True)):
        assert yes_no.id == level.id == scores.ids[i]
        assert yes_no.choices == ("no", "yes") and yes_no.answer == right[i]
        assert level.choices == LEVELS and level.answer == 10 * right[i]
        chosen = scores.choices[i][scores.predictions[i]]
        assert f"{'ABCDE'[scores.predictions[i]]}. {chosen}\n" in yes_no.question

    monkeypatch.setattr(split_scores, "finish", lambda *given: None)
    for method, form, term in (
        ("calibration_tuning", "yes_no", "nll"),
        ("conftuner", "levels", "tokenised_brier"),
    ):
        config = fill(get_config(f"{method}@debug"), tmp_path, tiny_model)
        config.data.train = str(graded / rows["exam"]["files"][form])
        config.data.eval = str(graded / row["files"][form])
        config.prompt.max_length = 512
        config.data.validation, config.data.shuffle_options = "", False
        workdir = tmp_path / method
        finetune.main(Run(config, workdir, StopRequest()))
        lines = read_metrics(workdir / "metrics.jsonl")
        losses = [line[term] for line in lines if line["kind"] == "train"]
        assert losses and all(loss > 0 for loss in losses)


def test_other_readings_are_refused(exam_config, tmp_path):
    exam_config.job = exam_config.method = "grade"
    with pytest.raises(UserError, match=r"Set --config\.confidence\.methods=choice"):
        grade.main(Run(exam_config, tmp_path / "run", StopRequest()))
    assert not (tmp_path / "run").exists()
