"""config.json: both spellings read, everything that is not handled refused by name."""

import json

import pytest

from calib_jax.errors import UserError
from calib_jax.models.config import Llama3Rope, Rope
from calib_jax.models.hf_config import parse_config, read_config

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 256,
}
MISTRAL = {**LLAMA, "model_type": "mistral", "architectures": ["MistralForCausalLM"]}
OLMO2 = {**LLAMA, "model_type": "olmo2", "architectures": ["Olmo2ForCausalLM"]}
SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def parse(base=LLAMA, /, **changes):
    return parse_config({**base, **changes}, "models/x/config.json")


def without(base, key):
    return {k: v for k, v in base.items() if k != key}


def test_dimensions():
    config = parse(head_dim=24, tie_word_embeddings=True)
    assert (config.family, config.vocab_size, config.hidden_size) == ("llama", 100, 64)
    assert (config.intermediate_size, config.num_layers, config.max_length) == (128, 3, 256)
    assert (config.num_heads, config.num_kv_heads, config.head_dim) == (8, 4, 24)
    assert config.norm_eps == 1e-5 and config.tie_embeddings
    assert config.block == "pre" and config.qk_norm is None and config.sliding_window is None
    assert hash(config) == hash(parse(head_dim=24, tie_word_embeddings=True))


@pytest.mark.parametrize("base", [LLAMA, OLMO2], ids=["llama", "olmo2"])
def test_absent_attributes_take_the_values_that_transformers_gives_them(base):
    for key in ("num_key_value_heads", "rms_norm_eps", "max_position_embeddings", "architectures"):
        base = without(base, key)
    config = parse(base)
    assert config.num_kv_heads == 8 and config.head_dim == 8 and not config.tie_embeddings
    assert config.rope == Rope(10000.0)
    assert config.max_length == 2048
    assert config.norm_eps == (1e-6 if config.family == "llama" else 1e-5)


def test_mistral_defaults():
    absent = without(MISTRAL, "num_key_value_heads")
    assert parse(absent, num_attention_heads=16).num_kv_heads == 8
    assert parse(MISTRAL, num_attention_heads=16).num_kv_heads == 4
    null = parse(MISTRAL, num_attention_heads=16, num_key_value_heads=None)
    assert null.num_kv_heads == 16  # as many as heads
    assert parse(MISTRAL).sliding_window == 4096
    assert parse(MISTRAL, sliding_window=None).sliding_window is None
    assert parse(MISTRAL, sliding_window=48).sliding_window == 48


def test_olmo2_traits():
    config = parse(OLMO2)
    assert config.block == "post" and config.qk_norm == "projection"


def test_both_spellings_of_the_rotary_settings():
    old = parse(rope_theta=5e5, rope_scaling=SCALING)
    new = parse(rope_parameters={**SCALING, "rope_theta": 5e5})
    both = parse(rope_theta=5e5, rope_parameters={**SCALING, "rope_theta": 5e5})
    older = parse(rope_theta=5e5, rope_scaling={**without(SCALING, "rope_type"), "type": "llama3"})
    assert old == new == both == older
    assert old.rope == Rope(5e5, llama3=Llama3Rope(8.0, 1.0, 4.0, 64))
    plain = parse(rope_parameters={"rope_type": "default", "rope_theta": 7.0})
    assert plain == parse(rope_theta=7.0) == parse(rope_theta=7, rope_scaling=None)
    assert plain.rope == Rope(7.0)


def test_harmless_attributes_change_nothing():
    assert parse(use_cache=False, torch_dtype="bfloat16", attention_dropout=0.0) == parse()
    assert parse(hidden_act="silu", attention_bias=False, quantization_config=None) == parse()


REFUSED = {
    "architecture": ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "GPT2LMHead"),
    "no model type": ({"model_type": None, "architectures": None}, "model_type None"),
    "model type of a wrong kind": ({"model_type": ["llama"]}, "model_type"),
    "reward head": ({"architectures": ["LlamaForSequenceClassification"]}, "architectures"),
    "unhandled": ({"logit_scale": 0.5}, "logit_scale"),
    "attention bias": ({"attention_bias": True}, "attention_bias"),
    "mlp bias": ({"mlp_bias": True}, "mlp_bias"),
    "activation": ({"hidden_act": "gelu"}, "hidden_act"),
    "quantised": ({"quantization_config": {"bits": 4}}, "quantization_config"),
    "partial rotary": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    "window": ({"sliding_window": 64}, "sliding_window"),
    "yarn": ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "yarn"),
    "linear, old spelling": ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "linear"),
    "rotary attribute": ({"rope_scaling": {**SCALING, "beta_fast": 1}}, "beta_fast"),
    "rotary attribute missing": ({"rope_scaling": without(SCALING, "factor")}, "factor"),
    "default rope with a factor": ({"rope_scaling": {"factor": 2.0}}, "factor"),
    "rotary settings of a wrong kind": ({"rope_scaling": "llama3"}, "rope_scaling"),
    "rotary factor of a wrong kind": ({"rope_scaling": {**SCALING, "factor": "8"}}, "factor"),
    "rotary factors in the wrong order": (
        {"rope_scaling": {**SCALING, "high_freq_factor": 1.0}},
        "high_freq_factor",
    ),
    "two thetas": (
        {"rope_theta": 1e4, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
        "rope_theta",
    ),
    "two rotary settings": (
        {"rope_scaling": SCALING, "rope_parameters": {**SCALING, "factor": 4.0}},
        "rope_parameters",
    ),
    "theta": ({"rope_theta": 0}, "rope_theta"),
    "epsilon": ({"rms_norm_eps": "1e-5"}, "rms_norm_eps"),
    "epsilon below zero": ({"rms_norm_eps": -1.0}, "rms_norm_eps"),
    "tied": ({"tie_word_embeddings": "no"}, "tie_word_embeddings"),
    "layers": ({"num_hidden_layers": 0}, "num_hidden_layers"),
    "vocabulary": ({"vocab_size": 100.5}, "vocab_size"),
    "boolean for a number": ({"intermediate_size": True}, "intermediate_size"),
    "heads": ({"num_attention_heads": "8"}, "num_attention_heads"),
    "key heads": ({"num_key_value_heads": 3}, "num_key_value_heads"),
    "head size": ({"head_dim": 0}, "head_dim"),
    "odd head size": ({"head_dim": 7}, "head_dim"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name):
    changes, key = REFUSED[name]
    with pytest.raises(UserError) as error:
        parse(**changes)
    assert key in str(error.value) and "models/x/config.json" in str(error.value)


@pytest.mark.parametrize("window", [0, -1, "48", 2.5, True])
def test_bad_windows_are_refused(window):
    with pytest.raises(UserError, match=r"models/x/config.json.*sliding_window"):
        parse(MISTRAL, sliding_window=window)


@pytest.mark.parametrize(
    "key",
    ["vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"],
)
def test_missing_attributes_are_named(key):
    with pytest.raises(UserError, match=rf"models/x/config.json.*{key}.*missing"):
        parse(without(LLAMA, key))


def test_read_config(tmp_path):
    with pytest.raises(UserError, match=r"config.json: no such file"):
        read_config(tmp_path)
    path = tmp_path / "config.json"
    for text, message in (('{"a": 1', "not valid JSON"), ("[1]", "JSON object, found list")):
        path.write_text(text)
        with pytest.raises(UserError, match=message) as error:
            read_config(tmp_path)
        assert str(path) in str(error.value)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UserError, match="not valid JSON"):
        read_config(tmp_path)
    path.write_text(json.dumps(LLAMA))
    assert read_config(tmp_path) == LLAMA
