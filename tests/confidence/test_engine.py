"""The engine against one pair a row, and its scores' independence of everything around them."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax import UserError, load_model, make_mesh
from calib_jax.confidence import engine as engines
from calib_jax.confidence.engine import Engine
from calib_jax.confidence.forward import score_rows
from calib_jax.confidence.shapes import Shapes
from calib_jax.models import splash
from calib_jax.questions.pairs import Pair
from tests.confidence.plain_engine import PlainEngine
from tests.conftest import write_tiny_model


def make_groups(count, seed=0, shots=0, vocab=320, options=4):
    """Contexts of 1 to 30 tokens with 1 to 4 continuations of 0 to 7, after a common beginning."""
    rng = np.random.default_rng(seed)
    shared = rng.integers(0, vocab, shots)
    groups = []
    for _ in range(count):
        context = np.concatenate([shared, rng.integers(0, vocab, rng.integers(1, 30))])
        group = []
        for _ in range(rng.integers(1, options + 1)):
            T = int(rng.integers(0, 8))
            # Few different tokens, so that options begin alike.
            ids = np.concatenate([context, rng.integers(0, 4, T)]).astype(np.int32)
            group.append(Pair(ids, T))
        groups.append(group)
    return groups


@pytest.fixture(scope="module")
def model(tiny_model):
    return load_model(tiny_model)


@pytest.fixture(scope="module")
def groups():
    """Unrelated ones, two families after long examples, one after short ones, and one reversed."""
    some = make_groups(12) + make_groups(9, 1, 100) + make_groups(9, 2, 70) + make_groups(3, 3, 5)
    return [some[i] for i in np.random.default_rng(5).permutation(len(some))]


@pytest.fixture(scope="module")
def plain(model, groups):
    return PlainEngine(model).score(groups)


def close(ours, theirs, atol=2e-5):
    for group, other in zip(ours, theirs, strict=True):
        for mine, its in zip(group, other, strict=True):
            np.testing.assert_allclose(mine.log_probs, its.log_probs, rtol=0, atol=atol)
            np.testing.assert_allclose(mine.top_log_probs, its.top_log_probs, rtol=0, atol=atol)
            np.testing.assert_array_equal(mine.greedy, its.greedy)
            assert mine.log_probs.dtype == np.float32 and mine.top_tokens.dtype == np.int32


def test_scores_are_those_of_one_pair_a_row(model, groups, plain):
    engine = Engine(model, top_tokens=True)
    scores = engine.score(groups)
    close(scores, plain)
    for group, other in zip(scores, plain, strict=True):
        for mine, its in zip(group, other, strict=True):
            np.testing.assert_array_equal(mine.top_tokens, its.top_tokens)
    assert any(pair.greedy.any() for group in scores for pair in group)
    assert engine.shapes.cached and engine.shapes.plain and engine.shapes.count <= 5


@pytest.mark.parametrize(
    "options",
    [
        {"token_budget": 1},
        {"token_budget": 4096, "length_multiple": 64},
        {"max_shapes": 1},
        {"shapes": Shapes((256,))},
    ],
    ids=str,
)
def test_batches_padding_and_packing_do_not_matter(model, groups, plain, options):
    close(Engine(model, **options).score(groups), plain)


def test_order_and_company_do_not_matter(model, groups, plain):
    engine = Engine(model)
    order = np.random.default_rng(0).permutation(len(groups))
    close(engine.score([groups[i] for i in order]), [plain[i] for i in order])
    close(engine.score(groups[:1]), plain[:1])


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 2, 2)], ids=str)
def test_the_mesh_does_not_matter(tiny_model, groups, plain, shape):
    engine = Engine(load_model(tiny_model, mesh=make_mesh(shape)))
    close(engine.score(groups), plain)


def test_windows_reach_through_trees_and_prefixes(tmp_path, groups):
    """A sliding window counts a sequence's own tokens, wherever they stand in the row."""
    folder = write_tiny_model(
        tmp_path, architectures=["MistralForCausalLM"], model_type="mistral", sliding_window=12
    )
    model = load_model(folder)
    assert model.config.sliding_window == 12
    close(Engine(model).score(groups), PlainEngine(model).score(groups))


def test_the_least_is_computed(model):
    """Four options of one context, and one context less for everyone after the first."""
    rng = np.random.default_rng(0)
    context = rng.integers(0, 320, 40)
    group = [
        Pair(np.concatenate([context, rng.integers(0, 320, 5)]).astype(np.int32), 5)
        for _ in range(4)
    ]
    engine = Engine(model)
    engine.score([group])
    assert engine.costs.tokens == 40 + 4 * 4  # the last token of an option is never fed
    assert engine.costs.reads == 1 + 4 * 4
    shots = make_groups(40, 7, shots=200)
    engine = Engine(model)
    engine.score(shots)
    assert engine.costs.tokens < 200 + 40 * (30 + 4 * 7)
    assert engine.costs.flops < 0.5 * engine.costs.least_flops  # which repeats the examples


def test_the_plan_holds_for_every_part_of_a_run(model, groups):
    engine = Engine(model)
    shapes = engine.plan(groups)
    before = score_rows._cache_size()
    for part in (groups[:5], groups[5:20], groups[20:], groups):
        engine.score(part)
    assert engine.shapes == shapes
    assert score_rows._cache_size() - before <= shapes.count


def test_groups_beyond_the_plan_are_planned_anew(model, groups, plain):
    engine = Engine(model, shapes=Shapes((8,)))
    close(engine.score(groups), plain)


def test_results_come_as_they_are_there(model, groups, plain):
    told, checks = {}, []

    def on_group(i, scores):
        assert i not in told
        told[i] = scores

    Engine(model, token_budget=512).score(groups, on_group, lambda: checks.append(len(told)))
    assert sorted(told) == list(range(len(groups)))
    close([told[i] for i in range(len(groups))], plain)
    assert len(set(checks)) >= 3 and checks[-1] == len(groups)


def test_a_check_may_stop_it(model, groups):
    told = []

    def check():
        if told:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Engine(model, token_budget=256).score(groups, lambda i, scores: told.append(i), check)
    assert 0 < len(told) < len(groups)


def test_empty_continuations_and_empty_groups(model):
    nothing = Pair(np.array([1, 2], np.int32), 0)
    told = []
    scores = Engine(model).score(
        [[nothing], [], [nothing, Pair(np.array([1, 2], np.int32), 1)]],
        lambda i, _: told.append(i),
    )
    assert [[len(pair.log_probs) for pair in group] for group in scores] == [[0], [], [0, 1]]
    assert sorted(told) == [0, 1, 2]
    assert Engine(model).score([]) == []


def test_logits_are_never_held_for_every_place(model, monkeypatch):
    """No array of the compiled program has the row's places and the vocabulary."""
    seen = {}

    def traced(decoder, variables, rows, prefix, chunk, top, states):
        assert not states
        seen["jaxpr"] = jax.make_jaxpr(lambda v, r: score_rows(decoder, v, r, prefix, chunk, top))(
            variables, rows
        )
        return score_rows(decoder, variables, rows, prefix, chunk, top)

    monkeypatch.setattr(engines, "score_rows", traced)
    engine = Engine(model, token_budget=256, shapes=Shapes((256,)), top_tokens=True)
    engine.reads_at_a_time = 4
    engine.score(make_groups(4))
    text = str(seen["jaxpr"])
    assert "f32[1,4,320]" in text and "f32[1,256,320]" not in text


def decoded_state(model, pair):
    """The decoder's own state where a pair's first target is read: one row, nothing packed."""
    fed = np.asarray(pair.tokens[:-1])
    padded = np.zeros((1, 128), np.int32)
    padded[0, : len(fed)] = fed
    hidden = model.decoder().apply(model.variables, padded)
    return np.asarray(hidden[0, len(pair.tokens) - 1 - pair.num_targets], np.float32)


@pytest.mark.parametrize("shape", [None, (2, 2, 2)], ids=str)
def test_states_are_the_decoders_own(tiny_model, model, groups, plain, shape):
    """Packed into rows, after kept prefixes, and on a mesh."""
    on = model if shape is None else load_model(tiny_model, mesh=make_mesh(shape))
    engine = Engine(on, states=True)
    found = engine.score(groups)
    assert engine.shapes.cached and engine.costs.tokens < sum(
        len(pair.tokens) for group in groups for pair in group
    )
    close(found, plain)
    for group, scores in list(zip(groups, found, strict=True))[::3]:
        for pair, score in zip(group, scores, strict=True):
            if not pair.num_targets:
                assert score.state is None
                continue
            assert score.state.dtype == np.float32
            assert score.state.shape == (model.config.hidden_size,)
            np.testing.assert_allclose(score.state, decoded_state(model, pair), rtol=0, atol=2e-5)
    assert all(pair.state is None for group in plain for pair in group)


def test_letters_of_a_question_share_one_state(model):
    prompt = np.arange(5, 25, dtype=np.int32)
    group = [Pair(np.append(prompt, letter).astype(np.int32), 1) for letter in (1, 2, 3)]
    (found,) = Engine(model, states=True).score([group])
    assert len({id(pair.state) for pair in found}) <= 3
    assert all(np.array_equal(pair.state, found[0].state) for pair in found)
    (without,) = Engine(model).score([group])
    assert all(pair.state is None for pair in without)


def test_a_token_outside_the_vocabulary(model):
    with pytest.raises(UserError, match="token 320, and the model's vocabulary is 320"):
        Engine(model).score([[Pair(np.array([1, 320], np.int32), 1)]])


def test_weights_that_are_not_numbers(model):
    nan = jnp.full_like(model.params["final_norm"], jnp.nan)
    broken = dataclasses.replace(model, params={**model.params, "final_norm": nan})
    with pytest.raises(UserError, match="question 7: .*not numbers"):
        Engine(broken).score(
            [[Pair(np.array([1, 2], np.int32), 1)]], name_of=lambda i: f"question {i + 7}"
        )


def test_the_kernel_of_tpus_scores_whole_questions(tmp_path, monkeypatch):
    """Questions read by their letters stand in rows one after the other, and share no beginning."""
    kernel, used = splash.splash_attention, []

    def interpreted(*args, **settings):
        used.append(settings["segments"] is not None)
        return kernel(*args, **settings, interpret=True)

    monkeypatch.setattr(splash, "splash_attention", interpreted)
    monkeypatch.setattr(splash, "SHORTEST", 128)
    folder = write_tiny_model(
        tmp_path / "m", num_attention_heads=2, num_key_value_heads=1, head_dim=64
    )
    model = load_model(folder)
    rng = np.random.default_rng(0)
    groups = []
    for length in rng.integers(20, 60, 9):
        prompt = np.append([7, 8, 9], rng.integers(0, 320, length)).astype(np.int32)
        groups.append([Pair(np.append(prompt, letter), 1) for letter in (1, 2, 3)])
    plain = Engine(model, length_multiple=128).score(groups)
    assert not used
    engine = Engine(dataclasses.replace(model, attention="splash"), length_multiple=128)
    close(engine.score(groups), plain, atol=1e-4)
    assert used and all(used) and engine.costs.computed >= 128
    # Options of several tokens branch: they stay where they were.
    used.clear()
    for group in groups:
        group[0] = Pair(np.append(group[0].tokens, [4, 5]).astype(np.int32), 3)
        group[1] = Pair(np.append(group[1].tokens, [6, 5]).astype(np.int32), 3)
    close(
        Engine(dataclasses.replace(model, attention="splash"), length_multiple=128).score(groups),
        Engine(model, length_multiple=128).score(groups),
        atol=1e-4,
    )
    assert not used
