"""Prompts: texts verbatim, and put together as lm-evaluation-harness does it."""

import dataclasses
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib_jax.confidence.readout import plan_reading
from calib_jax.errors import UserError
from calib_jax.questions.chat import Chat
from calib_jax.questions.pairs import Pair
from calib_jax.questions.prompts import (
    Prompt,
    Shots,
    check_template,
    content_free,
    ends_in_field,
    render,
    rotate,
    split_gap,
)
from calib_jax.questions.record import Question
from tests.confidence import lm_eval_cases as cases
from tests.conftest import make_questions

QUESTION = Question("q", "Which is {red}?", ["a {question}", "Rope.", "ink?"], 2, "odd_things")


class Recorder:
    """In place of a PairEncoder: keeps the texts."""

    def __init__(self, tokenizer):
        self.tokenizer, self.pairs = tokenizer, []

    def encode(self, pairs, names=None):
        self.pairs += pairs
        return [Pair(None, 1)] * len(pairs)

    def encode_letters(self, contexts, counts, delimiter=" ", *, fixed_end=True, chat=False):
        for context, K in zip(contexts, counts, strict=True):
            self.pairs += [(context, delimiter + letter) for letter in "ABCDEFGH"[:K]]
        return [[Pair(None, 1)] * K for K in counts]


def assembled(form, shots, chat):
    """(context, continuation) of every option, as ``plan_reading`` has them tokenised."""
    recorder = Recorder(cases.TOKENIZERS["words"]())
    recorder.tokenizer.chat_template = getattr(cases, chat, None)
    docs, pool = cases.DOCS, cases.SHOT_DOCS
    if form == "contexts":
        docs, pool = cases.GAPS, cases.GAP_SHOTS
    plan_reading(
        cases.questions(docs),
        cases.CONTEXTS if form == "contexts" else cases.CHOICE,
        ("choice" if form == "choice" else "continuation_sum",),
        recorder,
        shots=shots,
        chat=Chat(recorder.tokenizer) if chat else None,
        shot_questions=cases.questions(pool),
    )
    return [list(pair) for pair in recorder.pairs]


@pytest.mark.parametrize("chat", ["", "CHATML", "NO_SYSTEM"])
@pytest.mark.parametrize("shots", [0, 2])
@pytest.mark.parametrize("form", ["choice", "continuation", "contexts"])
def test_prompts_are_the_harnesses(golden, form, shots, chat):
    expected = json.loads((golden / "lm_eval" / "prompts.json").read_text())
    assert assembled(form, shots, chat) == expected[f"{form}/{shots}/{chat}"]


def test_texts_stand_verbatim_and_other_braces_are_text():
    template = "{subject} {x} {question}\n{options}\n{options_inline}{context}{}"
    assert render(QUESTION, template) == (
        "odd things {x} Which is {red}?\nA. a {question}\nB. Rope.\nC. ink?\n"
        "A. A {question}. B. Rope. C. Ink?.{}"
    )
    passage = dataclasses.replace(QUESTION, context="It {options} rains.")
    assert render(passage, "{context}|{question}") == "It {options} rains.|Which is {red}?"


def test_a_subject_that_is_asked_for_must_be_there():
    bare = dataclasses.replace(QUESTION, subject=None)
    with pytest.raises(UserError, match=r"'q'.*field \{subject\}.*has no subject"):
        render(bare, "{subject}: {question}")


@settings(deadline=None, max_examples=50)
@given(K=st.integers(2, 6), answer=st.integers(0, 5), shift=st.integers(0, 12))
def test_rotation(K, answer, shift):
    question = Question("q", "?", [f"option {k}" for k in range(K)], answer % K)
    moved = rotate(question, shift)
    assert moved.choices[moved.answer] == question.choices[question.answer]
    assert [moved.choices[j] for j in range(K)] == [
        question.choices[(j + shift) % K] for j in range(K)
    ]
    assert rotate(moved, -shift) == question


def test_every_option_stands_once_in_every_place():
    shifts = [rotate(QUESTION, s).choices for s in range(3)]
    assert all(len({choices[j] for choices in shifts}) == 3 for j in range(3))


@pytest.mark.parametrize("filler", ["N/A", "", "[MASK]"])
def test_content_free_prompts_say_nothing_of_the_question(filler):
    template = "{context}\n{subject}: {question}\n{options}\n{options_inline}"
    other = Question("r", "Who?", ["x", "y", "z"], 0, "odd_things", context="A passage.")
    passage = dataclasses.replace(QUESTION, context="Another.")
    text = content_free(passage, template, filler)
    assert text == content_free(other, template, filler)
    assert text.startswith(f"{filler}\nodd things: {filler}\nA. {filler}\nB. {filler}\nC. {filler}")
    assert "red" not in text and "ope" not in text


def test_gaps():
    question = Question("w", "A cup _ is _ full. ", ["that", "it"], 0)
    assert split_gap(question) == ("A cup ", "is _ full.")
    for text in ("no gap", "ends in _ "):
        with pytest.raises(UserError, match="'w': field 'question' needs a gap"):
            split_gap(dataclasses.replace(question, question=text))


def test_letters_of_a_gap_are_an_ordinary_choice():
    question = Question("w", "The _ is full.", ["cup", "box"], 0)
    prompt = Prompt("{question} {options_inline}", letters=True, form="contexts")
    assert prompt.contexts(question) == ["The _ is full. A. Cup. B. Box."] * 2
    assert prompt.targets(question) == ["A", "B"]


@pytest.mark.parametrize(
    ("template", "letters", "problem"),
    [
        ("{options}", True, r"lacks the field \{question\}"),
        ("{questions}", False, r"lacks the field \{question\}"),
        ("{question}", True, r"lacks the field \{options\}"),
    ],
)
def test_templates_without_their_fields(template, letters, problem):
    with pytest.raises(UserError, match=f"^config.prompt.x: .*{problem}"):
        check_template(template, letters, "config.prompt.x")
    check_template("{question} {options_inline}", True, "-")
    check_template("{question}", False, "-")


def test_where_a_questions_own_text_ends_the_prompt():
    ends = [ends_in_field(t) for t in ("{question}", "{options}\n", "{question}:", "x", "{x}")]
    assert ends == [True, True, False, False, False]


# --- Examples -------------------------------------------------------------------------------------


def test_the_first_examples_and_never_the_question_itself():
    pool = make_questions(6)
    shots = Shots(pool, 3, pick="first")
    assert shots.of(QUESTION) == pool[:3]
    assert shots.of(dataclasses.replace(pool[1], id="again")) == [pool[0], *pool[2:4]]


def test_one_draw_for_all_questions_by_the_seed():
    pool = make_questions(30)
    draws = {seed: Shots(pool, 4, seed=seed).of(QUESTION) for seed in range(8)}
    other = next(q for q in pool if q not in draws[0])
    assert draws[0] == Shots(pool, 4, seed=0).of(other)
    assert len({tuple(q.id for q in draw) for draw in draws.values()}) > 4
    assert all(len(set(draw)) == 4 and set(draw) <= set(pool) for draw in draws.values())
    mine = draws[0][1]
    assert mine not in Shots(pool, 4, seed=0).of(mine)


def test_examples_of_the_same_subject():
    pool = [dataclasses.replace(q, subject="ab"[i % 2]) for i, q in enumerate(make_questions(6))]
    shots = Shots(pool, 2, pick="first", by_subject=True, name="My task")
    assert shots.of(dataclasses.replace(QUESTION, subject="b")) == [pool[1], pool[3]]
    with pytest.raises(UserError, match=r"My task: 2 examples.*'q'.*there are 0.*'odd_things'"):
        shots.of(QUESTION)


def test_too_few_examples():
    with pytest.raises(UserError, match=r"5 examples.*there are 4 .*config.data.shots"):
        Shots(make_questions(4), 5).of(QUESTION)
    assert Shots((), 0).of(QUESTION) == []


def test_letters_of_examples_stand_behind_the_prefix_of_letters():
    prompt = Prompt("{question}:", letters=True, delimiter="")
    assert prompt.prefix([QUESTION]) == "Which is {red}?:C\n\n"


# --- Chat -----------------------------------------------------------------------------------------


def test_a_tokenizer_without_a_template():
    with pytest.raises(UserError, match="config.prompt.chat is set.*no chat template"):
        Chat(cases.TOKENIZERS["words"]())


def test_a_template_that_cannot_be_used():
    tokenizer = cases.TOKENIZERS["words"]()
    tokenizer.chat_template = "{% for m in messages %}{{ raise_exception('never') }}{% endfor %}"
    with pytest.raises(UserError, match="cannot be used.*never"):
        Chat(tokenizer)


def test_whether_the_system_has_a_turn():
    tokenizer = cases.TOKENIZERS["words"]()
    for template, has in ((cases.CHATML, True), (cases.NO_SYSTEM, False)):
        tokenizer.chat_template = template
        chat = Chat(tokenizer)
        assert chat.has_system is has
        assert ("be kind" in chat.apply("be kind", "hi")) is has
