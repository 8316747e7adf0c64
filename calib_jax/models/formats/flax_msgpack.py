"""Reads the Flax checkpoints of transformers 4: ``flax_model.msgpack``, whole or in shards.

The file is one msgpack table of tables whose leaves are arrays in flax's extension type 1: a nested
msgpack of (shape, dtype's name, bytes). Only this structure is read when the file is opened; arrays
are skipped. Arrays beyond 1 GiB are stored in pieces.
"""

import bisect
import math
from pathlib import Path
from typing import Any

import numpy as np

from calib_jax.errors import UserError
from calib_jax.models.formats.files import ByteFile, array_bytes, weight_files
from calib_jax.models.formats.stored import (
    FLOATS,
    Stored,
    StoredTensors,
    add_tensor,
    refused_dtype,
)

SINGLE = "flax_model.msgpack"
_CHUNKED = "__msgpack_chunked_array__"
_NDARRAY, _SCALAR = 1, 3  # flax.serialization's extension types
_OTHER_SIZES = {"int8": 1, "uint8": 1, "bool": 1, "int16": 2, "int32": 4, "uint32": 4, "int64": 8}
_MAX_STRUCTURE = 2 << 20  # bytes beside the arrays
_MAX_DEPTH = 32
_MAX_TEXT = 1000
_MAX_AXES = 32


class FlaxSource(StoredTensors):
    """The tensors of ``flax_model.msgpack``, or of its shards, under PyTorch's names and layouts.

    Flax's ``kernel`` [in, out] is PyTorch's ``weight`` [out, in], ``embedding`` and ``scale`` are
    ``weight``, and the path's parts are joined with dots.

    Raises:
      UserError: no such file, or one that is missing, damaged, or holds something else than arrays.
    """

    def __init__(self, folder: Path):
        paths = weight_files(folder, SINGLE, "flax_model*.msgpack")
        if not paths:
            raise UserError(f"{folder}: no {SINGLE}. Is this a Hugging Face model folder?")
        files = [ByteFile(path) for path in paths]
        tensors: dict[str, Stored] = {}
        for file in files:
            for path, stored in _Skim(file).arrays().items():
                name, stored = _as_torch(path, stored)
                add_tensor(tensors, name, stored)
        super().__init__(folder, files, tensors)


def _as_torch(path: tuple[str, ...], stored: Stored) -> tuple[str, Stored]:
    """A parameter's name and layout in PyTorch; names that Flax's models lack are left alone."""
    *module, leaf = path
    if leaf == "kernel":
        if len(stored.shape) != 2 and not stored.refusal:
            raise _damaged(stored.file, f"{'.'.join(path)[:200]!r} is no matrix")
        # Row-major [in, out] is column-major [out, in].
        stored = Stored(
            stored.file, stored.offset, stored.shape[::-1], stored.dtype, "F", stored.refusal
        )
    if leaf in ("kernel", "embedding", "scale"):
        leaf = "weight"
    return ".".join((*module, leaf)), stored


class _Joined(ByteFile):
    """Ranges of a file, one after the other, as a file of their own: an array stored in pieces."""

    def __init__(self, file: ByteFile, ranges: list[tuple[int, int]]):
        self.path = file.path
        self.size = sum(count for _, count in ranges)
        self._fd = -1
        self._file = file
        self._offsets = [offset for offset, _ in ranges]
        self._starts = [0]
        for _, count in ranges:
            self._starts.append(self._starts[-1] + count)

    def _fill(self, into: memoryview, offset: int) -> None:
        while len(into):
            piece = bisect.bisect_right(self._starts, offset) - 1
            count = min(len(into), self._starts[piece + 1] - offset)
            self._file._fill(into[:count], self._offsets[piece] + offset - self._starts[piece])
            into, offset = into[count:], offset + count


class _Skim:
    """Reads a msgpack file's structure and skips over its arrays."""

    def __init__(self, file: ByteFile):
        self.file = file
        self.at = 0
        self.window, self.window_at = b"", 0
        self.structure = 0

    def arrays(self) -> dict[tuple[str, ...], Stored]:
        """Every array of the file by its path.

        Raises:
          UserError: the file is damaged, or a leaf is no array.
        """
        root = self.value(0)
        if self.at != self.file.size:
            raise _damaged(self.file, f"it continues after byte {self.at}")
        if not isinstance(root, dict):
            raise _damaged(self.file, "it holds no table of parameters")
        found: dict[tuple[str, ...], Stored] = {}
        todo: list[tuple[tuple[str, ...], Any]] = [((), root)]
        while todo:
            path, value = todo.pop()
            if isinstance(value, dict) and _CHUNKED in value:
                value = self.joined(path, value)
            if isinstance(value, dict):
                # The shards' tables are flat: model/norm/weight.
                todo += [((*path, *key.split("/")), inner) for key, inner in value.items()]
                continue
            name = ".".join(path)[:200]
            if not isinstance(value, Stored):
                raise _damaged(self.file, f"{name!r} is no array")
            if path in found:
                raise _damaged(self.file, f"{name!r} appears twice")
            found[path] = value
        return found

    def joined(self, path: tuple[str, ...], value: dict[str, Any]) -> Stored:
        """An array that flax divided because of its size; the pieces are flat."""
        name = ".".join(path)[:200]
        sizes: Any = value.get("shape")
        chunks: Any = value.get("chunks")
        if (
            set(value) != {_CHUNKED, "shape", "chunks"}
            or not _is_list(sizes, int)
            or not _is_list(chunks, Stored)
            or not chunks
            or len({(c.dtype, c.refusal) for c in chunks.values()}) != 1
        ):
            raise _damaged(self.file, f"{name!r} is not an array in pieces as flax writes it")
        shape = tuple(sizes[str(i)] for i in range(len(sizes)))
        pieces = [chunks[str(i)] for i in range(len(chunks))]
        dtype, refusal = pieces[0].dtype, pieces[0].refusal
        counts = [math.prod(piece.shape) * dtype.itemsize for piece in pieces]
        where = f"{self.file.path}: {name!r}"
        if not refusal and array_bytes(shape, dtype, where) != sum(counts):
            raise _damaged(self.file, f"the pieces of {name!r} do not fill its shape")
        ranges = [(piece.offset, count) for piece, count in zip(pieces, counts, strict=True)]
        return Stored(_Joined(self.file, ranges), 0, shape, dtype, refusal=refusal)

    # The parts of msgpack that flax writes.

    def value(self, depth: int) -> Any:
        """A table, an array, a count, a truth value or a text; anything else is refused."""
        if depth > _MAX_DEPTH:
            raise _damaged(self.file, "its tables are nested too deeply")
        code = self.take(1)[0]
        if code <= 0x7F:
            return code
        if code <= 0x8F or code in (0xDE, 0xDF):
            return self.table(self.length(code, 0x80, {0xDE: 2, 0xDF: 4}), depth)
        if 0xA0 <= code <= 0xBF or code in (0xD9, 0xDA, 0xDB):
            return self.text(code)
        if code in (0xC2, 0xC3):
            return code == 0xC3
        if 0xCC <= code <= 0xCF:
            return self.number(1 << code - 0xCC)
        if 0xC7 <= code <= 0xC9:
            return self.extension(self.number(1 << code - 0xC7))
        if 0xD4 <= code <= 0xD8:
            return self.extension(1 << code - 0xD4)
        raise _damaged(self.file, f"a value of msgpack's type 0x{code:02x} at byte {self.at - 1}")

    def table(self, count: int, depth: int) -> dict[str, Any]:
        found = {}
        for _ in range(count):
            key = self.text(self.take(1)[0])
            if key in found:
                raise _damaged(self.file, f"the key {key[:100]!r} appears twice")
            found[key] = self.value(depth + 1)
        return found

    def text(self, code: int) -> str:
        length = self.length(code, 0xA0, {0xD9: 1, 0xDA: 2, 0xDB: 4}, 31)
        if length > _MAX_TEXT:
            raise _damaged(self.file, f"a name of {length} bytes")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            raise _damaged(self.file, "a name is not UTF-8") from None

    def extension(self, length: int) -> Stored:
        kind = self.take(1)[0]
        end = self.at + length
        if kind not in (_NDARRAY, _SCALAR):
            raise _damaged(self.file, f"an extension of type {kind} at byte {self.at}")
        if self.take(1) != b"\x93":
            raise _damaged(self.file, f"no array at byte {self.at}")
        axes = self.length(self.take(1)[0], 0x90, {0xDC: 2})
        if axes > _MAX_AXES:
            raise _damaged(self.file, f"an array of {axes} axes")
        shape = tuple(self.value(_MAX_DEPTH) for _ in range(axes))
        name = self.text(self.take(1)[0])
        size = self.length(self.take(1)[0], 0, {0xC4: 1, 0xC5: 2, 0xC6: 4}, -1)
        dtype = FLOATS.get(name, np.dtype(np.uint8))
        refusal = "" if name in FLOATS else refused_dtype(name[:20])
        where = f"{self.file.path}: the array at byte {self.at}"
        expected = array_bytes(shape, dtype, where) * _OTHER_SIZES.get(name, 1)
        if self.at + size != end or (size != expected and name in (*FLOATS, *_OTHER_SIZES)):
            raise _damaged(self.file, f"the array at byte {self.at} is not of the stated size")
        self.file.check_range(self.at, size)
        self.at = end
        return Stored(self.file, end - size, shape, dtype, refusal=refusal)

    def length(self, code: int, short: int, wide: dict[int, int], most: int = 15) -> int:
        """A length that its code holds (``short`` + n, n <= ``most``) or that follows the code."""
        if code in wide:
            return self.number(wide[code])
        if not short <= code <= short + most:
            raise _damaged(self.file, f"the unexpected msgpack type 0x{code:02x}")
        return code - short

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "big")

    def take(self, count: int) -> bytes:
        """The next bytes of the structure, out of a small window over the file."""
        self.structure += count
        if self.structure > _MAX_STRUCTURE:
            raise _damaged(self.file, f"more than {_MAX_STRUCTURE} bytes beside the arrays")
        begin = self.at - self.window_at
        if not 0 <= begin <= len(self.window) - count:
            self.file.check_range(self.at, count)
            self.window = self.file.pread(self.at, min(4096, self.file.size - self.at))
            self.window_at, begin = self.at, 0
        self.at += count
        return self.window[begin : begin + count]


def _is_list(value: Any, kind: type) -> bool:
    """Whether a table has the keys "0", "1", ... and values of one type: a list, in flax."""
    return isinstance(value, dict) and all(
        type(value.get(str(i))) is kind for i in range(len(value))
    )


def _damaged(file: ByteFile, what: str) -> UserError:
    return UserError(f"{file.path}: not a complete Flax checkpoint ({what}). Download it again.")
