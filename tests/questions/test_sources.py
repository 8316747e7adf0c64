"""One spelling for every source, and the name it is reported under."""

import json

import pytest

from calib_jax.errors import UserError
from calib_jax.questions import load, split_name
from calib_jax.questions.sources import for_role, task_of


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
        ("data/mine.csv%70:30", "mine"),
        ("mine.csv%70:30/test", "mine"),
        ("mine.csv%70:30/train", "mine_train"),
        ("x=mine.csv%70:30/train", "x"),
        ("arc_easy/test%70:15:15/validation", "arc_easy_validation"),
        ("hf:owner/set:main:test%70:30", "set"),
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
        ("caf\udce9.jsonl", "is not UTF-8: rename the file"),
        ("exam.jsonl%70:20", "percentages that make 100"),
        ("exam.jsonl%100:0", "percentages that make 100"),
        ("exam.jsonl%25:25:25:25", "two or three percentages"),
        ("exam.jsonl%70:30/dev", "no part 'dev', only train, test"),
        ("exam.jsonl%70", "To divide a source, write <source>%70:30"),
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


def test_a_role_takes_its_own_split_of_a_task_and_its_part_of_a_divided_source(tmp_path):
    path = tmp_path / "exam.toml"
    path.write_text('[files]\ntrain = "a.csv"\ntest = "b.csv"\n')
    assert for_role(f"x={path}", "train") == f"x={path}/train"
    assert for_role("arc_easy", "train") == "arc_easy/train"
    assert for_role("hellaswag", "validation") == "hellaswag/validation"
    assert for_role("a.csv%70:30", "train") == "a.csv%70:30/train"
    assert for_role(f"{path}%70:15:15", "validation") == f"{path}%70:15:15/validation"
    # What says itself which split it is stays, and so does what has no splits.
    for spec in ("arc_easy/test", "offline:arc_easy/test", "hf:o/n:test", "mine=a.csv"):
        assert for_role(spec, "train") == spec
    assert for_role("a.csv%70:30/test", "train") == "a.csv%70:30/test"
    assert for_role("arc_easy", "test") == "arc_easy"
    with pytest.raises(UserError, match="no validation part; write .*%70:15:15"):
        for_role("a.csv%70:30", "validation")
    with pytest.raises(UserError, match="none that is called 'validation'; there are: train, test"):
        for_role(str(path), "validation")
    path.write_text('files = { test = "b.csv" }')
    with pytest.raises(UserError, match=r"there are: test. .*exam.toml/test%70:30"):
        for_role(str(path), "train")
