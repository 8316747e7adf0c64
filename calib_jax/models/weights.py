"""Streams a checkpoint into stacked, sharded arrays: each device's slice is read, no more."""

import concurrent.futures
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax.errors import UserError
from calib_jax.models.config import ModelConfig
from calib_jax.models.formats.source import TensorSource
from calib_jax.models.table import (
    Row,
    Tree,
    build_tree,
    head_name,
    parameter_table,
    stacked_shape,
)

# Tensors that some checkpoints carry and that the computation does not use.
_UNUSED = ("rotary_emb.inv_freq",)


def check_tensors(source: TensorSource, config: ModelConfig) -> None:
    """Raises UserError for a tensor that is missing, misshapen, or that nothing would read."""
    present = source.names()
    wanted = set()
    for row in parameter_table(config):
        for name in _names(row, config):
            if name not in present:
                raise UserError(
                    f"{source.where(name)}: tensor {name!r} is missing. The checkpoint is "
                    "incomplete, or its config.json belongs to another model."
                )
            if source.shape(name) != row.hf_shape:
                raise UserError(
                    f"{source.where(name)}: tensor {name!r} has shape {source.shape(name)}, "
                    f"and the model's dimensions ask for {row.hf_shape}."
                )
            wanted.add(name)
    if config.tie_embeddings:
        wanted.add(head_name(config))  # a stored copy of the embedding
    for name in sorted(present - wanted):
        if not name.endswith(_UNUSED):
            raise UserError(
                f"{source.where(name)}: tensor {name!r} is not part of a {config.family!r} model "
                "with this config; without it the logits would be wrong."
            )


def load_params(
    source: TensorSource,
    config: ModelConfig,
    dtype: Any,
    shardings: Callable[[Row], Any] | None = None,
) -> Tree:
    """Reads the parameters of the table, layers stacked on axis 0, projections as [in, out].

    Args:
      source: the checkpoint.
      config: its dimensions.
      dtype: of the arrays.
      shardings: ``row -> Sharding``; None for the default device.

    Returns:
      The tree of jax.Arrays. Each process reads the slices that its own devices hold.

    Raises:
      UserError: see ``check_tensors``.
    """
    check_tensors(source, config)
    dtype = jnp.dtype(dtype)

    def leaf(row: Row) -> jax.Array:
        names = _names(row, config)

        def read(index: tuple[slice, ...]) -> np.ndarray:
            layers, inner = (names[index[0]], index[1:]) if row.stacked else (names, index)
            out = None
            for i, name in enumerate(layers):
                value = source.read(name, inner[::-1] if row.transposed else inner)
                value = value.T if row.transposed else value
                if not row.stacked:
                    return np.ascontiguousarray(value.astype(dtype, copy=False))
                if out is None:
                    out = np.empty((len(layers), *value.shape), dtype)
                out[i] = value
            return out

        shape = stacked_shape(config, row)
        if shardings is None:
            sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        else:
            sharding = shardings(row)
        return jax.make_array_from_callback(shape, sharding, read)

    rows = parameter_table(config)
    # Dequantising and copying release the interpreter lock for the most part.
    with concurrent.futures.ThreadPoolExecutor(max_workers=4) as pool:
        arrays = dict(zip(rows, pool.map(leaf, rows), strict=True))
    return build_tree(config, arrays.__getitem__)


def _names(row: Row, config: ModelConfig) -> list[str]:
    count = config.num_layers if row.stacked else 1
    return [row.hf_name.format(i=i) for i in range(count)]
