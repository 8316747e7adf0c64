"""Questions that training reads by their options' texts: tokens, refusals, scores."""

import dataclasses

import numpy as np
import pytest

from calib_jax.api import load_model
from calib_jax.confidence.asked import score_split, split_groups
from calib_jax.confidence.engine import Engine
from calib_jax.confidence.methods import TRAINED
from calib_jax.confidence.readout import plan_reading
from calib_jax.confidence.text_scores import TextEncoder
from calib_jax.errors import UserError
from calib_jax.questions.pairs import PairEncoder
from tests.conftest import make_questions


@pytest.fixture(scope="module")
def model(bos_model):
    return load_model(str(bos_model))


def encoder_of(model, method, **options):
    return TextEncoder(model.tokenizer, method, num_options=6, **options)


def test_scores_are_those_of_an_evaluation(model):
    """Every reading, wider masks than the questions have options, progress question by question."""
    questions = make_questions(5)
    for method in TRAINED[1:]:
        encoded, told = encoder_of(model, method).encode(questions), []
        engine = Engine(model, token_budget=256, max_shapes=1)
        engine.plan(split_groups(encoded))
        found = score_split(engine, encoded, told.append)
        reading = plan_reading(questions, None, (method,), PairEncoder(model.tokenizer, 512))
        expected = reading.finish(engine.score(reading.groups))[method]
        K = expected.mask.shape[1]
        np.testing.assert_allclose(found.log_scores[:, :K], expected.log_scores, atol=1e-5)
        np.testing.assert_allclose(found.probs[:, :K], expected.probs, atol=1e-6)
        assert found.mask.shape == (5, 6) and not found.mask[:, 5].any()
        assert (found.log_scores[:, 5] == -np.inf).all() and (found.probs[:, 5] == 0).all()
        assert found.method == method and found.ids == tuple(q.id for q in questions)
        assert sum(told) == 5


def test_what_divides_a_score(model):
    questions = [dataclasses.replace(make_questions(1)[0], choices=("ab", "é, c"), answer=1)]
    expected = {"sum": (1, 1), "min": (1, 1), "char": (2, 4), "byte": (2, 5), "pmi": (1, 1)}
    for name, divisors in expected.items():
        encoded = encoder_of(model, f"continuation_{name}").encode(questions)
        assert encoded.divisors.tolist() == [[*divisors, 1, 1, 1, 1]]
        assert (encoded.priors is not None) == (name == "pmi")
    encoded = encoder_of(model, "continuation_token").encode(questions)
    counts = [pair.num_targets for pair in encoded.options[0]]
    assert encoded.divisors[0, :2].tolist() == counts and min(counts) > 1


def test_fingerprint_tells_questions_texts_and_readings_apart(model):
    questions = make_questions(3)
    other = [*questions[:2], dataclasses.replace(questions[2], answer=1 - questions[2].answer % 2)]
    same, *others = (
        encoder_of(model, method, template=template).encode(asked).fingerprint()
        for method, template, asked in (
            ("continuation_sum", "", questions),
            ("continuation_token", "", questions),
            ("continuation_sum", "{question}", questions),
            ("continuation_sum", "", other),
        )
    )
    assert same == encoder_of(model, "continuation_sum").encode(questions).fingerprint()
    assert len({same, *others}) == 4


def test_what_cannot_be_read_is_named(model, caplog):
    question = make_questions(1)[0]
    long = dataclasses.replace(question, id="long", question="?" * 90)
    with pytest.raises(UserError, match=r"exam: question 'long' has a prompt .* limit is 80"):
        encoder_of(model, "continuation_sum", max_length=80).encode([question, long], "exam")
    with pytest.raises(UserError, match="exam: question 'long' and one of its options have more"):
        encoder_of(model, "continuation_sum", model_length=105).encode([long], "exam")
    with pytest.raises(UserError, match=r"config.prompt.continuation.*lacks the field {question}"):
        encoder_of(model, "continuation_sum", template="Answer:")
    with_passage = dataclasses.replace(question, context="A passage.")
    encoder_of(model, "continuation_sum").encode([with_passage], "exam")
    assert "exam: the prompt lacks {context}, and 1 questions have one" in caplog.text
