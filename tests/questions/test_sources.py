"""One spelling for every source, and the name it is reported under."""

import json

import pytest

from calib_jax.errors import UserError
from calib_jax.questions import load, split_name
from calib_jax.questions.sources import task_of


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("offline:openbookqa/train", "openbookqa"),
        ("mine=offline:openbookqa/test", "mine"),
        ("hf:owner/set:main:test", "set"),
        ("out-of.domain=hf:owner/set:test", "out-of.domain"),
        ("hf:/a/folder/:test", "folder"),
        ("data/my questions.jsonl", "my_questions"),
        ("./a=b.csv", "a_b"),
        ("x=./a=b.csv", "x"),
        ("arc_easy", "arc_easy"),
        ("arc_easy/validation", "arc_easy_validation"),
        ("arc_easy/test", "arc_easy"),
        ("val=arc_easy/validation", "val"),
        ("here/my task.toml", "my_task"),
        ("here/mine.toml/dev", "mine"),
        ("arc_easy/my.jsonl", "my"),
    ],
)
def test_names(spec, name):
    assert split_name(spec) == name


def test_a_name_before_the_path_is_the_task_of_rows_that_state_none(tmp_path):
    path = tmp_path / "a=b.jsonl"
    path.write_text(json.dumps({"question": "Wet?", "choices": ["yes", "no"], "answer": "B"}))
    assert load(str(path))[0].task == "a=b"
    assert load(f"c={path}")[0].task == "c"
    row = {"question": "Wet?", "choices": ["yes", "no"], "answer": "B", "task": "own"}
    path.write_text(json.dumps(row))
    assert load(f"c={path}")[0].task == "own"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("openbokqa", "'openbokqa' names no source.*Did you mean 'openbookqa'"),
        ("openbookqa/exam", "'openbookqa' has no split 'exam'; there are: train, validation, test"),
        ("none.toml", "none.toml: cannot be read"),
        ("data.json", "names no source.*jsonl, .csv or .parquet"),
        ("", "must be text"),
        (None, "must be text"),
        ("offline:openbookqa", "write offline:<task>/<split>"),
        ("offline:openbookqa/test/x", "write offline:<task>/<split>"),
        ("hf:owner/name", "write hf:owner/name:split"),
        ("none.jsonl", "none.jsonl: there is no such file"),
    ],
)
def test_what_is_not_understood_is_named(spec, message):
    with pytest.raises(UserError, match=message):
        load(spec)


def test_a_task_is_a_source_and_brings_its_prompts(tmp_path):
    (tmp_path / "wet.toml").write_text('[files]\ndev = "wet.jsonl"\ntest = "wet.jsonl"\n')
    row = {"question": "Wet?", "choices": ["yes", "no"], "answer": "B"}
    (tmp_path / "wet.jsonl").write_text(json.dumps(row))
    for spec in (f"{tmp_path}/wet.toml", f"{tmp_path}/wet.toml/dev", f"x={tmp_path}/wet.toml"):
        assert [(q.question, q.task) for q in load(spec)] == [("Wet?", "wet")]
        assert task_of(spec).name == "wet"
    assert task_of("val=mmlu/validation").name == "mmlu"
    for spec in ("offline:mmlu/test", "hf:owner/mmlu:test", "mmlu.jsonl", "mmlu/test.csv"):
        assert task_of(spec) is None
