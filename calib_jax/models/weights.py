"""Streams a checkpoint into stacked, sharded arrays, a bounded part of it at a time.

Each process reads the byte ranges that its own devices hold, once. A large stack of layers is
allocated on the devices and filled in place, a few layers at a time, so that host memory holds the
layers on their way and no more.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax.errors import UserError
from calib_jax.models import quantize as quantization
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
_UNUSED_GPT_NEOX = (".attention.bias", ".attention.masked_bias")  # the causal mask and its -1e9

# A stack of layers up to this size is laid out on the host, a larger one filled in parts of it.
CHUNK_BYTES = 128 << 20
# What lies in host memory between disk and devices, unless a single tensor is larger.
_AHEAD_BYTES = 512 << 20
_THREADS = 4
# A tensor is read in bands of so many bytes; narrower ones would be short runs on disk where a
# format stores the transpose.
_BAND_BYTES = 64 << 20
# Rows transposed at a time: a cache line of the result. The whole at once is five times slower.
_STRIP = 16


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
    unused = _UNUSED + (_UNUSED_GPT_NEOX if config.family == "gpt_neox" else ())
    for name in sorted(present - wanted):
        if not name.endswith(unused):
            raise UserError(
                f"{source.where(name)}: tensor {name!r} is not part of a {config.family!r} model "
                "with this config; without it the logits would be wrong."
            )


def load_params(
    source: TensorSource,
    config: ModelConfig,
    dtype: Any,
    shardings: Callable[[Row], jax.sharding.Sharding] | None = None,
    *,
    on_bytes: Callable[[int, int], None] | None = None,
    quantize: str | None = None,
) -> Tree:
    """Reads the parameters of the table, layers stacked on axis 0, projections as [in, out].

    Args:
      source: the checkpoint.
      config: its dimensions.
      dtype: of the arrays; "stored" for each in the dtype that the checkpoint holds it in (float32
        where that is float64; what holds both where layers differ).
      shardings: ``row -> Sharding`` of the stacked array, whose axis of layers must be whole on
        every device; None for the default device.
      on_bytes: called as (bytes read since the last call, bytes to read in all), in the dtypes of
        ``source.dtype``.
      quantize: "int8" or "nf4" for projections that are QArrays (``models.quantize``); ``dtype`` is
        then the other arrays'.

    Returns:
      The tree of jax.Arrays. Each process reads the slices that its own devices hold.

    Raises:
      UserError: see ``check_tensors``; a stored LM head is not the embedding that it should be; or
        a file cannot be read.
    """
    check_tensors(source, config)
    if quantize:
        quantization.check_scheme(quantize)
    default = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    chunks: list[_Chunk] = []
    for row in parameter_table(config):
        scheme = quantize if quantize and row.kind == "projection" else ""
        # Scales come from the values as they are stored.
        stored = bool(scheme) or dtype == "stored"
        leaf = _Leaf(
            row=row,
            names=_names(row, config),
            shape=stacked_shape(config, row),
            dtype=stored_dtype(source, config, row) if stored else jnp.dtype(dtype),
            sharding=shardings(row) if shardings else default,
            scheme=scheme,
        )
        chunks += leaf.chunks()
        if row.path == ("embed",) and config.tie_embeddings:
            for index in chunks[-1].slices.values():
                _check_tied(source, row, head_name(config), index)
    total = sum(chunk.stored_bytes(source) for chunk in chunks)
    arrays: dict[Row, Any] = {}
    for chunk, pieces in _read_ahead(source, chunks):
        row = chunk.leaf.row
        arrays[row] = chunk.place(pieces, arrays.get(row))
        # Otherwise the pieces of chunks whose turn has not come would pile up.
        jax.block_until_ready(arrays[row])
        if on_bytes is not None:
            on_bytes(chunk.stored_bytes(source), total)
    return build_tree(config, arrays.__getitem__)


def _check_tied(source: TensorSource, row: Row, head: str, index: tuple[slice, ...]) -> None:
    """Raises UserError where a slice of a stored LM head differs from the embedding it should be.

    Of such a file it is not known which of the two its model was trained with: versions of
    transformers differ.
    """
    if head not in source.names():
        return
    first, *rest = index
    begin, end, _ = first.indices(row.shape[0])
    step = max(1, _BAND_BYTES // (row.shape[1] * source.dtype(head).itemsize))
    for i in range(begin, end, step):
        band = (slice(i, min(i + step, end)), *rest)
        if source.shape(head) != row.shape or not np.array_equal(
            source.read(row.hf_name, band), source.read(head, band)
        ):
            raise UserError(
                f"{source.where(head)}: tensor {head!r} differs from {row.hf_name!r}, though "
                "config.json says that they are one (tie_word_embeddings). Set "
                "tie_word_embeddings to false if the model has a head of its own; otherwise remove "
                "that tensor."
            )


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """An array to be."""

    row: Row
    names: list[str]
    shape: tuple[int, ...]
    dtype: np.dtype  # on the host, and on the devices unless it is quantised there
    sharding: jax.sharding.Sharding
    scheme: str  # how it is quantised; "" for not at all

    def chunks(self) -> list["_Chunk"]:
        """The whole, or a few layers at a time; every process comes to the same division."""
        if not self.row.stacked:
            return [_Chunk(self, 0, 1)]
        step = max(1, CHUNK_BYTES // (math.prod(self.row.shape) * self.dtype.itemsize))
        count = len(self.names)
        return [_Chunk(self, i, min(i + step, count)) for i in range(0, count, step)]


@dataclasses.dataclass(frozen=True)
class _Chunk:
    """Layers ``start`` to ``stop`` of a leaf, or a leaf without layers."""

    leaf: _Leaf
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, ...]:
        leaf = self.leaf
        return (self.stop - self.start, *leaf.shape[1:]) if leaf.row.stacked else leaf.shape

    @functools.cached_property
    def slices(self) -> dict[tuple, tuple[slice, ...]]:
        """What this process's devices hold: key -> index, once however many devices hold it."""
        held = self.leaf.sharding.addressable_devices_indices_map(self.shape).values()
        return {_key(index): index for index in held if index is not None}

    @functools.cached_property
    def elements(self) -> int:
        """Of all slices together."""
        return sum(math.prod(_shape(self.shape, index)) for index in self.slices.values())

    def stored_bytes(self, source: TensorSource) -> int:
        """Bytes that this process reads for it."""
        names = self.leaf.names[self.start : self.stop]
        return self.elements * sum(source.dtype(name).itemsize for name in names) // len(names)

    @property
    def host_bytes(self) -> int:
        """Bytes of what ``read`` returns."""
        return self.elements * self.leaf.dtype.itemsize

    def read(self, source: TensorSource) -> dict[tuple, np.ndarray]:
        """The slices' values by key, in the leaf's dtype and layout."""
        row, pieces = self.leaf.row, {}
        for key, index in self.slices.items():
            out = pieces[key] = _empty(_shape(self.shape, index), self.leaf.dtype)
            layers, inner = (out, index[1:]) if row.stacked else (out[None], index)
            for name, layer in zip(self.leaf.names[self.start : self.stop], layers, strict=True):
                _read_tensor(source, name, inner, row.transposed, layer)
        return pieces

    def place(self, pieces: dict[tuple, np.ndarray], array: Any) -> Any:
        """The leaf's array with this chunk in it; ``array`` holds the chunks before (donated)."""
        leaf = self.leaf
        value = jax.make_array_from_callback(
            self.shape, leaf.sharding, lambda index: pieces[_key(index or ())]
        )
        if self.shape == leaf.shape and not leaf.scheme:
            return value
        allocate, fill = _programs(leaf.shape, leaf.dtype, leaf.sharding, leaf.scheme)
        return fill(allocate() if array is None else array, value, self.start)


@functools.lru_cache(maxsize=64)
def _programs(
    shape: tuple[int, ...], dtype: np.dtype, sharding: jax.sharding.Sharding, scheme: str
) -> tuple[Callable[[], Any], Callable[[Any, jax.Array, int], Any]]:
    """Compiled: zeros of a leaf, and ``(leaf, chunk, start) -> leaf`` that fills it in place."""

    def convert(chunk: jax.Array) -> Any:
        return quantization.quantize(chunk, scheme) if scheme else chunk

    def allocate() -> Any:
        leaf = jax.eval_shape(convert, jax.ShapeDtypeStruct(shape, dtype))
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), leaf)

    def fill(leaf: Any, chunk: jax.Array, start: jax.Array) -> Any:
        def put(whole: jax.Array, part: jax.Array) -> jax.Array:
            return jax.lax.dynamic_update_slice_in_dim(whole, part, start, 0)

        return jax.tree.map(put, leaf, convert(chunk))

    layout = quantization.layout(sharding, shape, scheme) if scheme else sharding
    return (
        jax.jit(allocate, out_shardings=layout),
        jax.jit(fill, out_shardings=layout, donate_argnums=0),
    )


def _read_ahead(
    source: TensorSource, chunks: list[_Chunk]
) -> Iterator[tuple[_Chunk, dict[tuple, np.ndarray]]]:
    """The chunks with their values, in order; threads read the next ones, bounded in bytes."""
    waiting: collections.deque[tuple[_Chunk, concurrent.futures.Future]] = collections.deque()
    held = 0
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        try:
            for chunk in chunks:
                while waiting and held + chunk.host_bytes > _AHEAD_BYTES:
                    first, future = waiting.popleft()
                    yield first, future.result()
                    del future
                    held -= first.host_bytes
                waiting.append((chunk, pool.submit(chunk.read, source)))
                held += chunk.host_bytes
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:  # an error: what has not begun need not
            pool.shutdown(cancel_futures=True)


def _read_tensor(
    source: TensorSource, name: str, index: tuple[slice, ...], transposed: bool, out: np.ndarray
) -> None:
    """Reads a slice (of our layout) of one tensor into ``out``, casting it."""
    first, *rest = index[::-1] if transposed else index
    shape = out.shape[::-1] if transposed else out.shape
    begin, _, _ = first.indices(source.shape(name)[0])
    width = math.prod(shape[1:]) * source.dtype(name).itemsize
    step = max(_STRIP, _BAND_BYTES // max(1, width))
    for i in range(0, shape[0], step):
        stop = min(i + step, shape[0])
        band = source.read(name, (slice(begin + i, begin + stop), *rest))
        if not transposed:
            out[i:stop] = band
            continue
        for j in range(0, stop - i, _STRIP):
            strip = band[j : j + _STRIP].astype(out.dtype, copy=False)
            out[:, i + j : i + j + len(strip)] = strip.T


def _empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array aligned as XLA wants it: on a CPU it becomes the device's array without a copy."""
    count = math.prod(shape) * dtype.itemsize
    raw = np.empty(count + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + count].view(dtype).reshape(shape)


def stored_dtype(source: TensorSource, config: ModelConfig, row: Row) -> np.dtype:
    """The dtype of a row's array under dtype "stored"."""
    stored = (source.dtype(name) for name in _names(row, config))
    dtype = functools.reduce(jnp.promote_types, stored)
    return jnp.dtype(jnp.float32) if dtype == np.float64 else jnp.dtype(dtype)


def _key(index: tuple[slice, ...]) -> tuple:
    return tuple((piece.start, piece.stop) for piece in index)  # slices hash from Python 3.12 on


def _shape(shape: tuple[int, ...], index: tuple[slice, ...]) -> tuple[int, ...]:
    return tuple(len(range(*piece.indices(n))) for n, piece in zip(shape, index, strict=True))


def _names(row: Row, config: ModelConfig) -> list[str]:
    count = config.num_layers if row.stacked else 1
    return [row.hf_name.format(i=i) for i in range(count)]
