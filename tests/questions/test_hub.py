"""Data sets are really loaded through ``datasets``, from folders written here."""

import datasets
import pytest

from calib_jax.errors import UserError
from calib_jax.questions import hub, load, prepare

QUESTIONS = ["Which is a bird?", "Which swims?"]
CHOICES = [["crow", "cod"], ["owl", "cod"]]


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def write(folder, columns, answer_feature=None, split="test"):
    dataset = datasets.Dataset.from_dict(columns)
    if answer_feature is not None:
        name = next(name for name in ("answer", "cop", "answerKey") if name in columns)
        dataset = dataset.cast_column(name, answer_feature)
    folder.mkdir(exist_ok=True)
    dataset.to_parquet(folder / f"{split}.parquet")
    return f"hf:{folder}:{split}"


def test_plain_columns(tmp_path):
    spec = write(tmp_path / "birds", {"question": QUESTIONS, "choices": CHOICES, "answer": [0, 1]})
    questions = load(spec)
    assert [q.answer for q in questions] == [0, 1]
    assert [q.id for q in questions] == ["test/row-1", "test/row-2"]
    assert {q.task for q in questions} == {"birds"}


def test_two_splits_of_one_set_are_joined(tmp_path):
    for split, first in (("validation", "It is"), ("train", "Was it")):
        texts = [f"{first} {i}?" for i in range(3)]
        columns = {"question": texts, "choices": [["yes", "no"]] * 3, "answer": [0, 1, 0]}
        write(tmp_path / "exam", columns, split=split)
    specs = [f"hf:{tmp_path}/exam:{split}" for split in ("validation", "train")]
    joined = prepare(specs, [], train_size=6).train
    assert [q.id for q in joined] == [
        f"{s}/row-{i}" for s in ("validation", "train") for i in (1, 2, 3)
    ]
    assert {q.task for q in joined} == {"exam"}


@pytest.mark.parametrize("names", [["A", "B"], ["a", "b"], ["0", "1"], ["1", "2"]])
def test_class_labels_are_indices_whatever_their_names(tmp_path, names):
    # The options spell letters and digits: as text the class "B" or "1" could be taken for them.
    columns = {"question": QUESTIONS, "choices": [["B", "A"], ["1", "0"]], "answer": [0, 1]}
    spec = write(tmp_path / "x", columns, datasets.ClassLabel(names=names))
    assert [q.answer for q in load(spec)] == [0, 1]


def test_classes_named_as_the_options_are_answers(tmp_path):
    columns = {"question": QUESTIONS, "choices": CHOICES, "answer": [1, 0]}
    spec = write(tmp_path / "x", columns, datasets.ClassLabel(names=["cod", "crow"]))
    assert [q.answer for q in load(spec)] == [0, 1]


def test_numbers_count_from_what_is_said_and_classes_from_0(tmp_path):
    columns = {"question": [f"Which, {i}?" for i in range(30)], "choices": [["a", "b"]] * 30}
    columns["answer"] = [1] * 30
    spec = write(tmp_path / "x", columns)
    with pytest.raises(UserError, match="x:test: the 30 answers.*answer_base=0 or .*_base=1"):
        load(spec)
    assert {q.answer for q in load(spec, answer_base="1")} == {0}
    spec = write(tmp_path / "y", columns, datasets.ClassLabel(names=["A", "B"]))
    assert {q.answer for base in ("auto", "1") for q in load(spec, answer_base=base)} == {1}


def test_the_layout_of_arc_and_openbookqa(tmp_path):
    labels = [["A", "B"], ["1", "2"]]
    columns = {
        "id": ["x", "y"],
        "question_stem": QUESTIONS,
        "choices": [
            {"text": texts, "label": label} for texts, label in zip(CHOICES, labels, strict=True)
        ],
        "answerKey": ["A", "2"],
    }
    questions = load(write(tmp_path / "x", columns))
    assert [(q.id, q.answer) for q in questions] == [("x", 0), ("y", 1)]


def test_the_layout_of_medmcqa(tmp_path):
    columns = {"question": QUESTIONS, "subject_name": ["zoology", None], "cop": [3, 0]}
    columns |= {f"op{c}": [f"{c}1", f"{c}2"] for c in "abcd"}
    spec = write(tmp_path / "x", columns, datasets.ClassLabel(names=["a", "b", "c", "d"]))
    questions = load(spec)
    assert [(q.answer, q.subject) for q in questions] == [(3, "zoology"), (0, None)]
    assert questions[0].choices == ("a1", "b1", "c1", "d1")


def test_equal_options_are_marked_not_refused(tmp_path):
    columns = {"question": QUESTIONS, "choices": [["cod", "cod"], CHOICES[1]], "answer": [0, 1]}
    questions = load(write(tmp_path / "x", columns))
    assert [q.has_duplicate_choices for q in questions] == [True, False]


def test_bad_rows(tmp_path):
    good = {"question": QUESTIONS, "choices": CHOICES, "answer": [0, 1]}
    with pytest.raises(UserError, match="x:test row 2.*'answer' is 4"):
        load(write(tmp_path / "x", good | {"answer": [0, 4]}))
    with pytest.raises(UserError, match="y:test row 2: id 'a' appears in row 1"):
        load(write(tmp_path / "y", good | {"id": ["a", "a"]}))
    with pytest.raises(UserError, match="z:test row 2: field 'answer' is -1: .* no answer"):
        load(write(tmp_path / "z", good | {"answer": [0, -1]}, datasets.ClassLabel(2, ["A", "B"])))
    with pytest.raises(UserError, match="v:test row 2: field 'answer' is 'elk'; expected"):
        load(write(tmp_path / "v", good, datasets.ClassLabel(2, ["crow", "elk"])))
    with pytest.raises(UserError, match=r"w:test row 1: no field 'question' among .*qestion"):
        load(write(tmp_path / "w", {"qestion": QUESTIONS, "choices": CHOICES, "answer": [0, 1]}))


def test_what_cannot_be_loaded_has_a_remedy(tmp_path):
    spec = write(tmp_path / "x", {"question": QUESTIONS, "choices": CHOICES, "answer": [0, 1]})
    for bad in (
        spec.replace(":test", ":exam"),
        spec.replace(":test", ":main:test"),
        f"hf:{tmp_path}/none:test",
        "hf:nobody-at-all/no-such-set:test",
    ):
        with pytest.raises(UserError, match="cannot load the Hugging Face data set.*use a local"):
            load(bad)


def test_spelling():
    assert hub.parse("o/n:test") == ("o/n", None, "test")
    assert hub.parse("o/n:main:test") == ("o/n", "main", "test")
    for bad in ("o/n", "o/n:", "o/n::test", "o/n:a:b:c", ""):
        with pytest.raises(UserError, match="write hf:owner/name:split"):
            hub.parse(bad)
