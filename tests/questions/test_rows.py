"""Every usual layout of a row is read, and whatever could be read in two ways is refused."""

import decimal
import json

import pytest

from calib_jax.errors import UserError
from calib_jax.questions.answers import AnswerReader
from calib_jax.questions.rows import question_from_row, unused_fields

METALS = ["iron", "tin", "zinc", "gold"]


def read(**row):
    row.setdefault("question", "Which is yellow?")
    return question_from_row(row, "f.jsonl row 3", "row-3", "mine")


def lettered(texts, labels="ABCD"):
    return {"text": texts, "label": list(labels)}


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"choices": METALS, "answer": 3}, 3),
        ({"choices": METALS, "answer": "3"}, 3),
        ({"choices": METALS, "answer": "D"}, 3),
        ({"choices": METALS, "answer": " d "}, 3),
        ({"choices": METALS, "answerKey": "D"}, 3),
        ({"choices": json.dumps(METALS), "answer": "3"}, 3),
        ({"choices": lettered(METALS), "answerKey": "D"}, 3),
        ({"choices": lettered(METALS), "answer": 3}, 3),
        ({"choices": json.dumps(lettered(METALS)), "answerKey": "D"}, 3),
        ({"choices": lettered(METALS, "1234"), "answerKey": "3"}, 2),
        ({"choices": lettered(METALS, "1234"), "answer": "3"}, 2),
        (dict(zip("ABCD", METALS, strict=True)) | {"answer": "D"}, 3),
        (dict(zip(["opa", "opb", "opc", "opd"], METALS, strict=True)) | {"cop": 3}, 3),
        ({"choices": ["B", "AB", "A"], "answer": 2}, 2),
        ({"choices": ["0", "1", "2"], "answer": "1"}, 1),
        # The text of an option, as it is written there; whole numbers however they are written.
        ({"choices": METALS, "answer": "gold"}, 3),
        ({"choices": METALS, "answerKey": " gold "}, 3),
        ({"choices": ["no  way", "yes", "x", "y"], "answer": "no way"}, 0),
        ({"choices": lettered(METALS, "1234"), "answerKey": "tin"}, 1),
        ({"choices": ["10", "11", "12", "13"], "answer": "13"}, 3),
        ({"choices": ["I", "II", "III", "IV"], "answer": "I"}, 0),
        ({"choices": ["-1", "0 K", "x", "y"], "answer": "-1"}, 0),
        ({"choices": METALS, "answer": "2.0"}, 2),
        ({"choices": METALS, "answer": 2.0}, 2),
        ({"choices": METALS, "answer": decimal.Decimal("2.00")}, 2),
        ({"choices": lettered(METALS, "1234"), "answerKey": "2.0"}, 1),
    ],
)
def test_layouts(row, answer):
    question = read(**row)
    assert question.answer == answer
    assert len(question.choices) == 4 or question.choices[0] in ("B", "0")


@pytest.mark.parametrize(
    ("row", "base", "answer"),
    [
        ({"choices": METALS, "answer": 4}, "1", 3),
        ({"choices": METALS, "answer": "4.0"}, "1", 3),
        ({"choices": METALS, "answer": 3}, "0", 3),
        ({"choices": METALS, "answer": "B"}, "1", 1),
        ({"choices": METALS, "answerKey": 2}, "1", 1),
        ({"choices": METALS, "answerKey": "2"}, "0", 2),
        ({"choices": lettered(METALS, "1234"), "answer": 2}, "0", 2),
        ({"choices": lettered(METALS, "1234"), "answer": 2}, "1", 1),
    ],
)
def test_numbers_count_from_what_is_said(row, base, answer):
    row["question"] = "Which is yellow?"
    answers = AnswerReader(base)
    assert question_from_row(row, "f", "row-3", "mine", answers).answer == answer


def test_metadata_defaults_and_other_names():
    row = {"question_stem": "Which?", "choices": METALS, "answer": 0, "subject_name": "metals"}
    question = question_from_row(row, "w", "row-1", "mine")
    assert (question.id, question.task, question.subject) == ("row-1", "mine", "metals")
    question = question_from_row(row | {"id": 12, "task": "own"}, "w", "row-1", "mine")
    assert (question.id, question.task) == ("12", "own")
    question = question_from_row(row | {"id": None, "task": "", "subject": None}, "w", "r", "mine")
    assert (question.id, question.task, question.subject) == ("r", "mine", "metals")
    assert question.context is None
    assert question_from_row(row | {"context": ""}, "w", "r", "mine").context is None
    assert question_from_row(row | {"context": "Gold."}, "w", "r", "mine").context == "Gold."


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"choices": METALS, "answer": 5}, ["'answer' is 5", "4 choices"]),
        ({"choices": METALS, "answer": "5"}, ["'answer' is 5", "4 choices"]),
        ({"choices": METALS, "answer": "E"}, ["'answer' is 'E'", "A, B, C, D"]),
        ({"choices": METALS, "answer": "lead"}, ["'lead'", "A, B, C, D"]),
        ({"choices": METALS, "answer": "Gold"}, ["'Gold'", "is written 'gold'"]),
        ({"choices": METALS, "answer": "2.5"}, ["'2.5'"]),
        ({"choices": METALS, "answer": 2.5}, ["2.5"]),
        ({"choices": METALS, "answer": float("nan")}, ["nan"]),
        ({"choices": METALS, "answer": True}, ["True"]),
        ({"choices": METALS, "answer": -1}, ["'answer' is -1: the row has no answer"]),
        ({"choices": METALS, "answer": ""}, ["'answer' is '': the row has no answer"]),
        ({"choices": METALS, "answer": 4}, ["'answer' is 4", "--config.data.answer_base=1"]),
        # Letters of the alphabet alone, not what becomes one (or several) in upper case.
        ({"choices": [*"pqrstuvwxyz"], "answer": "\u0131"}, ["'\u0131'"]),
        ({"choices": METALS, "answer": "\u00df"}, ["'\u00df'"]),
        ({"choices": [f"option {i}" for i in range(26)], "answer": "\ufb06"}, ["'\ufb06'"]),
        ({"choices": METALS, "answer": "\uff21"}, ["'\uff21'"]),
        ({"choices": METALS, "answer": "\u0663"}, ["'\u0663'"]),
        ({"choices": METALS, "answer": None}, ["'answer'", "None"]),
        ({"choices": METALS, "answr": 1}, ["'answer'", "columns choices, answr, question"]),
        ({"choises": METALS, "answer": 1}, ["'choices'", "choises"]),
        ({"choices": METALS, "answer": 1, "answerKey": "B"}, ["answer and answerKey", "keep one"]),
        ({"choices": METALS, "A": "x", "answer": 1}, ["choices and in A", "keep one"]),
        ({"choices": METALS, "question_stem": "x", "answer": 1}, ["question and question_stem"]),
        # A digit that may be a label or an index; a letter or digit that is also an option.
        ({"choices": METALS, "answerKey": "2"}, ["'answerKey' is '2'"]),
        ({"choices": METALS, "answerKey": 2}, ["'answerKey'", "label as text", "answer_base=1"]),
        ({"choices": lettered(METALS, "1234"), "answer": 2}, ["label or count from 0"]),
        ({"choices": lettered(METALS, "1234"), "answer": "0"}, ["'0'", "1, 2, 3, 4"]),
        ({"choices": lettered(METALS, "1234"), "answer": "B"}, ["'B'", "1, 2, 3, 4"]),
        ({"choices": ["B", "A", "O"], "answer": "A"}, ["'A'", "text of option B"]),
        ({"choices": ["1", "2", "3"], "answer": "1"}, ["'1'", "text of option A"]),
        ({"choices": lettered(METALS, "ABCC"), "answer": "A"}, ["labels A, B, C, C"]),
        ({"choices": lettered(METALS, "BACD"), "answer": "A"}, ["labels B, A, C, D"]),
        ({"choices": lettered(METALS, "ABC"), "answer": "A"}, ["4 texts but 3 labels"]),
        ({"choices": {"text": METALS}, "answer": "A"}, ["keys text"]),
        ({"choices": lettered(["a", 2, "c", "d"]), "answer": "A"}, ["'text'", "strings"]),
        ({"choices": "['iron', 'tin']", "answer": "A"}, ["JSON list"]),
        ({"choices": "iron", "answer": "A"}, ["JSON list"]),
        ({"choices": None, "answer": "A"}, ["'choices'", "None"]),
        ({"choices": ["iron", ""], "answer": 0}, ["option B", "empty"]),
        ({"choices": ["iron", 2], "answer": 0}, ["option B", "must be a string"]),
        ({"A": "iron", "C": "tin", "answer": 0}, ["columns are A, C", "expected A, B"]),
        ({"A": "iron", "B": "tin", "C": "", "answer": 0}, ["'C' is empty", "JSON list"]),
        ({"A": "iron", "B": None, "answer": 0}, ["'B' is empty"]),
        ({"opa": "iron", "opb": "tin", "cop": 0}, ["opa, opb", "opd"]),
        ({"choices": METALS, "answer": 0, "id": " "}, ["'id'"]),
        ({"choices": METALS, "answer": 0, "id": True}, ["'id'"]),
        ({"choices": METALS, "answer": 0, "subject": 4}, ["'subject'"]),
        ({"choices": METALS, "answer": 0, "context": 4}, ["'context'"]),
    ],
)
def test_a_bad_row_is_refused_with_its_place(row, words):
    with pytest.raises(UserError) as error:
        read(**row)
    message = str(error.value)
    assert message.startswith("f.jsonl row 3: ")
    assert all(word in message for word in words), message


def test_unused_fields_are_listed():
    rows = [{"question": "?", "A": "x", "note": 1}, {"question": "?", "source": 2, "answer": 1}]
    assert unused_fields(rows) == ["note", "source"]
