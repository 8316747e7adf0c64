"""One spelling for every source, and the name it is reported under."""

import json

import pytest

from calib_jax.errors import UserError
from calib_jax.questions import load, split_name


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
    ],
)
def test_names(spec, name):
    assert split_name(spec) == name


def test_a_name_before_the_path_changes_nothing_but_the_name(tmp_path):
    path = tmp_path / "a=b.jsonl"
    path.write_text(json.dumps({"question": "Wet?", "choices": ["yes", "no"], "answer": "B"}))
    assert load(str(path)) == load(f"c={path}")
    assert load(str(path))[0].task == "a=b"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("openbookqa", "'openbookqa' names no source"),
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


def test_the_name_of_a_file_is_the_task_of_its_rows(tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_text('{"question": "Which?", "choices": ["x", "y"], "answer": 0}\n')
    assert load(str(path))[0].task == "train"
    assert load(f"mine={path}")[0].task == "mine"
