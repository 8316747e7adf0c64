"""int8 and NF4 projections against numpy, under scan, meshes, adapters and gradients."""

import math
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from calib_jax import load_model, make_mesh
from calib_jax.errors import UserError
from calib_jax.models import weights
from calib_jax.models.decoder import Decoder, head_logits
from calib_jax.models.lora import LoraConfig, init_lora
from calib_jax.models.quantize import (
    LEVELS,
    SCHEMES,
    Nf4,
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


def quantized(config, params, scheme="int8"):
    """The parameters with quantised projections."""
    layers = dict(params["layers"])
    for name in names(config):
        layers[name] = quantize(layers[name], scheme)
    return {**params, "layers": layers}


def dequantized(x):
    """The float32 weights [..., in, out] that quantised ones stand for, in numpy for NF4."""
    if not isinstance(x, Nf4):
        return qwix.dequantize(x)
    packed, scale = np.asarray(x.qvalue), np.asarray(x.scale)
    half = packed.shape[-2] // scale.shape[-2]
    rows = []
    for row in range(2 * packed.shape[-2]):
        block, place = divmod(row, 2 * half)
        byte = packed[..., block * half + place % half, :]
        number = byte >> 4 if place >= half else byte & 15
        rows.append(np.asarray(LEVELS, np.float32)[number] * scale[..., block, :])
    return jnp.asarray(np.stack(rows, axis=-2))


def restored(params):
    """The float32 parameters that quantised ones stand for."""
    layers = {
        name: dequantized(x) if is_quantized(x) else x for name, x in params["layers"].items()
    }
    return {**params, "layers": layers}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_each_channel_is_rounded_to_the_nearest_of_255_steps(dtype):
    rng = np.random.default_rng(0)
    spread = np.exp(rng.normal(0, 3, (3, 1, 5)))  # channels of very different sizes
    weight = jnp.asarray(rng.normal(0, 1, (3, 40, 5)) * spread, dtype).at[1, :, 2].set(0.0)
    q = quantize(weight, "int8")
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


def normal_float_levels():
    """NF4 from its definition: 8 positive and 7 negative quantiles of N(0, 1), and 0, over the
    largest; the offset is the mean of 1 - 1/32 and 1 - 1/30."""
    offset = ((1 - 1 / 32) + (1 - 1 / 30)) / 2
    positive = scipy.stats.norm.ppf(np.linspace(offset, 0.5, 9)[:-1])
    negative = -scipy.stats.norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
    levels = np.sort(np.concatenate([positive, negative, [0.0]]))
    return levels / levels.max()


def test_the_levels_are_those_of_the_definition():
    np.testing.assert_allclose(LEVELS, normal_float_levels(), atol=2e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("inputs, block", [(128, 64), (96, 32), (40, 8)])
def test_each_block_is_rounded_to_the_nearest_of_16_levels(dtype, inputs, block):
    rng = np.random.default_rng(0)
    spread = np.exp(rng.normal(0, 3, (3, inputs // block, 1, 5))).repeat(block, axis=2)
    weight = rng.normal(0, 1, (3, inputs, 5)) * spread.reshape(3, inputs, 5)
    weight = jnp.asarray(weight, dtype).at[1, :block, 2].set(0.0)
    q = quantize(weight, "nf4")
    assert q.qvalue.dtype == jnp.uint8 and q.qvalue.shape == (3, inputs // 2, 5)
    assert q.scale.dtype == jnp.float32 and q.scale.shape == (3, inputs // block, 5)
    exact = np.asarray(weight, np.float64).reshape(3, inputs // block, block, 5)
    scale = np.abs(exact).max(axis=2)
    scale[1, 0, 2] = 1.0  # a block of zeros
    np.testing.assert_allclose(q.scale, scale, rtol=1e-6)
    levels = normal_float_levels()
    distance = np.abs((exact / scale[:, :, None])[..., None] - levels)
    nearest = distance.argmin(axis=-1)
    two = np.sort(distance, axis=-1)[..., :2]
    clear = (two[..., 1] - two[..., 0] > 1e-4).reshape(weight.shape)  # not on an edge
    assert clear.mean() > 0.98
    nearest = levels[nearest] * scale[:, :, None]
    identity = jnp.eye(inputs, dtype=jnp.float32)
    for layer in range(3):
        ours = matmul(identity, jax.tree.map(lambda x, i=layer: x[i], q), jnp.float32)
        assert (np.asarray(dequantized(q))[layer] == np.asarray(ours)).all()
        expected = nearest[layer].reshape(inputs, 5)
        tolerance = 3e-5 * scale[layer].repeat(block, axis=0)
        assert (np.abs(ours - expected) <= tolerance)[clear[layer]].all()
        assert np.abs(ours).max() > 0
    assert not np.asarray(dequantized(q))[1, :block, 2].any()


def test_an_odd_number_of_inputs_has_no_pairs():
    with pytest.raises(UserError, match="one has 7 of them. Choose 'int8'"):
        quantize(jnp.ones((7, 4)), "nf4")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_matmul_equals_the_dequantised_product(scheme):
    rng = np.random.default_rng(1)
    x = jnp.asarray(rng.normal(0, 1, (2, 3, 128)), jnp.float32)
    weight = jnp.asarray(rng.normal(0, 1, (128, 32)), jnp.float32)
    assert (matmul(x, weight, jnp.float32) == x @ weight).all()
    q = quantize(weight, scheme)
    ours = matmul(x, q, jnp.float32)
    np.testing.assert_allclose(ours, x @ dequantized(q), atol=4e-5)
    how = {"channelwise_axes": (1,)} | ({} if scheme == "int8" else {"tiled_axes": {0: 64}})
    theirs = qwix.quantize(weight, jnp.int8 if scheme == "int8" else scheme, **how)
    theirs = qwix.dot_general(x, theirs, (((2,), (0,)), ((), ())))
    np.testing.assert_allclose(ours, theirs, atol=4e-5)
    # In bfloat16 the activations, the product and the result are rounded; of the weights those of
    # NF4 only, which are restored.
    narrow = x.astype(jnp.bfloat16)
    left, right = np.asarray(narrow, np.float64), np.asarray(dequantized(q), np.float64)
    exact = left @ right
    result = matmul(narrow, q, jnp.bfloat16)
    assert result.dtype == jnp.bfloat16
    error = np.abs(np.asarray(result, np.float64) - exact)
    rounding = 2**-8 * (np.abs(left) @ np.abs(right)) if scheme == "nf4" else 0
    assert (error <= 2**-7 * np.abs(exact) + rounding + 1e-6).all()


@pytest.mark.parametrize(
    "family, remat, scheme",
    [("llama", True, "int8"), ("olmo2", False, "int8"), ("llama", False, "nf4")],
)
def test_decoder_and_lora_gradients_equal_those_of_the_dequantised_base(
    small, family, remat, scheme
):
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

    few = quantized(config, params, scheme)
    # The comparison below is of something else than the plain base.
    moved = np.abs(restored(few)["layers"]["o_proj"] - params["layers"]["o_proj"])
    assert moved.max() > 1e-3
    assert sum(is_quantized(x) for x in few["layers"].values()) == len(names(config))
    both = jax.jit(jax.value_and_grad(loss))
    value, grads = both(adapters, few)
    expected, expected_grads = both(adapters, restored(few))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True):
        assert np.abs(b).max() > 0
        np.testing.assert_allclose(a, b, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    "mesh, limit",  # a layer at a time, or the stack at once
    [(None, 1), ((8, 1, 1), 1 << 30), ((1, 8, 1), 1 << 30), ((2, 2, 2), 1)],
    ids=str,
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_quantised_while_streaming_on_every_mesh(
    golden, golden_tokens, monkeypatch, mesh, limit, scheme
):
    monkeypatch.setattr(weights, "CHUNK_BYTES", limit)
    plain = load_model(golden / "llama2")
    model = load_model(golden / "llama2", mesh=mesh and make_mesh(mesh), quantize=scheme)
    expected = quantized(plain.config, plain.params, scheme)
    assert jax.tree.structure(model.params) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(model.params), jax.tree.leaves(expected), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))
    # Each device holds its share of the values, and the scales that belong to them.
    ways = mesh or (1, 1, 1)
    for name in names(plain.config):
        q = model.params["layers"][name]
        across, along = ways[1:] if name in ("o_proj", "down_proj") else ways[:0:-1]
        blocks = q.scale.shape[1]
        split = across * (along if scheme == "int8" or blocks % along == 0 else 1)
        assert q.qvalue.addressable_shards[0].data.size * split == q.qvalue.size
        across *= along if blocks % along == 0 else 1
        assert q.scale.addressable_shards[0].data.size * across == q.scale.size
    tokens = golden_tokens[:, :16]
    reference = load_model(golden / "llama2", quantize=scheme).logits(tokens)
    np.testing.assert_allclose(model.logits(tokens), reference, atol=2e-4)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_bytes_held(golden, scheme):
    """A byte or half a byte for each projected weight, four for each scale; the rest as before."""
    plain = load_model(golden / "llama2", "bfloat16")
    model = load_model(golden / "llama2", "bfloat16", quantize=scheme)
    layers, rows = model.config.num_layers, list(projections(model.config))
    weights = sum(layers * row.shape[0] * row.shape[1] for row in rows)
    blocks = {"int8": lambda inputs: 1, "nf4": lambda inputs: inputs // math.gcd(inputs, 64)}
    scales = sum(layers * blocks[scheme](row.shape[0]) * row.shape[1] for row in rows)
    held, before = (sum(x.nbytes for x in jax.tree.leaves(m.params)) for m in (model, plain))
    saved = {"int8": 1.0, "nf4": 1.5}[scheme]
    assert held == before - saved * weights + 4 * scales


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_float_copy_of_the_stack_is_made(small, scheme):
    """A step to adapters, without remat, restores a layer at a time: deeper costs activations."""
    lora, held = LoraConfig(rank=1, alpha=1.0, targets=("q_proj",)), {}

    def loss(adapters, params, decoder):
        variables = {"params": params, "lora": {"layers": adapters}}
        return decoder.apply(variables, TOKENS[:1, :2]).sum()

    for depth in (2, 18):
        config, _ = small("llama", num_hidden_layers=depth, hidden_size=64, intermediate_size=256)
        shapes = jax.eval_shape(Decoder(config).init, jax.random.key(0), TOKENS)["params"]
        adapters = jax.eval_shape(lambda c=config: init_lora(jax.random.key(0), c, lora))
        few = jax.eval_shape(lambda p, c=config: quantized(c, p, scheme), shapes)
        step = jax.jit(jax.grad(loss), static_argnums=2)
        program = step.lower(adapters, few, Decoder(config, lora=lora, remat=False)).compile()
        held[depth] = program.memory_analysis().temp_size_in_bytes
    weights = sum(x.size for name, x in shapes["layers"].items() if name in names(config)) // 18
    assert (held[18] - held[2]) / 16 < weights / 2  # a byte each would show, and a float four times


def test_layout_of_an_array_on_one_device():
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    for scheme in SCHEMES:
        held = layout(one, (2, 64, 8), scheme)
        assert held.qvalue == held.scale == one


def test_without_qwix_the_error_says_what_to_install(tiny_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "qwix", None)
    with pytest.raises(UserError, match=r"pip install 'calib_jax\[quant\]'"):
        load_model(tiny_model, quantize="int8")


def test_unknown_scheme():
    with pytest.raises(UserError, match="config.model.quantize is 'int4'"):
        check_scheme("int4")
