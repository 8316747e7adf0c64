"""Free questions: how answers are graded, by hand-made cases, and what a source must hold."""

import json

import pytest

from calib_jax.errors import UserError
from calib_jax.questions.free import (
    FreeQuestion,
    is_right,
    load_free,
    normalised_answer,
    true_or_false,
)


@pytest.mark.parametrize(
    "answer, alias, expected",
    [
        ("Paris", "paris", True),
        ("the Beatles", "Beatles", True),
        ("The  Beatles.", "beatles", True),
        ("A Tale of Two Cities", "tale of two cities", True),
        ("it’s", "its", True),  # a typographic apostrophe is as good as none
        ("rock 'n' roll", "rock n roll", True),
        ("1,000", "1000", True),
        ("New_York", "new york", True),
        ("Theodore", "odore", False),  # "the" as a part of a word stays
        ("Ana", "n", False),
        ("Paris, France", "Paris", False),  # a match is of the whole answer
        ("The A", "the a", True),
        ("The A", "an the", False),
        ("?!", "!", False),
        ("", "", False),
        ("  ", "the", False),
        ("Émile Zola", "emile zola", False),  # accents count, as in the data sets' own scripts
    ],
)
def test_normalised_match(answer, alias, expected):
    assert is_right(answer, [alias]) is expected


def test_any_alias_counts_and_normalising_twice_changes_nothing():
    assert is_right("Sunset Blvd", ["Sunset Boulevard", "sunset blvd."])
    assert not is_right("Sunset", [])
    for text in ("The  Beatles!", "“An” apple, a day", "The A", "?!", "N_A"):
        assert normalised_answer(normalised_answer(text)) == normalised_answer(text)


def test_a_file_of_questions(tmp_path):
    path = tmp_path / "mine.jsonl"
    rows = [
        {"id": 7, "question": "Who?", "answers": ["Ann", "Anne"]},
        {"question": "Where?", "answer": "Here"},
        {"question": "When?", "answer": '["now", "today"]'},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert load_free(str(path)) == [
        FreeQuestion("7", "Who?", ("Ann", "Anne")),
        FreeQuestion("row-2", "Where?", ("Here",)),
        FreeQuestion("row-3", "When?", ("now", "today")),
    ]


@pytest.mark.parametrize(
    "row, said",
    [
        ({"question": "Who?"}, "field 'answers'"),
        ({"question": "Who?", "answers": []}, "field 'answers'"),
        ({"question": "Who?", "answers": ["Ann", " "]}, "field 'answers'"),
        ({"question": " ", "answers": ["Ann"]}, "field 'question'"),
        ({"question": "Who?", "answers": "[Ann"}, "no JSON list"),
        ({"id": "a", "question": "Who?", "answers": ["Ann"]}, "appears before"),
    ],
)
def test_a_bad_row_is_refused_by_file_and_number(tmp_path, row, said):
    path = tmp_path / "mine.jsonl"
    good = {"id": "a", "question": "Who?", "answers": ["Ann"]}
    path.write_text(json.dumps(good) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(UserError, match=rf"mine\.jsonl row 2: .*{said}"):
        load_free(str(path))


def test_a_source_that_is_not_there():
    with pytest.raises(UserError, match="choose from: trivia_qa, nq_open"):
        load_free("trivia")
    with pytest.raises(UserError, match="no such file"):
        load_free("nowhere.jsonl")


def test_whether_an_answer_is_true_is_a_question_with_two_options():
    question = FreeQuestion("q", "Who?", ("Ann",))
    right, wrong = (true_or_false(question, text, "mine") for text in ("ann!", "Bob"))
    assert right.choices == ("True", "False") and (right.answer, wrong.answer) == (0, 1)
    assert "Who?" in wrong.question and "Bob" in wrong.question and "Ann" not in wrong.question
