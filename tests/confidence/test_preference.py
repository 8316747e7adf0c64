"""Pairs of answers through the engine, against the plain logits of each by itself."""

import numpy as np
import pytest

from calib_jax import load_model
from calib_jax.confidence.engine import Engine, TokenScores
from calib_jax.confidence.preference import collect, score_preferences
from calib_jax.questions.pairs import Pair


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_model(tiny_model)


def make_pairs(count):
    rng = np.random.default_rng(0)
    pairs = []
    for _ in range(count):
        prompt = rng.integers(0, 320, rng.integers(2, 12))
        answers = [rng.integers(0, 320, rng.integers(1, 9)) for _ in range(2)]
        pairs.append(
            tuple(Pair(np.concatenate([prompt, a]).astype(np.int32), len(a)) for a in answers)
        )
    return pairs


def test_sums_over_the_answers_tokens_alone(model):
    pairs = make_pairs(6)
    engine = Engine(model, token_budget=128)
    names = [f"p{i}" for i in range(6)]
    found = score_preferences(engine, pairs, names, [0.8, None, 0.5, 1.0, 0.0, 0.25])
    for i, pair in enumerate(pairs):
        for side, total in zip(pair, (found.chosen[i], found.rejected[i]), strict=True):
            logits = np.asarray(model.logits(side.tokens[None]))[0].astype(np.float64)
            logs = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
            T, L = side.num_targets, len(side.tokens)
            own = sum(logs[t - 1, side.tokens[t]] for t in range(L - T, L))
            assert total == pytest.approx(own, abs=2e-4)
    np.testing.assert_array_equal(found.chosen_tokens, [p[0].num_targets for p in pairs])
    np.testing.assert_array_equal(found.rejected_tokens, [p[1].num_targets for p in pairs])
    np.testing.assert_array_equal(found.rates, [0.8, np.nan, 0.5, 1.0, 0.0, 0.25])
    assert found.ids == tuple(names) and len(found) == 6
    expected = found.chosen / found.chosen_tokens - found.rejected / found.rejected_tokens
    np.testing.assert_array_equal(found.normalised_margins, expected)
    # A prompt is computed once: what is fed are two answers and one prompt a pair.
    fed = sum(
        max(len(p.tokens) - p.num_targets for p in pair) + sum(p.num_targets - 1 for p in pair)
        for pair in pairs
    )
    assert engine.costs.tokens <= fed


def test_what_cannot_be_is_refused():
    one = TokenScores(np.zeros(1, np.float32), np.zeros(1, np.float32), np.zeros(1, np.int32))
    none = TokenScores(np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32))
    with pytest.raises(ValueError, match="pair b: an empty answer"):
        collect([[one, one], [one, none]], ["a", "b"])
    with pytest.raises(ValueError, match="1 pairs, 2 ids"):
        collect([[one, one]], ["a", "b"])
    assert len(collect([], [])) == 0
