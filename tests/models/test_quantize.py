"""int8 projections against numpy's round-to-nearest, under scan, meshes, adapters and gradients."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax import load_model, make_mesh
from calib_jax.errors import UserError
from calib_jax.models import weights
from calib_jax.models.decoder import Decoder, head_logits
from calib_jax.models.lora import LoraConfig, init_lora
from calib_jax.models.quantize import (
    check_scheme,
    is_quantized,
    layout,
    matmul,
    quantize,
)
from calib_jax.models.table import projections

qwix = pytest.importorskip("qwix")

TOKENS = np.random.default_rng(3).integers(0, 24, (2, 7))


def names(config):
    return [row.path[-1] for row in projections(config)]


def quantized(config, params):
    """The parameters with int8 projections."""
    layers = dict(params["layers"])
    for name in names(config):
        layers[name] = quantize(layers[name])
    return {**params, "layers": layers}


def restored(params):
    """The float32 parameters that quantised ones stand for."""
    layers = {
        name: qwix.dequantize(x) if is_quantized(x) else x for name, x in params["layers"].items()
    }
    return {**params, "layers": layers}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_channel_is_rounded_to_the_nearest_of_255_steps(dtype):
    rng = np.random.default_rng(0)
    spread = np.exp(rng.normal(0, 3, (3, 1, 5)))  # channels of very different sizes
    weight = jnp.asarray(rng.normal(0, 1, (3, 40, 5)) * spread, dtype).at[1, :, 2].set(0.0)
    q = quantize(weight)
    assert q.qvalue.dtype == jnp.int8 and q.qvalue.shape == weight.shape
    assert q.scale.dtype == jnp.float32 and q.scale.shape == (3, 1, 5)
    exact = np.asarray(weight, np.float64)
    step = np.abs(exact).max(axis=1, keepdims=True) / 127.5
    step[1, 0, 2] = 1.0  # a channel of zeros
    np.testing.assert_allclose(q.scale, step, rtol=1e-6)
    nearest = np.clip(np.rint(exact / step), -128, 127)
    # Halves (the largest of a channel is one) may go either way for the scale's last bit.
    clear = np.abs(np.abs(exact / step) % 1 - 0.5) > 1e-4
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(np.asarray(q.qvalue)[clear], nearest[clear])
    error = np.abs(np.asarray(qwix.dequantize(q)) - exact)
    assert (error <= 0.5001 * step).all() and error.max() > 0
    assert not np.asarray(qwix.dequantize(q))[1, :, 2].any()


def test_matmul_equals_the_dequantised_product():

    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(0, 1, (2, 3, 64)), jnp.float32)
    weight = jnp.asarray(rng.normal(0, 1, (64, 32)), jnp.float32)
    assert (matmul(x, weight, jnp.float32) == x @ weight).all()
    q = quantize(weight)
    ours = matmul(x, q, jnp.float32)
    np.testing.assert_allclose(ours, x @ qwix.dequantize(q), atol=2e-5)
    theirs = qwix.dot_general(x, q, (((2,), (0,)), ((), ())))
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
    # In bfloat16 only the activations, the product and the result are rounded, no weight is.
    narrow = x.astype(jnp.bfloat16)
    exact = np.asarray(narrow, np.float64) @ np.asarray(qwix.dequantize(q), np.float64)
    result = matmul(narrow, q, jnp.bfloat16)
    assert result.dtype == jnp.bfloat16
    assert (np.abs(np.asarray(result, np.float64) - exact) <= 2**-7 * np.abs(exact) + 1e-6).all()


@pytest.mark.parametrize("family, remat", [("llama", True), ("olmo2", False)])
def test_decoder_and_lora_gradients_equal_those_of_the_dequantised_base(small, family, remat):
    config, params = small(family)
    lora = LoraConfig(rank=2, alpha=4.0)
    adapters = jax.tree.map(
        lambda x: jax.random.normal(jax.random.key(1), x.shape) * 0.1,
        init_lora(jax.random.key(0), config, lora),
    )
    decoder = Decoder(config, lora=lora, remat=remat)

    def loss(adapters, params):
        variables = {"params": params, "lora": {"layers": adapters}}
        logits = head_logits(config, params, decoder.apply(variables, TOKENS))
        return jnp.mean(jax.nn.log_softmax(logits)[..., 3])

    int8 = quantized(config, params)
    # The comparison below is of something else than the plain base.
    moved = np.abs(restored(int8)["layers"]["o_proj"] - params["layers"]["o_proj"])
    assert moved.max() > 1e-3
    assert sum(is_quantized(x) for x in int8["layers"].values()) == len(names(config))
    both = jax.jit(jax.value_and_grad(loss))
    value, grads = both(adapters, int8)
    expected, expected_grads = both(adapters, restored(int8))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        assert np.abs(b).max() > 0
        np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "mesh, limit",  # a layer at a time, or the stack at once
    [(None, 1), ((8, 1, 1), 1 << 30), ((1, 8, 1), 1 << 30), ((2, 2, 2), 1)],
    ids=str,
)
def test_quantised_while_streaming_on_every_mesh(golden, golden_tokens, monkeypatch, mesh, limit):
    monkeypatch.setattr(weights, "CHUNK_BYTES", limit)
    plain = load_model(golden / "llama2")
    model = load_model(golden / "llama2", mesh=mesh and make_mesh(mesh), quantize="int8")
    expected = quantized(plain.config, plain.params)
    assert jax.tree.structure(model.params) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(model.params), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    # Each device holds its share of the int8 values, and the scales of its output channels.
    ways = mesh or (1, 1, 1)
    for name in names(plain.config):
        q = model.params["layers"][name]
        split = ways[1] * ways[2]
        assert q.qvalue.addressable_shards[0].data.size * split == q.qvalue.size
        across = ways[1] if name in ("o_proj", "down_proj") else ways[2]
        assert q.scale.addressable_shards[0].data.size * across == q.scale.size
    tokens = golden_tokens[:, :16]
    reference = load_model(golden / "llama2", quantize="int8").logits(tokens)
    np.testing.assert_allclose(model.logits(tokens), reference, atol=2e-4)


def test_bytes_held(golden):
    """A byte for each projected weight and four for each channel; the rest as it was."""
    plain = load_model(golden / "llama2", "bfloat16")
    model = load_model(golden / "llama2", "bfloat16", quantize="int8")
    layers = model.config.num_layers
    rows = list(projections(model.config))
    saved = sum(layers * row.shape[0] * row.shape[1] for row in rows)
    scales = sum(4 * layers * row.shape[1] for row in rows)
    held, before = (sum(x.nbytes for x in jax.tree.leaves(m.params)) for m in (model, plain))
    assert held == before - saved + scales


def test_no_float_copy_of_the_stack_is_made(small):
    """The program holds one dequantised layer at a time, not all of them."""
    config, _ = small("llama", num_hidden_layers=16, hidden_size=64, intermediate_size=256)
    decoder = Decoder(config)
    shapes = jax.eval_shape(decoder.init, jax.random.key(0), TOKENS)["params"]
    int8 = jax.eval_shape(lambda p: quantized(config, p), shapes)
    program = jax.jit(lambda p: decoder.apply({"params": p}, TOKENS)).lower(int8).compile()
    stack = sum(4 * x.size for name, x in shapes["layers"].items() if name in names(config))
    assert program.memory_analysis().temp_size_in_bytes < stack / 4


def test_layout_of_an_array_on_one_device():
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    assert layout(one, 3).qvalue == layout(one, 3).scale == one


def test_without_qwix_the_error_says_what_to_install(tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "qwix", None)
    with pytest.raises(UserError, match=r"pip install 'calib_jax\[quant\]'"):
        load_model(tiny_model, quantize="int8")


def test_unknown_scheme():
    with pytest.raises(UserError, match="config.model.quantize is 'int4'"):
        check_scheme("int4")
