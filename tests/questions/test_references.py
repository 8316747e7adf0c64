"""Which options refer to others: a table of phrases, with look-alikes that do not."""

import pytest

from calib_jax.questions.references import names_options, summaries

SUMMARIES = [
    "All of the above",
    "none of the above.",
    "Any 2 of the above values",
    "ALL THE ABOVE",
    "None of above",
    "all of below.",
    "None of the above; it never rains there",
    "It could be any of the above.",
    "All of these",
    "both of those",
    "Neither of these.",
    "None of these will make it sink",
    "A snail can do neither of these",
    "either of them",
    "All of them are true.",
    "All of the options given are correct",
    "none of these answers is right",
    "All the mentioned options",
    "All other answers",
    "these are all correct",
    "Both",
    "neither.",
    "Neither is true",
    "All are possible",
    "none",
]

ORDINARY = [
    "above ground",
    "98% or above",
    "of the above-ground parts",
    "All stars emit light",
    "both are warm",
    "Both its roots and its leaves",
    "neither salt nor sugar",
    "either solid or liquid",
    "none of them swims",
    "some of these birds",
    "All of it",
    "nonetheless",
    "other options",
    "more choices for everyone",
    "It cannot be determined",
    "those who plant trees",
    "bothersome",
]

# Each stands third of four options.
NAMINGS = [
    "Both A and B",
    "both (a) and (b).",
    "Either A or B",
    "Neither A nor B are right",
    "neither a nor. b.",
    "A and B",
    "A, B and D",
    "a. and b. above",
    "A & D",
    "A and B only",
    "B only",
    "a b and d",
    "Options A and D",
    "Answer A",
    "the same as option B",
    "All but B",
    "All of the above except A",
    "A and B, but not D",
    "Both A and B are present",
    "(A) and (B) both in the same way",
    "(A), (B), and (D) are part of it",
    "All of (a), (b) and (d) will hold",
    "both A and C",
    "both 1 and 2",
    "options I and II",
    "Both of the first two options",
    "the previous answer",
]

UNNAMING = [
    "A and P waves",
    "vitamin A and D",
    "vitamins A, B and D",
    "N and P",
    "A",
    "A and B are equally tall",
    "a and an",
    "1 and 2",
    "I and II",
    "I and II only",
    "both 30 and 40",
    "both X and Y",
    "Type A or type B",
    "A/B",
    "AB",
    "a cat and a dog",
    "B. subtilis and E. coli",
    "the first two planets",
    "C, C++",
    "ab and cd",
]

OTHERS = ("moss", "fern", "reed")


def beside(text):
    return [OTHERS[0], OTHERS[1], text, OTHERS[2]]


@pytest.mark.parametrize("text", SUMMARIES)
def test_summaries_are_found(text):
    assert summaries(beside(text)) == (2,)


@pytest.mark.parametrize("text", ORDINARY + UNNAMING)
def test_ordinary_options_are_no_summaries(text):
    assert summaries(beside(text)) == ()


@pytest.mark.parametrize("text", NAMINGS)
def test_named_options_are_found(text):
    assert names_options("Which grows here?", beside(text))


@pytest.mark.parametrize("text", UNNAMING + ORDINARY + SUMMARIES)
def test_other_options_name_nothing(text):
    assert not names_options("Which grows here?", beside(text))


@pytest.mark.parametrize(
    "choices",
    [
        ["A and D", "B6 and C", "C and K", "E and K"],  # vitamins
        ["A and B only", "A and C only", "B and C only", "A, B and C"],  # parts of a text
        ["A only", "B only", "both A and B", "neither A nor B"],  # the question's own A and B
        ["I only", "II only", "I and II only", "I, II and III"],
        ["A", "B", "AB", "O"],  # blood types
        ["A", "B", "both A and B", "neither"],
    ],
)
def test_lists_of_letters_that_only_name_each_other_name_no_options(choices):
    assert not names_options("Which holds?", choices)


def test_letters_without_an_option_name_nothing():
    assert names_options("Which?", ["moss", "fern", "reed", "A and E", "oak"])
    assert not names_options("Which?", ["moss", "fern", "reed", "A and E"])


def test_numbers_that_the_question_gives_itself_name_no_options():
    choices = ["moss", "fern", "both 1 and 2", "reed"]
    assert names_options("Which grows here?", choices)
    assert not names_options("1. It is wet. 2. It is dark. Which holds?", choices)
    choices = ["moss", "fern", "both I and II", "reed"]
    assert not names_options("I. It is wet.\nII. It is dark. Which holds?", choices)
