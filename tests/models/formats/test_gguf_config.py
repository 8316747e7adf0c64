"""Metadata of GGUF files as a config.json: what is read, what is known, what is refused."""

import numpy as np
import pytest

from calib_jax.errors import UserError
from calib_jax.models.formats.gguf_config import architecture_of, config_json
from calib_jax.models.hf_config import parse_config

LLAMA = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 64,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 48,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": float(np.float32(1e-5)),
    "llama.rope.freq_base": 10000.0,
}
GEMMA = {key.replace("llama", "gemma3"): value for key, value in LLAMA.items()} | {
    "general.architecture": "gemma3",
    "gemma3.attention.key_length": 16,
    "gemma3.attention.sliding_window": 8,
}
SHAPES = {"model.embed_tokens.weight": (100, 32)} | {f"t{i}": (1,) for i in range(100)}


def read(fields, factors=None, **changes):
    fields = {k: v for k, v in {**fields, **changes}.items() if v is not None}
    return config_json(fields, SHAPES, factors, "m.gguf")


def test_numbers_are_those_before_storage():
    raw = read(LLAMA)
    assert raw["rms_norm_eps"] == 1e-5
    config = parse_config(raw, "m.gguf", internal=True)
    assert (config.head_dim, config.num_kv_heads, config.vocab_size) == (8, 2, 100)
    assert config.tie_embeddings and config.rope.theta == 10000.0


def test_factors_stand_for_frequencies():
    raw = read(LLAMA, np.array([1, 2, 4, 8], np.float32))
    assert parse_config(raw, "m", internal=True).rope.factors == (1.0, 2.0, 4.0, 8.0)
    with pytest.raises(UserError, match="factors"):
        parse_config(raw, "m")


def test_gemma3_defaults():
    """What llama.cpp knows without metadata: every sixth layer sees all, local base 10000."""
    raw = read(GEMMA, **{"gemma3.block_count": 7, "gemma3.rope.freq_base": 1e6})
    config = parse_config(raw, "m.gguf", internal=True)
    assert config.sliding_layers == (True,) * 5 + (False, True) and config.sliding_window == 8
    assert config.rope.theta == 1e6 and config.local_rope.theta == 10000.0
    assert config.attention_scale == pytest.approx(16**-0.5)
    assert config.logit_softcap is None and config.activation == "gelu_tanh"


def test_gemma3_scaling_leaves_local_frequencies():
    scaling = {"gemma3.rope.scaling.type": "linear", "gemma3.rope.scaling.factor": 8.0}
    config = parse_config(read(GEMMA, **scaling), "m", internal=True)
    assert (config.rope.linear_factor, config.local_rope.linear_factor) == (8.0, 1.0)


def test_gemma3_without_a_window():
    config = parse_config(read(GEMMA, **{"gemma3.attention.sliding_window": None}), "m")
    assert not any(config.sliding_layers)


def test_gemma3_of_62_layers_has_another_scale():
    """The 27B model: 5376 channels over 32 heads of 128, and a scale of (5376 / 32)^-0.5."""
    big = {"block_count": 62, "embedding_length": 5376, "attention.key_length": 128}
    big |= {"attention.head_count": 32, "attention.head_count_kv": 16}
    raw = read(GEMMA, **{f"gemma3.{key}": value for key, value in big.items()})
    assert raw["query_pre_attn_scalar"] == 168


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"general.architecture": "phi3"}, "architecture 'phi3' is not supported"),
        ({"general.architecture": None}, "architecture None"),
        ({"general.architecture": ["llama"]}, "architecture ['llama']"),
        ({"general.type": "adapter"}, "'general.type' is 'adapter'"),
        ({"split.count": 3}, "one of 3 parts"),
        ({"llama.attention.sliding_window": 64}, "'llama.attention.sliding_window' = 64"),
        ({"llama.attention.causal": False}, "'llama.attention.causal' = False"),
        ({"llama.expert_count": 8}, "'llama.expert_count' = 8"),
        ({"llama.anything": [1] * 999}, "'llama.anything' = [1, 1"),
        ({"llama.rope.scaling.type": "yarn"}, "'llama.rope.scaling.type' is 'yarn'"),
        ({"llama.attention.value_length": 4}, "'llama.attention.value_length' is 4"),
        ({"llama.rope.dimension_count": 4}, "'llama.rope.dimension_count' is 4"),
        ({"llama.block_count": None}, "'llama.block_count' is missing"),
        ({"llama.block_count": 2**32 - 1}, "'llama.block_count' is 4294967295"),
        ({"llama.block_count": 0}, "'llama.block_count' is 0"),
        ({"llama.attention.head_count": 0}, "'llama.attention.head_count' is 0"),
        ({"llama.attention.head_count": [4, 4]}, "'llama.attention.head_count' is [4, 4]"),
        ({"llama.attention.head_count": "4"}, "'llama.attention.head_count' is '4'"),
        ({"llama.vocab_size": 101}, "'llama.vocab_size' is 101"),
        ({"llama.attention.layer_norm_rms_epsilon": None}, "rms_epsilon' is missing"),
    ],
    ids=str,
)
def test_refusals(changes, words):
    with pytest.raises(UserError) as error:
        read(LLAMA, **changes)
    assert words in str(error.value) and str(error.value).startswith("m.gguf: ")
    assert len(str(error.value)) < 500


@pytest.mark.parametrize("value", [[True], 0, "x"])
def test_gemma3_patterns_that_make_no_sense(value):
    with pytest.raises(UserError, match="sliding_window_pattern"):
        read(GEMMA, **{"gemma3.attention.sliding_window_pattern": value})


def test_harmless_keys():
    more = {
        "general.type": "model",
        "general.name": "x",
        "split.count": 0,
        "quantize.imatrix.file": "y",
        "llama.expert_count": 0,
        "llama.attention.causal": True,
        "llama.tensor_data_layout": "Meta AI original pth",
        "llama.rope.scaling.type": "none",
    }
    assert read(LLAMA, **more) == read(LLAMA)
    assert architecture_of(LLAMA, "m").permuted
