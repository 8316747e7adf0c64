"""Answers of many tokens: trees, packed rows and the chunked head against whole sequences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax.api import load_model
from calib_jax.models.decoder import Decoder, head_logits
from calib_jax.questions.pairs import Pair
from calib_jax.training import losses
from calib_jax.training.answers import answer_log_probs, layout

LONGEST = 24


def make_groups(count, sides, seed=0, longest=9):
    """Prompts of 3 to ``longest`` tokens, each with answers that may begin alike."""
    rng = np.random.default_rng(seed)
    groups = []
    for _ in range(count):
        prompt = rng.integers(1, 300, rng.integers(3, longest + 1))
        start = rng.integers(1, 300, rng.integers(0, 3))
        group = []
        for side in range(sides):
            # The first token after the common start tells the answers apart.
            own = [side + 1, *rng.integers(1, 300, rng.integers(0, 5))]
            answer = np.concatenate([start, own])
            group.append(Pair(np.concatenate([prompt, answer]).astype(np.int32), len(answer)))
        groups.append(tuple(group))
    return groups


def plain_log_probs(decoder, variables, groups):
    """log π of every answer [N, G]: each a padded row of its own, every logit there is."""
    pairs = [pair for group in groups for pair in group]
    tokens = np.zeros((len(pairs), LONGEST), np.int32)
    counted = np.zeros((len(pairs), LONGEST - 1), bool)
    for row, pair in enumerate(pairs):
        tokens[row, : len(pair.tokens)] = pair.tokens
        counted[row, len(pair.tokens) - 1 - pair.num_targets : len(pair.tokens) - 1] = True
    hidden = decoder.apply(variables, jnp.asarray(tokens[:, :-1]))
    logs = jax.nn.log_softmax(head_logits(decoder.config, variables["params"], hidden))
    logs = jnp.take_along_axis(logs, jnp.asarray(tokens[:, 1:, None]), axis=2)[..., 0]
    return jnp.where(counted, logs, 0.0).sum(axis=1).reshape(len(groups), -1)


@pytest.fixture(scope="module")
def decoder_and_params(tiny_model):
    model = load_model(str(tiny_model))
    return Decoder(model.config, remat=False), model.params


def packed(groups):
    return [[groups[0], groups[1]], [groups[2]], [groups[3], groups[4]], []]


@pytest.mark.parametrize(("sides", "share"), [(2, False), (1, True)])
def test_log_probs_of_sequences_without_branches(decoder_and_params, sides, share):
    decoder, params = decoder_and_params
    groups = make_groups(5, sides)
    batch = layout(packed(groups), 72, 40, 2, share)
    assert "segments" in batch
    found = answer_log_probs(decoder, {"params": params}, batch, sides)
    of = jnp.concatenate([found[0], found[1, :1], found[2]])
    expected = plain_log_probs(decoder, {"params": params}, groups)
    np.testing.assert_allclose(of, expected, rtol=2e-5, atol=2e-5)


def test_log_probs_and_gradients_of_trees(decoder_and_params, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK", 128)  # several chunks of the vocabulary
    decoder, params = decoder_and_params
    groups, sides = make_groups(5, 2), 2
    weights = np.random.default_rng(1).normal(size=(5, sides))
    batch = layout(packed(groups), 72, 40, 2)
    assert "segments" not in batch

    def ours(params):
        found = answer_log_probs(decoder, {"params": params}, batch, sides)
        of = jnp.concatenate([found[0], found[1, :1], found[2]])
        return jnp.sum(of * weights), (of, found)

    def plain(params):
        found = plain_log_probs(decoder, {"params": params}, groups)
        return jnp.sum(found * weights), found

    got, (of, found) = jax.jit(jax.grad(ours, has_aux=True))(params)
    want, expected = jax.jit(jax.grad(plain, has_aux=True))(params)
    assert (np.asarray(found[1, 1]) == 0).all() and (np.asarray(found[3]) == 0).all()
    np.testing.assert_allclose(of, expected, rtol=2e-5, atol=2e-5)
    for mine, theirs in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=2e-4)


def test_a_shared_prompt_stands_once():
    (group,) = make_groups(1, 2)
    prompt = min(len(pair.tokens) - pair.num_targets for pair in group)
    shared = layout([[group]], 64, 20, 1)
    apart = layout([[group]], 64, 20, 1, share=False)
    used = [(batch["ends"] > np.arange(1, 65)).sum() for batch in (shared, apart)]
    assert used[1] - used[0] >= prompt - 1
    assert (shared["slots"] == apart["slots"]).all()
    assert (shared["next_tokens"] == apart["next_tokens"]).all()


def test_no_array_holds_the_vocabulary_at_every_place(decoder_and_params, monkeypatch):
    """Nothing of V = 320 by the places that are read, or by all of them; the head itself is."""
    decoder, params = decoder_and_params
    batch = layout([[group] for group in make_groups(4, 2)], 64, 24, 1)
    grad = jax.grad(lambda p: answer_log_probs(decoder, {"params": p}, batch, 2).sum())

    def widest():
        shapes = {
            v.aval.shape for e in equations(jax.make_jaxpr(grad)(params).jaxpr) for v in e.outvars
        }
        return max(np.prod(s) for s in shapes if 24 in s and 64 not in s and 32 not in s)

    whole = widest()
    monkeypatch.setattr(losses, "CHUNK", 32)
    jax.clear_caches()
    assert whole == 4 * 24 * 320 and widest() < whole / 3


def equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for item in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(item, "jaxpr", item)
                if hasattr(inner, "eqns"):
                    yield from equations(inner)
