"""Rows in order of confidence: one sort of integers, then counts at the ends of runs of ties.

A float32 at or above 0 orders as its bits do, subnormal numbers too, which comparisons of floats
take for 0. Integers also sort four times as fast on a CPU, and the bit that they leave holds
whether the row is right, so that nothing has to be gathered.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from calib_jax.metrics.inputs import as_answers
from calib_jax.metrics.scores import confidences, predictions
from calib_jax.metrics.sums import tree_sum
from calib_jax.metrics.tails import confidence_order

# Rows are cut into blocks of this many, and all blocks are walked through at once.
_BLOCK = 64


class Keyed(NamedTuple):
    """What ranks N rows.

    ``key`` int32 at or above 0 rises with the confidence and is equal where that is equal;
    ``right`` and ``unknown`` (no confidence) are bool; ``order`` int32 holds the rows by rising
    key, or is None where they are still to be sorted. All [N].
    """

    key: jax.Array
    right: jax.Array
    unknown: jax.Array
    order: jax.Array | None


class Runs(NamedTuple):
    """Counts up to and with each row of a ranking, and those above its run of equal confidences.

    Attributes:
        shown, found: rows so far, and how many of them are of the kind that is sought; [L, B],
            the row at [l, b] being number b L + l.
        shown_before, found_before: the same above the run that holds the row.
        is_end: bool, the row is the last of its run.
        all_shown, all_found: of all rows, scalars.
        unknown: bool scalar, a counted row has no confidence.
    """

    shown: jax.Array
    found: jax.Array
    shown_before: jax.Array
    found_before: jax.Array
    is_end: jax.Array
    all_shown: jax.Array
    all_found: jax.Array
    unknown: jax.Array


def by_confidence(
    probs: ArrayLike, answers: ArrayLike, mask: ArrayLike | None, log_scores: ArrayLike | None
) -> Keyed:
    """What ranks the rows by confidence."""
    confidence = confidences(probs, mask)
    right = predictions(probs, mask) == as_answers(answers, confidence.shape[0])
    key, order = confidence_order(probs, mask, log_scores)
    return Keyed(key, right, jnp.isnan(confidence), order)


def runs(keyed: Keyed, weights: jax.Array | None, *, sought: bool, lowest_first: bool) -> Runs:
    """The counts of N >= 1 rows, from the highest confidence down or from the lowest up.

    Args:
        keyed: what ranks the rows.
        weights: [N], as ``as_weights`` returns them.
        sought: whether right rows are found, or wrong ones.
        lowest_first: the direction.
    """
    counts, whole = _walked(keyed, weights, sought, lowest_first, lambda counts: counts[:4])
    return Runs(*counts, *whole)


def sum_over_runs(
    keyed: Keyed,
    weights: jax.Array | None,
    term: Callable[[Runs], jax.Array],
    *,
    sought: bool,
    lowest_first: bool,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Sum over the runs of a term of each, read at its last row; no counts are kept.

    Args:
        keyed, weights, sought, lowest_first: as in ``runs``.
        term: counts of some rows -> the term of each, elementwise.

    Returns:
        The sum, and all_shown, all_found and unknown of ``Runs``.
    """

    def at_ends(counts):
        return jnp.where(counts.is_end, term(counts), 0)

    terms, (_, *whole) = _walked(keyed, weights, sought, lowest_first, at_ends)
    return tree_sum(tree_sum(terms)), *whole


def _walked(keyed, weights, sought, lowest_first, each):
    """What ``each`` makes of the counts of a row of every block, [L, B]; the rest of ``Runs``."""
    num_rows = keyed.key.shape[0]
    unknown = keyed.unknown if weights is None else keyed.unknown & (weights != 0)
    # Neither the order nor the runs depend on the weights: under vmap over weights (the bootstrap)
    # they are found once.
    key, right, order = _sorted(keyed, weights is not None)
    changes = key[1:] != key[:-1]
    edge = jnp.ones(1, bool)
    starts, ends = jnp.concatenate([edge, changes]), jnp.concatenate([changes, edge])
    if not lowest_first:
        right, starts, ends = right[::-1], ends[::-1], starts[::-1]
        order = None if order is None else order[::-1]
    block = functools.partial(_blocks, num_rows=num_rows)
    start, end, kind, real = map(block, (starts, ends, right == sought, jnp.ones(num_rows, bool)))
    if order is None or weights is None:
        weight = real.astype(jnp.int32)
    else:
        weight = jnp.where(real, weights[block(order)], 0)
    return _counts(weight, jnp.where(kind, weight, 0), start, end, unknown.any(), each)


def _sorted(keyed: Keyed, with_order: bool) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Keys by their size, whether the rows are right, and, if asked for, which rows they are."""
    if keyed.order is not None:
        return keyed.key[keyed.order], keyed.right[keyed.order], keyed.order
    packed = (keyed.key.astype(jnp.uint32) << 1) | keyed.right.astype(jnp.uint32)
    if not with_order:
        packed, order = jnp.sort(packed), None
    else:
        row = jnp.arange(packed.shape[0], dtype=jnp.int32)
        packed, order = jax.lax.sort((packed, row), num_keys=1, is_stable=False)
    return packed >> 1, (packed & 1).astype(bool), order


def _blocks(x: jax.Array, num_rows: int) -> jax.Array:
    """[N] as [L, B], filled up with zeros: consecutive rows stand below one another."""
    return jnp.pad(x, (0, -num_rows % _BLOCK)).reshape(-1, _BLOCK).T


def _counts(weight, found, start, end, unknown, each):
    """Running totals in the order of the rows, and their values where each run has begun.

    Not jnp.cumsum and a maximum so far: on a CPU they take ten times as long as this loop over the
    places in a block, which steps through all blocks at once.
    """
    values = weight, found
    totals = [x.sum(axis=0) for x in values]
    before = [jnp.cumsum(total) - total for total in totals]
    # A block begins inside a run that began in an earlier one: after the last start there is.
    number = jnp.arange(weight.shape[1])
    begun = jax.lax.cummax(jnp.where(start.any(axis=0), number, 0))
    begun = jnp.concatenate([jnp.zeros(1, begun.dtype), begun[:-1]])
    place = jnp.arange(weight.shape[0])[:, None]
    after = place >= jnp.where(start, place, -1).max(axis=0)
    tails = [jnp.where(after, x, 0).sum(axis=0) for x in values]
    open_runs = [
        (b + total - tail)[begun] for b, total, tail in zip(before, totals, tails, strict=True)
    ]

    all_shown, all_found = (b[-1] + total[-1] for b, total in zip(before, totals, strict=True))

    def step(carry, row):
        shown, found, shown_before, found_before = carry
        more, more_found, begins, ends = row
        shown_before = jnp.where(begins, shown, shown_before)
        found_before = jnp.where(begins, found, found_before)
        carry = shown + more, found + more_found, shown_before, found_before
        return carry, each(Runs(*carry, ends, all_shown, all_found, unknown))

    _, counts = jax.lax.scan(step, (*before, *open_runs), (*values, start, end))
    return counts, (end, all_shown, all_found, unknown)
