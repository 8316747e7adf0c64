"""Loading a model onto a mesh: what notebooks call and what the jobs call."""

import os
from typing import Any

import jax
import jax.numpy as jnp

from calib_jax.errors import UserError
from calib_jax.models import model as models
from calib_jax.parallel import mesh as meshes
from calib_jax.parallel.mesh import make_mesh
from calib_jax.parallel.sharding import check_mesh, row_sharding

__all__ = ["load_model", "make_mesh"]

DTYPES = ("float32", "bfloat16")
ATTENTIONS = ("xla", "cudnn")


def load_model(
    name: str | os.PathLike,
    dtype: str | None = "float32",
    mesh: jax.sharding.Mesh | None = None,
    *,
    param_dtype: str | None = None,
    revision: str | None = None,
    attention: str = "xla",
) -> models.Model:
    """Loads a model, its parameters streamed onto the mesh.

    Args:
      name: a Hugging Face folder, a ``.gguf`` file, a hub id (``owner/name``), or
        ``offline:smollm2-135m-instruct``.
      dtype: "float32" or "bfloat16", of the parameters and the computation; None for float32 on a
        CPU and bfloat16 elsewhere.
      mesh: from ``make_mesh``; None for one device.
      param_dtype: of the parameters alone, when they differ from the computation.
      revision: of a hub id.
      attention: "xla", or "cudnn" on an NVIDIA GPU in bfloat16.

    Raises:
      UserError: nothing is there, it cannot be read, its architecture or an attribute of its
        config is not handled, it does not divide over the mesh, or an argument is not one of the
        values above.
    """
    if dtype is None:
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    _check_dtype("dtype", dtype)
    _check_dtype("param_dtype", param_dtype or dtype)
    if attention not in ATTENTIONS:
        raise UserError(
            f"attention {attention!r} is not supported; there is {' and '.join(ATTENTIONS)}."
        )
    mesh = mesh or meshes.default_mesh()
    checkpoint = models.open_checkpoint(os.fspath(name), revision)
    check_mesh(checkpoint.config, mesh)
    return models.load(
        checkpoint,
        dtype,
        param_dtype=param_dtype,
        shardings=row_sharding(mesh),
        mesh=mesh,
        attention=attention,
    )


def _check_dtype(what: str, dtype: Any) -> None:
    try:
        known = str(jnp.dtype(dtype)) in DTYPES
    except TypeError:  # no dtype at all
        known = False
    if not known:
        raise UserError(f"{what} {dtype!r} is not supported; there is {' and '.join(DTYPES)}.")
