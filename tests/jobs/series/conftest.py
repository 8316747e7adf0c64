"""Jobs that run other runs, on a tiny model; training is stood for by what it writes."""

import dataclasses

import jax
import numpy as np
import pytest

from calib_jax.api import make_mesh
from calib_jax.jobs import compare, finetune
from calib_jax.reports import predictions
from calib_jax.reports.figures.canvas import drawn, new_figure
from calib_jax.reports.result import read, write
from calib_jax.reports.views import comparison as views
from calib_jax.runs import base_model, split_scores
from calib_jax.runs.run import Run, as_json
from calib_jax.training.interrupt import Stopped, StopRequest
from configs.compare import get_config as compare_config
from tests.conftest import make_questions, write_questions
from tests.reports.compare.conftest import Few


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
