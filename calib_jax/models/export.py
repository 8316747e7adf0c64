"""Parameters back into a Hugging Face checkpoint: the parameter table, read the other way round.

Files are written tensor by tensor: their sizes are known from the table, so the header goes first,
and never more than one tensor is in host memory beside the parameters.
"""

import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax.errors import UserError
from calib_jax.models.config import Llama3Rope, ModelConfig
from calib_jax.models.formats.files import safe_path
from calib_jax.models.lora import LoraConfig, merge_weight
from calib_jax.models.rope import frequencies
from calib_jax.models.table import Row, Tree, parameter_table

# What safetensors calls the dtypes that are written.
_DTYPES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}

# A tokenizer's files as the hub has them, and the settings of generation; nothing else is copied.
COPIED = (
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of a safetensors file.

    Attributes:
      name, shape, dtype: what the header says.
      value: called to get the array when its turn comes.
      cast: whether the values come from a wider dtype, and may not fit.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    value: Callable[[], np.ndarray]
    cast: bool = False

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def write_checkpoint(
    folder: Path,
    params: Tree,
    config: ModelConfig,
    dtypes: Callable[[Row], Any],
    *,
    adapters: Tree | None = None,
    lora: LoraConfig | None = None,
    max_shard_bytes: int = 5 * 10**9,
    on_tensor: Callable[[], None] = lambda: None,
) -> None:
    """Writes ``model.safetensors``, or shards with their index, into an existing folder.

    Every process of a pod calls this; process 0 writes, the others take part in gathering.

    Args:
      folder: where to; process 0's.
      params: the parameters, on whatever mesh.
      config: their dimensions.
      dtypes: row -> the dtype of its tensors in the files.
      adapters: to be merged in, in float32 and before the cast; None for none.
      lora: the adapters' settings.
      max_shard_bytes: a file holds no more tensor bytes than this, unless one tensor alone does.
      on_tensor: called after every tensor.

    Raises:
      UserError: a value is not finite, or does not fit into its dtype (float16 ends at 65504).
    """
    entries = [
        _entry(params, row, i, dtype, adapters or {}, lora)
        for row, i, dtype in _order(config, dtypes)
    ]
    shards = shard(entries, max_shard_bytes)
    names = ["model.safetensors"]
    if len(shards) > 1:
        count = len(shards)
        names = [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]
    for name, part in zip(names, shards, strict=True):
        write_safetensors(folder / name, part, on_tensor)
    if len(shards) > 1 and jax.process_index() == 0:
        where = zip(names, shards, strict=True)
        index = {
            "metadata": {
                "total_parameters": sum(math.prod(e.shape) for e in entries),
                "total_size": sum(e.num_bytes for e in entries),
            },
            "weight_map": dict(sorted((e.name, name) for name, part in where for e in part)),
        }
        write_json(folder / "model.safetensors.index.json", index)


def shard(entries: Iterable[Entry], max_bytes: int) -> list[list[Entry]]:
    """Consecutive tensors in parts of at most ``max_bytes``, or of one larger tensor."""
    parts: list[list[Entry]] = [[]]
    size = 0
    for entry in entries:
        if parts[-1] and size + entry.num_bytes > max_bytes:
            parts.append([])
            size = 0
        parts[-1].append(entry)
        size += entry.num_bytes
    return parts


def write_safetensors(
    path: Path, entries: Sequence[Entry], on_tensor: Callable[[], None] = lambda: None
) -> None:
    """Writes one safetensors file from process 0; the values are asked for on every process.

    Raises:
      UserError: a value is not finite, or does not fit into float16.
    """
    # Wide elements first, so that each tensor begins at a multiple of its element's size.
    entries = sorted(entries, key=lambda entry: -entry.dtype.itemsize)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in entries:
        header[entry.name] = {
            "dtype": _DTYPES[entry.dtype.name],
            "shape": list(entry.shape),
            "data_offsets": [offset, offset + entry.num_bytes],
        }
        offset += entry.num_bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    file = path.open("wb") if jax.process_index() == 0 else None
    try:
        if file:
            file.write(len(text).to_bytes(8, "little") + text)
        for entry in entries:
            value = entry.value()
            if value.shape != entry.shape or value.dtype != entry.dtype:
                raise ValueError(
                    f"{entry.name}: {value.dtype}{value.shape} is not what was planned"
                )
            if not np.isfinite(value).all():
                raise UserError(
                    f"tensor {entry.name!r} holds {_what_is_not_finite(entry)} are broken: take "
                    "another checkpoint."
                )
            if file:
                file.write(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
            on_tensor()
    finally:
        if file:
            file.close()


def _what_is_not_finite(entry: Entry) -> str:
    if entry.cast and entry.dtype == np.float16:
        return (
            "values beyond float16's 65504, or NaN. Export with --config.export.dtype=bfloat16 or "
            "float32; if that fails too, the weights"
        )
    return "NaN or infinity: the weights, or the adapter that is merged in,"


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def fetch(
    x: Any,
    layer: int | None,
    dtype: Any = None,
    *,
    transposed: bool = False,
    ab: dict[str, Any] | None = None,
    scale: float = 0.0,
) -> np.ndarray:
    """One layer of a stacked array (or a whole array) on the host of every process.

    Args:
      x: [layers, ...], or [...] where ``layer`` is None.
      layer: which.
      dtype: of the result; None for x's own.
      transposed: whether its two axes are swapped.
      ab: stacked adapter matrices that are added to it in float32.
      scale: of the adapter.
    """
    layout = None
    if not x.is_fully_addressable:  # no process could assemble it from its own devices
        layout = jax.sharding.NamedSharding(x.sharding.mesh, jax.sharding.PartitionSpec())
    take = _take(layout, layer is not None, transposed, jnp.dtype(dtype or x.dtype))
    return np.asarray(take(x, ab, 0 if layer is None else layer, scale))


@functools.cache
def _take(layout: Any, stacked: bool, transposed: bool, dtype: Any) -> Callable[..., jax.Array]:
    def take(x, ab, layer, scale):
        if stacked:
            x, ab = jax.tree.map(
                lambda leaf: jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False), (x, ab)
            )
        if ab is not None:
            x = merge_weight(x, ab["a"], ab["b"], scale)
        return (x.T if transposed else x).astype(dtype)

    return jax.jit(take, out_shardings=layout)


def _order(
    config: ModelConfig, dtypes: Callable[[Row], Any]
) -> Iterable[tuple[Row, int | None, np.dtype]]:
    """Rows layer by layer, in the order of computation, as Hugging Face's files have them."""
    rows = [(row, np.dtype(dtypes(row))) for row in parameter_table(config)]
    stacked = [place for place, (row, _) in enumerate(rows) if row.stacked]
    for row, dtype in rows[: stacked[0]]:
        yield row, None, dtype
    for i in range(config.num_layers):
        for row, dtype in rows[stacked[0] : stacked[-1] + 1]:
            yield row, i, dtype
    for row, dtype in rows[stacked[-1] + 1 :]:
        yield row, None, dtype


def _entry(
    params: Tree,
    row: Row,
    layer: int | None,
    dtype: np.dtype,
    adapters: Tree,
    lora: LoraConfig | None,
) -> Entry:
    x = params["layers"][row.path[-1]] if row.stacked else params[row.path[-1]]
    ab = adapters.get(row.path[-1]) if row.kind == "projection" else None
    options: dict[str, Any] = {
        "transposed": row.transposed,
        "ab": ab,
        "scale": lora.scale if lora else 0.0,
    }
    value = functools.partial(fetch, x, layer, dtype, **options)
    name = row.hf_name.format(i=layer)
    return Entry(name, row.hf_shape, dtype, value, cast=ab is not None or x.dtype != dtype)


def hf_config(raw: dict[str, Any], dtype: str, architecture: str) -> dict[str, Any]:
    """The base's ``config.json``, but for the dtype of the weights.

    Args:
      raw: as read.
      dtype: of the weights, stated where ``raw`` states one; transformers otherwise looks at them.
      architecture: the model's class in transformers, where ``raw`` names none.
    """
    stated = [key for key in ("dtype", "torch_dtype") if key in raw]
    return {"architectures": [architecture], **raw, **dict.fromkeys(stated, dtype)}


def gguf_config(
    raw: dict[str, Any], dtype: str, architecture: str, config: ModelConfig, tokenizer: Any
) -> dict[str, Any]:
    """A ``config.json`` for what was read from a GGUF file.

    Rotary settings get the spelling of transformers 4, which later versions read too; the other
    way round they would silently be taken for the defaults.

    Args:
      raw: the metadata as a ``config.json`` would state them.
      dtype, architecture: see ``hf_config``.
      config: the same, parsed.
      tokenizer: for the ids of the special tokens; None where the file has none.

    Raises:
      UserError: rotary frequencies that no ``config.json`` can express.
    """
    raw = {"architectures": [architecture], **raw, "torch_dtype": dtype}
    rope = raw.pop("rope_parameters")
    if config.rope.factors is not None:
        rope = _as_llama3(config)
    if "full_attention" in rope:
        raw["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    rope = dict(rope)
    raw["rope_theta"] = rope.pop("rope_theta")
    if rope["rope_type"] != "default":
        raw["rope_scaling"] = rope
    for mark in ("bos", "eos", "pad"):
        value = getattr(tokenizer, f"{mark}_token_id", None)
        if value is not None:
            raw[f"{mark}_token_id"] = value
    return raw


def _as_llama3(config: ModelConfig) -> dict[str, Any]:
    """The Llama 3.1 scaling behind a GGUF file's rotary factors, which replaced its settings."""
    factors = config.rope.factors
    assert factors is not None  # asked for where a file states them
    plain = dataclasses.replace(config.rope, factors=None)
    scaling = Llama3Rope(max(factors), 1.0, 4.0, 8192)  # as every release has it
    scaled = dataclasses.replace(plain, llama3=scaling)
    expected = frequencies(plain, config.head_dim) / frequencies(scaled, config.head_dim)
    if not np.allclose(expected, factors, rtol=1e-4):
        raise UserError(
            "the GGUF file's rotary factors (tensor 'rope_freqs.weight') are not those of Llama "
            "3.1's scaling, and a config.json cannot state others; export from the Hugging Face "
            "folder of this model."
        )
    return {
        "rope_type": "llama3",
        "rope_theta": config.rope.theta,
        "factor": scaling.factor,
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_max_length,
    }


def copy_files(base: Path, folder: Path) -> list[str]:
    """Copies tokenizer and generation settings of a Hugging Face folder; returns their names.

    Raises:
      UserError: one of them links out of the folder.
    """
    copied = []
    for name in COPIED:
        path = safe_path(base, name)
        if path.is_file():
            (folder / name).write_bytes(path.read_bytes())
            copied.append(name)
    return copied
