"""Reads the weights of a llama.cpp GGUF file."""

import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize

from calib_jax.errors import UserError
from calib_jax.models.formats.files import ByteFile, slice_ranges
from calib_jax.models.formats.gguf_config import FREQUENCIES, architecture_of, config_json
from calib_jax.models.formats.gguf_header import TensorInfo, read_header

_FLOATS = {
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
_TYPES = (*_FLOATS, *("Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4_K Q5_K Q6_K".split()))

# Values dequantised at a time: the temporary arrays stay small beside what is read.
_CHUNK_VALUES = 1 << 21
_MAX_FREQUENCIES = 1 << 12


class GgufSource:
    """The tensors of a GGUF file under their Hugging Face names and in their layout.

    Attributes:
      path, files: the file.
      fields: its metadata.
      config: what the ``config.json`` of the same model would say, for ``parse_config``, with
        ``internal=True`` where its rotary frequencies have factors of their own.

    Raises:
      UserError: not a whole GGUF file, one part of several, or an architecture, a metadata key or
        a tensor type that is not handled.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.files = [self.path]
        self._file = ByteFile(self.path)
        header = read_header(self._file)
        self.fields = header.fields
        self._architecture = architecture_of(self.fields, str(self.path))
        self._tensors: dict[str, TensorInfo] = {}
        for name, info in header.tensors.items():
            name = self._architecture.hf_name(name)
            if name in self._tensors:
                raise UserError(f"{self.path}: tensor {name!r} is stored under two names.")
            if info.kind.name not in _TYPES:
                raise UserError(
                    f"{self.path}: tensor {name!r} has type {info.kind.name}; "
                    f"{', '.join(_TYPES)} are read."
                )
            self._tensors[name] = info
        factors = None
        self._heads: dict[str, int] = {}
        # Only the llama graph of llama.cpp reads this tensor; elsewhere the loader refuses it.
        if self._architecture.permuted and FREQUENCIES in self._tensors:
            if len(self.shape(FREQUENCIES)) != 1 or self.shape(FREQUENCIES)[0] > _MAX_FREQUENCIES:
                raise UserError(
                    f"{self.path}: tensor {FREQUENCIES!r} has shape {self.shape(FREQUENCIES)}; "
                    "expected one number for each rotary frequency."
                )
            factors = self.read(FREQUENCIES, (slice(None),)).astype(np.float32)
            del self._tensors[FREQUENCIES]
        shapes = {name: info.shape for name, info in self._tensors.items()}
        self.config = config_json(self.fields, shapes, factors, str(self.path))
        if self._architecture.permuted:
            self._heads = {
                "self_attn.q_proj": self.config["num_attention_heads"],
                "self_attn.k_proj": self.config["num_key_value_heads"],
            }
        self._bytes_before = self._file.bytes_read

    @property
    def bytes_read(self) -> int:
        """Bytes of tensor data read so far."""
        return self._file.bytes_read - self._bytes_before

    def field(self, key: str, default: Any = None) -> Any:
        """A metadata value as Python's own type, or ``default`` where the file lacks the key."""
        return self.fields.get(key, default)

    def names(self) -> set[str]:
        return set(self._tensors)

    def where(self, name: str) -> str:
        return str(self.path)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._tensors[name].shape

    def dtype(self, name: str) -> np.dtype:
        if self._architecture.is_shifted(name):
            return np.dtype(np.float32)
        return _FLOATS.get(self._tensors[name].kind.name, np.dtype(np.float32))

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """The slice of a tensor that ``index`` names.

        Quantised values come in blocks along the last axis: the blocks that the slice touches are
        read and dequantised. Where rows are permuted, so are those of the heads that it touches.
        """
        info = self._tensors[name]
        starts, counts = slice_ranges(info.shape, index)
        out = np.empty(counts, self.dtype(name))
        if not out.size:
            return out
        rows = starts[0] + np.arange(counts[0]) if len(counts) > 1 else np.zeros(1, np.int64)
        per_head = 1
        for suffix, heads in self._heads.items():
            if f".{suffix}." in name:
                per_head = info.shape[0] // heads
                rows = _permuted_rows(rows, per_head)
        values, size = info.block
        first, last = starts[-1] // values, -(-(starts[-1] + counts[-1]) // values)
        cut = slice(starts[-1] - first * values, starts[-1] - first * values + counts[-1])
        flat = out.reshape(len(rows), -1)
        table = (math.prod(info.shape[:-1]), info.row_bytes)
        # Whole heads at a time, or the rows of a head would be read twice.
        step = max(1, _CHUNK_VALUES // ((last - first) * values * per_head)) * per_head
        for i in range(0, len(rows), step):
            some = rows[i : i + step]
            begin, end = int(some.min()), int(some.max()) + 1
            stored = self._file.read_slice(
                info.offset, table, np.uint8, (slice(begin, end), slice(first * size, last * size))
            )
            if end - begin != len(some) or (some[:-1] > some[1:]).any():
                stored = stored[some - begin]
            flat[i : i + step] = _decode(stored, info.kind)[:, cut]
        if self._architecture.is_shifted(name):
            out -= 1
        return out


def _decode(stored: np.ndarray, kind: GGMLQuantizationType) -> np.ndarray:
    """Bytes [rows, bytes] as values; floating types keep theirs."""
    stored = np.ascontiguousarray(stored)
    if kind.name in _FLOATS:
        return stored.view(_FLOATS[kind.name])
    return dequantize(stored, kind)


def _permuted_rows(rows: np.ndarray, per_head: int) -> np.ndarray:
    """Where llama.cpp put these rows: within a head, channel i of half h is stored at 2 i + h."""
    head, channel = rows // per_head, rows % per_head
    half, i = channel // (per_head // 2), channel % (per_head // 2)
    return head * per_head + 2 * i + half
