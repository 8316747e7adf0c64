"""Seeded random draws behind the intervals and tests: resampled rows as counts, drawn answers.

Draw r of a seed depends on (seed, r) and the number of rows (of clusters, where those are drawn)
alone, not on how draws are chunked.
"""

import concurrent.futures
import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import random as jex_random
from jax.typing import ArrayLike

# Below 2^-32, the resolution of a random word, lies P(count > 12) of Poisson(1).
_MAX_COUNT = 12
# Draws made at once, unless one by one.
_FEWEST = 4
# How many standard deviations a Poisson total may stray; beyond lies a probability of 1e-14.
_DEVIATIONS = 8

# From this many rows times draws on, a CPU's cores share them; in at most so many parts.
_LARGE, _MOST_PARTS = 1 << 27, 16


def random_words(key: jax.Array, num: int) -> jax.Array:
    """``num`` random uint32.

    Both words of each threefry block are used (``jax.random.bits`` folds them into one), which
    halves the time of a bootstrap; the words are the same on every device.
    """
    return jex_random.threefry_2x32(jax.random.key_data(key), jnp.arange(num, dtype=jnp.uint32))


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("above", "row_group", "rows", "start", "size", "slot_group", "slot_rank", "unit"),
    meta_fields=("num_rows",),
)
@dataclass(frozen=True)
class Strata:
    """What ``row_counts`` needs to redraw N rows within G groups; made by ``strata``.

    Where whole clusters are drawn, they are the N rows of all fields but ``unit``.

    Attributes:
        num_rows: N.
        above: [12] uint32: a row starts with as many draws as entries lie above its word.
        row_group: [N] int32, or None for a single group.
        rows: [N] int32, the rows in order of their group, or None for a single group.
        start, size: [G] int32, where in ``rows`` each group lies.
        slot_group, slot_rank: [T] int32: the slots for the draws that are still missing, numbered
            from 0 within each group.
        unit: [rows] int32, each row's cluster, or None where rows themselves are drawn.
    """

    num_rows: int
    above: jax.Array
    row_group: jax.Array | None
    rows: jax.Array | None
    start: jax.Array
    size: jax.Array
    slot_group: jax.Array
    slot_rank: jax.Array
    unit: jax.Array | None


def group_codes(
    groups: ArrayLike, num_rows: int, what: str = "groups"
) -> tuple[np.ndarray, np.ndarray]:
    """The sorted names [G] and each row's place among them, int [N]; names are int or str."""
    groups = np.asarray(groups)
    if groups.shape != (num_rows,):
        raise ValueError(f"{what} must have shape ({num_rows},), got {groups.shape}")
    strange = [x for x in groups if not isinstance(x, str)] if groups.dtype == object else []
    if strange or groups.dtype.kind not in "iuUO" and num_rows:
        kind = type(strange[0]).__name__ if strange else groups.dtype
        raise ValueError(f"{what} must be integers or strings, got {kind}: name one for every row")
    return np.unique(groups.astype(str) if groups.dtype == object else groups, return_inverse=True)


def strata(
    num_rows: int, group: np.ndarray | None = None, cluster: np.ndarray | None = None
) -> Strata:
    """The plan for N rows.

    Args:
        num_rows: N.
        group: [N], each row's group, 0..G-1, none of them empty; None for a single group.
        cluster: [N], each row's cluster, 0..C-1, none of them empty and each within one group:
            clusters are drawn, with all of their rows. None: rows are drawn.
    """
    unit = None
    if cluster is not None:
        unit = jnp.asarray(cluster, jnp.int32)
        first = np.unique(cluster, return_index=True)[1]
        num_rows, group = len(first), None if group is None else group[first]
    size = np.array([num_rows]) if group is None else np.bincount(group)
    # Every row is given Poisson(rate) draws on its own, with the rate so low that no group gets
    # more than its size; what a group lacks is then drawn row by row. Given its total, a set of
    # equal Poisson counts is multinomial, and so is the sum: this is drawing with replacement,
    # exactly, but with one comparison in place of one scattered addition for most rows.
    rate = max(0.0, 1 - _DEVIATIONS / np.sqrt(max(size.min(initial=num_rows), 1)))
    density = np.exp(-rate) * np.cumprod(np.r_[1.0, rate / np.arange(1, _MAX_COUNT + 20)])
    tails = density[::-1].cumsum()[::-1][1 : _MAX_COUNT + 1]  # P(count >= 1), P(count >= 2), ...
    lacking = np.ceil(size * (1 - rate) + _DEVIATIONS * np.sqrt(size * rate))
    lacking = np.minimum(lacking, size).astype(np.int64)
    first = np.r_[0, lacking.cumsum()[:-1]]
    int32 = functools.partial(jnp.asarray, dtype=jnp.int32)
    return Strata(
        num_rows=num_rows,
        above=jnp.asarray(np.round(tails * 2.0**32).astype(np.uint32)),
        row_group=None if group is None else int32(group),
        rows=None if group is None else int32(np.argsort(group, kind="stable")),
        start=int32(np.r_[0, size.cumsum()[:-1]]),
        size=int32(size),
        slot_group=int32(np.repeat(np.arange(len(size)), lacking)),
        slot_rank=int32(np.arange(lacking.sum()) - np.repeat(first, lacking)),
        unit=unit,
    )


def row_counts(key: jax.Array, plan: Strata) -> jax.Array:
    """How often each row is drawn when every group is redrawn with replacement: int32 [rows]."""
    num_rows = plan.num_rows
    words = random_words(key, num_rows + plan.slot_rank.shape[0])
    mine, slots = words[:num_rows], words[num_rows:]
    counts = sum((mine < bound).astype(jnp.int32) for bound in plan.above)
    if plan.row_group is None:
        drawn = counts.sum(keepdims=True)
    else:
        drawn = jax.ops.segment_sum(counts, plan.row_group, num_segments=plan.size.shape[0])
    missing = plan.slot_rank < (plan.size - drawn)[plan.slot_group]
    # The remainder's bias is below N / 2^32 and touches only these few draws.
    place = slots % jnp.maximum(plan.size, 1)[plan.slot_group].astype(jnp.uint32)
    place = plan.start[plan.slot_group] + place.astype(jnp.int32)
    rows = place if plan.rows is None else plan.rows[place]
    counts = counts.at[rows].add(missing.astype(jnp.int32), mode="promise_in_bounds")
    return counts if plan.unit is None else counts[plan.unit]


def answer_limits(probs: ArrayLike) -> jax.Array:
    """The cumulative probabilities that ``draw_answers`` compares with: uint32 [N, K - 1].

    Of a single option [N, 1]: the answer that is drawn is 0 with its probability, and else 1, which
    is no option.

    Rows are normalised in float64. In steps of 2^-32, so that an option of probability 0 is never
    drawn and no rounding of float32 shows.
    """
    given = np.asarray(probs).astype(np.float64)
    if given.shape[1] == 1:
        given = np.concatenate([given, 1 - given], axis=1)
    total = np.cumsum(given, axis=1)
    with np.errstate(invalid="ignore"):
        share = total[:, :-1] / total[:, -1:]
    limits = np.minimum(np.round(share * 2.0**32), 2.0**32 - 1)
    return jnp.asarray(np.nan_to_num(limits).astype(np.uint32))


def draw_answers(key: jax.Array, limits: jax.Array) -> jax.Array:
    """Answers [N] int32 drawn from the probabilities behind ``limits`` [N, K - 1]."""
    # 1..2^32 - 1: above a limit of 0 always, above the largest never.
    words = jnp.maximum(random_words(key, limits.shape[0]), 1)
    return (words[:, None] > limits).sum(axis=1, dtype=jnp.int32)


def map_draws(
    draw: Callable[[jax.Array, jax.Array], list[jax.Array]],
    seed: jax.Array,
    num_draws: int,
    chunk: int,
    first: jax.Array | int = 0,
) -> list[jax.Array]:
    """``draw(key, number)`` for ``num_draws`` numbers from ``first`` on, stacked on axis 0.

    So many as ``chunk`` are drawn at once.
    """
    # Two or three at once only scatter what each of them reads.
    chunk = max(1, min(num_draws, chunk if chunk >= _FEWEST else 1))
    padded = -(-num_draws // chunk) * chunk

    def one(number):
        # fold_in: draw r does not depend on the chunk or on how many there are.
        return draw(jax.random.fold_in(jax.random.key(seed), number), number)

    values = jax.lax.map(one, first + jnp.arange(padded), batch_size=chunk)
    return [value[:num_draws] for value in values]


def in_parts(program: Callable[[Any, int], Any], num_draws: int, num_rows: int) -> Any:
    """All draws of a compiled program; of many rows every core of a CPU makes a part of them.

    Args:
        program: (first, count) -> arrays whose axis 0 holds the draws first..first + count - 1, by
            ``map_draws``, which draws the same whatever the parts.
        num_draws: from 0 on.
        num_rows: what a draw takes grows with.
    """
    parts = 1
    if jax.default_backend() == "cpu" and num_rows * num_draws >= _LARGE:
        cores = getattr(os, "process_cpu_count", os.cpu_count)() or 1  # from Python 3.13 on
        parts = min(cores, _MOST_PARTS)
    if parts == 1:
        return program(0, num_draws)
    count = -(-num_draws // parts)
    with concurrent.futures.ThreadPoolExecutor(parts) as pool:  # XLA computes without the GIL
        found = pool.map(lambda i: jax.device_get(program(i * count, count)), range(parts))
        return jax.tree.map(lambda *values: np.concatenate(values)[:num_draws], *found)
