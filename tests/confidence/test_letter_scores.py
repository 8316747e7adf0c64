"""score(): what the model says, whatever the batches, the order and the mesh."""

import dataclasses
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

import calib_jax
from calib_jax import Question, UserError, load_model, make_mesh, score
from calib_jax.confidence.forward import score_rows
from calib_jax.questions.encoder import Encoder
from calib_jax.questions.prompts import DEFAULT_PROMPT, Prompt
from tests.conftest import make_questions, write_tiny_model

SHORT = "{question}\n{options}\nAnswer:"


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_model(tiny_model)


@pytest.fixture(scope="module")
def questions():
    """Fourteen, of 2 to 5 options."""
    return make_questions(14)


@pytest.fixture(scope="module")
def scores(model, questions):
    return score(model, questions)


def close(a, b):
    np.testing.assert_array_equal(a.mask, b.mask)
    np.testing.assert_array_equal(a.answers, b.answers)
    assert a.ids == b.ids
    np.testing.assert_allclose(a.log_scores, b.log_scores, rtol=0, atol=2e-5)
    np.testing.assert_allclose(a.probs, b.probs, rtol=0, atol=1e-5)


def reference(model, questions, template=DEFAULT_PROMPT):
    """All prompts in one padded array, every logit of every position, float64 from there on."""
    prompts = [model.tokenizer(Prompt(template, True).text(q)).input_ids for q in questions]
    tokens = np.zeros((len(prompts), max(map(len, prompts))), np.int32)
    for row, ids in zip(tokens, prompts, strict=True):
        row[: len(ids)] = ids
    logits = np.asarray(model.logits(tokens), np.float64)
    result = []
    for i, q in enumerate(questions):
        last = logits[i, len(prompts[i]) - 1]
        letters = [model.tokenizer(f" {letter}").input_ids[0] for letter in "ABCDE"]
        logs = last[letters[: len(q.choices)]] - np.log(np.exp(last).sum())
        result.append((logs, np.exp(logs) / np.exp(logs).sum()))
    return result


def test_scores_are_the_log_probabilities_of_the_letters(model, questions, scores):
    for i, (logs, probs) in enumerate(reference(model, questions)):
        K = len(logs)
        np.testing.assert_allclose(scores.log_scores[i, :K], logs, rtol=0, atol=2e-5)
        np.testing.assert_allclose(scores.probs[i, :K], probs, rtol=0, atol=1e-5)
        assert np.isneginf(scores.log_scores[i, K:]).all() and (scores.probs[i, K:] == 0).all()
        assert scores.mask[i].tolist() == [k < K for k in range(5)]


def test_rows_are_distributions_in_the_order_given(questions, scores):
    assert scores.log_scores.dtype == scores.probs.dtype == np.float32
    np.testing.assert_allclose(scores.probs.sum(axis=1), 1, atol=1e-6)
    assert scores.ids == tuple(q.id for q in questions) and len(scores) == 14
    assert scores.tasks == ("invented",) * 14 and scores.subjects == (None,) * 14
    assert scores.answers.tolist() == [q.answer for q in questions]
    assert scores.method == "choice" and scores.probs.shape == (14, 5)
    assert scores.questions == tuple(q.question for q in questions)
    assert scores.choices == tuple(q.choices for q in questions)
    assert scores.predictions.tolist() == scores.probs.argmax(1).tolist()
    assert (scores.confidences == scores.probs.max(1)).all()
    assert scores.confidences.max() > 1.1 * scores.confidences.min()  # the questions differ


@pytest.mark.parametrize("token_budget", [1, 300])
def test_batches_do_not_matter(model, questions, scores, token_budget):
    close(score(model, questions, token_budget=token_budget), scores)


def test_the_order_of_the_questions_does_not_matter(model, questions, scores):
    order = np.random.default_rng(0).permutation(len(questions))
    shuffled = score(model, [questions[i] for i in order])
    assert shuffled.ids == tuple(scores.ids[i] for i in order)
    np.testing.assert_allclose(shuffled.probs, scores.probs[order], rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)], ids=str)
def test_the_mesh_does_not_matter(tiny_model, questions, scores, shape):
    close(score(load_model(tiny_model, mesh=make_mesh(shape)), questions), scores)


def test_options_keep_their_order(model):
    """Swapped options are another prompt, and are read as such."""
    one = Question("a", "Which?", ["first", "second one"], 0)
    two = Question("b", "Which?", ["second one", "first"], 1)
    scores = score(model, [one, two])
    for i, (logs, _) in enumerate(reference(model, [one, two])):
        np.testing.assert_allclose(scores.log_scores[i], logs, rtol=0, atol=2e-5)
    assert np.abs(scores.log_scores[0] - scores.log_scores[1]).max() > 1e-4


def test_own_template(model, questions):
    scores = score(model, questions[:3], prompt=SHORT)
    for i, (_, probs) in enumerate(reference(model, questions[:3], SHORT)):
        np.testing.assert_allclose(scores.probs[i, : len(probs)], probs, rtol=0, atol=1e-5)


def test_braces_in_texts_are_verbatim(model):
    text = "What do {options}, {question} and {} do in {0}?"
    question = Question("braces", text, ["{options}", "{question}", "\\1 {"], 0)
    prompt = Prompt(DEFAULT_PROMPT, True).text(question)
    assert prompt == (
        f"Question: {text}\n\nOptions:\nA. {{options}}\nB. {{question}}\nC. \\1 {{\n\nAnswer:"
    )
    encoded = Encoder(model.tokenizer).encode([question])
    assert model.tokenizer.decode(encoded.tokens[0]) == prompt
    assert score(model, [question]).probs.shape == (1, 3)


def test_26_options(model):
    question = Question("many", "Which?", [f"option {k}" for k in range(26)], 25)
    scores = score(model, [question])
    assert scores.probs.shape == (1, 26) and (scores.probs > 0).all()
    np.testing.assert_allclose(scores.probs.sum(), 1, atol=1e-6)


def test_no_questions(model):
    scores = score(model, [])
    assert len(scores) == 0 and scores.probs.shape[0] == 0 and scores.ids == ()
    assert scores.predictions.shape == scores.confidences.shape == (0,)


def test_bfloat16_weights_give_float32_probabilities(tiny_model, questions, scores):
    half = score(load_model(tiny_model, "bfloat16"), questions)
    assert half.probs.dtype == half.log_scores.dtype == np.float32
    np.testing.assert_allclose(half.probs.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(half.probs, scores.probs, atol=0.03)


def test_unknown_method(model, questions):
    with pytest.raises(UserError, match=r"'letters' is not known; choose from: choice"):
        score(model, questions, method="letters")


def test_no_tokenizer(golden, questions):
    model = load_model(golden / "llama2")
    assert model.tokenizer is None
    with pytest.raises(UserError, match="no tokenizer files"):
        score(model, questions)


def test_prompt_beyond_the_models_length(model):
    long = Question("long", "why " * 300, ["a", "b"], 0)
    with pytest.raises(UserError, match=r"'long' has a prompt of \d+ tokens, and the limit is 512"):
        score(model, [long])


def test_tokenizer_of_another_model(tmp_path, questions):
    """JAX would clamp the index and answer from the wrong embedding."""
    model = load_model(write_tiny_model(tmp_path / "small", vocab_size=270))
    with pytest.raises(UserError, match="vocabulary is 270"):
        score(model, questions)
    with pytest.raises(UserError, match="0..269"):
        model.logits(np.array([[270]]))


def test_weights_that_are_not_numbers(model, questions):
    broken = dataclasses.replace(
        model,
        params={**model.params, "final_norm": jnp.full_like(model.params["final_norm"], jnp.nan)},
    )
    with pytest.raises(UserError, match=r"question 'q\d+'.*not numbers"):
        score(broken, questions)


def test_unreadable_tokenizer(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="tokenizer files cannot be read"):
        calib_jax.load_model(folder)


def test_more_questions_bring_no_further_shapes(model, questions):
    score(model, questions * 10)  # so many that every length fills a batch
    before = score_rows._cache_size()
    assert before > 0
    score(model, questions * 20)
    assert score_rows._cache_size() == before
