"""The header of a GGUF file: metadata and the places of the tensors, every length checked.

The ``gguf`` package's reader trusts the lengths that it finds; one flipped bit makes it loop for
hours. Here no count is believed before it fits into the bytes that are left.
"""

import dataclasses
import math
import struct
from typing import Any, NoReturn

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

from calib_jax.errors import UserError
from calib_jax.models.formats.files import ByteFile

# Several times what the largest vocabularies take; longer ones of empty strings take seconds.
_MAX_HEADER = 32 << 20
_CHUNK = 1 << 20
_DEFAULT_ALIGNMENT = 32

# Value types of the format, little-endian.
_SCALARS: dict[int, np.dtype] = {
    0: np.dtype("<u1"),
    1: np.dtype("<i1"),
    2: np.dtype("<u2"),
    3: np.dtype("<i2"),
    4: np.dtype("<u4"),
    5: np.dtype("<i4"),
    6: np.dtype("<f4"),
    7: np.dtype("?"),
    10: np.dtype("<u8"),
    11: np.dtype("<i8"),
    12: np.dtype("<f8"),
}
_BOOL, _STRING, _ARRAY = 7, 8, 9
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")


@dataclasses.dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies.

    Attributes:
      shape: slowest axis first, as numpy and torch have it.
      kind: how its values are encoded.
      offset: of its first byte in the file.
    """

    shape: tuple[int, ...]
    kind: GGMLQuantizationType
    offset: int

    @property
    def block(self) -> tuple[int, int]:
        """Values of a block, and its bytes; blocks lie along the last axis."""
        return GGML_QUANT_SIZES[self.kind]

    @property
    def row_bytes(self) -> int:
        """Bytes of one stretch of the last axis."""
        values, size = self.block
        return self.shape[-1] // values * size

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape[:-1]) * self.row_bytes


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says before its tensors' bytes.

    Attributes:
      fields: the metadata as Python's own types.
      tensors: by llama.cpp's names.
    """

    fields: dict[str, Any]
    tensors: dict[str, TensorInfo]


def read_header(file: ByteFile) -> Header:
    """Parses the header of a GGUF file of version 2 or 3.

    Raises:
      UserError: not a GGUF file, a big-endian one, a truncated or damaged one, or one whose
        header exceeds 32 MiB.
    """
    cursor = _Cursor(file)
    if cursor.take(4) != b"GGUF":
        cursor.fail("it does not begin with 'GGUF'")
    version = cursor.u32()
    if version not in (2, 3):
        if version & 0xFFFF == 0 and version:
            raise UserError(
                f"{file.path}: a big-endian GGUF file; only little-endian ones are read. "
                "Download the little-endian file of this model."
            )
        raise UserError(
            f"{file.path}: GGUF version {version} is not read (2 and 3 are). Convert the model "
            "again with a current llama.cpp."
        )
    num_tensors, num_fields = cursor.u64(), cursor.u64()
    # The shortest tensor takes 8 + 1 + 4 + 8 + 4 + 8 bytes, the shortest field 8 + 1 + 4 + 1.
    cursor.check_count(num_tensors, 33, "tensors")
    cursor.check_count(num_fields, 14, "metadata keys")

    fields: dict[str, Any] = {}
    for _ in range(num_fields):
        key = cursor.string("a metadata key")
        if key in fields:
            cursor.fail(f"metadata key {key!r} occurs twice")
        fields[key] = cursor.value(cursor.u32(), key)

    alignment = fields.get("general.alignment", _DEFAULT_ALIGNMENT)
    if type(alignment) is not int or not 0 < alignment <= 1 << 16 or alignment % 8:
        cursor.fail(f"'general.alignment' is {alignment!r}")
    found = [_tensor_info(cursor, alignment) for _ in range(num_tensors)]
    start = -(-cursor.at // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for name, info in found:
        if name in tensors:
            cursor.fail(f"tensor {name!r} occurs twice")
        info = dataclasses.replace(info, offset=start + info.offset)
        end = info.offset + info.num_bytes
        if end > file.size:
            cursor.fail(f"truncated; tensor {name!r} ends at byte {end} of {file.size}")
        tensors[name] = info
    return Header(fields, tensors)


def _tensor_info(cursor: "_Cursor", alignment: int) -> tuple[str, TensorInfo]:
    """One entry of the list of tensors; its offset counts from the end of the header."""
    name = cursor.string("a tensor's name")
    num_axes = cursor.u32()
    if not 1 <= num_axes <= 4:
        cursor.fail(f"tensor {name!r} has {num_axes} axes")
    shape = tuple(cursor.u64() for _ in range(num_axes))[::-1]
    number, offset = cursor.u32(), cursor.u64()
    try:
        kind = GGMLQuantizationType(number)
    except ValueError:
        cursor.fail(f"tensor {name!r} has the unknown type {number}")
    info = TensorInfo(shape, kind, offset)
    # A product of four 64-bit axes is a Python integer here: nothing wraps around.
    if 0 in shape or shape[-1] % info.block[0]:
        cursor.fail(f"tensor {name!r} of type {kind.name} has shape {shape}")
    if offset % alignment:
        cursor.fail(f"tensor {name!r} is not aligned to {alignment} bytes")
    return name, info


class _Cursor:
    """Reads a header from front to back, a chunk at a time."""

    def __init__(self, file: ByteFile):
        self._file = file
        self._buffer = b""
        self._begin = 0  # of the buffer, in the file
        self.at = 0

    def fail(self, what: str) -> NoReturn:
        raise UserError(f"{self._file.path}: not a complete GGUF file ({what}). Download it again.")

    @property
    def left(self) -> int:
        """Bytes that the header may still take."""
        return min(self._file.size, _MAX_HEADER) - self.at

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count > self.left:
            if self._file.size - self.at >= count:
                self.fail(f"its header exceeds {_MAX_HEADER} bytes")
            self.fail(f"truncated; {count} bytes at {self.at} of {self._file.size}")
        first = self.at - self._begin
        if first + count > len(self._buffer):
            size = min(max(count, _CHUNK), self._file.size - self.at)
            self._buffer, self._begin, first = self._file.pread(self.at, size), self.at, 0
        self.at += count
        return self._buffer[first : first + count]

    def check_count(self, count: int, size: int, what: str) -> None:
        """Fails unless ``count`` things of at least ``size`` bytes each can follow."""
        if count * size > self.left:
            self.fail(f"truncated; {count} {what} do not fit into the {self.left} bytes left")

    def u32(self) -> int:
        return _U32.unpack(self.take(4))[0]

    def u64(self) -> int:
        return _U64.unpack(self.take(8))[0]

    def string(self, what: str) -> str:
        length = self.u64()
        self.check_count(length, 1, f"bytes of {what}")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError as error:
            self.fail(f"{what} is damaged: {error}")

    def value(self, kind: int, key: str) -> Any:
        """A metadata value of this type: int, float, bool, str or a list of one of them."""
        what = f"metadata key {key!r}"
        if kind == _STRING:
            return self.string(what)
        if kind == _ARRAY:
            kind, count = self.u32(), self.u64()
            if kind == _STRING:
                self.check_count(count, 8, f"strings of {what}")
                return self._strings(count, what)
            return self._scalars(kind, count, what)
        return self._scalars(kind, 1, what)[0]

    def _strings(self, count: int, what: str) -> list[str]:
        """A vocabulary has hundreds of thousands: those inside the buffer are cut out in place."""
        found: list[str] = []
        while len(found) < count:
            found.append(self.string(what))  # refills the buffer, and fails where one must
            buffer, at = self._buffer, self.at - self._begin
            try:
                while len(found) < count and at + 8 <= len(buffer):
                    end = at + 8 + _U64.unpack_from(buffer, at)[0]
                    if end > len(buffer):
                        break
                    found.append(buffer[at + 8 : end].decode("utf-8"))
                    at = end
            except UnicodeDecodeError as error:
                self.fail(f"{what} is damaged: {error}")
            self.at = self._begin + at
        return found

    def _scalars(self, kind: int, count: int, what: str) -> list[Any]:
        if kind not in _SCALARS:
            self.fail(f"{what} has the unknown type {kind}")
        dtype = _SCALARS[kind]
        self.check_count(count, dtype.itemsize, f"values of {what}")
        raw = self.take(count * dtype.itemsize)
        if kind == _BOOL and raw.strip(b"\0\1"):
            self.fail(f"{what} is neither true nor false")
        return np.frombuffer(raw, dtype).tolist()
