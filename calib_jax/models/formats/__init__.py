"""Checkpoints as they lie on disk: one reader a format, all behind one protocol.

A model folder is untrusted input. Nothing in here executes what a file holds, follows a path out
of its folder, or allocates by a size that the file's own length does not cover.
"""

from fnmatch import fnmatchcase as fnmatch
from pathlib import Path

from calib_jax.errors import UserError
from calib_jax.models.formats.source import TensorSource

_NOT_THE_MODEL = (".", "adapter_model", "consolidated")  # as SafetensorsSource does


def is_weights(name: str) -> bool:
    """Whether a file of a folder holds a model's weights in one of the formats, or lists such."""
    safetensors = fnmatch(name, "*.safetensors*") and not name.startswith(_NOT_THE_MODEL)
    return (
        safetensors or fnmatch(name, "pytorch_model*.bin*") or fnmatch(name, "flax_model*.msgpack*")
    )


def open_source(path: Path) -> TensorSource:
    """Opens a checkpoint: a ``.gguf`` file, or a folder by the first format that it holds.

    Safetensors come before PyTorch's ``.bin``, and that before Flax's ``.msgpack``: repositories
    often hold the same weights several times.

    Raises:
      UserError: no weights, or damaged ones.
    """
    # Imported when needed: a reader's own libraries are its own business.
    if path.is_file():
        from calib_jax.models.formats.gguf import GgufSource

        return GgufSource(path)
    weights = [file.name for file in path.iterdir() if is_weights(file.name)]
    if any(".safetensors" in name for name in weights):
        from calib_jax.models.formats.safetensors import SafetensorsSource

        return SafetensorsSource(path)
    if any(name.startswith("pytorch_model") for name in weights):
        from calib_jax.models.formats.torch_bin import TorchBinSource

        return TorchBinSource(path)
    if weights:
        from calib_jax.models.formats.flax_msgpack import FlaxSource

        return FlaxSource(path)
    raise UserError(
        f"{path}: no weights (*.safetensors, pytorch_model*.bin or flax_model*.msgpack). Is this a "
        "Hugging Face model folder?"
    )
