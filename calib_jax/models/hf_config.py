"""Reads a decoder's dimensions strictly from a Hugging Face ``config.json``.

Wrong-but-fluent logits are the failure that ruins a calibration figure, so every attribute of a
``config.json`` is either handled, known not to change the computation, or refused by name.
"""

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from calib_jax.errors import UserError
from calib_jax.models.config import Llama3Rope, ModelConfig, Rope


@dataclasses.dataclass(frozen=True)
class Family:
    """What sets one ``model_type`` apart: fixed traits, and the defaults of absent attributes."""

    architecture: str
    traits: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    defaults: Mapping[str, Any] = dataclasses.field(default_factory=dict)


FAMILIES = {
    "llama": Family(
        "LlamaForCausalLM",
        defaults={"rms_norm_eps": 1e-6, "max_position_embeddings": 2048},
    ),
    "mistral": Family(
        "MistralForCausalLM",
        # An absent sliding_window means 4096 to transformers; null means none.
        defaults={
            "rms_norm_eps": 1e-6,
            "max_position_embeddings": 131072,
            "num_key_value_heads": 8,
            "sliding_window": 4096,
        },
    ),
    "olmo2": Family(
        "Olmo2ForCausalLM",
        traits={"block": "post", "qk_norm": "projection"},
        defaults={"rms_norm_eps": 1e-5, "max_position_embeddings": 2048},
    ),
}

# Attributes that change the computation and are read below.
_HANDLED = {
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rms_norm_eps",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "tie_word_embeddings",
    "max_position_embeddings",
    "sliding_window",
}

# Attributes that would change the computation, and the only values that we compute.
_ONLY = {
    "hidden_act": ("silu",),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "quantization_config": (None,),
    "partial_rotary_factor": (None, 1.0),
    "clip_qkv": (None,),
    "rope_interleaved": (False,),
}

# Attributes that do not change the logits of a forward pass; those of generation among them.
_HARMLESS = {
    "do_sample",
    "max_length",
    "max_new_tokens",
    "num_beams",
    "repetition_penalty",
    "temperature",
    "top_k",
    "top_p",
    "_name_or_path",
    "_attn_implementation_autoset",
    "architectures",
    "attention_dropout",  # training only; every released model of these families has 0
    "auto_map",
    "bos_token_id",
    "chunk_size_feed_forward",
    "dtype",
    "eos_token_id",
    "finetuning_task",
    "id2label",
    "initializer_range",
    "is_llama_config",
    "label2id",
    "max_sequence_length",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "pretraining_tp",  # splits a matrix product into the same sums
    "problem_type",
    "return_dict",
    "torch_dtype",
    "transformers.js_config",
    "transformers_version",
    "unsloth_fixed",
    "unsloth_version",
    "use_cache",
}


def read_config(folder: Path) -> dict[str, Any]:
    """Reads ``folder/config.json``; raises UserError when it is missing or not a JSON object."""
    path = folder / "config.json"
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file. A Hugging Face model folder holds config.json, "
            "*.safetensors and the tokenizer's files."
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}). Download the file again.") from None
    if not isinstance(raw, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(raw).__name__}.")
    return raw


def parse_config(raw: Mapping[str, Any], where: str) -> ModelConfig:
    """Turns the contents of a ``config.json`` into a ModelConfig.

    Both spellings of the rotary settings are read: ``rope_theta`` with ``rope_scaling``
    (transformers 4) and ``rope_parameters`` (transformers 5).

    Args:
      raw: the parsed JSON object.
      where: the file's name, for messages.

    Raises:
      UserError: an unknown architecture, a missing attribute, or an attribute that changes the
        computation in a way that this decoder does not compute.
    """
    model_type = raw.get("model_type")
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        named = raw.get("architectures") or model_type
        named = named[0] if isinstance(named, list) else named
        raise UserError(
            f"{where}: architecture {named!r} (model_type {model_type!r}) is not supported. "
            f"Supported model types: {', '.join(sorted(FAMILIES))}."
        )
    family = FAMILIES[model_type]
    architectures = raw.get("architectures") or [family.architecture]
    if architectures != [family.architecture]:
        raise UserError(
            f"{where}: 'architectures' is {architectures}, but a {model_type} language model is "
            f"{family.architecture!r}; other heads (classification, reward) have no option letters."
        )
    for key, value in raw.items():
        if key in _ONLY:
            if value not in _ONLY[key]:
                raise UserError(
                    f"{where}: attribute {key!r} is {value!r}, and only {_ONLY[key][-1]!r} is "
                    "computed here; the logits would be wrong."
                )
        elif key not in _HANDLED and key not in _HARMLESS:
            raise UserError(
                f"{where}: attribute {key!r} = {value!r} is not handled. If it does not change "
                "the computation, remove it from config.json; otherwise this model cannot be "
                "computed faithfully."
            )

    def get(key: str) -> Any:
        value = raw.get(key, family.defaults.get(key))
        if value is None:
            raise UserError(f"{where}: attribute {key!r} is missing.")
        return value

    num_heads = _positive_int(get("num_attention_heads"), "num_attention_heads", where)
    hidden = _positive_int(get("hidden_size"), "hidden_size", where)
    kv_heads = raw.get("num_key_value_heads", family.defaults.get("num_key_value_heads"))
    kv_heads = num_heads if kv_heads is None else kv_heads
    theta, scaling = _parse_rope(raw, where)
    window = raw.get("sliding_window", family.defaults.get("sliding_window"))
    num_layers = _positive_int(get("num_hidden_layers"), "num_hidden_layers", where)
    config = ModelConfig(
        family=model_type,
        vocab_size=_positive_int(get("vocab_size"), "vocab_size", where),
        hidden_size=hidden,
        intermediate_size=_positive_int(get("intermediate_size"), "intermediate_size", where),
        num_layers=num_layers,
        num_heads=num_heads,
        num_kv_heads=_positive_int(kv_heads, "num_key_value_heads", where),
        head_dim=_positive_int(
            hidden // num_heads if raw.get("head_dim") is None else raw["head_dim"],
            "head_dim",
            where,
        ),
        norm_eps=_positive_float(get("rms_norm_eps"), "rms_norm_eps", where),
        rope=Rope(theta, llama3=scaling),
        tie_embeddings=_boolean(raw.get("tie_word_embeddings"), "tie_word_embeddings", where),
        max_length=_positive_int(get("max_position_embeddings"), "max_position_embeddings", where),
        sliding_window=window,
        sliding_layers=() if window is None else (True,) * num_layers,
        **family.traits,
    )
    if config.num_heads % config.num_kv_heads:
        raise UserError(
            f"{where}: num_attention_heads {config.num_heads} is not a multiple of "
            f"num_key_value_heads {config.num_kv_heads}."
        )
    if config.head_dim % 2:
        raise UserError(
            f"{where}: attribute 'head_dim' is {config.head_dim}; rotary channels come in pairs, "
            "so it must be even."
        )
    if config.sliding_window is not None:
        if model_type != "mistral":
            raise UserError(
                f"{where}: attribute 'sliding_window' is not handled for {model_type!r}."
            )
        _positive_int(config.sliding_window, "sliding_window", where)
    return config


def _positive_int(value: Any, key: str, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{where}: attribute {key!r} is {value!r}; expected a positive integer.")
    return value


def _positive_float(value: Any, key: str, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise UserError(f"{where}: attribute {key!r} is {value!r}; expected a positive number.")
    return float(value)


def _boolean(value: Any, key: str, where: str) -> bool:
    if value not in (None, False, True):
        raise UserError(f"{where}: attribute {key!r} is {value!r}; expected true or false.")
    return bool(value)


def _parse_rope(raw: Mapping[str, Any], where: str) -> tuple[float, Llama3Rope | None]:
    """Reads the rotary settings from either spelling; refuses every type but default and llama3."""
    spellings = {key: raw[key] for key in ("rope_parameters", "rope_scaling") if raw.get(key)}
    for key, value in spellings.items():
        if not isinstance(value, Mapping):
            raise UserError(f"{where}: attribute {key!r} is {value!r}; expected an object.")
    if len(spellings) == 2 and spellings["rope_parameters"] != spellings["rope_scaling"]:
        raise UserError(
            f"{where}: 'rope_parameters' and 'rope_scaling' are both given and differ; remove the "
            "wrong one."
        )
    rope = dict(next(iter(spellings.values()), {}))
    theta = rope.pop("rope_theta", raw.get("rope_theta", 10000.0))
    if raw.get("rope_theta", theta) != theta:
        raise UserError(
            f"{where}: rope_theta is {raw['rope_theta']} at the top and {theta} in "
            "rope_parameters; remove the wrong one."
        )
    # Very old files say "type".
    rope_type = rope.pop("rope_type", rope.pop("type", "default"))
    rope.pop("type", None)
    if rope_type == "default":
        known: set[str] = set()
    elif rope_type == "llama3":
        known = {
            "factor",
            "low_freq_factor",
            "high_freq_factor",
            "original_max_position_embeddings",
        }
    else:
        raise UserError(
            f"{where}: rope type {rope_type!r} is not handled (default and llama3 are)."
        )
    if rope.get("partial_rotary_factor", 1.0) == 1.0:
        rope.pop("partial_rotary_factor", None)
    if unknown := set(rope) - known:
        raise UserError(f"{where}: rotary attribute {sorted(unknown)[0]!r} is not handled.")
    if missing := known - set(rope):
        raise UserError(f"{where}: rotary attribute {sorted(missing)[0]!r} is missing.")
    theta = _positive_float(theta, "rope_theta", where)
    if rope_type == "default":
        return theta, None
    length = "original_max_position_embeddings"
    scaling = Llama3Rope(
        factor=_positive_float(rope["factor"], "factor", where),
        low_freq_factor=_positive_float(rope["low_freq_factor"], "low_freq_factor", where),
        high_freq_factor=_positive_float(rope["high_freq_factor"], "high_freq_factor", where),
        original_max_length=_positive_int(rope[length], length, where),
    )
    if scaling.high_freq_factor <= scaling.low_freq_factor:
        raise UserError(
            f"{where}: rotary attribute 'high_freq_factor' is {scaling.high_freq_factor}; expected "
            f"more than 'low_freq_factor', {scaling.low_freq_factor}."
        )
    return theta, scaling
