"""The families' tables against transformers' own config classes."""

import json

import pytest
import transformers

from calib_jax.errors import UserError
from calib_jax.models.config import Llama3Rope
from calib_jax.models.families import COMMON, FAMILIES, HARMLESS, ONLY
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


def test_traits_of_the_families():
    assert parse(GEMMA).norm == "rms_unit_offset" and parse(GEMMA).scale_embeddings
    assert parse(GEMMA).tie_embeddings and parse(GEMMA).attention_scale is None
    assert parse(GEMMA2, query_pre_attn_scalar=64).attention_scale == 0.125
    assert (parse(GEMMA2).attention_softcap, parse(GEMMA2).logit_softcap) == (50.0, 30.0)
    assert (parse(GEMMA3).attention_softcap, parse(GEMMA3).logit_softcap) == (None, None)
    assert parse(GEMMA3).qk_norm == parse(QWEN3).qk_norm == "head"
    assert parse(OLMO).norm == "layer_plain" and parse(OLMO, clip_qkv=8).clip_qkv == 8.0
    neox = parse(NEOX)
    assert (neox.norm, neox.block, neox.gated, neox.fused_qkv) == ("layer", "parallel", False, True)
    assert parse(NEOX, use_parallel_residual=False).block == "pre"


# What the files of released models hold beside their dimensions.
_META = {"torch_dtype": "bfloat16", "use_cache": True, "bos_token_id": 1, "eos_token_id": 2}
PUBLISHED = {
    "llama 2": {**LLAMA, **_META, "pretraining_tp": 1, "rope_scaling": None},
    "vicuna 16k": {
        **LLAMA,
        "_name_or_path": "vicuna",
        "max_sequence_length": 16384,
        "rope_scaling": {"factor": 4.0, "type": "linear"},
    },
    "llama 3.2": {
        **LLAMA,
        "eos_token_id": [3, 4, 5],
        "head_dim": 64,
        "mlp_bias": False,
        "rope_scaling": {**SCALING, "factor": 32.0},
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
    },
    "mistral 0.1": {**MISTRAL, "sliding_window": 4096, "rope_theta": 10000.0},
    "mistral 0.3": {**MISTRAL, "sliding_window": None, "rope_theta": 1000000.0},
    "qwen 2.5": {
        **QWEN2,
        "max_window_layers": 28,
        "rope_theta": 1000000.0,
        "sliding_window": 131072,
        "use_mrope": False,
        "use_sliding_window": False,
    },
    "qwen 3": {
        **QWEN3,
        "attention_bias": False,
        "head_dim": 128,
        "max_window_layers": 36,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": None,
        "use_sliding_window": False,
        "tie_word_embeddings": False,
    },
    "gemma, first files": {**GEMMA, "head_dim": 256, "hidden_act": "gelu", "rope_theta": 10000.0},
    "gemma 2": {
        **GEMMA2,
        "attn_logit_softcapping": 50.0,
        "cache_implementation": "hybrid",
        "final_logit_softcapping": 30.0,
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "query_pre_attn_scalar": 224,
        "sliding_window": 4096,
        "sliding_window_size": 4096,
    },
    "gemma 3 1b": {
        **GEMMA3,
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
        "num_hidden_layers": 26,
        "query_pre_attn_scalar": 256,
        "rope_local_base_freq": 10000,
        "rope_scaling": None,
        "rope_theta": 1000000,
        "sliding_window": 512,
        "sliding_window_pattern": 6,
    },
    "gemma 3 270m": {
        **GEMMA3,
        "_sliding_window_pattern": 6,
        "layer_types": [SLIDING, SLIDING, FULL],
        "rope_local_base_freq": 10000.0,
        "rope_theta": 1000000.0,
        "sliding_window": 512,
        "use_bidirectional_attention": False,
    },
    "olmo": {**OLMO, "clip_qkv": 8.0, "rope_theta": 10000.0, "rope_scaling": None},
    "olmo 2": {**OLMO2, "rope_theta": 500000, "rms_norm_eps": 1e-6},
    "pythia": {
        **NEOX,
        "layer_norm_eps": 1e-5,
        "rotary_emb_base": 10000,
        "rotary_pct": 0.25,
        "use_parallel_residual": True,
    },
    "gpt-neox 20b": {
        **NEOX,
        "attention_probs_dropout_prob": 0,
        "hidden_act": "gelu_fast",
        "hidden_dropout_prob": 0,
    },
}
# The defaults of every family: only the dimensions are given.
for _base in (LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA, GEMMA2, GEMMA3, OLMO, OLMO2, NEOX):
    _given = COMMON - {"max_position_embeddings", "num_key_value_heads"}
    _base = {k: v for k, v in _base.items() if k in _given}
    PUBLISHED[_base["model_type"]] = {**_base, "hidden_size": 256, "num_attention_heads": 32}


def theirs(raw):
    """transformers' own reading of a config.json, which needs no torch."""
    return transformers.CONFIG_MAPPING[raw["model_type"]].from_dict(raw)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_numbers_are_those_of_transformers(name):
    ours, config = parse(PUBLISHED[name]), theirs(PUBLISHED[name])
    heads = config.num_attention_heads
    assert ours.head_dim == (getattr(config, "head_dim", None) or config.hidden_size // heads)
    assert ours.num_kv_heads == getattr(config, "num_key_value_heads", heads)
    assert ours.max_length == config.max_position_embeddings
    assert ours.tie_embeddings == config.tie_word_embeddings
    eps = getattr(config, "rms_norm_eps", getattr(config, "layer_norm_eps", 1e-5))
    assert ours.norm_eps == eps
    every = SLIDING if getattr(config, "sliding_window", None) else FULL
    types = getattr(config, "layer_types", None) or [every] * config.num_hidden_layers
    assert (ours.sliding_layers or (False,) * len(types)) == tuple(t == SLIDING for t in types)
    if any(ours.sliding_layers):
        assert ours.sliding_window == config.sliding_window
    ropes = config.rope_parameters
    nested = {FULL: ours.rope, SLIDING: ours.local_rope} if FULL in ropes else {"": ours.rope}
    for key, rope in nested.items():
        settings = dict(ropes[key] if key else ropes)
        kind = settings.pop("rope_type")
        settings.pop("type", None)
        assert rope.theta == settings.pop("rope_theta")
        assert rope.fraction == settings.pop("partial_rotary_factor", 1.0)
        if kind == "llama3":
            length = settings.pop("original_max_position_embeddings")
            assert rope.llama3 == Llama3Rope(**settings, original_max_length=length)
        else:
            assert rope.linear_factor == settings.pop("factor", 1.0) and not settings
            assert (kind == "linear") == (rope.linear_factor != 1.0)
    assert ours.clip_qkv == getattr(config, "clip_qkv", None)
    assert ours.attention_softcap == getattr(config, "attn_logit_softcapping", None)
    assert ours.logit_softcap == getattr(config, "final_logit_softcapping", None)
    act = getattr(config, "hidden_activation", None) or config.hidden_act
    tanh = {"gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh"}
    assert ours.activation == tanh.get(act, act)


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_transformers_writes_is_read_alike(name):
    config = theirs(PUBLISHED[name])
    for raw in (config.to_dict(), config.to_diff_dict()):
        assert parse(json.loads(json.dumps(raw, default=str))) == parse(PUBLISHED[name])


def other(value):
    """Another value, of the same kind where there is one."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value * 2
    if isinstance(value, dict):
        return {k: v if isinstance(v, str) else other(v) for k, v in value.items()}
    if isinstance(value, list):
        return [SLIDING if t == FULL else FULL for t in value]
    return {"silu": "gelu", "gelu": "silu", "gelu_pytorch_tanh": "silu"}.get(value, 0.5)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_attribute_is_ignored(family):
    """Every attribute of transformers' class changes the config, is refused, or is harmless."""
    on = {"use_sliding_window": True, "max_window_layers": 1, "clip_qkv": 8.0}
    on = {key: value for key, value in on.items() if key in FAMILIES[family].attributes}
    raw = theirs({**PUBLISHED[family], **on}).to_dict()
    base = without(raw, "layer_types")  # which would make the attributes that it repeats idle
    seen = set()
    for key in set(raw) - HARMLESS:
        try:
            assert parse(base, **{key: other(raw[key])}) != parse(base), key
        except UserError:
            continue
        seen.add(key)
    assert {"vocab_size", "tie_word_embeddings", "rope_parameters"} <= seen
    for table in (COMMON, ONLY, FAMILIES[family].attributes, FAMILIES[family].only):
        assert not HARMLESS & set(table)
