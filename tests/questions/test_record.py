"""The record refuses every malformed question and names the id and the field."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib_jax.errors import UserError
from calib_jax.questions.record import LETTERS, Question, normalised

GOOD = {"id": "q7", "question": "Which one floats?", "choices": ["cork", "lead"], "answer": 0}


def test_a_list_of_choices_becomes_a_tuple_and_numpy_integers_become_int():
    question = Question(**GOOD | {"answer": np.int64(1)})
    assert question.choices == ("cork", "lead")
    assert question.answer == 1 and type(question.answer) is int
    assert hash(question) == hash(Question(**GOOD | {"answer": 1}))


@pytest.mark.parametrize("K", [2, 26])
def test_two_to_26_options_are_possible(K):
    assert Question("q", "?", [f"o{i}" for i in range(K)], K - 1).answer == K - 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"question": "  "}, ["'question'", "empty"]),
        ({"question": None}, ["'question'", "None"]),
        ({"question": "\ud800"}, ["'question'", "Unicode"]),
        ({"choices": ["cork"]}, ["'choices'", "1 options", "2 to 26"]),
        ({"choices": [str(i) for i in range(27)]}, ["'choices'", "27 options"]),
        ({"choices": "AB"}, ["'choices'", "str"]),
        ({"choices": ["cork", " \t"]}, ["'choices'", "option B", "empty"]),
        ({"choices": ["cork", 7]}, ["'choices'", "option B", "7"]),
        ({"answer": 2}, ["'answer'", "2", "2 choices"]),
        ({"answer": -1}, ["'answer'", "-1"]),
        ({"answer": True}, ["'answer'", "True"]),
        ({"answer": np.bool_(True)}, ["'answer'", "True"]),
        ({"answer": 1.0}, ["'answer'", "1.0"]),
        ({"answer": "A"}, ["'answer'", "'A'"]),
        ({"subject": 3}, ["'subject'", "3"]),
        ({"task": " "}, ["'task'"]),
        ({"context": " "}, ["'context'"]),
        ({"context": "\ud800"}, ["'context'", "Unicode"]),
    ],
)
def test_a_bad_field_is_named_with_the_id(change, words):
    with pytest.raises(UserError) as error:
        Question(**GOOD | change)
    assert all(word in str(error.value) for word in ["'q7'", *words])


def test_what_is_asked_is_the_context_and_the_question():
    assert Question(**GOOD).asked == "Which one floats?"
    passage = Question(**GOOD, context="Cork is light.")
    assert passage.asked == "Cork is light.\nWhich one floats?"
    assert passage != Question(**GOOD)


@pytest.mark.parametrize("bad", ["", " ", None, 3])
def test_a_bad_id_is_refused(bad):
    with pytest.raises(UserError, match="field 'id'"):
        Question(**GOOD | {"id": bad})


def test_duplicate_options_are_seen_through_white_space_but_not_through_case():
    assert Question("q", "?", ["a  cork", "lead", " a cork "], 0).has_duplicate_choices
    assert not Question("q", "?", ["Cork", "cork"], 0).has_duplicate_choices


@pytest.mark.parametrize(
    "other",
    ["which one FLOATS", " Which\tone\n floats?! ", "Which—one, floats…", "Ｗhich one ﬂoats?"],
)
def test_normalising_sees_through_case_punctuation_space_and_unicode_forms(other):
    assert normalised(other) == normalised(GOOD["question"])


def test_normalising_keeps_symbols_and_texts_of_nothing_but_punctuation_apart():
    assert normalised("3 + 4") != normalised("3 = 4")
    assert normalised("?!") != normalised("...") != ""


@settings(deadline=None)
@given(st.text())
def test_normalising_twice_changes_nothing(text):
    assert normalised(normalised(text)) == normalised(text)


def test_letters():
    assert LETTERS == "".join(chr(ord("A") + i) for i in range(26))
