"""A frozen base in few bits for adapters: weights only, through qwix, not activations.

"int8": a projection W [in, out] is held as int8 q and one float32 scale s per output channel,
W ≈ q · s, with s = max |W| / 127.5 over the channel (qwix's symmetric absmax).

"nf4": blocks of 64 inputs of an output channel share a float32 scale s = max |W|, and every weight
is the nearest of s times the 16 levels of a 4-bit normal float; two weights lie in a byte, 4.5 bits
each with the scales. Source: Dettmers et al. 2023 (QLoRA), appendix E; their second quantisation,
of the scales, is left out.

Embedding, LM head, norms and biases are left alone, and so are the adapters.
"""

import math
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from calib_jax.errors import UserError

SCHEMES = ("int8", "nf4")
BLOCK = 64
# The levels of NF4: quantiles of the normal distribution, scaled into ±1, with an exact 0.
LEVELS = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453),
    *(-0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0),
    *(0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224),
    *(0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


@flax.struct.dataclass
class Nf4:
    """A projection [..., in, out] in NF4.

    XLA unpacks a whole stack of jnp.uint4 before a loop over its layers, on CPUs at least; bytes
    stay packed until a layer is computed.

    Attributes:
      qvalue: [..., in / 2, out] uint8, numbers of levels: the first half of every block in the low
        four bits, the second in the high ones.
      scale: [..., in / block, out] float32.
    """

    qvalue: Any
    scale: Any


def check_scheme(scheme: str) -> None:
    """Raises UserError for an unknown scheme, or where qwix, which computes it, is missing."""
    if scheme not in SCHEMES:
        names = " or ".join(map(repr, SCHEMES))
        raise UserError(f"config.model.quantize is {scheme!r}; expected '', {names}.")
    try:
        import qwix  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"config.model.quantize={scheme!r} needs qwix ({error}). Run: pip install "
            "'calib_jax[quant]'"
        ) from None


def is_quantized(weight: Any) -> bool:
    """Whether a leaf of the parameters is an ``Nf4`` or a qwix.QArray, which need not be imported
    for that."""
    return hasattr(weight, "qvalue")


def _block(inputs: int) -> int:
    """Inputs that share a scale: 64, or the largest power of two that divides them."""
    return math.gcd(inputs, BLOCK)


def quantize(weight: jax.Array, scheme: str) -> Any:
    """A projection [..., in, out] as a qwix.QArray with scales [..., 1, out], or as an ``Nf4``.

    The scales come from float32 whatever the weight's dtype: in bfloat16 their rounding alone would
    cost half a step at a channel's largest weights.

    Raises:
      UserError: "nf4" of an odd number of inputs.
    """
    import qwix

    inputs = weight.ndim - 2
    others = tuple(axis for axis in range(weight.ndim) if axis != inputs)
    weight = weight.astype(jnp.float32)
    if scheme == "int8":
        return qwix.quantize(weight, jnp.int8, channelwise_axes=others)
    *stack, size, outputs = weight.shape
    if size % 2:
        raise UserError(
            f"config.model.quantize is 'nf4', which pairs a projection's inputs, and one has {size}"
            " of them. Choose 'int8'."
        )
    block = _block(size)
    q = qwix.quantize(weight, "nf4", channelwise_axes=others, tiled_axes={inputs: block})
    halves = q.qvalue.astype(jnp.uint8).reshape(*stack, size // block, 2, block // 2, outputs)
    low, high = jnp.moveaxis(halves, -3, 0)
    return Nf4((low | high << 4).reshape(*stack, size // 2, outputs), q.scale)


def layout(sharding: jax.sharding.Sharding, shape: tuple[int, ...], scheme: str) -> Any:
    """The shardings of the arrays that stand for a projection [..., in, out] so laid out.

    A scale lies with its output channel. Along the inputs int8's scales have nothing to split, and
    NF4 is split between blocks, or not at all where the mesh does not divide their number.
    """
    import qwix

    scale = sharding
    if isinstance(sharding, jax.sharding.NamedSharding):
        axes = [*sharding.spec, *[None] * (len(shape) - len(sharding.spec))]
        names = (axes[-2],) if isinstance(axes[-2], str) else (axes[-2] or ())
        ways = math.prod(sharding.mesh.shape[name] for name in names)
        if scheme == "int8" or shape[-2] // _block(shape[-2]) % ways:
            axes[-2] = None
        scale = jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec(*axes))
    if scheme == "int8":
        return qwix.QArray(sharding, scale, None, jnp.int8)
    return Nf4(scale, scale)


def matmul(x_XxI: jax.Array, weight_IxO: Any, dtype: Any) -> jax.Array:
    """x W in ``dtype``, for a plain weight or a quantised one, which no gradient reaches."""
    if not is_quantized(weight_IxO):
        return x_XxI @ weight_IxO.astype(dtype)
    return _product(x_XxI, weight_IxO).astype(dtype)


@jax.custom_vjp
def _product(x_XxI: jax.Array, weight_IxO: Any) -> jax.Array:
    """x W in float32 up to x's dtype.

    int8 values are exact in bfloat16, so their scale is applied to the product, in float32, and no
    weight is rounded twice. Levels of NF4 differ in scale along the inputs: W itself is restored.
    """
    if not isinstance(weight_IxO, Nf4):
        product_XxO = x_XxI @ weight_IxO.qvalue.astype(x_XxI.dtype)
        return (product_XxO * weight_IxO.scale[0]).astype(x_XxI.dtype)
    return x_XxI @ _restored(weight_IxO, x_XxI.dtype)


def _forward(x_XxI: jax.Array, weight_IxO: Any) -> tuple[jax.Array, Any]:
    # Kept for the backward pass are the few bits, not a restored copy of every layer.
    return _product(x_XxI, weight_IxO), weight_IxO


def _backward(weight_IxO: Any, grad_XxO: jax.Array) -> tuple[jax.Array, Any]:
    dtype = grad_XxO.dtype
    if not isinstance(weight_IxO, Nf4):
        scaled_XxO = (grad_XxO * weight_IxO.scale[0]).astype(dtype)
        grad_XxI = jnp.einsum("...o,io->...i", scaled_XxO, weight_IxO.qvalue.astype(dtype))
    else:
        grad_XxI = jnp.einsum("...o,io->...i", grad_XxO, _restored(weight_IxO, dtype))

    def nothing(x: jax.Array) -> Any:
        if jnp.issubdtype(x.dtype, jnp.integer):
            return np.zeros(x.shape, jax.dtypes.float0)
        return jnp.zeros_like(x)

    return grad_XxI, jax.tree.map(nothing, weight_IxO)


_product.defvjp(_forward, _backward)


def _restored(weight_IxO: Nf4, dtype: Any) -> jax.Array:
    """W [in, out]."""
    outputs, blocks = weight_IxO.qvalue.shape[1], len(weight_IxO.scale)
    packed = weight_IxO.qvalue.reshape(blocks, 1, -1, outputs).astype(jnp.int32)
    # By a shift that is broadcast, not by a concatenation, which would not be fused.
    numbers = packed >> 4 * jax.lax.broadcasted_iota(jnp.int32, (1, 2, 1, 1), 1)
    # Selects instead of a look-up: gathers of single numbers are slow on TPUs.
    levels = [jnp.float32(level) for level in LEVELS]
    for bit in range(4):
        is_set = numbers >> bit & 1 == 1
        pairs = zip(levels[::2], levels[1::2], strict=True)
        levels = [jnp.where(is_set, high, low) for low, high in pairs]
    return (levels[0] * weight_IxO.scale[:, None, None]).reshape(-1, outputs).astype(dtype)
