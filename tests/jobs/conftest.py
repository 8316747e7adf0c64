"""The command line on the tiny model, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import make_questions, write_questions

ROOT = Path(__file__).parents[2]


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
        flags = [
            f"--config.{key}={value}"
            for key, value in settings.items()
            if f"--config.{key}" not in given
        ]
        return [sys.executable, "-m", "calib_jax.main", f"--config={config}", *flags, *more]

    @staticmethod
    def environment() -> dict[str, str]:
        settings = {
            "XLA_FLAGS": "",  # one device
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
