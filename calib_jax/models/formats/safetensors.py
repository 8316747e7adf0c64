"""Reads the tensors of a Hugging Face folder: one or many safetensors files."""

import json
from pathlib import Path

import ml_dtypes  # noqa: F401  (registers bfloat16 with numpy, which safetensors relies on)
import numpy as np
from safetensors import SafetensorError, safe_open

from calib_jax.errors import UserError

_FLOATS = ("F32", "F16", "BF16", "F64")


class SafetensorsSource:
    """The tensors of ``*.safetensors`` in a folder, read slice by slice.

    Raises:
      UserError: no safetensors, a file that the index names is missing, or a file is truncated.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.files = _weight_files(folder)
        self._handles = {}
        self._where: dict[str, Path] = {}
        for path in self.files:
            try:
                handle = safe_open(path, framework="numpy")
            except (SafetensorError, OSError) as error:
                raise UserError(
                    f"{path}: not a complete safetensors file ({error}). Download it again."
                ) from None
            self._handles[path] = handle
            for name in handle.keys():
                if name in self._where:
                    raise UserError(
                        f"{path}: tensor {name!r} stands in {self._where[name].name} too; "
                        "the folder mixes two checkpoints. Keep one."
                    )
                self._where[name] = path

    def names(self) -> set[str]:
        return set(self._where)

    def where(self, name: str) -> str:
        return str(self._where.get(name, self.folder))

    def shape(self, name: str) -> tuple[int, ...]:
        piece = self._handles[self._where[name]].get_slice(name)
        if piece.get_dtype() not in _FLOATS:
            raise UserError(
                f"{self._where[name]}: tensor {name!r} is stored as {piece.get_dtype()}; only "
                f"{', '.join(_FLOATS)} are read."
            )
        return tuple(piece.get_shape())

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """The slice of a tensor that ``index`` names, in the stored dtype."""
        return self._handles[self._where[name]].get_slice(name)[index]


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        files = sorted(folder.glob("*.safetensors"))
        files = [path for path in files if path.name != "adapter_model.safetensors"]
        if files:
            return files
        other = sorted(folder.glob("*.bin")) + sorted(folder.glob("*.msgpack"))
        if other:
            raise UserError(
                f"{folder}: holds {other[0].name} but no safetensors. Convert it once with "
                "transformers (AutoModelForCausalLM.from_pretrained(...).save_pretrained(...)), "
                "or name a revision of the repository that has safetensors."
            )
        raise UserError(f"{folder}: no *.safetensors file. Is this a Hugging Face model folder?")
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        paths = [folder / name for name in names]
    except (ValueError, KeyError, AttributeError, TypeError):
        raise UserError(f"{index}: not a safetensors index. Download it again.") from None
    for path in paths:
        if not path.exists():
            raise UserError(f"{path}: named by {index.name} but missing. Download it.")
    return paths
