"""A GGUF file's metadata as the ``config.json`` of the same model would state them."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from calib_jax.errors import UserError

# llama.cpp's tensor names, and the Hugging Face ones that the parameter table speaks.
_OUTER = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_LAYER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_LAYER_SANDWICH = {
    **_LAYER,
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}

# Metadata of an architecture, ``<architecture>.<key>``, that is read below.
_HANDLED = {
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "rope.freq_base",
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.factor",
    "vocab_size",
}
# What would change the computation, and the only values that we compute.
_ONLY = {
    "attention.causal": (True,),
    "expert_count": (0,),
    "expert_used_count": (0,),
    # How q and k are permuted: as llama.cpp's converter does it, whatever this says.
    "tensor_data_layout": ("Meta AI original pth",),
}
# Read by the YaRN scaling alone, which is refused.
_HARMLESS = {"rope.scaling.original_context_length", "rope.scaling.finetuned"}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """What sets one ``general.architecture`` apart.

    Attributes:
      model_type: of the ``config.json`` of the same model.
      layer: names of a layer's tensors.
      handled: metadata beyond ``_HANDLED``.
      permuted: whether the rows of q and k are permuted, so that rotary channels are interleaved.
      shifted_norms: whether norms are stored as 1 + w.
    """

    model_type: str
    layer: Mapping[str, str]
    handled: frozenset[str] = frozenset()
    permuted: bool = False
    shifted_norms: bool = False

    def hf_name(self, name: str) -> str:
        """The Hugging Face name of a tensor; its own where there is none."""
        if name in _OUTER:
            return _OUTER[name]
        parts = name.split(".")
        known = len(parts) == 4 and parts[0] == "blk" and parts[2] in self.layer
        # A bias of permuted rows would be permuted too; no "llama" model that we compute has one.
        if known and (parts[3] == "weight" or not self.permuted):
            return f"model.layers.{parts[1]}.{self.layer[parts[2]]}.{parts[3]}"
        return name

    def is_shifted(self, name: str) -> bool:
        """Whether the tensor of this Hugging Face name is a norm stored as 1 + w."""
        return self.shifted_norms and name.endswith("norm.weight")


_ARCHITECTURES = {
    "llama": Architecture("llama", _LAYER, permuted=True),
    "qwen2": Architecture("qwen2", _LAYER),
    "gemma3": Architecture(
        "gemma3_text",
        _LAYER_SANDWICH,
        frozenset(
            {
                "attention.sliding_window",
                "attention.sliding_window_pattern",
                "rope.freq_base_swa",
                "final_logit_softcapping",
            }
        ),
        shifted_norms=True,
    ),
}
FREQUENCIES = "rope_freqs.weight"
_PATTERN = "attention.sliding_window_pattern"


def architecture_of(fields: Mapping[str, Any], where: str) -> Architecture:
    """The architecture that a file states.

    Raises:
      UserError: it is not handled, or the file is one part of several or no model at all.
    """
    kind, parts = fields.get("general.type", "model"), fields.get("split.count", 0)
    if kind != "model":
        raise UserError(f"{where}: 'general.type' is {_short(kind)}; only a whole model is read.")
    if parts not in (0, 1):
        raise UserError(
            f"{where}: one of {_short(parts)} parts ('split.count'). Join them with "
            "`llama-gguf-split --merge` and give the result."
        )
    name = fields.get("general.architecture")
    if not isinstance(name, str) or name not in _ARCHITECTURES:
        raise UserError(
            f"{where}: architecture {_short(name)} is not supported; GGUF files of architectures "
            f"{', '.join(map(repr, _ARCHITECTURES))} are read."
        )
    return _ARCHITECTURES[name]


def config_json(
    fields: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    factors: np.ndarray | None,
    where: str,
) -> dict[str, Any]:
    """The metadata in the spelling of a ``config.json``, for ``parse_config``.

    Args:
      fields: the metadata.
      shapes: of the tensors, by Hugging Face names.
      factors: a divisor for each rotary frequency, where the file has them. The result then
        states the rotary type "factors", which no real ``config.json`` has.
      where: the file's name, for messages.

    Raises:
      UserError: a key of the architecture that is not handled, is missing or makes no sense.
    """
    metadata = _Metadata(fields, where)
    metadata.check_known()
    heads, hidden = metadata.integer("attention.head_count"), metadata.integer("embedding_length")
    head_dim = metadata.integer("attention.key_length", hidden // heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if metadata.get(key, head_dim) != head_dim:
            metadata.fail(key, f"the head size, {head_dim}")
    layers = metadata.integer("block_count")
    if layers > len(shapes):
        metadata.fail("block_count", f"no more layers than the {len(shapes)} tensors")
    embedding = "model.embed_tokens.weight"
    if embedding not in shapes:
        raise UserError(f"{where}: tensor 'token_embd.weight' is missing.")
    config = {
        "model_type": metadata.architecture.model_type,
        "vocab_size": shapes[embedding][0],
        "hidden_size": hidden,
        "intermediate_size": metadata.integer("feed_forward_length"),
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.integer("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "rms_norm_eps": metadata.get("attention.layer_norm_rms_epsilon"),
        "tie_word_embeddings": "lm_head.weight" not in shapes,
        "max_position_embeddings": metadata.integer("context_length"),
    }
    if config["model_type"] == "gemma3_text":
        # The converter cuts the embedding's unused rows off and leaves vocab_size as it was.
        return config | _gemma3(metadata, config)
    if metadata.get("vocab_size", config["vocab_size"]) != config["vocab_size"]:
        metadata.fail("vocab_size", f"the rows of the embedding, {config['vocab_size']}")
    return config | {"rope_parameters": _rope(metadata, head_dim, factors)}


def _gemma3(metadata: "_Metadata", config: Mapping[str, Any]) -> dict[str, Any]:
    """Gemma-3's windows, its two rotary settings, and what llama.cpp knows without metadata."""
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    window, pattern = metadata.integer("attention.sliding_window", 0), _PATTERN
    slides = metadata.get(pattern, 6)
    if not isinstance(slides, list):
        period = metadata.integer(pattern) if metadata.has(pattern) else 6
        slides = [(i + 1) % period != 0 for i in range(layers)]
    if len(slides) != layers:
        metadata.fail(pattern, f"an entry for each of {layers} layers")
    # The 27B model is the one of 62 layers (so llama.cpp tells it); there the scale is not 1/√C.
    scalar = config["hidden_size"] // heads if layers == 62 else config["head_dim"]
    return {
        "rope_parameters": {
            "full_attention": _rope(metadata, config["head_dim"], None),
            "sliding_attention": {
                "rope_type": "default",
                "rope_theta": metadata.get("rope.freq_base_swa", 10000.0),
            },
        },
        "sliding_window": window or None,
        "layer_types": [
            "sliding_attention" if window and slide else "full_attention" for slide in slides
        ],
        "query_pre_attn_scalar": scalar,
        "final_logit_softcapping": metadata.get("final_logit_softcapping", 0.0) or None,
        "hidden_activation": "gelu_pytorch_tanh",
    }


def _rope(metadata: "_Metadata", head_dim: int, factors: np.ndarray | None) -> dict[str, Any]:
    """The rotary settings in the spelling of ``rope_parameters``."""
    theta = {"rope_theta": metadata.get("rope.freq_base", 10000.0)}
    kind = metadata.get("rope.scaling.type", "none")
    if kind not in ("none", "linear"):
        metadata.fail("rope.scaling.type", "'none' or 'linear'; other scalings are not handled")
    factor = metadata.get("rope.scaling.factor", 1.0) if kind == "linear" else 1.0
    if factors is not None:
        if factor != 1.0 or factors.shape != (head_dim // 2,):
            raise UserError(
                f"{metadata.where}: tensor {FREQUENCIES!r} has shape {factors.shape} and the "
                f"linear factor is {_short(factor)}; expected {head_dim // 2} factors alone."
            )
        if not (np.isfinite(factors) & (factors > 0)).all():
            raise UserError(
                f"{metadata.where}: tensor {FREQUENCIES!r} holds numbers that are not positive. "
                "Download the file again."
            )
        return {"rope_type": "factors", "factors": factors.tolist(), **theta}
    if factor != 1.0:
        return {"rope_type": "linear", "factor": factor, **theta}
    return {"rope_type": "default", **theta}


class _Metadata:
    """The keys of a file's architecture."""

    def __init__(self, fields: Mapping[str, Any], where: str):
        self.where = where
        self.architecture = architecture_of(fields, where)
        self._fields = fields
        self._prefix = f"{fields['general.architecture']}."

    def check_known(self) -> None:
        """Raises UserError for a key that nothing here reads."""
        known = _HANDLED | _HARMLESS | self.architecture.handled
        for key, value in self._fields.items():
            if not key.startswith(self._prefix):
                continue
            rest = key.removeprefix(self._prefix)
            if rest not in known and value not in _ONLY.get(rest, ()):
                raise UserError(
                    f"{self.where}: metadata key {key!r} = {_short(value)} is not "
                    "handled; without it the logits would be wrong."
                )

    def has(self, key: str) -> bool:
        return self._prefix + key in self._fields

    def get(self, key: str, default: Any = None) -> Any:
        """The value under ``key``; raises UserError where there is none and no default."""
        value = self._fields.get(self._prefix + key, default)
        if value is None:
            raise UserError(f"{self.where}: metadata key '{self._prefix}{key}' is missing.")
        # What was 1e-05 before it was stored as a float32 is that again, not 9.99999974e-06.
        return float(str(np.float32(value))) if isinstance(value, float) else value

    def integer(self, key: str, default: int | None = None) -> int:
        """A positive integer; zero too, where there is a default."""
        value = self.get(key, default)
        if type(value) is not int or value < (1 if default is None else 0):
            self.fail(key, "a positive integer")
        return value

    def fail(self, key: str, expected: str) -> None:
        raise UserError(
            f"{self.where}: metadata key '{self._prefix}{key}' is {_short(self.get(key))}; "
            f"expected {expected}."
        )


def _short(value: Any) -> str:
    """A value out of an untrusted file, short enough for a message."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
