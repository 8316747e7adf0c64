"""config.json: both spellings read, everything that is not handled refused by name."""

import json

import pytest

from calib_jax.errors import UserError
from calib_jax.models.config import Llama3Rope, Rope
from calib_jax.models.hf_config import parse_config, read_config
from tests.models.raw_configs import (
    FULL,
    GEMMA,
    GEMMA2,
    GEMMA3,
    LLAMA,
    MISTRAL,
    NEOX,
    OLMO,
    OLMO2,
    QWEN2,
    QWEN3,
    SCALING,
    SLIDING,
    parse,
    without,
)


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


def test_biases():
    assert parse().biases == () == parse(MISTRAL).biases
    attention = ("q_proj", "k_proj", "v_proj", "o_proj")
    for base in (LLAMA, QWEN3, GEMMA, GEMMA2, GEMMA3, OLMO, OLMO2):
        assert parse(base, attention_bias=True).biases == attention
    assert parse(mlp_bias=True).biases == ("gate_proj", "up_proj", "down_proj")
    assert parse(QWEN2).biases == attention[:3]
    assert set(parse(NEOX).biases) == {"qkv_proj", "o_proj", "up_proj", "down_proj"}
    assert parse(NEOX, attention_bias=False).biases == ("up_proj", "down_proj")


def test_windows_of_qwen():
    for base in (QWEN2, QWEN3):
        off = parse(base, sliding_window=32, max_window_layers=1)
        assert off.sliding_window is None and off.sliding_layers == ()
        on = parse(base, use_sliding_window=True, sliding_window=32, max_window_layers=1)
        assert on.sliding_window == 32 and on.sliding_layers == (False, True, True)
        assert parse(base, use_sliding_window=True).sliding_window is None  # from layer 28 on
        types = [SLIDING, FULL, SLIDING]
        named = parse(base, use_sliding_window=True, sliding_window=32, layer_types=types)
        assert named.sliding_layers == (True, False, True)


def test_windows_of_gemma():
    assert parse(GEMMA2).sliding_layers == (True, False, True)
    assert parse(GEMMA2).sliding_window == 4096
    assert parse(GEMMA2, layer_types=[FULL] * 3).sliding_layers == ()
    assert parse(GEMMA2, layer_types=[FULL] * 3, sliding_window=None).sliding_window is None
    assert parse(GEMMA3, num_hidden_layers=7).sliding_layers == (True,) * 5 + (False, True)
    pattern = parse(GEMMA3, sliding_window_pattern=2, sliding_window=9)
    assert pattern.sliding_layers == (True, False, True) and pattern.sliding_window == 9
    types = [FULL, FULL, SLIDING]
    assert parse(GEMMA3, layer_types=types, sliding_window_pattern=2).sliding_layers == (
        (False, False, True)
    )


def test_layer_types_of_other_families_may_only_repeat_the_rest():
    assert parse(layer_types=[FULL] * 3) == parse()
    assert parse(MISTRAL, layer_types=[SLIDING] * 3) == parse(MISTRAL)
    for base, types in ((LLAMA, [SLIDING] * 3), (MISTRAL, [FULL] * 3)):
        with pytest.raises(UserError, match="layer_types"):
            parse(base, layer_types=types)


def test_rope_of_gemma3():
    config = parse(GEMMA3)
    assert config.rope == Rope(1e6) and config.local_rope == Rope(1e4)
    linear = {"rope_type": "linear", "factor": 8.0}
    old = parse(GEMMA3, rope_theta=5e5, rope_local_base_freq=2e4, rope_scaling=linear)
    assert old.rope == Rope(5e5, linear_factor=8.0) and old.local_rope == Rope(2e4)
    new = {FULL: {**linear, "rope_theta": 5e5}, SLIDING: {"rope_theta": 2e4}}
    assert parse(GEMMA3, rope_parameters=new) == old
    assert parse(GEMMA3, rope_theta=1e4).local_rope is None  # the same everywhere


def test_rope_of_gpt_neox():
    assert parse(NEOX).rope == Rope(1e4, fraction=0.25)
    old = parse(NEOX, rotary_pct=0.5, rotary_emb_base=500)
    assert old.rope == Rope(500.0, fraction=0.5)
    new = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}
    assert parse(NEOX, rope_parameters=new) == old
    # transformers 4 wrote each of them under two names.
    both = {"rope_theta": 500, "partial_rotary_factor": 0.5}
    assert parse(NEOX, rotary_pct=0.5, rotary_emb_base=500, **both) == old


def test_rope_factors_come_from_a_reader_of_ours_only():
    factors = {"rope_type": "factors", "rope_theta": 5e5, "factors": [1.0, 2.0, 4.0, 8.0]}
    raw = {**LLAMA, "rope_parameters": factors}
    config = parse_config(raw, "model.gguf", internal=True)
    assert config.rope == Rope(5e5, factors=(1.0, 2.0, 4.0, 8.0))
    with pytest.raises(UserError, match="rope type 'factors'"):
        parse_config(raw, "config.json")
    factors["factors"] = [1.0, 2.0]
    with pytest.raises(UserError, match="2 rotary factors"):
        parse_config(raw, "model.gguf", internal=True)


def test_llama3_scaling_without_its_original_length_takes_the_longest_as_transformers_does():
    scaling = without(SCALING, "original_max_position_embeddings")
    assert parse(rope_scaling=scaling).rope.llama3.original_max_length == 256


def test_activations():
    assert parse().activation == "silu" and parse(NEOX).activation == "gelu"
    assert parse(hidden_act="gelu").activation == "gelu"
    assert parse(NEOX, hidden_act="gelu_fast").activation == "gelu_tanh"
    for changes in ({}, {"hidden_act": "gelu"}, {"hidden_activation": None}):
        assert parse(GEMMA, **changes).activation == "gelu_tanh"
    assert parse(GEMMA2, hidden_activation="gelu").activation == "gelu"


REFUSED = {
    "architecture": ({"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}, "GPT2LMHead"),
    "no model type": ({"model_type": None, "architectures": None}, "model_type None"),
    "model type of a wrong kind": ({"model_type": ["llama"]}, "model_type"),
    "reward head": ({"architectures": ["LlamaForSequenceClassification"]}, "architectures"),
    "unhandled": ({"logit_scale": 0.5}, "logit_scale"),
    "activation": ({"hidden_act": "relu"}, "hidden_act"),
    "quantised": ({"quantization_config": {"bits": 4}}, "quantization_config"),
    "partial rotary": ({"partial_rotary_factor": 0.5}, "partial_rotary_factor"),
    "window": ({"sliding_window": 64}, "sliding_window"),
    "yarn": ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, "yarn"),
    "dynamic": ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "dynamic"),
    "longrope": ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "longrope"),
    "two rotary types": (
        {"rope_scaling": {"type": "mrope", "rope_type": "default"}},
        "'type' and 'rope_type' differ",
    ),
    "rotary settings of layers apart": (
        {"rope_parameters": {FULL: {"rope_theta": 1e4}}},
        FULL,
    ),
    "linear without its factor": ({"rope_scaling": {"type": "linear"}}, "factor"),
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
    "absurd number of layers": ({"num_hidden_layers": 10**12}, "num_hidden_layers"),
    "absurd theta": ({"rope_theta": 10**400}, "rope_theta"),
    "bias of a wrong kind": ({"attention_bias": 0}, "attention_bias"),
    "bidirectional": ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    "a layer's own settings": ({"per_layer_config": {"1": {}}}, "per_layer_config"),
    "pruned heads": ({"pruned_heads": {"0": [1]}}, "pruned_heads"),
    "another family's attribute": ({"clip_qkv": 8.0}, "clip_qkv"),
    "original length beside the settings": (
        {"rope_scaling": SCALING, "original_max_position_embeddings": 32},
        "original_max_position_embeddings",
    ),
    "odd head size": ({"head_dim": 7}, "head_dim"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_by_name(name):
    changes, key = REFUSED[name]
    with pytest.raises(UserError) as error:
        parse(**changes)
    assert key in str(error.value) and "models/x/config.json" in str(error.value)


REFUSED_OF = {
    "mistral, bias": (MISTRAL, {"attention_bias": True}, "attention_bias"),
    "qwen2, switch": (QWEN2, {"use_sliding_window": "yes"}, "use_sliding_window"),
    "qwen2, sliding without a window": (QWEN2, {"layer_types": [SLIDING] * 3}, "no window"),
    "qwen2, sections": (QWEN2, {"use_mrope": True}, "use_mrope"),
    "qwen2, chunks": (QWEN2, {"dual_chunk_attention_config": {}}, "dual_chunk_attention_config"),
    "qwen3, kinds of layers": (QWEN3, {"layer_types": ["linear_attention"] * 3}, "layer_types"),
    "qwen3, number of layers": (QWEN3, {"layer_types": [FULL]}, "layer_types"),
    "gemma, activation": (GEMMA, {"hidden_activation": "gelu"}, "hidden_activation"),
    "gemma2, activation": (GEMMA2, {"hidden_act": "gelu"}, "hidden_act"),
    "gemma2, pattern": (GEMMA2, {"sliding_window_pattern": 3}, "sliding_window_pattern"),
    "gemma2, two windows": (GEMMA2, {"sliding_window_size": 8}, "sliding_window_size"),
    "gemma2, no window": (GEMMA2, {"sliding_window": None}, "sliding_window"),
    "gemma2, scale": (GEMMA2, {"query_pre_attn_scalar": 0}, "query_pre_attn_scalar"),
    "gemma2, soft cap": (GEMMA2, {"attn_logit_softcapping": 0.0}, "attn_logit_softcapping"),
    "gemma3, soft cap": (GEMMA3, {"attn_logit_softcapping": 50.0}, "attn_logit_softcapping"),
    "gemma3, pattern": (GEMMA3, {"_sliding_window_pattern": 3}, "_sliding_window_pattern"),
    "gemma3, flat rope": (GEMMA3, {"rope_parameters": {"rope_theta": 1e4}}, "rope_theta"),
    # transformers 5 overlooks the old name here, transformers 4 did not.
    "gemma3, type": (GEMMA3, {"rope_scaling": {"type": "linear", "factor": 8.0}}, "rope_type"),
    "gemma3, two thetas": (
        GEMMA3,
        {"rope_parameters": {SLIDING: {"rope_theta": 1e4}}, "rope_local_base_freq": 2e4},
        "rope_local_base_freq",
    ),
    "gemma3 with images": (
        {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]},
        {"text_config": {}},
        "alone, model_type 'gemma3_text'",
    ),
    "olmo, epsilon": (OLMO, {"rms_norm_eps": 1e-6}, "rms_norm_eps"),
    "gpt_neox, share": (NEOX, {"rotary_pct": 1.5}, "partial_rotary_factor"),
    "gpt_neox, odd share": (NEOX, {"rotary_pct": 0.4}, "partial_rotary_factor"),
    "gpt_neox, two thetas": (NEOX, {"rope_theta": 500.0}, "rope_theta"),
    "gpt_neox, head size": (NEOX, {"head_dim": 4}, "head_dim"),
    "gpt_neox, key heads": (NEOX, {"num_key_value_heads": 4}, "num_key_value_heads"),
}


@pytest.mark.parametrize("name", REFUSED_OF)
def test_refused_by_name_in_a_family(name):
    base, changes, key = REFUSED_OF[name]
    with pytest.raises(UserError) as error:
        parse(base, **changes)
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
    path.write_text("[" * 100_000)
    with pytest.raises(UserError, match="not valid JSON"):
        read_config(tmp_path)
    path.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UserError, match="not valid JSON"):
        read_config(tmp_path)
    path.write_text(json.dumps(LLAMA))
    assert read_config(tmp_path) == LLAMA
