"""Loading a model onto a mesh: what notebooks call and what the jobs call."""

import dataclasses
import os
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from calib_jax.errors import UserError, UserNotice
from calib_jax.models import model as models
from calib_jax.models import splash
from calib_jax.models.config import ModelConfig
from calib_jax.models.quantize import check_scheme
from calib_jax.parallel import mesh as meshes
from calib_jax.parallel.mesh import make_mesh
from calib_jax.parallel.shards import check_mesh, place_lora, row_sharding

__all__ = ["load_model", "make_mesh"]

DTYPES = ("float32", "bfloat16")
PARAM_DTYPES = (*DTYPES, "float16", "stored")
ATTENTIONS = ("auto", "xla", "cudnn", "splash")


def load_model(
    name: str | os.PathLike,
    dtype: str | None = "float32",
    mesh: jax.sharding.Mesh | None = None,
    *,
    param_dtype: str | None = None,
    revision: str | None = None,
    attention: str = "auto",
    adapter: str | os.PathLike | None = None,
    quantize: str | None = None,
    on_bytes: Callable[[int, int], None] | None = None,
) -> models.Model:
    """Loads a model, its parameters streamed onto the mesh.

    Args:
      name: a Hugging Face folder (safetensors, PyTorch ``.bin`` or Flax ``.msgpack``), a ``.gguf``
        file, a hub id (``owner/name``), or ``offline:smollm2-135m-instruct``.
      dtype: "float32" or "bfloat16", of the parameters and the computation; None for float32 on a
        CPU and bfloat16 elsewhere.
      mesh: from ``make_mesh``; None for one device.
      param_dtype: of the parameters alone, when they differ from the computation: "float32",
        "bfloat16", "float16", or "stored" for each parameter's own in the checkpoint.
      revision: branch, tag or commit of a hub id.
      attention: "xla"; "cudnn" on an NVIDIA GPU in bfloat16; "splash" on a TPU; "auto" for one of
        the latter where it can be had.
      adapter: a LoRA adapter in PEFT's format, a folder or a hub id. It stays beside the
        parameters, in float32.
      quantize: "int8" for 8-bit projections through qwix, "nf4" for 4-bit ones.
      on_bytes: called as (bytes read since the last call, bytes to read in all).

    Raises:
      UserError: nothing is there, it cannot be read, its architecture or an attribute of its
        config is not handled, it does not divide over the mesh, or an argument is not one of the
        values above.
    """
    if dtype is None:
        dtype = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    _check_dtype("dtype", dtype, DTYPES)
    _check_dtype("param_dtype", param_dtype or dtype, PARAM_DTYPES)
    if quantize:
        check_scheme(quantize)
    mesh = mesh or meshes.default_mesh()
    checkpoint = models.open_checkpoint(os.fspath(name), revision)
    if not adapter:
        models.check_no_adapter_beside(checkpoint.path)
    attention = _attention(attention, checkpoint.config, dtype)
    check_mesh(checkpoint.config, mesh)
    beside: dict[str, Any] = {}
    if adapter:
        from calib_jax.models import peft

        # Before the weights: a bad adapter is found in a second.
        read = peft.read_adapter(os.fspath(adapter), checkpoint.config)
        if warning := peft.other_base(read, checkpoint.name):
            warnings.warn(warning, UserNotice, stacklevel=2)
        adapters = place_lora(read.tree, mesh, checkpoint.config, read.lora)
        beside = {
            "lora": read.lora,
            "adapters": adapters,
            "fingerprint": peft.joint_fingerprint(checkpoint.fingerprint, read),
        }
    model = models.load(
        checkpoint,
        dtype,
        param_dtype=param_dtype,
        shardings=row_sharding(mesh),
        mesh=mesh,
        attention=attention,
        quantize=quantize or None,
        on_bytes=on_bytes,
    )
    return dataclasses.replace(model, **beside)


def _check_dtype(what: str, dtype: Any, known: tuple[str, ...]) -> None:
    try:
        name = dtype if dtype == "stored" else str(jnp.dtype(dtype))
    except TypeError:  # no dtype at all
        name = None
    if name not in known:
        raise UserError(f"{what} {dtype!r} is not supported; choose from: {', '.join(known)}.")


def _attention(asked: str, config: ModelConfig, dtype: str) -> str:
    """The implementation of ``attend`` that computes this model here."""
    if asked not in ATTENTIONS:
        raise UserError(
            f"attention {asked!r} is not supported; choose from: {', '.join(ATTENTIONS)}."
        )
    if asked == "splash" or (asked == "auto" and jax.default_backend() == "tpu"):
        why = splash.refusal(config)
        if jax.default_backend() != "tpu":
            why = f"needs a TPU; this is a {jax.default_backend()}"
        if asked == "splash" and why:
            raise UserError(
                f"config.model.attention is 'splash', which {why}. Choose 'auto' or 'xla'."
            )
        return "xla" if why else "splash"
    why = None
    if jax.default_backend() != "gpu":
        why = f"needs an NVIDIA GPU; this is a {jax.default_backend()}"
    elif jnp.dtype(dtype) == jnp.float32:
        why = "computes in 16 bits only, and the computation is float32"
    elif config.attention_softcap is not None or config.layers_differ:
        why = "knows neither soft caps nor windows in some layers only, which this model has"
    if asked == "cudnn" and why:
        raise UserError(f"config.model.attention is 'cudnn', which {why}. Choose 'auto' or 'xla'.")
    return "xla" if asked == "xla" or why else "cudnn"
