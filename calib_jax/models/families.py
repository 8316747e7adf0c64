"""What sets the supported families apart in ``config.json``, as tables.

An attribute is read (``COMMON``, ``Family.attributes``), harmless (``HARMLESS``), computed for
one value only (``ONLY``, ``Family.only``), or refused by name.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

_QKV = ("q_proj", "k_proj", "v_proj")
_ATTENTION = {"attention_bias": (*_QKV, "o_proj")}


# transformers' names of the activations -> ours.
_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}


@dataclasses.dataclass(frozen=True)
class Family:
    """One ``model_type``.

    Attributes:
      architecture: the language model's class, as ``architectures`` names it.
      attributes: what this family reads beside ``COMMON``, with the value that transformers gives
        an absent one.
      traits: fields of ``ModelConfig`` that are the same for every model of the family.
      biases: a switch among the attributes -> the projections that it gives a bias.
      activation: the attribute that names it.
      activations: the names that it may have -> ours.
      epsilon: the attribute that holds the norms' epsilon, or the number itself.
      windows: the layers that slide when ``layer_types`` does not say: "none", "every", "upper"
        (from ``max_window_layers`` on), "alternate" (from the first one on), "pattern" (all but
        each ``sliding_window_pattern``-th).
      layer_types: whether the family honours that attribute.
      theta, fraction: attributes of the old spelling that hold the base of the rotary frequencies
        and the share of channels that turn, with their defaults.
      local_theta: the same for the sliding layers where their rotary settings are their own.
      only: attributes that transformers does not read here, and the values that agree with what
        it computes.
      checked: attributes that only repeat another one, and must agree with it.
    """

    architecture: str
    attributes: Mapping[str, Any]
    traits: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    biases: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    activation: str = "hidden_act"
    activations: Mapping[str, str] = dataclasses.field(default_factory=lambda: _ACTIVATIONS)
    epsilon: str | float = "rms_norm_eps"
    windows: str = "none"
    layer_types: bool = False
    theta: tuple[str, float] = ("rope_theta", 10000.0)
    fraction: tuple[str, float] | None = None
    local_theta: tuple[str, float] | None = None
    only: Mapping[str, tuple[Any, ...]] = dataclasses.field(default_factory=dict)
    checked: tuple[str, ...] = ()


_SILU = {"hidden_act": "silu", "rms_norm_eps": 1e-6}
_QWEN = {
    **_SILU,
    "max_position_embeddings": 32768,
    "num_key_value_heads": 32,
    "use_sliding_window": False,
    "sliding_window": 4096,
    "max_window_layers": 28,
}
_GEMMA = {
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 8192,
    "head_dim": 256,
    "tie_word_embeddings": True,
    "attention_bias": False,
}
_GEMMA2 = {
    **_GEMMA,
    "hidden_activation": "gelu_pytorch_tanh",
    "num_key_value_heads": 4,
    "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}
_GEMMA_TRAITS = {"norm": "rms_unit_offset", "scale_embeddings": True}

FAMILIES = {
    "llama": Family(
        "LlamaForCausalLM",
        {**_SILU, "max_position_embeddings": 2048, "attention_bias": False, "mlp_bias": False},
        biases={**_ATTENTION, "mlp_bias": ("gate_proj", "up_proj", "down_proj")},
    ),
    "mistral": Family(
        "MistralForCausalLM",
        # An absent sliding_window means 4096 to transformers; null means none.
        {
            **_SILU,
            "max_position_embeddings": 131072,
            "num_key_value_heads": 8,
            "sliding_window": 4096,
        },
        windows="every",
    ),
    "qwen2": Family(
        "Qwen2ForCausalLM",
        _QWEN,
        traits={"biases": _QKV},
        windows="upper",
        layer_types=True,
    ),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        {**_QWEN, "head_dim": 128, "attention_bias": False},
        traits={"qk_norm": "head"},
        biases=_ATTENTION,
        windows="upper",
        layer_types=True,
    ),
    "gemma": Family(
        "GemmaForCausalLM",
        {**_GEMMA, "hidden_act": "gelu_pytorch_tanh", "num_key_value_heads": 16},
        traits=_GEMMA_TRAITS,
        biases=_ATTENTION,
        # The first files say "gelu" and mean the approximation, which transformers puts there.
        activations={**_ACTIVATIONS, "gelu": "gelu_tanh"},
        only={"hidden_activation": (None, "gelu_pytorch_tanh")},
    ),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        {**_GEMMA2, "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0},
        traits={**_GEMMA_TRAITS, "block": "sandwich"},
        biases=_ATTENTION,
        activation="hidden_activation",
        windows="alternate",
        layer_types=True,
        only={"hidden_act": ("gelu_pytorch_tanh",), "sliding_window_pattern": (2,)},
        checked=("sliding_window_size",),
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        {
            **_GEMMA2,
            "max_position_embeddings": 131072,
            "final_logit_softcapping": None,
            "sliding_window_pattern": 6,
        },
        traits={**_GEMMA_TRAITS, "block": "sandwich", "qk_norm": "head"},
        biases=_ATTENTION,
        activation="hidden_activation",
        windows="pattern",
        layer_types=True,
        theta=("rope_theta", 1e6),
        local_theta=("rope_local_base_freq", 10000.0),
        # transformers reads attn_logit_softcapping and then leaves it out of the computation.
        only={"hidden_act": ("gelu_pytorch_tanh",), "attn_logit_softcapping": (None,)},
        checked=("_sliding_window_pattern",),
    ),
    "olmo": Family(
        "OlmoForCausalLM",
        {
            "hidden_act": "silu",
            "max_position_embeddings": 2048,
            "attention_bias": False,
            "clip_qkv": None,
        },
        traits={"norm": "layer_plain"},
        biases=_ATTENTION,
        epsilon=1e-5,
    ),
    "olmo2": Family(
        "Olmo2ForCausalLM",
        {
            "hidden_act": "silu",
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 2048,
            "attention_bias": False,
        },
        traits={"block": "post", "qk_norm": "projection"},
        biases=_ATTENTION,
    ),
    "gpt_neox": Family(
        "GPTNeoXForCausalLM",
        {
            "hidden_act": "gelu",
            "layer_norm_eps": 1e-5,
            "max_position_embeddings": 2048,
            "attention_bias": True,
            "use_parallel_residual": True,
        },
        traits={
            "norm": "layer",
            "gated": False,
            "fused_qkv": True,
            "biases": ("up_proj", "down_proj"),
        },
        biases={"attention_bias": ("qkv_proj", "o_proj")},
        epsilon="layer_norm_eps",
        theta=("rotary_emb_base", 10000.0),
        fraction=("rotary_pct", 0.25),
    ),
}

# Attributes that change the computation of every family.
COMMON = {
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "tie_word_embeddings",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "partial_rotary_factor",
    "layer_types",
}

# Attributes that would change the computation, and the only values that we compute.
ONLY: dict[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
    "pruned_heads": (None, {}),
    "per_layer_config": (None,),
    "mlp_layer_types": (None,),
    "rope_interleaved": (None, False),
    "use_bidirectional_attention": (None, False),
    "use_mrope": (None, False),
}

# What is said of weights with a quantization_config.
QUANTIZED = (
    "the weights are quantised in a way that is not read here (AWQ, GPTQ, bitsandbytes, FP8, ...). "
    "Give the checkpoint that they were made from, or a .gguf file of it; to hold its weights in 8 "
    "or 4 bits, add --config.model.quantize=int8 or nf4."
)

# Attributes that do not change the logits of a forward pass.
HARMLESS = {
    # Where the file comes from and how its tensors are stored and computed.
    "_attn_implementation",
    "_attn_implementation_autoset",
    "_commit_hash",
    "_name_or_path",
    "architectures",
    "attn_implementation",
    "auto_map",
    "chunk_size_feed_forward",
    "dtype",
    "is_decoder",
    "is_llama_config",
    "max_sequence_length",
    "name_or_path",
    "pretraining_tp",  # splits a matrix product into the same sums
    "tokenizer_class",
    "torch_dtype",
    "torchscript",
    "transformers.js_config",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_bfloat16",
    # Training only; transformers' eval mode turns dropout off.
    "attention_dropout",
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "hidden_dropout",
    "hidden_dropout_prob",
    "initializer_range",
    "gradient_checkpointing",
    # Outputs, and heads other than the language model's.
    "finetuning_task",
    "id2label",
    "label2id",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "task_specific_params",
    "tie_encoder_decoder",
    "tie_last_hidden_states",
    "use_return_dict",
    # Tokens and generation.
    "bad_words_ids",
    "begin_suppress_tokens",
    "bos_token_id",
    "cache_implementation",
    "cross_attention_hidden_size",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_scores",
    "pad_token_id",
    "prefix",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict_in_generate",
    "sep_token_id",
    "suppress_tokens",
    "temperature",
    "tf_legacy_loss",
    "top_k",
    "top_p",
    "typical_p",
    "use_cache",
}
