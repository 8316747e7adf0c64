"""float32 as integers of the same order: exact on subnormal numbers, and fast to sort."""

import jax
import jax.numpy as jnp


def order_bits(values: jax.Array) -> jax.Array:
    """int32 that order as the float32 ``values`` do, -0 equal to 0 and NaN last.

    For comparisons of subnormal numbers, which as floats all equal 0 in XLA, and for sorts: those
    of integers are four times as fast on a CPU.
    """
    bits = jax.lax.bitcast_convert_type(jnp.where(jnp.isnan(values), jnp.nan, values), jnp.int32)
    # Negative numbers order by falling bits; the lowest int32 is -0.
    bits = jnp.where(bits == jnp.iinfo(jnp.int32).min, 0, bits)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def of_order_bits(bits: jax.Array) -> jax.Array:
    """The float32 that ``order_bits`` came from."""
    return jax.lax.bitcast_convert_type(bits ^ ((bits >> 31) & 0x7FFFFFFF), jnp.float32)
