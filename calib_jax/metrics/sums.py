"""Sums that stay accurate in float32 at 1e7 rows and more: pairwise, never one running total."""

import jax
import jax.numpy as jnp


def tree_sum(x: jax.Array) -> jax.Array:
    """Sum over axis 0 by a balanced tree: the rounding error grows with log N instead of N."""
    while x.shape[0] > 1:
        x = jnp.pad(x, [(0, -x.shape[0] % 8)] + [(0, 0)] * (x.ndim - 1))
        x = x.reshape(8, -1, *x.shape[1:])
        x = ((x[0] + x[1]) + (x[2] + x[3])) + ((x[4] + x[5]) + (x[6] + x[7]))
    return x.sum(axis=0)


def total_weight(weights: jax.Array | None, num_rows: int) -> jax.Array:
    """Sum of the weights as float32, or the number of rows."""
    if weights is None:
        return jnp.float32(num_rows)
    return tree_sum(weights).astype(jnp.float32)


def weighted_sum(values: jax.Array, weights: jax.Array | None) -> jax.Array:
    """Sum over rows of ``weights * values``; a row of weight 0 adds nothing, whatever it holds."""
    if weights is not None:
        weights = weights.reshape(weights.shape + (1,) * (values.ndim - 1))
        # where, not a product: 0 * NaN and 0 * inf would poison the sum.
        values = jnp.where(weights == 0, 0, values * weights)
    return tree_sum(values)


def weighted_mean(values: jax.Array, weights: jax.Array | None) -> jax.Array:
    """Mean over rows; NaN when no row counts."""
    return weighted_sum(values, weights) / total_weight(weights, values.shape[0])
