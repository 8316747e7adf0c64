"""Writes the golden checkpoints: tiny random models of PyTorch transformers and their logits.

Needs torch; see README.md beside this file for the command and for what the folders hold.
"""

import copy
import json
import sys
from pathlib import Path

import numpy as np
import torch
import transformers

FOLDER = Path(__file__).parent
OLDER = ("llama2", "llama31", "mistral", "olmo2")  # only their second config.json is written here
COMMON = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
GEMMA3_ROPE = {
    "full_attention": {"rope_type": "linear", "rope_theta": 20000.0, "factor": 4.0},
    "sliding_attention": {"rope_type": "default", "rope_theta": 300.0},
}


def rope(theta, **more):
    return {"rope_type": "default", "rope_theta": theta, **more}


# name -> (family, settings, other values of settings, each of which must move the logits: a golden
# that does not notice a setting proves nothing about it, spelling of its config.json)
CASES = {
    "llama32": (
        "Llama",
        {"head_dim": 16, "rope_parameters": LLAMA3, "tie_word_embeddings": True},
        {"rope_parameters": rope(5000.0), "rms_norm_eps": 0.01},
        "new",
    ),
    "llama_bias": (
        "Llama",
        {
            "attention_bias": True,
            "mlp_bias": True,
            "rope_parameters": rope(10000.0) | {"rope_type": "linear", "factor": 4.0},
        },
        {"rope_parameters": rope(10000.0)},
        "old",
    ),
    "mistral03": (
        "Mistral",
        {"head_dim": 12, "sliding_window": None, "rope_parameters": rope(1e6)},
        {"sliding_window": 150, "rope_parameters": rope(1e4)},
        "old",
    ),
    "qwen2": (
        "Qwen2",
        {"sliding_window": 24, "max_window_layers": 1, "tie_word_embeddings": True},
        {"use_sliding_window": True, "rope_parameters": rope(1e6)},
        "old",
    ),
    "qwen2_window": (
        "Qwen2",
        {
            "num_hidden_layers": 3,
            "use_sliding_window": True,
            "sliding_window": 24,
            "max_window_layers": 1,
            "rope_parameters": rope(1e6),
        },
        {"max_window_layers": 2, "sliding_window": 23, "use_sliding_window": False},
        "new",
    ),
    "qwen3": (
        "Qwen3",
        {"head_dim": 16, "rope_parameters": rope(1e6), "attention_bias": True},
        {"rope_parameters": rope(1e4), "rms_norm_eps": 0.01},
        "new",
    ),
    "gemma": (
        "Gemma",
        {"head_dim": 16, "tie_word_embeddings": True},
        {"hidden_act": "silu", "rms_norm_eps": 0.01},
        "old",
    ),
    "gemma2": (
        "Gemma2",
        {
            "head_dim": 12,
            "num_hidden_layers": 3,
            "query_pre_attn_scalar": 20,
            "sliding_window": 24,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 6.0,
            "tie_word_embeddings": True,
        },
        {
            "query_pre_attn_scalar": 12,
            "sliding_window": 25,
            "attn_logit_softcapping": None,
            "final_logit_softcapping": None,
            "layer_types": ["full_attention", "sliding_attention", "full_attention"],
        },
        "old",
    ),
    "gemma3_text": (
        "Gemma3Text",
        {
            "hidden_size": 24,
            "intermediate_size": 32,
            "num_hidden_layers": 5,
            "head_dim": 8,
            "query_pre_attn_scalar": 12,
            "sliding_window": 24,
            "sliding_window_pattern": 3,
            "rope_parameters": GEMMA3_ROPE,
            "tie_word_embeddings": True,
        },
        {
            "query_pre_attn_scalar": 8,
            "sliding_window": 25,
            "sliding_window_pattern": 2,
            "rope_parameters": {**GEMMA3_ROPE, "full_attention": rope(20000.0)},
        },
        "new",
    ),
    "olmo": ("Olmo", {"clip_qkv": 0.8}, {"clip_qkv": None, "rope_parameters": rope(1e5)}, "old"),
    "gpt_neox": (
        "GPTNeoX",
        {
            "num_attention_heads": 2,
            "num_key_value_heads": None,
            "rope_parameters": rope(10000.0, partial_rotary_factor=0.25),
        },
        {
            "use_parallel_residual": False,
            "rope_parameters": rope(10000.0, partial_rotary_factor=0.5),
            "hidden_act": "gelu_fast",
            "layer_norm_eps": 0.01,
        },
        "old",
    ),
    "gpt_neox_sequential": (
        "GPTNeoX",
        {
            "num_key_value_heads": None,
            "use_parallel_residual": False,
            "attention_bias": False,
            "hidden_act": "gelu_fast",
            "rope_parameters": rope(500.0, partial_rotary_factor=0.5),
            "tie_word_embeddings": True,
        },
        {"use_parallel_residual": True, "hidden_act": "gelu", "rope_parameters": rope(500.0)},
        "new",
    ),
}


def build(family, settings):
    """A float32 model with random weights; norms and biases too, ones and zeros hide mistakes."""
    settings = copy.deepcopy({**COMMON, **settings})
    if family == "GPTNeoX":
        settings.pop("num_key_value_heads")
    config_class = "Gemma3TextConfig" if family == "Gemma3Text" else f"{family}Config"
    model_class = "Gemma3ForCausalLM" if family == "Gemma3Text" else f"{family}ForCausalLM"
    config = getattr(transformers, config_class)(**settings)
    # The only implementation that honours every setting of every family.
    config._attn_implementation = "eager"
    model = getattr(transformers, model_class)(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1 and name.endswith("bias"):
                weight.normal_(0, 0.3, generator=generator)
            elif weight.ndim == 1:
                weight.uniform_(0.5, 1.5, generator=generator)
                if "Gemma" in family:  # the weight is added to one there
                    weight -= 1
            elif "embed" in name or "lm_head" in name:
                weight.normal_(0, 0.3, generator=generator)
            else:
                weight.normal_(0, weight.shape[1] ** -0.5, generator=generator)
    return model


def logits_of(model, tokens):
    """Float32 logits at every eighth position [B, L / 8, V]."""
    with torch.no_grad():
        return model(torch.from_numpy(tokens).long()).logits[:, 7::8].numpy()


def old_spelling(raw):
    """The same ``config.json`` as transformers 4 spelt it."""
    raw = dict(raw)
    parameters = raw.pop("rope_parameters")
    local = parameters.get("sliding_attention")
    scaling = dict(parameters.get("full_attention", parameters))
    theta, share = scaling.pop("rope_theta"), scaling.pop("partial_rotary_factor", 1.0)
    if raw["model_type"] == "gpt_neox":
        raw |= {"rotary_emb_base": theta, "rotary_pct": share}
    else:
        raw["rope_theta"] = theta
    if scaling["rope_type"] == "linear" and not local:  # the oldest key of all
        scaling["type"] = scaling.pop("rope_type")
    raw["rope_scaling"] = None if scaling == {"rope_type": "default"} else scaling
    if local:
        raw["rope_local_base_freq"] = local["rope_theta"]
        raw["sliding_window_pattern"] = raw.pop("_sliding_window_pattern")
    raw.pop("layer_types", None)
    if raw["model_type"] in ("qwen2", "qwen3") and not raw["use_sliding_window"]:
        raw["sliding_window"] = 24  # published files leave the window in and turn it off
    if raw["model_type"] == "gemma":
        raw |= {"hidden_act": "gelu", "hidden_activation": None}
    if raw["model_type"] == "gemma2":
        raw |= {"hidden_act": raw["hidden_activation"], "cache_implementation": "hybrid"}
    raw["torch_dtype"] = raw.pop("dtype")
    raw["transformers_version"] = "4.40.0"
    return raw


def write_json(path, raw):
    path.write_text(json.dumps(raw, indent=2, sort_keys=True) + "\n")


def read(folder, raw):
    """The model in a folder, loaded with another config.json."""
    write_json(folder / "config.json", raw)
    return transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")


def main(names):
    tokens = np.load(FOLDER / "tokens.npy")
    for name in OLDER if not names else ():
        folder = FOLDER / name
        new = json.loads((folder / "config.json").read_text())
        logits = [logits_of(read(folder, raw), tokens) for raw in (old_spelling(new), new)]
        np.testing.assert_array_equal(logits[0], logits[1])
        np.testing.assert_allclose(logits[0], np.load(folder / "logits.npy"), rtol=0, atol=2e-5)
        write_json(folder / "other_spelling.json", old_spelling(new))
    for name in names or CASES:
        family, settings, others, spelling = CASES[name]
        folder, vocab = FOLDER / name, COMMON["vocab_size"]
        model = build(family, settings)
        expected = logits_of(model, tokens % vocab)
        model.save_pretrained(folder)
        (folder / "generation_config.json").unlink()
        new = json.loads((folder / "config.json").read_text())
        texts = {"new": new, "old": old_spelling(new)}
        for raw in texts.values():  # transformers reads both spellings alike
            np.testing.assert_array_equal(logits_of(read(folder, raw), tokens % vocab), expected)
        other = texts.pop("new" if spelling == "old" else "old")
        for file, raw in (("config.json", texts[spelling]), ("other_spelling.json", other)):
            write_json(folder / file, raw)
        np.save(folder / "logits.npy", expected)
        moved = {
            key: float(
                np.abs(
                    logits_of(build(family, {**settings, key: value}), tokens % vocab) - expected
                ).max()
            )
            for key, value in others.items()
        }
        size = sum(f.stat().st_size for f in folder.iterdir())
        print(f"{name}: {size / 1e3:.0f} KB, logits' std {expected.std():.2f}, moved by {moved}")
        assert min(moved.values()) > 1e-3 and 1 < expected.std() < 6


if __name__ == "__main__":
    main(sys.argv[1:])
