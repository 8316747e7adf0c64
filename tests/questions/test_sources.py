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
