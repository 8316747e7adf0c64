"""Tasks by methods: what is loaded, and that a killed run ends as if it never had been."""

import dataclasses
import signal
import subprocess
import sys

import numpy as np
import pytest

from calib_jax.api import load_model
from calib_jax.confidence.engine import Engine
from calib_jax.config import check_config
from calib_jax.errors import UserError
from calib_jax.jobs import evaluate
from calib_jax.runs import results
from calib_jax.runs import score as scoring
from calib_jax.runs.run import Run
from calib_jax.runs.tasks import load_tasks, plan_task
from calib_jax.training.interrupt import StopRequest
from tests.confidence.plain_engine import PlainEngine
from tests.jobs.conftest import ROOT, SUBJECTS, CommandLine, measure_tasks


@pytest.fixture
def config(exam_config):
    return exam_config


@pytest.fixture
def model(tiny_model):
    return load_model(tiny_model)


def measure(config, model, folder, check=lambda: None):
    return measure_tasks(config, model, load_tasks(config), folder, check)


def plan_tasks(config, model, tasks):
    methods = config.confidence.methods.split(",")
    return {task.name: plan_task(config, task, methods, model) for task in tasks}


def same(one, other, exact=True):
    assert list(one) == list(other)
    for name, by_method in one.items():
        assert list(by_method) == list(other[name])
        for method, scores in by_method.items():
            for field in ("log_scores", "probs", "mass"):
                x, y = getattr(scores, field), getattr(other[name][method], field)
                if exact or x is None:
                    np.testing.assert_array_equal(x, y)
                else:
                    np.testing.assert_allclose(x, y, rtol=1e-4, atol=2e-5)
            np.testing.assert_array_equal(scores.answers, other[name][method].answers)


# Questions


def test_tasks_come_with_prompts_and_examples_and_are_shuffled_alike(config):
    config.data.eval = config.data.eval.split(",")[0]
    config.data.shots = 2
    (exam,) = load_tasks(config)
    assert exam.name == "exam" == exam.task.name and len(exam.questions) == 24
    assert len(exam.shot_questions) == 12 and exam.data["n"] == 24
    # As given the first option is always right; shuffled it is not, in the examples neither.
    assert {q.answer for q in exam.questions} > {0} < {q.answer for q in exam.shot_questions}
    config.data.shuffle_options = False
    (exam,) = load_tasks(config)
    assert {q.answer for q in [*exam.questions, *exam.shot_questions]} == {0}


def test_a_sample_is_at_most_the_split_and_spread_over_subjects(config):
    config.data.eval_size = 12
    exam, plain = load_tasks(config)
    assert (len(exam.questions), len(plain.questions)) == (12, 10) and plain.task is None
    assert {q.subject for q in exam.questions} == set(SUBJECTS)
    assert exam.questions == load_tasks(config)[0].questions
    config.seed = 1
    assert exam.questions != load_tasks(config)[0].questions


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("data.eval", "", "names no source"),
        ("data.eval", "arc_esy", "(?i)did you mean 'arc_easy'"),
        ("data.eval", "arc_easy/tset", "tset"),
        ("data.shots", -1, "config.data.shots is -1"),
        ("data.shots", 1, "plain.jsonl is a plain source"),
        ("confidence.methods", "choise", "Did you mean 'choice'?"),
        ("confidence.methods", "", "names nothing"),
        ("confidence.methods", "choice,choice", "'choice' twice"),
        ("batch.max_buckets", 0, "config.batch.max_buckets is 0"),
        ("prompt.max_length", 4096, "config.prompt.max_length"),
        ("prompt.max_length", 30, "tokens, and the limit is 30"),
        ("posthoc.methods", "nothing", "'nothing'"),
    ],
)
def test_bad_settings_are_one_message_and_leave_nothing(config, tmp_path, field, value, message):
    section, key = field.split(".")
    config[section][key] = value
    with pytest.raises(UserError, match=message) as caught:
        evaluate.main(Run(config, tmp_path / "run", StopRequest()))
    assert not (tmp_path / "run").exists() and "\n" not in str(caught.value)


def test_a_task_without_a_split_for_examples(config, tmp_path):
    text = (tmp_path / "exam.toml").read_text().replace('shots_split = "dev"', "")
    (tmp_path / "exam.toml").write_text(text)
    config.data.shots = 1
    with pytest.raises(UserError, match="without a split for examples"):
        load_tasks(config)


def test_two_templates_for_letters_are_one_too_many(config):
    config.prompt.choice = config.prompt.template = "{question} {options} Answer:"
    with pytest.raises(UserError, match="set one of them"):
        check_config(config)


def test_prompts_cut_at_the_left_are_said(config, model, capsys):
    config.data.eval = config.data.eval.split(",")[0]
    tasks = load_tasks(config)
    plan_tasks(config, model, tasks)
    assert "cut" not in capsys.readouterr().out
    long = dataclasses.replace(tasks[0].questions[3], question="word " * 600)
    tasks[0].questions[3] = long
    reading = plan_tasks(config, model, tasks)["exam"]
    said = capsys.readouterr().out
    assert said.startswith("exam: 1 of 24 questions have prompts beyond the 512 tokens")
    assert f"by up to {reading.cut[long.id]} tokens" in said


# Scores


def test_scores_are_those_of_the_plain_engine(config, model, tmp_path, monkeypatch):
    found = measure(config, model, tmp_path / "run")
    assert [len(s["choice"]) for s in found.values()] == [24, 10]

    class Plain(PlainEngine):
        def __init__(self, model, **options):
            super().__init__(model)
            self.top_tokens = self.states = False

        def plan(self, groups):
            pass

        def score(self, groups, on_group, check, name_of):
            return super().score(groups, on_group, check)

    monkeypatch.setattr(scoring, "Engine", Plain)
    same(found, measure(config, model, tmp_path / "plain"), exact=False)


def test_stopped_anywhere_it_ends_with_the_same_scores(config, model, tmp_path, monkeypatch):
    whole = measure(config, model, tmp_path / "whole")
    assert not (tmp_path / "whole" / "partial").exists()
    scored = []

    class Counting(Engine):
        def score(self, groups, on_group, *rest):
            def count(i, scores):
                scored.append(i)
                on_group(i, scores)

            return super().score(groups, count, *rest)

    class Killed(Exception):
        pass

    monkeypatch.setattr(scoring, "Engine", Counting)
    total = sum(len(r.keys) for r in plan_tasks(config, model, load_tasks(config)).values())
    for stop_after in (1, 3, 6):
        left = [stop_after]

        def check(left=left):
            left[0] -= 1
            if not left[0]:
                raise Killed

        before = len(scored)
        with pytest.raises(Killed):
            measure(config, model, tmp_path / "run", check)
        assert len(scored) > before
    partial = tmp_path / "run" / "partial" / "measured-exam.jsonl"
    assert partial.exists() and not (tmp_path / "run" / "predictions").exists()
    # A line that was being written when it was killed.
    partial.write_bytes(partial.read_bytes()[:-7])
    same(measure(config, model, tmp_path / "run"), whole)
    assert len(scored) == total + 1 and not partial.parent.exists()
    # Once more: nothing is scored.
    same(measure(config, model, tmp_path / "run"), whole)
    assert len(scored) == total + 1


def test_a_journal_of_other_weights_or_prompts_is_not_used(config, model, tmp_path, capsys):
    def killed():
        raise KeyboardInterrupt

    whole = measure(config, model, tmp_path / "whole")
    for other in (dataclasses.replace(model, fingerprint="another"), model):
        with pytest.raises(KeyboardInterrupt):
            measure(config, other, tmp_path / "run", killed)
    assert "is started anew" in capsys.readouterr().out
    config.prompt.choice = "{question} {options} Answer:"
    with pytest.raises(KeyboardInterrupt):
        measure(config, model, tmp_path / "run", killed)
    assert "is started anew" in capsys.readouterr().out
    config.prompt.choice = ""
    same(measure(config, model, tmp_path / "run"), whole)


KILLED = """
import os, signal, sys
from pathlib import Path
import ml_collections, json
from calib_jax.api import load_model
from calib_jax.runs.tasks import load_tasks
from tests.jobs.conftest import measure_tasks
config = ml_collections.ConfigDict(json.loads(Path(sys.argv[1]).read_text()))
batches = []
def check():
    batches.append(0)
    if len(batches) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
measure_tasks(config, load_model(config.model.name), load_tasks(config), Path(sys.argv[2]), check)
"""


@pytest.mark.slow
def test_killed_by_the_system(config, model, tmp_path):
    (tmp_path / "c.json").write_text(config.to_json_best_effort())
    done = subprocess.run(
        [sys.executable, "-c", KILLED, tmp_path / "c.json", tmp_path / "run"],
        cwd=ROOT,
        env=CommandLine.environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    partial = tmp_path / "run" / "partial" / "measured-exam.jsonl"
    assert partial.read_bytes().count(b"\n") > 2
    same(measure(config, model, tmp_path / "run"), measure(config, model, tmp_path / "whole"))


def test_groups_are_pooled_over_questions(config, model, tmp_path):
    tasks = load_tasks(config)
    scores = measure_tasks(config, model, tasks, tmp_path / "run", lambda: None)
    splits = {name: by_method["choice"] for name, by_method in scores.items()}
    split = results.grouped(splits, {"exam": tasks[0].task.groups})
    assert list(split) == ["exam", "exam_hard", "exam_soft", "plain"]
    whole, hard, soft = (split[n] for n in ("exam", "exam_hard", "exam_soft"))
    assert set(hard.subjects) == {"algebra", "botany"} and set(soft.subjects) == {"chess"}
    assert sorted(hard.ids + soft.ids) == sorted(whole.ids)
    for part in (hard, soft):
        rows = [whole.ids.index(i) for i in part.ids]
        np.testing.assert_array_equal(part.probs, whole.probs[rows])
        np.testing.assert_array_equal(part.mass, whole.mass[rows])
        assert part.choices == tuple(whole.choices[r] for r in rows)
