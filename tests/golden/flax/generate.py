"""Writes the Flax checkpoints beside this script: `python tests/golden/flax/generate.py`.

Environment, one of its own: Python 3.11, transformers 4.57.6 (the last with Flax classes),
jax 0.6.2, flax 0.11.2, torch 2.13 (CPU), numpy 2.

Random weights, saved by FlaxLlama (in shards), FlaxMistral (bfloat16, sequences longer than its
window) and FlaxGemma. ``logits.npy`` holds what PyTorch transformers computes from the same
weights in float32. Flax's own classes fix the RoPE base at 10000, so the configs state that base
and both libraries must agree; the script prints by how much they differ.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import torch
import transformers
from transformers.modeling_flax_pytorch_utils import load_flax_weights_in_pytorch_model

here = Path(__file__).parent
COMMON = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rope_theta": 10000.0,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
MODELS = {
    "llama": ("Llama", {"tie_word_embeddings": False}, "12KB"),
    "mistral": ("Mistral", {"sliding_window": 5, "tie_word_embeddings": False}, "10GB"),
    "gemma": (
        "Gemma",
        {"num_key_value_heads": 1, "head_dim": 8, "hidden_activation": "gelu_pytorch_tanh"},
        "10GB",
    ),
}
tokens = np.random.default_rng(0).integers(3, 40, (2, 19)).astype(np.int32)
np.save(here / "tokens.npy", tokens)
for name, (family, changes, max_shard_size) in MODELS.items():
    folder = here / name
    config = getattr(transformers, f"{family}Config")(**{**COMMON, **changes})
    model = getattr(transformers, f"Flax{family}ForCausalLM")(config, seed=0)
    # Norms start as ones, which would hide a norm that is read wrongly.
    keys = iter(jax.random.split(jax.random.key(1), 1000))
    model.params = jax.tree.map(
        lambda x, keys=keys: x + 0.3 * jax.random.normal(next(keys), x.shape), model.params
    )
    if name == "mistral":
        model.params = model.to_bf16(model.params)
    model.save_pretrained(folder, max_shard_size=max_shard_size)
    params = model.to_fp32(model.params)
    if name == "mistral":  # FlaxMistral's window takes in one position more than PyTorch's
        model = type(model)(type(config)(**{**config.to_dict(), "sliding_window": 4}))
    flax_logits = model(tokens, params=params).logits
    # from_pretrained(from_flax=True) leaves empty tensors behind with these versions.
    oracle = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    load_flax_weights_in_pytorch_model(oracle, params)
    with torch.no_grad():
        logits = oracle(torch.from_numpy(tokens).long()).logits.numpy()
    np.save(folder / "logits.npy", logits)
    difference = float(jnp.abs(flax_logits - logits).max())
    print(f"{name}: largest logit {abs(logits).max():.2f}, Flax differs by {difference:.1e}")
