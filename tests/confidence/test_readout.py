"""From questions to every method's scores, with an engine that makes its log-probabilities up."""

import dataclasses
import types
import warnings
import zlib

import numpy as np
import pytest

import calib_jax
from calib_jax.confidence.engine import TokenScores
from calib_jax.confidence.readout import METHODS, plan_reading
from calib_jax.errors import UserError, UserNotice
from calib_jax.questions.chat import Chat
from calib_jax.questions.pairs import PairEncoder
from calib_jax.questions.prompts import CONTENT_FREE, rotate
from calib_jax.questions.record import Question
from calib_jax.questions.tasks import Task
from tests.confidence import lm_eval_cases as cases
from tests.conftest import make_questions

TOKENIZER = cases.TOKENIZERS["words with BOS"]()
CHOICE, CONTINUATION = "Q: {question}\n{options}\nAnswer:", "Q: {question}\nA:"


def log_prob(before, token):
    """Made up, in (-8, 0), from all tokens up to this one."""
    return -8 * (zlib.crc32(np.array([*before, token], np.int64).tobytes()) % 9973 + 1) / 9975


class Oracle:
    """In place of an engine."""

    def score(self, groups, on_group=None, check=lambda: None, name_of=None):
        self.groups = groups
        return [[self._score(pair) for pair in group] for group in groups]

    def _score(self, pair):
        tokens = pair.tokens.tolist()
        starts = range(len(tokens) - pair.num_targets, len(tokens))
        values = np.array([log_prob(tokens[:i], tokens[i]) for i in starts], np.float32)
        return TokenScores(values, values, np.zeros(len(values), np.int32))


def token_log_probs(context, continuation):
    """The same by hand, of texts that split cleanly."""
    head = TOKENIZER.encode(context) if context else [TOKENIZER.bos_token_id]
    whole = (
        TOKENIZER.encode(context + continuation)
        if context
        else head + TOKENIZER.encode(continuation, add_special_tokens=False)
    )
    assert whole[: len(head)] == head
    return [log_prob(whole[:i], whole[i]) for i in range(len(head), len(whole))]


def ask(template, question, /, **changes):
    texts = {"question": question.question, "choices": question.choices, **changes}
    options = "\n".join(f"{a}. {t}" for a, t in zip("ABCDE", texts["choices"], strict=False))
    return template.replace("{question}", texts["question"]).replace("{options}", options)


def letters(context, K):
    return np.array([token_log_probs(context, f" {a}")[0] for a in "ABCDE"[:K]])


def softmax(scores):
    return np.exp(scores) / np.exp(scores).sum()


def by_hand(method, q):
    """A question's log-scores, from the methods' definitions."""
    K = len(q.choices)
    if method == "choice":
        return letters(ask(CHOICE, q), K)
    if method == "choice_permuted":
        probs = np.zeros(K)
        for shift in range(K):
            shown = letters(ask(CHOICE, rotate(q, shift)), K)
            for place in range(K):
                probs[(place + shift) % K] += np.exp(shown[place]) / K
        return np.log(probs)
    if method == "choice_contextual":
        prompts = [ask(CHOICE, q, question=f, choices=[f] * K) for f in CONTENT_FREE]
        prior = np.mean([softmax(letters(prompt, K)) for prompt in prompts], axis=0)
        return letters(ask(CHOICE, q), K) - np.log(prior)
    found = [token_log_probs(ask(CONTINUATION, q), f" {text}") for text in q.choices]
    summed = np.array([sum(row) for row in found])
    return {
        "continuation_sum": lambda: summed,
        "continuation_min": lambda: [min(row) for row in found],
        "continuation_token": lambda: [np.mean(row) for row in found],
        "continuation_char": lambda: summed / [len(text) for text in q.choices],
        "continuation_byte": lambda: summed / [len(text.encode()) for text in q.choices],
        "continuation_pmi": lambda: summed - [sum(token_log_probs("", f" {t}")) for t in q.choices],
    }[method]()


@pytest.fixture(scope="module")
def questions():
    """Of 2 to 5 options; one with letters of several bytes."""
    made = make_questions(7)
    return [dataclasses.replace(made[0], choices=("é", "naïve", "x"), answer=1), *made[1:]]


def plan(questions, methods=METHODS, task=None, limit=1000, **settings):
    settings = {"choice": CHOICE, "continuation": CONTINUATION, **settings}
    encoder = PairEncoder(settings.pop("tokenizer", TOKENIZER), limit)
    if settings.get("chat"):
        settings["chat"] = Chat(encoder.tokenizer)
    return plan_reading(questions, task, methods, encoder, **settings)


@pytest.fixture(scope="module")
def reading(questions):
    return plan(questions)


@pytest.fixture(scope="module")
def scores(reading):
    return reading.finish(Oracle().score(reading.groups))


@pytest.mark.parametrize("method", METHODS)
def test_scores_are_what_the_methods_say(method, scores, questions):
    found = scores[method]
    for n, question in enumerate(questions):
        K = len(question.choices)
        expected = by_hand(method, question)
        np.testing.assert_allclose(found.log_scores[n, :K], expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.probs[n, :K], softmax(expected), rtol=1e-3)
        assert np.isneginf(found.log_scores[n, K:]).all() and (found.probs[n, K:] == 0).all()


def test_all_methods_are_of_the_same_questions(scores, questions):
    assert tuple(scores) == METHODS
    for method, found in scores.items():
        assert found.method == method and found.ids == tuple(q.id for q in questions)
        assert found.answers.tolist() == [q.answer for q in questions]
        assert found.mask.sum(1).tolist() == [len(q.choices) for q in questions]
        assert found.mask.shape == found.probs.shape == (7, 5)
        assert found.probs.dtype == found.log_scores.dtype == np.float32
        assert found.choices == tuple(q.choices for q in questions)


def test_mass_where_scores_are_probabilities(scores):
    for method, found in scores.items():
        if method in ("choice", "choice_permuted", "continuation_sum"):
            np.testing.assert_allclose(found.mass, np.exp(found.log_scores).sum(1), rtol=1e-5)
        else:
            assert found.mass is None


def test_options_with_contexts_of_their_own_have_no_mass(model):
    question = Question("b", "The _ is full.", ["cup", "box"], 0, task="winogrande")
    for method, known in (("continuation_sum", False), ("choice", True)):
        found = calib_jax.score(model, [question], method, engine=Oracle())
        assert (found.mass is not None) == known


def test_methods_share_what_they_read(questions):
    kinds = [name for name in METHODS if name.startswith("continuation") and "pmi" not in name]
    one, all_of_them = plan(questions, ["continuation_sum"]), plan(questions, kinds)
    assert one.keys == all_of_them.keys and len(one.groups) == len(questions)
    assert len(plan(questions, [*kinds, "continuation_pmi"]).groups) == 2 * len(questions)
    shifts = sum(len(q.choices) for q in questions)
    assert len(plan(questions, ["choice", "choice_permuted"]).groups) == shifts
    free = len(CONTENT_FREE) * len({len(q.choices) for q in questions})  # the same for all
    assert len(plan(questions, ["choice", "choice_contextual"]).groups) == len(questions) + free


def test_a_method_alone_says_what_it_says_among_others(questions, scores):
    for method in ("choice", "choice_contextual", "continuation_pmi"):
        reading = plan(questions, [method])
        alone = reading.finish(Oracle().score(reading.groups))[method]
        np.testing.assert_array_equal(alone.log_scores, scores[method].log_scores)


def test_keys_are_names_that_stay(reading, questions):
    assert len(set(reading.keys)) == len(reading.keys) == len(reading.groups)
    some = plan(questions[2:4], METHODS)
    where = dict(zip(reading.keys, reading.groups, strict=True))
    for key, group in zip(some.keys, some.groups, strict=True):
        for pair, same in zip(group, where[key], strict=True):
            assert pair.tokens.tolist() == same.tokens.tolist()
    twice = plan([questions[0]] * 2, ["choice"])
    assert len(set(twice.keys)) == 2
    assert [key.split("/")[0] for key in plan(questions, ["choice"], Task("mine")).keys] == (
        ["mine"] * 7
    )


def test_a_pair_of_every_group_begins_as_the_others(reading):
    """All options of one prompt: the engine computes what they share once."""
    for group in reading.groups:
        heads = {tuple(pair.tokens[: len(pair.tokens) - pair.num_targets]) for pair in group}
        assert len(heads) == 1


# --- What cannot be scored, or not whole ----------------------------------------------------------


def test_an_option_without_tokens_leaves_its_question_out_of_all_methods(questions, caplog):
    merged = Question("merged", "Ans", ["wer", "x"], 1)  # "Answer" is one token
    methods = ("choice", "continuation_sum")
    settings = {"continuation": "{question}", "chat": True, "tokenizer": with_chat("{{ t }}")}
    settings["tokenizer"].chat_template = "{{ messages[0]['content'] }}"
    reading = plan([questions[1], merged, questions[2]], methods, **settings)
    assert [q.id for q in reading.questions] == ["q1", "q2"]
    assert reading.counts["skipped"] == {"empty_continuation": 1}
    assert (reading.counts["questions"], reading.counts["scored"]) == (3, 2)
    assert "merged" in caplog.text and not any("merged" in key for key in reading.keys)
    found = reading.finish(Oracle().score(reading.groups))
    assert found["choice"].ids == found["continuation_sum"].ids == ("q1", "q2")
    assert len(plan([merged], ["choice"]).questions) == 1  # letters alone have no trouble


def test_cut_contexts_are_counted(questions):
    whole = plan(questions, ["continuation_sum"])
    assert whole.counts["cut_questions"] == whole.counts["cut_tokens"] == 0 and not whole.cut
    lengths = [max(len(pair.tokens) for pair in group) for group in whole.groups]
    limit = sorted(lengths)[3]
    reading = plan(questions, ["continuation_sum", "continuation_min"], limit=limit)
    over = {q.id: n - limit - 1 for q, n in zip(questions, lengths, strict=True) if n > limit + 1}
    assert over and reading.cut == over
    assert reading.counts["cut_questions"] == len(over)
    assert reading.counts["cut_tokens"] == sum(over.values())
    assert [q.id for q in reading.questions] == [q.id for q in questions]


def test_numbers_that_are_none_name_the_question(reading):
    found = Oracle().score(reading.groups)
    found[3][0].log_probs[0] = np.nan
    with pytest.raises(UserError, match=f"^{reading.keys[3]}: .*not numbers"):
        reading.finish(found)


def test_no_questions():
    reading = plan([], METHODS)
    found = reading.finish([])
    assert reading.groups == [] and set(found) == set(METHODS)
    assert all(len(s) == 0 and s.probs.shape == (0, 2) and s.ids == () for s in found.values())


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"methods": ["choise"]}, "'choise' is not known; choose from: choice, "),
        ({"choice": "{question}"}, r"config.prompt.template: .*lacks the field \{options\}"),
        ({"continuation": "no"}, r"config.prompt.continuation: .*lacks the field \{question\}"),
        ({"shots": 2}, "2 examples.*there are 0"),
        ({"chat": True}, "no chat template"),
        ({"letter_prefix": "x"}, "not one more token"),
    ],
)
def test_refusals(questions, settings, problem):
    with pytest.raises(UserError, match=problem):
        plan(questions, **settings)


# --- Tasks ----------------------------------------------------------------------------------------


def texts_of(reading, tokenizer=TOKENIZER):
    return [tokenizer.decode(p.tokens[1:]) for group in reading.groups for p in group]


def with_chat(template):
    tokenizer = cases.TOKENIZERS["words with BOS"]()
    tokenizer.chat_template = template
    return tokenizer


def test_a_tasks_own_prompts_and_none():
    docs = cases.questions(cases.DOCS)[:1]
    own = plan(docs, ["choice"], cases.CHOICE, choice="")
    assert texts_of(own)[0] == (
        "These are questions about odd things.\n\nWhich is a fruit?\nA. stone\nB. pear\nC. rope\n"
        "D. ink\nAnswer: A"
    )
    other = plan(docs, ["choice"], cases.CHOICE)  # a template of the user's is the whole prompt
    assert texts_of(other)[0].startswith("Q: Which")
    default = plan(docs, ["choice", "continuation_sum"], choice="", continuation="")
    assert texts_of(default)[0].startswith("Question: Which is a fruit?\n\nOptions:\nA. stone\n")
    assert texts_of(default)[-1] == "Question: Which is a fruit?\nAnswer: ink"


def test_options_in_the_context():
    """The continuation is shared, and so is its length and its unconditional score."""
    gaps = cases.questions(cases.GAPS)
    methods = [m for m in METHODS if m.startswith("continuation")]
    reading = plan(gaps, methods, cases.CONTEXTS, continuation="")
    assert texts_of(reading)[0] == "Ann thanked Bea because Ann had helped."
    found = reading.finish(Oracle().score(reading.groups))
    summed = [
        [
            sum(token_log_probs(f"Ann thanked Bea because {x}", " had helped."))
            for x in ("Ann", "Bea")
        ]
    ]
    np.testing.assert_allclose(found["continuation_sum"].log_scores[:1], summed, rtol=1e-5)
    np.testing.assert_allclose(
        found["continuation_char"].log_scores[:1], np.array(summed) / len("had helped."), rtol=1e-5
    )
    np.testing.assert_allclose(
        found["continuation_pmi"].probs, found["continuation_sum"].probs, rtol=1e-4
    )


def test_content_free_prompts_keep_their_examples():
    docs, pool = cases.questions(cases.DOCS), cases.questions(cases.SHOT_DOCS)
    reading = plan(
        docs, ["choice_contextual"], cases.CHOICE, choice="", shots=1, shot_questions=pool
    )
    free = [
        text
        for key, group in zip(reading.keys, reading.groups, strict=True)
        for text in [TOKENIZER.decode(group[0].tokens[1:])]
        if "content_free" in key
    ]
    start = "These are questions about odd things.\n\nIs ice warm?"
    assert len(free) == 3 and all(text.startswith(start) for text in free)
    assert (
        sum(text.endswith("N/A\nA. N/A\nB. N/A\nC. N/A\nD. N/A\nAnswer: A") for text in free) == 1
    )


def test_letters_after_a_chat_header_have_one_target():
    """The harness moves the header's line break into the target; it is the same for all letters."""
    tokenizer = with_chat(cases.CHATML)
    docs = cases.questions(cases.DOCS)
    reading = plan(docs, ["choice"], cases.CHOICE, choice="", chat=True, tokenizer=tokenizer)
    pairs = [pair for group in reading.groups for pair in group]
    assert {pair.num_targets for pair in pairs} == {1}
    text = tokenizer.decode(pairs[1].tokens)
    assert text.startswith("<s>system") and text.endswith("assistant\nB")
    assert (pairs[0].tokens == tokenizer.bos_token_id).sum() == 3  # one a turn, none doubled
    assert "descriptions_left_out" not in reading.counts
    tokenizer = with_chat(cases.NO_SYSTEM)
    reading = plan(docs, ["choice"], cases.CHOICE, choice="", chat=True, tokenizer=tokenizer)
    assert reading.counts["descriptions_left_out"] == len(docs)


# --- calib_jax.score ------------------------------------------------------------------------------


@pytest.fixture
def model():
    config = types.SimpleNamespace(max_length=200)
    return types.SimpleNamespace(tokenizer=TOKENIZER, config=config)


@pytest.mark.parametrize("method", METHODS)
def test_score(method, model, questions, scores):
    prompt = CHOICE if method.startswith("choice") else CONTINUATION
    found = calib_jax.score(model, questions, method, prompt, engine=Oracle())
    np.testing.assert_array_equal(found.log_scores, scores[method].log_scores)
    assert found.method == method


def test_score_of_several_tasks_keeps_the_order(model):
    mixed = [
        Question("a", "Which floats?", ["cork", "lead", "salt"], 0, task="arc_easy"),
        Question("b", "The _ is full.", ["cup", "box"], 0, task="winogrande"),
        Question("c", "Which sinks?", ["cork", "lead"], 1, task="mine"),
        Question("d", "Which burns?", ["wood", "sand", "rock", "air"], 0, task="arc_easy"),
    ]
    engine = Oracle()
    found = calib_jax.score(model, mixed, "continuation_sum", engine=engine)
    assert found.ids == ("a", "b", "c", "d") and found.mask.sum(1).tolist() == [3, 2, 2, 4]
    assert found.choices == tuple(q.choices for q in mixed)
    for n, question in enumerate(mixed):
        alone = calib_jax.score(model, [question], "continuation_sum", engine=Oracle())
        K = len(question.choices)
        np.testing.assert_array_equal(found.log_scores[n, :K], alone.log_scores[0])
    assert found.mass is None  # one of them has none
    texts = {TOKENIZER.decode(pair.tokens[1:]) for group in engine.groups for pair in group}
    assert {"Question: Which floats?\nAnswer: cork", "The cup is full."} <= texts
    letters = Oracle()
    calib_jax.score(model, mixed, "choice", engine=letters)
    texts = [TOKENIZER.decode(group[0].tokens[1:]) for group in letters.groups]
    assert any(text.startswith("Select one of the choices") for text in texts)
    assert (
        sum(text.startswith("Question: Which sinks?\n\nOptions:\nA. cork") for text in texts) == 1
    )


def test_score_leaves_nothing_out_and_says_what_it_cuts(model, questions):
    merged = Question("merged", "Ans", ["wer", "x"], 1)
    tight = {"prompt": "{question}", "engine": Oracle()}
    joined = types.SimpleNamespace(
        tokenizer=cases.byte_level(["c lead"], bos=True, split=False), config=model.config
    )
    stuck = Question("stuck", "c", ["lead", "sand"], 0)
    with pytest.raises(UserError, match=r"'stuck'.*no token is left"):
        calib_jax.score(joined, [stuck], "continuation_sum", **tight)
    assert len(calib_jax.score(model, [merged], "continuation_sum", engine=Oracle())) == 1
    long = Question("long", "why " * 300, ["a", "b"], 0)
    with pytest.raises(UserError, match=r"'long' has a prompt of \d+ tokens, and the limit is 200"):
        calib_jax.score(model, [long], engine=Oracle())
    with pytest.warns(UserNotice, match=r"1 of 2 prompts .* cut at the left: long"):
        calib_jax.score(model, [questions[0], long], "continuation_sum", engine=Oracle())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calib_jax.score(model, questions, "continuation_sum", engine=Oracle())
