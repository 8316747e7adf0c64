"""Tensors that lie uncompressed in files: what the readers of such formats share."""

import dataclasses
from pathlib import Path

import ml_dtypes
import numpy as np

from calib_jax.errors import UserError
from calib_jax.models.formats.files import ByteFile, array_bytes

# The types that weights are read in; a tensor of another one has no dtype and is refused when used.
FLOATS = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float64": np.dtype(np.float64),
}


@dataclasses.dataclass(frozen=True)
class Stored:
    """Where one tensor lies.

    Attributes:
      file: the bytes.
      offset: of its first byte.
      shape: as PyTorch has it.
      dtype: of its elements.
      order: "C", or "F" where the first axis is the fastest.
      refusal: why it cannot be read ("is stored as I32; ..."), or "".
    """

    file: ByteFile
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype
    order: str = "C"
    refusal: str = ""


class StoredTensors:
    """A ``TensorSource`` over tensors that lie in files as plain arrays.

    A tensor that cannot be read is refused when its shape, dtype or data are asked for, so that
    buffers which no model uses do no harm.
    """

    def __init__(self, folder: Path, files: list[ByteFile], tensors: dict[str, Stored]):
        self.folder = folder
        self.files = [file.path for file in files]
        self._files = files
        self._tensors = tensors
        self._opening = sum(file.bytes_read for file in files)
        for name, stored in tensors.items():
            if not stored.refusal:
                where = f"{stored.file.path}: tensor {name!r}"
                stored.file.check_range(
                    stored.offset, array_bytes(stored.shape, stored.dtype, where)
                )

    @property
    def bytes_read(self) -> int:
        return sum(file.bytes_read for file in self._files) - self._opening

    def names(self) -> set[str]:
        return set(self._tensors)

    def where(self, name: str) -> str:
        return str(self._tensors[name].file.path if name in self._tensors else self.folder)

    def shape(self, name: str) -> tuple[int, ...]:
        return self._get(name).shape

    def dtype(self, name: str) -> np.dtype:
        return self._get(name).dtype

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """The slice of a tensor that ``index`` names, in the stored dtype."""
        stored = self._get(name)
        return stored.file.read_slice(
            stored.offset, stored.shape, stored.dtype, index, stored.order
        )

    def _get(self, name: str) -> Stored:
        stored = self._tensors[name]
        if stored.refusal:
            raise UserError(f"{stored.file.path}: tensor {name!r} {stored.refusal}.")
        return stored


def refused_dtype(stored_as: str) -> str:
    """The refusal of a tensor of another type than ``FLOATS``."""
    return f"is stored as {stored_as}; only {', '.join(FLOATS)} are read"


def add_tensor(tensors: dict[str, Stored], name: str, stored: Stored) -> None:
    """Adds a tensor; UserError where another file, or another place of this one, has it too."""
    if name in tensors:
        raise UserError(
            f"{stored.file.path}: tensor {name!r} is also in {tensors[name].file.path.name}; "
            "the folder mixes two checkpoints. Keep one."
        )
    tensors[name] = stored
