"""Reads the tensors of a Hugging Face folder: one or many safetensors files.

A file is 8 bytes with the header's length, the header in JSON, and the data that the header's
``data_offsets`` divide without gap or overlap.
"""

from pathlib import Path
from typing import Any

import numpy as np

from calib_jax.errors import UserError
from calib_jax.models.formats.files import (
    ByteFile,
    array_bytes,
    parse_json,
    weight_files,
)
from calib_jax.models.formats.stored import (
    FLOATS,
    Stored,
    StoredTensors,
    add_tensor,
    refused_dtype,
)

SINGLE = "model.safetensors"
# Adapters, and the same weights once more in Meta's or Mistral's own layout.
_NOT_THE_MODEL = ("adapter_model", "consolidated")
# Below the 100 MB of the format itself: JSON grows in memory to some 25 times its size.
_MAX_HEADER = 32 << 20
_FLOATS = {
    "F32": FLOATS["float32"],
    "F16": FLOATS["float16"],
    "BF16": FLOATS["bfloat16"],
    "F64": FLOATS["float64"],
}
# The format's other types, whose tensors are refused by name when something asks for them.
_OTHERS = {
    "BOOL": 8, "U8": 8, "I8": 8, "I16": 16, "U16": 16, "I32": 32, "U32": 32, "I64": 64, "U64": 64,
    "C64": 64, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "F8_E5M2FNUZ": 8, "F8_E4M3FNUZ": 8,
}  # fmt: skip  # pairs, several on a line


class SafetensorsSource(StoredTensors):
    """The tensors of ``*.safetensors`` in a folder, read range by range.

    Raises:
      UserError: no safetensors, a file that the index names is missing, a file is truncated or its
        header damaged, or two files hold the same tensor.
    """

    def __init__(self, folder: Path):
        paths = weight_files(folder, SINGLE, "*.safetensors", _NOT_THE_MODEL)
        if not paths:
            raise UserError(
                f"{folder}: no *.safetensors file. Is this a Hugging Face model folder?"
            )
        files = [ByteFile(path) for path in paths]
        tensors: dict[str, Stored] = {}
        for file in files:
            for name, stored in read_header(file).items():
                add_tensor(tensors, name, stored)
        super().__init__(folder, files, tensors)


def read_header(file: ByteFile) -> dict[str, Stored]:
    """Where each tensor of one safetensors file lies.

    Raises:
      UserError: the header is damaged, or does not fit the file.
    """
    if file.size < 8:
        raise _damaged(file, f"{file.size} bytes hold no header")
    length = int.from_bytes(file.pread(0, 8), "little")
    if length > _MAX_HEADER or 8 + length > file.size:
        raise _damaged(file, f"a header of {length} bytes in a file of {file.size}")
    header = parse_json(file.pread(8, length), f"{file.path}: the safetensors header")
    if not isinstance(header, dict):
        raise _damaged(file, "the header is no table of tensors")
    metadata = header.pop("__metadata__", None) or {}
    made_for = metadata.get("format") if isinstance(metadata, dict) else metadata
    if made_for in ("flax", "tf"):
        raise UserError(
            f"{file.path}: written for {made_for!r}, with other names than PyTorch's. "
            "Use the repository's PyTorch safetensors or its flax_model.msgpack."
        )
    tensors, pieces = {}, []
    for name, entry in header.items():
        begin, end, tensors[name] = _entry(file, name, entry, 8 + length)
        pieces.append((begin, end, name))
    reached = 0
    for begin, end, name in sorted(pieces):
        if begin != reached:
            raise _damaged(file, f"tensor {name!r} begins at byte {begin}, not at {reached}")
        reached = end
    if 8 + length + reached != file.size:
        raise _damaged(
            file, f"the tensors end at byte {8 + length + reached} of a file of {file.size}"
        )
    return tensors


def _entry(file: ByteFile, name: str, entry: Any, start: int) -> tuple[int, int, Stored]:
    """One tensor's first byte, the byte after its last, and its description."""
    if len(name) > 1000:
        raise _damaged(file, f"a tensor's name has {len(name)} characters")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(file, f"tensor {name!r} is not described by dtype, shape, data_offsets")
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _FLOATS and kind not in _OTHERS:
        raise _damaged(file, f"tensor {name!r} has the unknown dtype {str(kind)[:20]!r}")
    if not isinstance(shape, list):
        raise _damaged(file, f"tensor {name!r} has no shape")
    where = f"{file.path}: tensor {name!r}"
    dtype = _FLOATS.get(kind, np.dtype(np.uint8))
    bits = array_bytes(shape, dtype, where) * _OTHERS.get(kind, 8)
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(type(n) is int for n in offsets)
        or not 0 <= offsets[0] <= offsets[1] <= file.size - start
        or (offsets[1] - offsets[0]) * 8 != bits
    ):
        raise _damaged(file, f"tensor {name!r} of {kind} {shape} has data_offsets {offsets!r:.80}")
    refusal = "" if kind in _FLOATS else refused_dtype(kind)
    return *offsets, Stored(file, start + offsets[0], tuple(shape), dtype, refusal=refusal)


def _damaged(file: ByteFile, what: str) -> UserError:
    what = what if len(what) <= 300 else f"{what[:300]}..."
    return UserError(f"{file.path}: not a complete safetensors file ({what}). Download it again.")
