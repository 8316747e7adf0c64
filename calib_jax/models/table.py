"""The table of a decoder's parameters: one row each, from which everything else is derived.

The decoder declares its parameters from these rows, the loader finds a tensor's name and layout in
them, and ``parallel.sharding`` turns their logical axes into a mesh layout.
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
      transposed: whether the checkpoint holds the transpose ([out, in], as torch.nn.Linear does).
    """

    path: tuple[str, ...]
    hf_name: str
    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    transposed: bool = False

    @property
    def stacked(self) -> bool:
        return self.path[0] == "layers"

    @property
    def is_norm(self) -> bool:
        return len(self.shape) == 1


def parameter_table(config: ModelConfig) -> tuple[Row, ...]:
    """The rows of a decoder with these dimensions, in the order of computation."""
    vocab, hidden, inner = config.vocab_size, config.hidden_size, config.intermediate_size
    queries = config.num_heads * config.head_dim
    keys = config.num_kv_heads * config.head_dim

    def layer(name: str, hf_name: str, shape: tuple[int, ...], axes: tuple[str, ...]) -> Row:
        return Row(
            ("layers", name),
            f"model.layers.{{i}}.{hf_name}.weight",
            shape,
            axes,
            transposed=len(shape) == 2,
        )

    def norm(name: str, hf_name: str, size: int = hidden) -> Row:
        return layer(name, hf_name, (size,), ("norm",))

    rows = [Row(("embed",), "model.embed_tokens.weight", (vocab, hidden), ("vocab", "embed"))]
    if not config.post_norm:
        rows.append(norm("attn_norm", "input_layernorm"))
    rows += [
        layer("q_proj", "self_attn.q_proj", (hidden, queries), ("embed", "heads")),
        layer("k_proj", "self_attn.k_proj", (hidden, keys), ("embed", "kv_heads")),
        layer("v_proj", "self_attn.v_proj", (hidden, keys), ("embed", "kv_heads")),
    ]
    if config.qk_norm:
        rows += [
            norm("q_norm", "self_attn.q_norm", queries),
            norm("k_norm", "self_attn.k_norm", keys),
        ]
    rows.append(layer("o_proj", "self_attn.o_proj", (queries, hidden), ("heads", "embed")))
    if config.post_norm:
        rows.append(norm("attn_norm", "post_attention_layernorm"))
    else:
        rows.append(norm("mlp_norm", "post_attention_layernorm"))
    rows += [
        layer("gate_proj", "mlp.gate_proj", (hidden, inner), ("embed", "mlp")),
        layer("up_proj", "mlp.up_proj", (hidden, inner), ("embed", "mlp")),
        layer("down_proj", "mlp.down_proj", (inner, hidden), ("mlp", "embed")),
    ]
    if config.post_norm:
        rows.append(norm("mlp_norm", "post_feedforward_layernorm"))
    rows.append(Row(("final_norm",), "model.norm.weight", (hidden,), ("norm",)))
    if not config.tie_embeddings:
        rows.append(Row(("lm_head",), "lm_head.weight", (vocab, hidden), ("vocab", "embed")))
    return tuple(rows)


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
    return (row for row in parameter_table(config) if row.stacked and not row.is_norm)


def initialiser(row: Row, scale: float = 0.02) -> Callable[..., jax.Array]:
    """``init(key, shape, dtype)``: ones for norms, a normal distribution for everything else."""
    return jax.nn.initializers.ones if row.is_norm else jax.nn.initializers.normal(scale)
