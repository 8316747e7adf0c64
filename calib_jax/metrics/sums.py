"""Sums that stay accurate in float32 at 1e7 rows and more: pairwise, never one running total."""

from dataclasses import dataclass

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


def add_counts(a: jax.Array, b: jax.Array) -> jax.Array:
    """Sum of two counts; an int32 that passes 2^31 - 1 stays at the lowest int32 for good."""
    total = a + b
    if total.dtype != jnp.int32:
        return total
    lowest = jnp.iinfo(jnp.int32).min
    return jnp.where((a < 0) | (b < 0) | (total < 0), lowest, total)


def known_count(count: jax.Array) -> jax.Array:
    """The count as float32, NaN where ``add_counts`` has marked an overflow."""
    return jnp.where(count < 0, jnp.nan, count.astype(jnp.float32))


def two_sum(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """float32 a + b and its exact rounding error (Knuth, TAOCP 2, 4.2.2); error 0 at infinities."""
    total = a + b
    part = total - a
    lost = (a - (total - part)) + (b - part)
    return total, jnp.where(jnp.isfinite(total), lost, 0)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Total:
    """A float32 sum that keeps what rounding left out, so that many additions cost no precision.

    Attributes:
        head: float32, the rounded sum.
        tail: float32, what it lacks.

    Example:
        >>> total = Total.empty()
        >>> for value in (1e8, 1.0, -1e8):
        ...     total = total + Total(jnp.float32(value), jnp.float32(0))
        >>> float(total.value())
        1.0
    """

    head: jax.Array
    tail: jax.Array

    @classmethod
    def empty(cls) -> "Total":
        return cls(jnp.float32(0), jnp.float32(0))

    @classmethod
    def of_rows(cls, values: jax.Array, weights: jax.Array | None = None) -> "Total":
        """The sum over axis 0 of ``weights * values``."""
        return cls(weighted_sum(values, weights), jnp.float32(0))

    def __add__(self, other: "Total") -> "Total":
        head, lost = two_sum(self.head, other.head)
        return Total(head, self.tail + other.tail + lost)

    def value(self) -> jax.Array:
        return self.head + self.tail
