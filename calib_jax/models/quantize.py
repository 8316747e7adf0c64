"""An int8 base for adapters: weights only, through qwix; activations stay what they are.

A projection W [in, out] is held as int8 q and one float32 scale s per output channel: W ≈ q · s
with s = max |W| / 127.5 over the channel (qwix's symmetric absmax), rounded to the nearest.
Embedding, LM head, norms and biases are left alone, and so are the adapters.
"""

from typing import Any

import jax
import jax.numpy as jnp

from calib_jax.errors import UserError

SCHEMES = ("int8",)


def check_scheme(scheme: str) -> None:
    """Raises UserError for an unknown scheme, or where qwix, which computes it, is missing."""
    if scheme not in SCHEMES:
        raise UserError(f"config.model.quantize is {scheme!r}; expected '' or {SCHEMES[0]!r}.")
    try:
        import qwix  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"config.model.quantize={scheme!r} needs qwix ({error}). Run: pip install "
            "'calib_jax[quant]'"
        ) from None


def is_quantized(weight: Any) -> bool:
    """Whether a leaf of the parameters is a qwix.QArray (which need not be imported for that)."""
    return hasattr(weight, "qvalue")


def quantize(weight: jax.Array) -> Any:
    """A QArray of a projection [..., in, out]; the scale is float32, [..., 1, out].

    The scale comes from float32 whatever the weight's dtype: in bfloat16 its rounding alone would
    cost half a step at the channel's largest weights.
    """
    import qwix

    axes = tuple(axis for axis in range(weight.ndim) if axis != weight.ndim - 2)
    return qwix.quantize(weight.astype(jnp.float32), jnp.int8, channelwise_axes=axes)


def layout(sharding: jax.sharding.Sharding, ndim: int) -> Any:
    """The shardings of a QArray's arrays, as a QArray, for a projection [..., in, out] so laid out.

    A scale lies with its output channel; along the inputs it has nothing to split.
    """
    import qwix

    scale = sharding
    if isinstance(sharding, jax.sharding.NamedSharding):
        axes = [*sharding.spec, *[None] * (ndim - len(sharding.spec))]
        axes[-2] = None
        scale = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec(*axes))
    return qwix.QArray(sharding, scale, None, jnp.int8)


def matmul(x_XxI: jax.Array, weight_IxO: Any, dtype: Any) -> jax.Array:
    """x W in ``dtype``, for a plain weight or a QArray.

    int8 values are exact in bfloat16, so the scale is applied to the product, in float32, and no
    weight is rounded twice.
    """
    if not is_quantized(weight_IxO):
        return x_XxI @ weight_IxO.astype(dtype)
    product_XxO = x_XxI @ weight_IxO.qvalue.astype(dtype)
    return (product_XxO * weight_IxO.scale[0]).astype(dtype)
