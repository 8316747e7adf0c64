"""Kernels of the equal-mass bins: where their edges lie, and sums of rows between given edges."""

import functools
import math

import jax
import jax.numpy as jnp

from calib_jax.metrics.bins import BinStats
from calib_jax.metrics.bits import of_order_bits, order_bits
from calib_jax.metrics.sums import tree_sum, two_sum

# Up to here a value is compared with every edge: one fused pass, no search.
_MAX_COMPARED_EDGES = 64
# Below, half of a difference may be a subnormal number.
_SMALL = 2.0**-100


def pair_weights(weights: jax.Array | None, valid: jax.Array | None) -> jax.Array | None:
    """Weight of every (row, option) pair, [N, K] or [N, 1]; 0 where ``valid`` is False."""
    if valid is None:
        return None if weights is None else weights[:, None]
    return valid.astype(jnp.int32) if weights is None else jnp.where(valid, weights[:, None], 0)


def equal_mass_stats(
    values: jax.Array,
    labels: jax.Array,
    valid: jax.Array | None,
    weights: jax.Array | None,
    num_bins: int,
    edges: str,
) -> tuple[BinStats, jax.Array]:
    """``BinStats`` [G, M] and edges [G, M + 1] of float32 ``values`` [N, G].

    ``labels`` and ``valid`` are boolean [N, G], ``weights`` [N] int32, float32 or None; the columns
    are binned separately. For the rule see ``adaptive.adaptive_bin_stats``.
    """
    if isinstance(num_bins, bool) or int(num_bins) != num_bins or num_bins < 1:
        raise ValueError(f"num_bins must be an integer >= 1, got {num_bins!r}")
    if edges not in ("right", "left"):
        raise ValueError(f'edges must be "right" or "left", got {edges!r}')
    fixed = jax.lax.stop_gradient(values)
    inner = jax.vmap(
        lambda v, ok: inner_edges(*sort_mass(v, ok, weights), num_bins, num_bins, edges),
        in_axes=(1, None if valid is None else 1),
    )(fixed, valid)
    stats = edge_stats(values, labels, pair_weights(weights, valid), inner, edges)
    low, high = _sides(inner)
    return stats, jnp.concatenate([low[:, :1], high], axis=1)


def sort_mass(
    values: jax.Array, valid: jax.Array | None, weights: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Ascending ``values`` [N], and how much weight lies at or before each."""
    if weights is None:
        mass = jnp.arange(1, len(values) + 1, dtype=jnp.int32)
        if valid is not None:
            values = jnp.where(valid, values, jnp.inf)
            mass = jnp.minimum(mass, valid.sum(dtype=jnp.int32))
        return of_order_bits(jnp.sort(order_bits(values))), mass
    order = jnp.argsort(order_bits(values))
    weights = weights if valid is None else jnp.where(valid, weights, 0)
    return values[order], jnp.cumsum(weights[order])


def split_starts(mass: jax.Array, num_bins: jax.Array | int, size: int) -> jax.Array:
    """Weight before parts 1, 2, ..., size - 1 of a split of ``mass[-1]`` into ``num_bins``."""
    total, part = mass[-1], jnp.arange(1, size, dtype=mass.dtype)
    whole = part * (total // num_bins) + jnp.minimum(part, total % num_bins)
    if jnp.issubdtype(mass.dtype, jnp.integer):
        return whole
    return jnp.where(jnp.all(mass == jnp.round(mass)), whole, part * (total / num_bins))


def inner_edges(
    ordered: jax.Array, mass: jax.Array, num_bins: jax.Array | int, size: int, edges: str
) -> jax.Array:
    """The edges [size - 1] between ``num_bins`` <= size equal-mass bins; inf for those beyond."""
    if size == 1 or len(ordered) == 0:
        return jnp.full(size - 1, jnp.inf)
    start = split_starts(mass, num_bins, size)
    low = ordered.at[jnp.searchsorted(mass, start)].get(mode="clip")
    high = ordered.at[jnp.searchsorted(mass, start, side="right")].get(mode="clip")
    below, above = order_bits(low), order_bits(high)
    # Of the smallest numbers arithmetic leaves nothing: half-way between their bits.
    halfway = of_order_bits(below + (above - below) // 2)
    middle = jnp.where(jnp.abs(high) < _SMALL, halfway, low + (high - low) / 2)
    # A mid-point that rounds onto a value stays on the side that keeps this value in its part.
    if edges == "right":
        middle = jnp.where(order_bits(middle) >= above, low, middle)
    else:
        middle = jnp.where(order_bits(middle) <= below, high, middle)
    return jnp.where((start < mass[-1]) & (jnp.arange(1, size) < num_bins), middle, jnp.inf)


def edge_stats(
    values: jax.Array,
    labels: jax.Array,
    weights: jax.Array | None,
    inner: jax.Array,
    edges: str,
) -> BinStats:
    """``BinStats`` [G, M] of ``values`` [N, G] between the given ``inner`` edges [G, M - 1]."""
    num_bins, num_groups = inner.shape[1] + 1, values.shape[1]
    past = jnp.greater if edges == "right" else jnp.greater_equal
    bits, limits = order_bits(values), order_bits(inner)
    if num_bins <= _MAX_COMPARED_EDGES:
        index = jnp.zeros(values.shape, jnp.int32)
        for m in range(num_bins - 1):
            index += past(bits, limits[:, m])
    else:
        side = "left" if edges == "right" else "right"
        search = functools.partial(jnp.searchsorted, side=side)
        index = jax.vmap(search, in_axes=(0, 1), out_axes=1)(limits, bits).astype(jnp.int32)
    # As in binning: the distance from a value inside the bin is summed, not the value itself.
    low, high = _sides(inner)
    middle = jnp.round((low + high) * 2048) / 4096
    distance = values - middle[jnp.arange(num_groups), index]
    both, distance = sum_by_bin(distance, 2 * index + labels, weights, 2 * num_bins)
    both = both.reshape(num_groups, num_bins, 2)
    count, correct = both.sum(axis=-1), both[..., 1]
    distance = distance.reshape(num_groups, num_bins, 2).sum(axis=-1)
    confidence, residual = two_sum(count * middle, distance)
    return BinStats(count, correct, confidence, residual)


def _sides(inner: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Lower and upper edge of each bin, [G, M] twice, from 0 to 1."""
    inner = jnp.minimum(inner, 1)
    high = jnp.pad(inner, [(0, 0), (0, 1)], constant_values=1)
    return jnp.pad(inner, [(0, 0), (1, 0)]), high


def sum_by_bin(
    terms: jax.Array, index: jax.Array, weights: jax.Array | None, num_bins: int
) -> tuple[jax.Array, jax.Array]:
    """Weight and float32 sum of ``terms`` [N, G] in each bin of ``index`` [N, G]: two [G, M].

    Sums are two-level, short blocks of rows and a tree over them; see ``group_bin_stats``.
    """
    num_rows, num_groups = terms.shape
    block = min(1 << (16 * num_bins - 1).bit_length(), 1 << 14)
    num_blocks = -(-num_rows // block) if num_rows else 1
    row = jnp.arange(num_rows, dtype=jnp.int32)[:, None]
    cell = ((row // block) * num_groups + jnp.arange(num_groups)) * num_bins + index
    shape = (num_blocks, num_groups, num_bins)
    if weights is None:
        weights = jnp.ones(terms.shape, jnp.int32)
    else:
        weights = jnp.broadcast_to(weights, terms.shape)
        terms = jnp.where(weights == 0, 0, terms * weights)
    weight, total = (
        jax.ops.segment_sum(x.ravel(), cell.ravel(), num_segments=math.prod(shape)).reshape(shape)
        for x in (weights, terms)
    )
    return tree_sum(weight), tree_sum(total)
