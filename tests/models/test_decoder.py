"""What no change of the decoder may break: causality, padding, windows, remat."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax.models.config import Rope
from calib_jax.models.decoder import Decoder, head_logits, head_weights, normalise
from calib_jax.training.losses import next_token_loss

L = 9
apply = jax.jit(lambda decoder, *args: decoder.apply(*args), static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def influence(decoder, params, tokens):
    """[L, L]: the norm of d hidden[t] / d input[j]. Every token occurs once, so that the gradient
    of its embedding is that of its position."""

    def hidden(embed):
        return decoder.apply({"params": {**params, "embed": embed}}, tokens)[0]

    jacobian = jax.jacrev(hidden)(params["embed"])  # [L, D, V, D]
    return jnp.sqrt(jnp.sum(jacobian[:, :, tokens[0]] ** 2, axis=(1, 3)))


@pytest.mark.parametrize("family", ["llama", "mistral", "olmo2"])
def test_a_position_sees_itself_and_those_before_it(family, small):
    """By differentiating; two layers of a window of 3 reach 4 positions back and no further."""
    config, params = small(family)
    matrix = np.asarray(
        influence(Decoder(config, remat=False), params, np.arange(L, dtype=np.int32)[None])
    )
    distance = np.arange(L)[:, None] - np.arange(L)[None, :]
    reach = config.num_layers * (config.sliding_window - 1) if config.sliding_window else L
    seen = (distance >= 0) & (distance <= reach)
    assert (matrix[~seen] == 0).all()
    assert (matrix[seen] > 1e-6).all()


@pytest.mark.parametrize("family", ["llama31", "mistral", "olmo2"])
def test_later_tokens_do_not_change_earlier_logits(
    family, load_golden, golden_tokens, golden_logits
):
    changed = golden_tokens.copy()
    changed[:, 100:] = (changed[:, 100:] + 17) % 256
    logits = np.asarray(load_golden(family).logits(changed))
    np.testing.assert_array_equal(logits[:, :100], golden_logits(family)[:, :100])
    assert (np.abs(logits - golden_logits(family))[:, 100:].max(axis=-1) > 0.01).all()


@pytest.mark.parametrize("family", ["llama31", "mistral"])
def test_padding_changes_nothing(family, load_golden, golden_tokens, golden_logits):
    short = load_golden(family).logits(golden_tokens[:, :96])
    np.testing.assert_allclose(short, golden_logits(family)[:, :96], rtol=0, atol=2e-5)


def test_rows_do_not_see_each_other(load_golden, golden_tokens, golden_logits):
    flipped = load_golden("llama31").logits(golden_tokens[::-1])
    np.testing.assert_allclose(flipped, golden_logits("llama31")[::-1], rtol=0, atol=1e-5)


def test_a_window_as_long_as_the_row_is_no_window(small):
    tokens = np.arange(L, dtype=np.int32)[None]
    out = {}
    for window in (None, L, L - 1):
        config, params = small("mistral", sliding_window=window)
        out[window] = apply(Decoder(config, remat=False), {"params": params}, tokens)
    np.testing.assert_array_equal(out[None], out[L])
    assert np.abs(out[L - 1] - out[L])[0, -1].max() > 1e-4
    np.testing.assert_allclose(out[L - 1][0, :-1], out[L][0, :-1], atol=1e-5)


def test_remat_changes_neither_values_nor_gradients(small):
    config, params = small("mistral")
    tokens = np.arange(2 * L, dtype=np.int32).reshape(2, L)

    def run(remat):
        def loss(params):
            hidden = Decoder(config, remat=remat).apply({"params": params}, tokens)
            logits = head_logits(config, params, hidden)
            return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - logits[..., 0])

        return jax.jit(jax.value_and_grad(loss))(params)

    (on, on_grads), (off, off_grads) = run(True), run(False)
    np.testing.assert_allclose(on, off, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(on_grads), jax.tree.leaves(off_grads), strict=True):
        assert np.abs(b).max() > 0
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_bfloat16_computation_gives_float32_logits(small):
    config, params = small("llama")
    tokens = np.zeros((1, L), np.int32)
    hidden = apply(Decoder(config, jnp.bfloat16, remat=False), {"params": params}, tokens)
    assert hidden.dtype == jnp.bfloat16
    assert head_logits(config, params, hidden).dtype == jnp.float32


@pytest.mark.parametrize("kind", ["rms", "rms_unit_offset", "layer", "layer_plain"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_norms_take_their_statistics_in_float32(dtype, kind):
    rng = np.random.default_rng(0)
    x = jnp.asarray(5 + rng.normal(0, 300, (4, 512)), dtype)  # squares beyond bfloat16's precision
    weight, bias = (jnp.asarray(rng.normal(size=512), dtype) for _ in range(2))
    weight, bias = None if kind == "layer_plain" else weight, bias if kind == "layer" else None
    expected = np.asarray(x, np.float64)
    if "layer" in kind:
        expected = expected - expected.mean(-1, keepdims=True)
    expected = expected / np.sqrt((expected**2).mean(-1, keepdims=True) + 1e-5)
    if weight is not None:
        expected = expected * (np.asarray(weight, np.float64) + (kind == "rms_unit_offset"))
    if bias is not None:
        expected = expected + np.asarray(bias, np.float64)
    ours = normalise(x, kind, weight, bias, 1e-5)
    assert ours.dtype == dtype
    tolerance = 1e-5 if dtype == jnp.float32 else 1e-2
    np.testing.assert_allclose(ours, expected, rtol=tolerance, atol=tolerance)


def test_layers_that_slide_and_layers_that_do_not(small):
    """The first layer's window bounds what it mixes; a full second layer sees all of that."""
    config, params = small("mistral")
    tokens = np.arange(L, dtype=np.int32)[None]
    distance = np.arange(L)[:, None] - np.arange(L)[None, :]
    for slides, reach in (((True, True), 4), ((True, False), L), ((False, False), L)):
        mixed = dataclasses.replace(config, sliding_layers=slides)
        matrix = np.asarray(influence(Decoder(mixed, remat=False), params, tokens))
        seen = (distance >= 0) & (distance <= reach)
        assert (matrix[~seen] == 0).all() and (matrix[seen] > 1e-6).all()
    full = apply(Decoder(mixed, remat=False), {"params": params}, tokens)
    first = dataclasses.replace(config, sliding_layers=(True, False))
    first = apply(Decoder(first, remat=False), {"params": params}, tokens)
    second = dataclasses.replace(config, sliding_layers=(False, True))
    second = apply(Decoder(second, remat=False), {"params": params}, tokens)
    # Which layer slides matters, from the first position that a window of 3 cuts.
    for a, b in ((full, first), (full, second), (first, second)):
        np.testing.assert_allclose(a[0, :3], b[0, :3], atol=1e-5)
        assert np.abs(a - b)[0, 3:].max() > 1e-3


def test_a_local_rope_turns_the_sliding_layers_only(small):
    config, params = small("mistral", sliding_window=L)
    tokens = np.arange(L, dtype=np.int32)[None]

    def hidden(**changes):
        changed = dataclasses.replace(config, **changes)
        return apply(Decoder(changed, remat=False), {"params": params}, tokens)

    local = Rope(50.0)
    some = hidden(sliding_layers=(True, False), local_rope=local)
    plain = hidden()
    np.testing.assert_allclose(
        hidden(sliding_layers=(False, False), local_rope=local), plain, atol=1e-6
    )
    np.testing.assert_allclose(hidden(local_rope=local), hidden(rope=local), atol=1e-6)
    assert np.abs(some - plain).max() > 1e-3 and np.abs(some - hidden(rope=local)).max() > 1e-3


def test_the_chunked_loss_caps_logits_as_the_head_does(small):
    """−log p from ``next_token_loss`` against a softmax of ``head_logits``."""
    config, params = small("llama")
    config = dataclasses.replace(config, logit_softcap=0.7)
    hidden = jnp.asarray(
        np.random.default_rng(0).normal(size=(2, 5, config.hidden_size)), jnp.float32
    )
    targets = np.arange(10, dtype=np.int32).reshape(2, 5)
    ours = next_token_loss(config, hidden, head_weights(params), targets)
    logits = np.asarray(head_logits(config, params, hidden), np.float64)
    assert np.abs(logits).max() <= 0.7
    logs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -np.take_along_axis(logs, targets[..., None], -1)[..., 0]
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_parameters_that_flax_initialises_are_those_of_the_table(small):
    config, params = small("olmo2")
    made = jax.eval_shape(Decoder(config).init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))[
        "params"
    ]
    made = dict(made)
    stacked = made.pop("layers")
    shapes = jax.tree.map(lambda x: x.shape, {**made, "layers": stacked})
    assert shapes == jax.tree.map(lambda x: x.shape, params)
