"""The table of a decoder's parameters: one row each, from which everything else is derived.

The decoder declares its parameters from these rows, the loader finds a tensor's name and layout in
them, the export writes them back, and ``parallel.sharding`` turns their logical axes into a mesh
layout.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax

from calib_jax.models.config import ModelConfig

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """One parameter.

    Attributes:
      path: place in the parameter tree, ``layers/...`` for those stacked over layers.
      hf_name: the tensor's name in a Hugging Face checkpoint, ``{i}`` standing for the layer.
      shape: of one layer's parameter, in our layout (a projection is [in, out]).
      axes: logical axis names of ``shape``.
      kind: "embedding" (the LM head too), "projection", "norm" or "bias".
    """

    path: tuple[str, ...]
    hf_name: str
    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    kind: str

    @property
    def stacked(self) -> bool:
        return self.path[0] == "layers"

    @property
    def transposed(self) -> bool:
        """Whether the checkpoint holds the transpose ([out, in], as torch.nn.Linear does)."""
        return self.kind == "projection"

    @property
    def hf_shape(self) -> tuple[int, ...]:
        """The shape of one layer's tensor in a checkpoint."""
        return self.shape[::-1] if self.transposed else self.shape


@dataclasses.dataclass(frozen=True)
class _Names:
    """Names of a family's modules: the model, a layer, and ours -> theirs inside a layer."""

    embed: str
    layer: str
    final_norm: str
    lm_head: str
    modules: dict[str, str]


_LLAMA = _Names(
    "model.embed_tokens",
    "model.layers.{i}.",
    "model.norm",
    "lm_head",
    {
        "q_proj": "self_attn.q_proj",
        "k_proj": "self_attn.k_proj",
        "v_proj": "self_attn.v_proj",
        "q_norm": "self_attn.q_norm",
        "k_norm": "self_attn.k_norm",
        "o_proj": "self_attn.o_proj",
        "gate_proj": "mlp.gate_proj",
        "up_proj": "mlp.up_proj",
        "down_proj": "mlp.down_proj",
    },
)
_GPT_NEOX = _Names(
    "gpt_neox.embed_in",
    "gpt_neox.layers.{i}.",
    "gpt_neox.final_layer_norm",
    "embed_out",
    {
        "qkv_proj": "attention.query_key_value",
        "o_proj": "attention.dense",
        "up_proj": "mlp.dense_h_to_4h",
        "down_proj": "mlp.dense_4h_to_h",
    },
)

# The norms of a layer by the kind of block: ours -> theirs, in the order of computation.
_NORMS = {
    "pre": {"attn_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"},
    "parallel": {"attn_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"},
    "post": {
        "attn_post_norm": "post_attention_layernorm",
        "mlp_post_norm": "post_feedforward_layernorm",
    },
    "sandwich": {
        "attn_norm": "input_layernorm",
        "attn_post_norm": "post_attention_layernorm",
        "mlp_norm": "pre_feedforward_layernorm",
        "mlp_post_norm": "post_feedforward_layernorm",
    },
}


def parameter_table(config: ModelConfig) -> tuple[Row, ...]:
    """The rows of a decoder with these dimensions."""
    names = _GPT_NEOX if config.family == "gpt_neox" else _LLAMA
    vocab, hidden, inner = config.vocab_size, config.hidden_size, config.intermediate_size
    queries = config.num_heads * config.head_dim
    keys = config.num_kv_heads * config.head_dim
    rows = [
        Row(("embed",), f"{names.embed}.weight", (vocab, hidden), ("vocab", "embed"), "embedding")
    ]

    def norm(path: tuple[str, ...], hf_name: str, size: int) -> None:
        if config.norm != "layer_plain":
            rows.append(Row(path, f"{hf_name}.weight", (size,), ("norm",), "norm"))
        if config.norm == "layer":
            path = (*path[:-1], f"{path[-1]}_bias")
            rows.append(Row(path, f"{hf_name}.bias", (size,), ("norm",), "bias"))

    def project(name: str, shape: tuple[int, int], axes: tuple[str | None, ...]) -> None:
        module = names.layer + names.modules[name]
        rows.append(Row(("layers", name), f"{module}.weight", shape, axes, "projection"))
        if name in config.biases:
            # A bias lies as its output does; the residual stream is whole on every device.
            axis = "norm" if axes[1] == "embed" else axes[1]
            path = ("layers", f"{name}_bias")
            rows.append(Row(path, f"{module}.bias", shape[1:], (axis,), "bias"))

    for ours, theirs in _NORMS[config.block].items():
        norm(("layers", ours), names.layer + theirs, hidden)
    if config.fused_qkv:
        project("qkv_proj", (hidden, 3 * queries), ("embed", "heads"))
    else:
        project("q_proj", (hidden, queries), ("embed", "heads"))
        # A single key head (multi-query attention) is needed whole wherever there is a query head.
        axis = "kv_heads" if config.num_kv_heads > 1 else None
        project("k_proj", (hidden, keys), ("embed", axis))
        project("v_proj", (hidden, keys), ("embed", axis))
    if config.qk_norm:
        for name, size in (("q_norm", queries), ("k_norm", keys)):
            size = size if config.qk_norm == "projection" else config.head_dim
            norm(("layers", name), names.layer + names.modules[name], size)
    project("o_proj", (queries, hidden), ("heads", "embed"))
    if config.gated:
        project("gate_proj", (hidden, inner), ("embed", "mlp"))
    project("up_proj", (hidden, inner), ("embed", "mlp"))
    project("down_proj", (inner, hidden), ("mlp", "embed"))
    norm(("final_norm",), names.final_norm, hidden)
    if not config.tie_embeddings:
        head = f"{names.lm_head}.weight"
        rows.append(Row(("lm_head",), head, (vocab, hidden), ("vocab", "embed"), "embedding"))
    return tuple(rows)


def head_name(config: ModelConfig) -> str:
    """The LM head's tensor in a checkpoint, which may be there even where it is the embedding."""
    return (_GPT_NEOX if config.family == "gpt_neox" else _LLAMA).lm_head + ".weight"


def stacked_shape(config: ModelConfig, row: Row) -> tuple[int, ...]:
    """The shape of the array that holds the row: layers first, where it has layers."""
    return (config.num_layers, *row.shape) if row.stacked else row.shape


def stacked_axes(row: Row) -> tuple[str | None, ...]:
    """The logical axes of the array that holds the row."""
    return ("layers", *row.axes) if row.stacked else row.axes


def build_tree(config: ModelConfig, leaf: Callable[[Row], Any]) -> Tree:
    """The parameter tree with ``leaf(row)`` at every row's path."""
    tree: Tree = {}
    for row in parameter_table(config):
        node = tree
        for key in row.path[:-1]:
            node = node.setdefault(key, {})
        node[row.path[-1]] = leaf(row)
    return tree


def projections(config: ModelConfig) -> Iterator[Row]:
    """The linear layers inside the blocks: what "all linear" means to LoRA."""
    return (row for row in parameter_table(config) if row.kind == "projection")


def initialiser(config: ModelConfig, row: Row, scale: float = 0.02) -> Callable[..., jax.Array]:
    """``init(key, shape, dtype)``: norms that change nothing, biases of 0, normal projections."""
    if row.kind == "bias" or (row.kind == "norm" and config.norm == "rms_unit_offset"):
        return jax.nn.initializers.zeros
    return jax.nn.initializers.ones if row.kind == "norm" else jax.nn.initializers.normal(scale)
