"""Which mesh axis each logical axis is split over: the only place that knows."""

import math
from collections.abc import Callable, Sequence

import flax.linen as nn
import jax

from calib_jax.errors import UserError
from calib_jax.models.config import ModelConfig
from calib_jax.models.lora import LoraConfig, lora_shapes
from calib_jax.models.table import Row, Tree, parameter_table, stacked_axes, stacked_shape

# Parameters are split over fsdp by their hidden axis and over tensor by the other; activations by
# rows, and inside a layer by heads or inner channels.
RULES = (
    ("batch", ("data", "fsdp")),
    ("embed", "fsdp"),
    ("vocab", "tensor"),
    ("heads", "tensor"),
    ("kv_heads", "tensor"),
    ("mlp", "tensor"),
    ("layers", None),
    ("norm", None),
    ("lora_rank", None),
)


def sharding(mesh: jax.sharding.Mesh, axes: Sequence[str | None]) -> jax.sharding.NamedSharding:
    """The layout of an array with these logical axes."""
    spec = nn.logical_to_mesh_axes(tuple(axes), RULES)
    assert spec is not None  # which Flax gives for no axes (None) alone
    return jax.sharding.NamedSharding(mesh, spec)


def row_sharding(mesh: jax.sharding.Mesh) -> Callable[[Row], jax.sharding.NamedSharding]:
    """``row -> layout`` for ``models.load``."""
    return lambda row: sharding(mesh, stacked_axes(row))


def lora_sharding(mesh: jax.sharding.Mesh, config: ModelConfig, lora: LoraConfig) -> Tree:
    """The layouts of ``init_lora``'s tree."""
    return {
        name: {key: sharding(mesh, axes) for key, (_, axes) in ab.items()}
        for name, ab in lora_shapes(config, lora).items()
    }


def place_lora(
    adapters: Tree, mesh: jax.sharding.Mesh, config: ModelConfig, lora: LoraConfig
) -> Tree:
    """Adapters on the host of every process, laid out over the mesh."""
    return jax.tree.map(
        lambda x, layout: jax.make_array_from_callback(x.shape, layout, lambda at: x[at]),
        adapters,
        lora_sharding(mesh, config, lora),
    )


def check_mesh(config: ModelConfig, mesh: jax.sharding.Mesh) -> None:
    """Raises UserError when the mesh would split a head or leave a remainder.

    Heads are never replicated to make them fit, but a single key-value head (multi-query
    attention: Gemma-2B, Gemma-3-1B) lies whole on every device: no tensor axis would fit it.
    """
    tensor = mesh.shape["tensor"]
    for what, count in (
        ("attention heads", config.num_heads),
        ("key-value heads", config.num_kv_heads),
    ):
        if count % tensor and count > 1:
            key_heads = config.num_kv_heads if config.num_kv_heads > 1 else config.num_heads
            both = math.gcd(config.num_heads, key_heads)
            fits = [n for n in range(1, tensor) if both % n == 0 and mesh.size % n == 0]
            raise UserError(
                f"config.mesh.shape: {count} {what} cannot be split over a tensor axis of "
                f"{tensor}. Use a tensor axis of {' or '.join(map(str, fits))} and give the other "
                f'devices to fsdp, for example --config.mesh.shape="(1,-1,{fits[-1]})".'
            )
    for row in parameter_table(config):
        spec = sharding(mesh, stacked_axes(row)).spec
        for size, names in zip(stacked_shape(config, row), spec, strict=False):
            names = (names,) if isinstance(names, str) else (names or ())
            for name in names:
                if size % mesh.shape[name]:
                    raise UserError(
                        f"config.mesh.shape: parameter {'/'.join(row.path)} has an axis of {size}, "
                        f"which is not a multiple of the {name} axis, {mesh.shape[name]}. Choose "
                        f"a {name} axis that divides it and give the other devices to data."
                    )
