"""What a reader of checkpoints offers to the loader."""

from pathlib import Path
from typing import Protocol

import numpy as np


class TensorSource(Protocol):
    """A checkpoint's tensors under the names and in the layout of PyTorch transformers.

    Opening reads headers only. Every method may be called from several threads.

    Attributes:
      files: what the tensors lie in.
      bytes_read: bytes of tensor data read so far, all threads together.
    """

    @property
    def files(self) -> list[Path]: ...

    @property
    def bytes_read(self) -> int: ...

    def names(self) -> set[str]:
        """Every tensor."""

    def where(self, name: str) -> str:
        """The file of a tensor, or the place where it should have been, for messages."""

    def shape(self, name: str) -> tuple[int, ...]:
        """Its shape; a linear layer's weight is [out, in] as torch.nn.Linear has it."""

    def dtype(self, name: str) -> np.dtype:
        """The floating type that it is stored in; float32 for quantised ones."""

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """The slice that ``index`` names (one slice an axis, step 1), in ``dtype``.

        Reads the bytes of the slice from disk, no more than its format asks for.
        """
