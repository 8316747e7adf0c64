"""Writes GGUF files of tiny models as llama.cpp's converter does."""

import gguf
import numpy as np
from gguf.quants import quantize

from calib_jax.models.hf_config import parse_config
from calib_jax.models.table import parameter_table

Kind = gguf.GGMLQuantizationType
K_QUANTS = ("Q4_K", "Q5_K", "Q6_K")
KINDS = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", *K_QUANTS)

_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "input_layernorm": "attn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_PLAIN = {"post_attention_layernorm": "ffn_norm"}
_GEMMA = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
_OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def gguf_name(name, architecture="llama"):
    stem, _, ending = name.rpartition(".")
    if stem in _OUTER:
        return f"{_OUTER[stem]}.{ending}"
    if not stem.startswith("model.layers."):
        return name
    _, _, layer, rest = stem.split(".", 3)
    names = _NAMES | (_GEMMA if architecture == "gemma3" else _PLAIN)
    return f"blk.{layer}.{names[rest]}.{ending}"


def permuted(weights, heads):
    """llama.cpp's converter: rotary halves become interleaved pairs."""
    halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return halves.swapaxes(1, 2).reshape(weights.shape)


def encoded(values, kind, seed=0):
    """Bytes [..., row] of ``values`` in this type; K-quants are random blocks of that shape."""
    if kind not in K_QUANTS:
        return quantize(np.ascontiguousarray(values), Kind[kind])
    rng = np.random.default_rng(seed)
    size = gguf.GGML_QUANT_SIZES[Kind[kind]][1]
    blocks = rng.integers(0, 256, (values.size // 256, size), np.uint8)
    scale = rng.uniform(1e-4, 2e-4, (len(blocks), 1)).astype(np.float16)
    if kind == "Q6_K":
        blocks[:, 208:] = (scale / 8).view(np.uint8)
    else:
        blocks[:, :2] = scale.view(np.uint8)
        blocks[:, 2:4] = (scale * np.float16(7.5 if kind == "Q4_K" else 15.5)).view(np.uint8)
    return blocks.reshape(*values.shape[:-1], -1)


def write_gguf(path, raw, tensors, kinds=None, tokenizer=None, extra=None, **metadata):
    """Writes the model of a ``config.json`` and its tensors by their Hugging Face names.

    Args:
      raw: the ``config.json``; its ``model_type`` gives the architecture.
      tensors: float32 arrays.
      kinds: tensor name -> type; a plain string is the type of every matrix.
      tokenizer: ``writer -> None``, adds a tokenizer.
      extra: tensors by llama.cpp's names.
      metadata: further keys, or other values of those derived from ``raw``; None leaves one out.
    """
    architecture = {"gemma3_text": "gemma3"}.get(raw["model_type"], raw["model_type"])
    heads, kv_heads = raw["num_attention_heads"], raw["num_key_value_heads"]
    rope = raw.get("rope_parameters") or {"rope_theta": raw.get("rope_theta", 10000.0)}
    local = rope.get("sliding_attention")
    rope = rope.get("full_attention", rope)
    fields = {
        "context_length": raw["max_position_embeddings"],
        "embedding_length": raw["hidden_size"],
        "block_count": raw["num_hidden_layers"],
        "feed_forward_length": raw["intermediate_size"],
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.layer_norm_rms_epsilon": raw["rms_norm_eps"],
        "rope.freq_base": float(rope["rope_theta"]),
        "vocab_size": raw["vocab_size"],
    }
    if architecture == "llama":
        fields["rope.dimension_count"] = raw.get("head_dim") or raw["hidden_size"] // heads
    if raw.get("head_dim"):
        fields |= dict.fromkeys(("attention.key_length", "attention.value_length"), raw["head_dim"])
    if local:
        fields |= {
            "rope.freq_base_swa": float(local["rope_theta"]),
            "attention.sliding_window": raw["sliding_window"],
        }
    if rope.get("rope_type") == "linear":
        fields |= {"rope.scaling.type": "linear", "rope.scaling.factor": float(rope["factor"])}
    if raw.get("final_logit_softcapping"):
        fields["final_logit_softcapping"] = float(raw["final_logit_softcapping"])
    fields = {f"{architecture}.{key}": value for key, value in fields.items()} | metadata

    writer = gguf.GGUFWriter(path, architecture)
    add = {bool: writer.add_bool, int: writer.add_uint32, float: writer.add_float32}
    add |= {str: writer.add_string, list: writer.add_array}
    for key, value in fields.items():
        if value is not None:
            add[type(value)](key, value)
    if tokenizer:
        tokenizer(writer)
    for i, (name, value) in enumerate(tensors.items()):
        for suffix, count in (("q_proj.weight", heads), ("k_proj.weight", kv_heads)):
            if architecture == "llama" and name.endswith(suffix):
                value = permuted(value, count)
        if architecture == "gemma3" and name.endswith("norm.weight"):
            value = value + 1
        kind = kinds if isinstance(kinds, str) else (kinds or {}).get(name, "F32")
        if value.ndim == 1:
            kind = "F32"
        data = encoded(value, kind, seed=i)
        writer.add_tensor(gguf_name(name, architecture), data, raw_dtype=Kind[kind])
    for name, value in (extra or {}).items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


# Models that transformers opens rightly: it takes Gemma-3's scale, pattern and local frequencies
# from its defaults, and knows no rotary scaling. Rows are multiples of a K-quant's 256.
_COMMON = {
    "vocab_size": 48,
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128,
    "tie_word_embeddings": False,
}
MODELS = {
    "llama": {**_COMMON, "model_type": "llama", "rope_theta": 5000.0},
    "qwen2": {**_COMMON, "model_type": "qwen2", "rope_theta": 20000.0, "tie_word_embeddings": True},
    "gemma3": {
        **_COMMON,
        "model_type": "gemma3_text",
        "num_hidden_layers": 7,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 256,
        "query_pre_attn_scalar": 256,
        "sliding_window": 6,
        "layer_types": ["sliding_attention"] * 5 + ["full_attention", "sliding_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 30000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        },
        "hidden_activation": "gelu_pytorch_tanh",
        "tie_word_embeddings": True,
    },
}
TOKENS = np.random.default_rng(7).integers(0, 48, (2, 16), dtype=np.int32)


def random_tensors(raw):
    """Float32 tensors of the model of a ``config.json``, by their Hugging Face names."""
    config = parse_config(raw, "config.json")
    rng = np.random.default_rng(11)
    tensors = {}
    for row in parameter_table(config):
        for i in range(config.num_layers if row.stacked else 1):
            value = rng.normal(0, 0.3 if row.kind == "norm" else 0.05, row.hf_shape)
            value += row.kind == "norm" and config.norm == "rms"
            tensors[row.hf_name.format(i=i)] = value.astype(np.float32)
    return tensors


def add_vocabulary(writer, fields):
    """Adds ``tokenizer.ggml.*`` keys; None leaves one out."""
    arrays = {
        "tokens": writer.add_token_list,
        "token_type": writer.add_token_types,
        "scores": writer.add_token_scores,
        "merges": writer.add_token_merges,
    }
    add = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string}
    for key, value in fields.items():
        if key in arrays and value is not None:
            arrays[key](value)
        elif value is not None:
            add[type(value)](f"tokenizer.ggml.{key}", value)


def write_vocabulary(path, fields, architecture="llama"):
    """Writes a file whose tokenizer alone makes sense."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(16)
    writer.add_embedding_length(32)
    writer.add_block_count(1)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e4)
    add_vocabulary(writer, fields)
    writer.add_tensor("token_embd.weight", np.zeros((len(fields["tokens"]), 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
