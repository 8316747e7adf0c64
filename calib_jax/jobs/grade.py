"""The job ``grade``: a model answers questions, and its answers become questions to train on."""

import json
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np

from calib_jax.atomic import write_text
from calib_jax.confidence.scores import Scores
from calib_jax.config import check_config
from calib_jax.errors import UserError
from calib_jax.questions.graded import grade, grade_by_level
from calib_jax.questions.record import Question
from calib_jax.reports.result import Result
from calib_jax.reports.views import grade as view
from calib_jax.runs import score, subjects
from calib_jax.runs.run import Run
from calib_jax.runs.tasks import load_tasks, task_probes

# The reading by which the model answers.
_READING = "choice"
_FORMS = {"yes_no": grade, "levels": grade_by_level}


def main(run: Run) -> None:
    """Writes ``graded/<task>-yes_no.jsonl`` and ``graded/<task>-levels.jsonl``.

    Every question of ``config.data.eval`` is one row of each, about the option that the model gives
    the highest probability by letters; see ``questions.graded``. The files are sources of questions
    for training and measuring.

    Raises:
      UserError: bad input, or another reading; nothing is written then.
      Stopped: SIGTERM; the same command continues.
    """
    config = run.config
    check_config(config)
    if config.confidence.methods.strip() != _READING:
        raise UserError(
            f"config.confidence.methods is {config.confidence.methods!r}; answers are graded as "
            f"letters name them. Set --config.confidence.methods={_READING}."
        )
    subject = subjects.of_config(config)
    subjects.check(subject, "config.model")
    tasks = load_tasks(config)
    probes = task_probes(config, tasks)
    said = score.ask_subject(
        config, "model", subject, probes, run.workdir, run.claim, run.stop.check
    )
    if jax.process_index() != 0:
        return
    rows = {}
    for task, probe in zip(tasks, probes, strict=True):
        scores = said.files[probe.file][_READING]
        files = write(run.workdir / "graded", task.name, task.questions, scores)
        right = int((scores.predictions == np.asarray(scores.answers)).sum())
        rows[task.name] = {
            "n": len(scores),
            "right": right,
            "files": {
                form: path.relative_to(run.workdir).as_posix() for form, path in files.items()
            },
        }
    run.finish(Result({"graded": rows, "about": said.about}), view.view)


def write(
    folder: Path, name: str, questions: Sequence[Question], scores: Scores
) -> dict[str, Path]:
    """Form -> the file of it, in the order of ``scores``, which may leave questions out."""
    by_id = {question.id: question for question in questions}
    folder.mkdir(exist_ok=True)
    files = {}
    for form, about in _FORMS.items():
        lines = []
        for key, proposed in zip(scores.ids, scores.predictions.tolist(), strict=True):
            asked = about(by_id[key], proposed)
            row = {k: v for k, v in vars(asked).items() if v is not None}
            # As text: a number might count from 0 or from 1.
            lines.append(json.dumps(row | {"answer": asked.choices[asked.answer]}) + "\n")
        files[form] = folder / f"{name}-{form}.jsonl"
        write_text(files[form], "".join(lines))
    return files
