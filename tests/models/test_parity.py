"""Our logits are those of PyTorch transformers."""

import json

import numpy as np
import pytest

from calib_jax import load_model
from calib_jax.models.families import FAMILIES
from calib_jax.models.hf_config import parse_config, read_config

GOLDEN = (
    "llama2",
    "llama31",
    "llama32",
    "llama_bias",
    "mistral",
    "mistral03",
    "qwen2",
    "qwen2_window",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "olmo",
    "olmo2",
    "gpt_neox",
    "gpt_neox_sequential",
)
ONE_EACH = (
    "llama31",
    "mistral",
    "qwen2_window",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3_text",
    "olmo",
    "olmo2",
    "gpt_neox",
)


@pytest.fixture(params=GOLDEN)
def name(request):
    return request.param


@pytest.fixture
def reference(golden, name):
    """transformers' logits at every eighth position, see golden/README.md."""
    return np.load(golden / name / "logits.npy")


def test_every_family_has_a_golden(golden):
    for names in (GOLDEN, ONE_EACH):
        assert {read_config(golden / name)["model_type"] for name in names} == set(FAMILIES)
    assert set(GOLDEN) == {path.parent.name for path in golden.glob("*/config.json")}


@pytest.mark.parametrize("mesh", [None, (2, 2, 2)], ids=["one device", "2x2x2"])
def test_logits_equal_those_of_transformers(name, mesh, reference, golden_logits):
    ours = golden_logits(name, mesh)[:, 7::8]
    assert ours.shape == reference.shape and reference.std() > 1
    np.testing.assert_allclose(ours, reference, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(ours.argmax(-1), reference.argmax(-1))


@pytest.mark.parametrize("name", ONE_EACH, indirect=True)
def test_bfloat16_logits_are_near(name, reference, load_golden, golden_logits):
    """Bounds: a root-mean-square error of 4 % of the spread, and 90 % of the same first tokens."""
    assert load_golden(name, None, "bfloat16").params["embed"].dtype == "bfloat16"
    ours = golden_logits(name, None, "bfloat16")[:, 7::8]
    assert ours.dtype == np.float32
    error = np.sqrt(np.mean((ours - reference) ** 2)) / reference.std()
    assert 1e-4 < error < 0.04
    assert np.mean(ours.argmax(-1) == reference.argmax(-1)) >= 0.9


def test_both_spellings_of_a_config_are_one(golden, name):
    folder = golden / name
    files = [folder / "config.json", folder / "other_spelling.json"]
    raw = [json.loads(file.read_text()) for file in files]
    assert ("rope_parameters" in raw[0]) != ("rope_parameters" in raw[1])
    assert parse_config(raw[0], "config.json") == parse_config(raw[1], "other_spelling.json")


LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 20000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 3.0,
    "original_max_position_embeddings": 24,
}
LINEAR = {"rope_type": "linear", "rope_theta": 1000.0, "factor": 3.0}
FULL, SLIDING = "full_attention", "sliding_attention"
# What the goldens leave out: (family, settings over those of golden/generate.py).
AWKWARD = {
    "llama, 3 queries a key, scaled rope": (
        "Llama",
        {
            "hidden_size": 48,
            "num_attention_heads": 6,
            "head_dim": 24,
            "rope_parameters": LLAMA3,
        },
    ),
    "llama, one head, one layer, large epsilon, exact gelu": (
        "Llama",
        {
            "num_attention_heads": 1,
            "num_key_value_heads": 1,
            "num_hidden_layers": 1,
            "rms_norm_eps": 0.1,
            "hidden_act": "gelu",
        },
    ),
    "llama, biases in attention only": ("Llama", {"attention_bias": True}),
    "llama, biases in the MLP only": ("Llama", {"mlp_bias": True}),
    "mistral, tied, one key head, window of 7, narrow heads": (
        "Mistral",
        {
            "num_key_value_heads": 1,
            "head_dim": 6,
            "sliding_window": 7,
            "tie_word_embeddings": True,
        },
    ),
    "qwen2, layers that slide by name, a head size it does not declare": (
        "Qwen2",
        {
            "num_hidden_layers": 3,
            "use_sliding_window": True,
            "sliding_window": 5,
            "layer_types": [SLIDING, FULL, SLIDING],
            "head_dim": 12,
        },
    ),
    "qwen3, tied, scaled rope, every layer slides": (
        "Qwen3",
        {
            "head_dim": 6,
            "rope_parameters": LLAMA3,
            "use_sliding_window": True,
            "sliding_window": 9,
            "max_window_layers": 0,
            "tie_word_embeddings": True,
        },
    ),
    "gemma, untied, biases, one key head, linear rope": (
        "Gemma",
        {
            "num_key_value_heads": 1,
            "head_dim": 12,
            "attention_bias": True,
            "rope_parameters": LINEAR,
        },
    ),
    "gemma2, untied, biases, no soft caps, layers that slide by name": (
        "Gemma2",
        {
            "head_dim": 8,
            "attention_bias": True,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "sliding_window": 6,
            "layer_types": [FULL, SLIDING],
        },
    ),
    "gemma3, 7 layers of the default pattern and rope, untied, soft cap, biases": (
        "Gemma3Text",
        {
            "num_hidden_layers": 7,
            "head_dim": 12,
            "sliding_window": 6,
            "attention_bias": True,
            "final_logit_softcapping": 3.0,
        },
    ),
    "gemma3, every layer slides, linear local rope": (
        "Gemma3Text",
        {
            "head_dim": 8,
            "sliding_window": 11,
            "rope_parameters": {SLIDING: LINEAR, FULL: {"rope_theta": 1e5}},
        },
    ),
    "olmo, no clipping, biases, tied": (
        "Olmo",
        {"attention_bias": True, "tie_word_embeddings": True},
    ),
    "olmo2, tied, biases, grouped queries, scaled rope": (
        "Olmo2",
        {
            "num_attention_heads": 8,
            "attention_bias": True,
            "tie_word_embeddings": True,
            "rope_parameters": LLAMA3,
        },
    ),
    "gpt_neox, all channels turn, no biases in attention": (
        "GPTNeoX",
        {
            "attention_bias": False,
            "rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 1.0},
        },
    ),
    "gpt_neox, sequential, linear rope over a quarter": (
        "GPTNeoX",
        {
            "num_attention_heads": 2,
            "use_parallel_residual": False,
            "rope_parameters": {**LINEAR, "partial_rotary_factor": 0.25},
        },
    ),
}


@pytest.mark.parametrize("case", AWKWARD)
def test_awkward_settings_agree_with_a_fresh_transformers_model(case, tmp_path):
    torch = pytest.importorskip("torch")
    from tests.golden.generate import build

    theirs = build(*AWKWARD[case])
    theirs.save_pretrained(tmp_path)
    tokens = np.random.default_rng(0).integers(0, 96, (2, 40), dtype=np.int32)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(tokens).long()).logits.numpy()
    ours = load_model(tmp_path).logits(tokens)
    assert expected.std() > 0.3
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)
