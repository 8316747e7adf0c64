"""The command line on the tiny model, in a process of its own."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from calib_jax.api import load_model
from calib_jax.config import FIELDS, base
from calib_jax.runs import base_model, score
from calib_jax.runs import run as runs
from calib_jax.runs.tasks import task_probes
from calib_jax.training.interrupt import Stopped, StopRequest
from tests.conftest import make_questions, write_questions
from tests.devices import xla_flags

ROOT = Path(__file__).parents[2]


class StopWhen(StopRequest):
    """A SIGTERM as soon as there is a file."""

    def __init__(self, path):
        super().__init__()
        self.path = path

    def install(self):
        pass

    def check(self):
        if self.path.exists():
            raise Stopped


def measure_tasks(config, model, tasks, folder, check=lambda: None):
    """task -> method -> scores, as the job evaluate gets them."""
    probes = task_probes(config, tasks)
    asked = {probe.name: probe.asked(model) for probe in probes}
    found = score.ask(config, model, probes, asked, folder, check, label="measured")
    return {probe.name: found[probe.file] for probe in probes}


@pytest.fixture
def one_device(monkeypatch):
    """Jobs load their models onto one device, which compiles faster than a mesh of eight."""

    def load(config, quantize):
        return load_model(config.model.name, adapter=config.model.adapter or None)

    monkeypatch.setattr(base_model, "load", load)


@pytest.fixture
def undrawn(monkeypatch):
    """Figures and pages are drawn by the tests of views: here their paths and titles alone."""
    drawn = []
    monkeypatch.setattr(runs.files, "write", lambda folder, figures: drawn.extend(figures))
    monkeypatch.setattr(runs, "render", lambda view, *_: view.title)
    return drawn


class CommandLine:
    """Runs ``python -m calib_jax.main`` on the tiny model and invented questions."""

    def __init__(self, folder: Path, model: Path):
        self.folder, self.model = folder, model
        train, test = make_questions(40), make_questions(16, seed=1)
        # The texts of the two must differ, or all of training would count as overlap.
        test = [q.__class__(q.id, "Held out. " + q.question, q.choices, q.answer) for q in test]
        self.train = write_questions(folder / "train.jsonl", train)
        self.test = write_questions(folder / "test.jsonl", test)

    def arguments(self, *more: str, config: str = "configs/cft.py:debug") -> list[str]:
        settings = {
            "model.name": self.model,
            "data.train": self.train,
            "data.eval": self.test,
            "data.validation": "",
            "data.train_size": 0,
            "train.epochs": 2,
            "train.learning_rate": 1e-2,
            "report.num_resamples": 20,
            "prompt.max_length": 256,
            "mesh.shape": "(1,1,1)",
        }
        given = [arg.split("=")[0] for arg in more]
        if "--config.job=evaluate" in more:
            settings = {k: v for k, v in settings.items() if "evaluate" in FIELDS[k].jobs}
        flags = [
            f"--config.{key}={value}"
            for key, value in settings.items()
            if f"--config.{key}" not in given
        ]
        return [sys.executable, "-m", "calib_jax.main", f"--config={config}", *flags, *more]

    @staticmethod
    def environment() -> dict[str, str]:
        settings = {
            "XLA_FLAGS": xla_flags(1),
            "JAX_PLATFORMS": "cpu",
            "PYTHONPATH": str(ROOT),
        }
        return {**os.environ, **settings}

    def start(self, *more: str, **options) -> subprocess.Popen:
        return subprocess.Popen(
            self.arguments(*more, **options),
            cwd=ROOT,
            env=self.environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *more: str, **options) -> subprocess.CompletedProcess:
        return subprocess.run(
            self.arguments(*more, **options),
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )


@pytest.fixture
def command(tmp_path, tiny_model) -> CommandLine:
    return CommandLine(tmp_path, tiny_model)


METHODS = "choice,continuation_sum,continuation_min"
SUBJECTS = ("algebra", "botany", "chess")
TASK = """
shots_split = "dev"
eval_split = "test"
choice = "{question}\\n{options}\\nAnswer:"
[files]
dev = "dev.jsonl"
test = "test.jsonl"
[groups]
hard = ["algebra", "botany"]
soft = ["chess"]
"""


@pytest.fixture
def exam_config(tmp_path, tiny_model):
    """A task of three subjects in two groups, and a plain source."""
    for name, count, seed in (("dev", 12, 5), ("test", 24, 1)):
        questions = make_questions(count, seed, options=(2, 4))
        questions = [
            dataclasses.replace(q, id=f"{name}{i}", question=f"{name}: {q.question}", task=None)
            for i, q in enumerate(questions)
        ]
        rows = [
            {
                "id": q.id,
                "question": q.question,
                "choices": q.choices,
                "answer": 0,
                "subject": SUBJECTS[i % 3],
            }
            for i, q in enumerate(questions)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (tmp_path / "exam.toml").write_text(TASK)
    write_questions(tmp_path / "plain.jsonl", make_questions(10, 2))
    config = base()
    config.job = "evaluate"
    config.model.name = str(tiny_model)
    config.mesh.shape = (1, -1, 1)
    config.data.eval = f"{tmp_path / 'exam.toml'},{tmp_path / 'plain.jsonl'}"
    config.confidence.methods = METHODS
    config.report.num_resamples = 10
    config.prompt.max_length = 0
    config.batch.token_budget = 128  # many batches
    return config
