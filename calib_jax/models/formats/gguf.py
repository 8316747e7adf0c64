"""Reads the weights and dimensions of a llama.cpp GGUF file."""

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf.quants import dequantize

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

_TYPES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")

# Metadata of the architecture that is read below; any other ``llama.*`` key is refused by name.
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
    "vocab_size",
}


class GgufSource:
    """The tensors of a GGUF file under their Hugging Face names, dequantised to float32 as read.

    llama.cpp stores the rows of Llama's q and k projections permuted, so that rotary channels are
    interleaved; reading undoes it.

    Raises:
      UserError: not a GGUF file, a truncated one, another architecture than llama, a metadata key
        or a tensor type that is not handled.
    """

    def __init__(self, path: Path):
        self.path = path
        self.files = [path]
        try:
            reader = gguf.GGUFReader(path)
        except FileNotFoundError:
            raise UserError(f"{path}: no such file.") from None
        except (ValueError, IndexError, KeyError, OSError, OverflowError) as error:
            raise UserError(
                f"{path}: not a complete GGUF file ({error}). Download it again."
            ) from None
        size = path.stat().st_size
        for tensor in reader.tensors:
            if tensor.data_offset + tensor.n_bytes > size:
                raise UserError(
                    f"{path}: truncated; tensor {tensor.name!r} ends at byte "
                    f"{tensor.data_offset + tensor.n_bytes} of {size}. Download it again."
                )
        self.fields = reader.fields
        self._tensors = {_hf_name(t.name): t for t in reader.tensors}
        for name, tensor in self._tensors.items():
            if tensor.tensor_type.name not in _TYPES:
                raise UserError(
                    f"{path}: tensor {name!r} has type {tensor.tensor_type.name}; "
                    f"{', '.join(_TYPES)} are read."
                )
        self.config = self._config()
        self._heads = {
            "self_attn.q_proj": self.config["num_attention_heads"],
            "self_attn.k_proj": self.config["num_key_value_heads"],
        }

    def field(self, key: str, default: Any = None) -> Any:
        """A metadata value as Python's own type, or ``default`` where the file lacks the key."""
        try:
            return self.fields[key].contents() if key in self.fields else default
        except (UnicodeDecodeError, IndexError) as error:
            raise UserError(
                f"{self.path}: metadata key {key!r} is damaged ({error}). Download the file again."
            ) from None

    def _config(self) -> dict[str, Any]:
        """The metadata as the ``config.json`` of the same model would state it."""
        architecture = self.field("general.architecture")
        if architecture != "llama":
            raise UserError(
                f"{self.path}: architecture {architecture!r} is not supported; GGUF files of "
                "architecture 'llama' are read."
            )
        for key in self.fields:
            if key.startswith("llama.") and key.removeprefix("llama.") not in _HANDLED:
                raise UserError(
                    f"{self.path}: metadata key {key!r} = {self.field(key)!r} is not handled."
                )

        def get(key: str) -> Any:
            value = self.field(f"llama.{key}")
            if value is None:
                raise UserError(f"{self.path}: metadata key 'llama.{key}' is missing.")
            return value

        heads = get("attention.head_count")
        head_dim = self.field("llama.attention.key_length", get("embedding_length") // heads)
        for key in ("attention.value_length", "rope.dimension_count"):
            if self.field(f"llama.{key}", head_dim) != head_dim:
                raise UserError(f"{self.path}: 'llama.{key}' differs from the head size.")
        if "rope_freqs.weight" in self._tensors:
            raise UserError(
                f"{self.path}: scaled rotary frequencies (tensor 'rope_freqs.weight') are not "
                "read from GGUF; use the Hugging Face folder of this model."
            )
        embedding = "model.embed_tokens.weight"
        if embedding not in self._tensors:
            raise UserError(f"{self.path}: tensor 'token_embd.weight' is missing.")
        return {
            "model_type": "llama",
            "vocab_size": self.field("llama.vocab_size", self.shape(embedding)[0]),
            "hidden_size": get("embedding_length"),
            "intermediate_size": get("feed_forward_length"),
            "num_hidden_layers": get("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": self.field("llama.attention.head_count_kv", heads),
            "head_dim": head_dim,
            "rms_norm_eps": get("attention.layer_norm_rms_epsilon"),
            "rope_theta": self.field("llama.rope.freq_base", 10000.0),
            "tie_word_embeddings": "lm_head.weight" not in self._tensors,
            "max_position_embeddings": get("context_length"),
        }

    def names(self) -> set[str]:
        return set(self._tensors)

    def where(self, name: str) -> str:
        return str(self.path)

    def shape(self, name: str) -> tuple[int, ...]:
        # GGUF lists the fastest axis first.
        return tuple(int(n) for n in reversed(self._tensors[name].shape))

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """The slice of a tensor that ``index`` names, in float32.

        Blocks of a quantised tensor lie along its last axis, so rows are dequantised whole and
        then cut.
        """
        tensor = self._tensors[name]
        rows = np.arange(self.shape(name)[0])[index[0]]
        for suffix, heads in self._heads.items():
            if f".{suffix}." in name:
                rows = _permuted_rows(self.shape(name)[0], heads)[rows]
        data = tensor.data[rows]
        values = dequantize(data, tensor.tensor_type).astype(np.float32, copy=False)
        return values[(slice(None), *index[1:])]


def _permuted_rows(size: int, heads: int) -> np.ndarray:
    """Where llama.cpp put each row: within a head, channel i of half h is stored at 2 i + h."""
    per_head = size // heads
    row = np.arange(size)
    head, channel = row // per_head, row % per_head
    half, i = channel // (per_head // 2), channel % (per_head // 2)
    return head * per_head + 2 * i + half


def _hf_name(name: str) -> str:
    if name in _OUTER:
        return _OUTER[name]
    parts = name.split(".")
    if len(parts) == 4 and parts[0] == "blk" and parts[2] in _LAYER:
        return f"model.layers.{parts[1]}.{_LAYER[parts[2]]}.{parts[3]}"
    return name
