"""Small config.json contents of every family, for the tests of their reading."""

from calib_jax.models.hf_config import parse_config

FULL, SLIDING = "full_attention", "sliding_attention"
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
QWEN2 = {**LLAMA, "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]}
QWEN3 = {**LLAMA, "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}
GEMMA = {**LLAMA, "model_type": "gemma", "architectures": ["GemmaForCausalLM"]}
GEMMA2 = {**LLAMA, "model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"]}
GEMMA3 = {**LLAMA, "model_type": "gemma3_text", "architectures": ["Gemma3ForCausalLM"]}
OLMO = {k: v for k, v in LLAMA.items() if k != "rms_norm_eps"} | {
    "model_type": "olmo",
    "architectures": ["OlmoForCausalLM"],
}
NEOX = {k: v for k, v in OLMO.items() if k != "num_key_value_heads"} | {
    "model_type": "gpt_neox",
    "architectures": ["GPTNeoXForCausalLM"],
}
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
