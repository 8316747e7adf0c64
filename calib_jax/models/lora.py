"""Low-rank adapters: a variable collection of their own, beside frozen parameters.

y = x W + scale · (dropout(x) A) B, with scale = alpha / rank (Hu et al. 2021) or alpha / √rank
(Kalajdzievski 2023, rsLoRA). B starts at zero, so that a fresh adapter computes exactly what the
base computes.
"""

import dataclasses

import jax
import jax.numpy as jnp

from calib_jax.errors import UserError
from calib_jax.models.config import ModelConfig
from calib_jax.models.table import Tree, projections


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Rank, scale and reach of the adapters.

    Attributes:
      rank: inner size r.
      alpha: the adapter's output is scaled by alpha / rank.
      dropout: rate on the adapter's input, in training only.
      targets: names of the projections that are adapted; empty for all of them.
      rank_stabilised: whether the scale is alpha / √rank instead (adapters from elsewhere).
    """

    rank: int
    alpha: float
    dropout: float = 0.0
    targets: tuple[str, ...] = ()
    rank_stabilised: bool = False

    @property
    def scale(self) -> float:
        return self.alpha / (self.rank**0.5 if self.rank_stabilised else self.rank)

    def adapts(self, name: str) -> bool:
        return not self.targets or name in self.targets


def check_lora(config: ModelConfig, lora: LoraConfig) -> None:
    """Raises UserError for a rank, dropout or target that makes no adapter."""
    names = [row.path[-1] for row in projections(config)]
    if unknown := set(lora.targets) - set(names):
        raise UserError(
            f"config.train.lora.targets names {sorted(unknown)[0]!r}; this model's projections "
            f"are {', '.join(names)}."
        )
    if lora.rank < 1:
        raise UserError(f"config.train.lora.rank is {lora.rank}; expected a positive integer.")
    if not 0 < lora.alpha < float("inf"):
        raise UserError(f"config.train.lora.alpha is {lora.alpha}; expected a number > 0.")
    if not 0 <= lora.dropout < 1:
        raise UserError(f"config.train.lora.dropout is {lora.dropout}; expected 0 <= rate < 1.")


def lora_shapes(config: ModelConfig, lora: LoraConfig) -> Tree:
    """{projection: {"a": ([layers, in, r], axes), "b": ([layers, r, out], axes)}}."""
    return {
        row.path[-1]: {
            "a": (
                (config.num_layers, row.shape[0], lora.rank),
                ("layers", row.axes[0], "lora_rank"),
            ),
            "b": (
                (config.num_layers, lora.rank, row.shape[1]),
                ("layers", "lora_rank", row.axes[1]),
            ),
        }
        for row in projections(config)
        if lora.adapts(row.path[-1])
    }


def init_lora(key: jax.Array, config: ModelConfig, lora: LoraConfig) -> Tree:
    """Fresh float32 adapters: A uniform in ±1/√in (PEFT's choice), B zero."""
    shapes = lora_shapes(config, lora)
    tree = {}
    for name, subkey in zip(shapes, jax.random.split(key, len(shapes)), strict=True):
        (shape_a, _), (shape_b, _) = shapes[name]["a"], shapes[name]["b"]
        bound = shape_a[1] ** -0.5
        a = jax.random.uniform(subkey, shape_a, jnp.float32, -bound, bound)
        tree[name] = {"a": a, "b": jnp.zeros(shape_b, jnp.float32)}
    return tree


def merge_weight(weight: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    """W + scale · A B in float32, for one layer or for stacked ones."""
    delta = jnp.einsum("...ir,...ro->...io", a, b, precision="highest")
    return weight.astype(jnp.float32) + scale * delta


def merge_lora(params: Tree, adapters: Tree, lora: LoraConfig) -> Tree:
    """The parameters with the adapters added in: W + scale · A B, in W's dtype."""
    layers = dict(params["layers"])
    for name, ab in adapters.items():
        merged = merge_weight(layers[name], ab["a"], ab["b"], lora.scale)
        layers[name] = merged.astype(layers[name].dtype)
    return {**params, "layers": layers}
