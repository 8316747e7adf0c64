"""Reads the tensors of ``pytorch_model.bin``: torch's zip files, without executing their pickle."""

import io
import struct
import zipfile
from pathlib import Path, PurePosixPath

import numpy as np

from calib_jax.errors import UserError
from calib_jax.models.formats.files import ByteFile, weight_files
from calib_jax.models.formats.stored import (
    FLOATS,
    Stored,
    StoredTensors,
    add_tensor,
    refused_dtype,
)
from calib_jax.models.formats.torch_pickle import View, read_pickle

SINGLE = "pytorch_model.bin"
# A state dict's pickle takes some 200 bytes a tensor, and its zip directory 100.
_MAX_PICKLE = 4 << 20
_MAX_DIRECTORY = 8 << 20


class TorchBinSource(StoredTensors):
    """The tensors of ``pytorch_model.bin``, or of its shards, read range by range.

    Raises:
      UserError: no such file, one that is missing or damaged, torch's format from before its
        version 1.6, or a pickle that asks for anything but tensors.
    """

    def __init__(self, folder: Path):
        paths = weight_files(folder, SINGLE, "pytorch_model*.bin")
        if not paths:
            raise UserError(f"{folder}: no {SINGLE}. Is this a Hugging Face model folder?")
        files = [ByteFile(path) for path in paths]
        tensors: dict[str, Stored] = {}
        for file in files:
            for name, stored in _read_tensors(file).items():
                add_tensor(tensors, name, stored)
        super().__init__(folder, files, tensors)


def _read_tensors(file: ByteFile) -> dict[str, Stored]:
    """Where each tensor of one file lies."""
    entries = _entries(file)
    pickles = [name for name in entries if PurePosixPath(name).name == "data.pkl"]
    if len(pickles) != 1 or pickles[0].count("/") != 1:
        raise _damaged(file, "its zip does not hold one data.pkl")
    root = pickles[0].removesuffix("data.pkl")
    order = entries.get(f"{root}byteorder")
    if order and file.pread(order[0], min(order[1], 16)) != b"little":
        raise UserError(f"{file.path}: not in little-endian byte order. Use safetensors.")
    offset, size = entries[pickles[0]]
    if size > _MAX_PICKLE:
        raise _damaged(file, f"its pickle has {size} bytes")
    views = read_pickle(file.pread(offset, size), str(file.path))
    return {name: _stored(file, name, view, entries, root) for name, view in views.items()}


def _stored(
    file: ByteFile, name: str, view: View, entries: dict[str, tuple[int, int]], root: str
) -> Stored:
    """A view of a storage as a place in the file."""
    storage = view.storage
    entry = entries.get(f"{root}data/{storage.key}")
    if entry is None:
        raise _damaged(file, f"tensor {name[:100]!r} lies in a storage that its zip lacks")
    begin, size = entry
    if size != storage.numel * storage.itemsize:
        raise _damaged(file, f"the storage of tensor {name[:100]!r} has another size than stated")
    dtype = FLOATS.get(storage.dtype, np.dtype(np.uint8))
    refusal = "" if storage.dtype in FLOATS else refused_dtype(storage.dtype)
    layout = _layout(view.size, view.stride)
    if not refusal and not layout:
        refusal = (
            f"has size {list(view.size)} and stride {list(view.stride)}, with gaps or repetitions; "
            "save it with tensor.contiguous()"
        )
    count = 1
    for n in view.size:
        count *= n
    if layout and view.offset + count > storage.numel:
        raise _damaged(file, f"tensor {name[:100]!r} leaves its storage")
    return Stored(
        file, begin + view.offset * storage.itemsize, view.size, dtype, layout or "C", refusal
    )


def _layout(size: tuple[int, ...], stride: tuple[int, ...]) -> str | None:
    """ "C" or "F" (a transposed matrix) for tensors without gaps; None for others."""
    if 0 in size:
        return "C"

    def dense(axes: list[tuple[int, int]]) -> bool:
        expected = 1
        for n, step in axes:
            if n > 1 and step != expected:
                return False
            expected *= n
        return True

    axes = list(zip(size, stride, strict=True))
    return "C" if dense(axes[::-1]) else "F" if dense(axes) else None


def _entries(file: ByteFile) -> dict[str, tuple[int, int]]:
    """Offset and size of the data of each file in the zip, all of them stored uncompressed."""
    if file.size < 4 or file.pread(0, 4) != b"PK\x03\x04":
        raise UserError(
            f"{file.path}: not one of torch's zip files. If it was written before PyTorch 1.6, "
            "convert it once: torch.save(torch.load(path, weights_only=True), path). Otherwise "
            "download it again."
        )
    try:
        with zipfile.ZipFile(_Bounded(file)) as archive:
            infos = archive.infolist()
    except UserError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OSError) as error:
        raise _damaged(file, f"zip: {str(error)[:100]}") from None
    entries = {}
    for info in infos:
        name = info.filename
        if name in entries:
            raise _damaged(file, f"its zip holds {name[:100]!r} twice")
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise _damaged(file, f"{name[:100]!r} in its zip is compressed, which torch never does")
        if info.flag_bits & 0x61:
            raise _damaged(file, f"{name[:100]!r} in its zip is encrypted or a patch")
        head = file.pread(info.header_offset, 30)
        if head[:4] != b"PK\x03\x04":
            raise _damaged(file, f"{name[:100]!r} is not where its zip's directory says")
        name_length, extra_length = struct.unpack("<HH", head[26:30])
        offset = info.header_offset + 30 + name_length + extra_length
        file.check_range(offset, info.file_size)
        entries[name] = (offset, info.file_size)
    return entries


class _Bounded(io.RawIOBase):
    """A file for ``zipfile``, which reads the directory in one piece whatever its size."""

    def __init__(self, file: ByteFile):
        self.file = file
        self.at = 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.file.size}[whence]
        if base + offset < 0:
            raise OSError("seek before the file")
        self.at = base + offset
        return self.at

    def read(self, count: int = -1) -> bytes:
        left = max(0, self.file.size - self.at)
        count = left if count < 0 else min(count, left)
        if count > _MAX_DIRECTORY:
            raise OSError(f"a directory of {count} bytes")
        data = self.file.pread(self.at, count)
        self.at += count
        return data


def _damaged(file: ByteFile, what: str) -> UserError:
    return UserError(f"{file.path}: not a complete PyTorch file ({what}). Download it again.")
