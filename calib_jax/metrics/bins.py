"""Equal-width bins over [0, 1] and the sums per bin from which every binned metric is computed.

Edges are float32 i/M and are compared exactly with float32 probabilities. Counts are integers;
confidence sums are two-level, so that an ECE over 1e7 rows is right to 1e-6. ``BinStats`` of
separate batches, devices or hosts merge into the whole's.
"""

import functools
import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics.blocks import by_blocks
from calib_jax.metrics.checked import checked
from calib_jax.metrics.inputs import answer_matrix, as_answers, as_probs, as_weights
from calib_jax.metrics.scores import confidences, predictions
from calib_jax.metrics.sums import add_counts, known_count, tree_sum, two_sum

# Up to here the bin is found by comparing with every edge: one fused pass, no gather.
_MAX_COMPARED_EDGES = 64


def bin_edges(num_bins: int = 10) -> np.ndarray:
    """The M + 1 edges i/M as float32, i = 0..M.

    ``jnp.linspace`` is not the same numbers: its 0.3, 0.6 and 0.7 may be one ulp away, and rows
    whose probability sits on an edge change bins.

    Example:
        >>> bin_edges(4).tolist()
        [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    known = isinstance(num_bins, (int, float, np.number)) and not isinstance(num_bins, bool)
    if not known or not math.isfinite(num_bins) or int(num_bins) != num_bins or num_bins < 1:
        raise ValueError(f"num_bins must be an integer >= 1, got {num_bins!r}")
    return (np.arange(num_bins + 1) / num_bins).astype(np.float32)


@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def bin_index(confidence: ArrayLike, num_bins: int = 10, edges: str = "right") -> jax.Array:
    """Bin of each value, int32 in 0..M-1, of any shape; exact on the float32 ``bin_edges``.

    Args:
        confidence: values in [0, 1]; cast to float32. Values outside go to the nearest end bin.
        num_bins: M.
        edges: "right" (default): bins (a, b], and 0 goes to the first (Algorithm 1 of Xiao et al.
            2025; Guo et al. 2017). "left": bins [a, b), and 1 goes to the last (netcal, numpy).

    Example:
        >>> bin_index([0.0, 0.3, 0.31, 1.0], num_bins=10).tolist()
        [0, 2, 3, 9]
        >>> bin_index([0.0, 0.3, 0.31, 1.0], num_bins=10, edges="left").tolist()
        [0, 3, 3, 9]
    """
    if edges not in ("right", "left"):
        raise ValueError(f'edges must be "right" or "left", got {edges!r}')
    table = bin_edges(num_bins)
    confidence = jnp.asarray(confidence).astype(jnp.float32)
    past = jnp.greater if edges == "right" else jnp.greater_equal
    if num_bins <= _MAX_COMPARED_EDGES:
        index = jnp.zeros(confidence.shape, jnp.int32)
        for edge in table[1:-1]:
            index += past(confidence, edge)
        return index
    # c * M is off by at most one bin, which the edges on both sides put right. clip before the
    # cast: NaN and values beyond int32 have no defined integer.
    guess = jnp.nan_to_num(jnp.clip(jnp.floor(confidence * num_bins), 0, num_bins - 1))
    guess = guess.astype(jnp.int32)
    low, high = jnp.asarray(table)[guess], jnp.asarray(table)[guess + 1]
    guess += past(confidence, high).astype(jnp.int32) - (~past(confidence, low)).astype(jnp.int32)
    return jnp.clip(guess, 0, num_bins - 1)


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BinStats:
    """Sums per bin, arrays of shape [..., M] (leading axes: classes, batches). A pytree.

    Attributes:
        count: rows in the bin. int32 for weights that are None, bool or integers; for float
            weights the float32 sum of weights.
        correct: how many of them are correct (per class: have the class as their answer), in
            the dtype of ``count``.
        confidence: float32 sum of their confidences (per class: of the class's probabilities).
        residual: what float32 rounding left out of ``confidence``; merging many batches into one
            total keeps its precision through it.

    Example:
        >>> stats = bin_stats([[0.75, 0.25], [0.5, 0.5]], [0, 1], num_bins=2)
        >>> stats.count.tolist(), stats.correct.tolist(), stats.confidence.tolist()
        ([1, 1], [0, 1], [0.5, 0.75])
        >>> stats.merge(stats).count.tolist()
        [2, 2]
        >>> bin_stats([[0.75, 0.25]], [0], num_bins=2).accuracy().tolist()
        [nan, 1.0]
    """

    count: jax.Array
    correct: jax.Array
    confidence: jax.Array
    residual: jax.Array

    @classmethod
    def empty(cls, *shape: int) -> "BinStats":
        """No rows yet: ``BinStats.empty(M)`` or ``BinStats.empty(K, M)``, to merge batches into."""
        integers, floats = jnp.zeros(shape, jnp.int32), jnp.zeros(shape, jnp.float32)
        return cls(integers, integers, floats, floats)

    def accuracy(self) -> jax.Array:
        """Share correct per bin (per class: label frequency); NaN in an empty bin."""
        return self.correct / known_count(self.count)

    def mean_confidence(self) -> jax.Array:
        """Mean confidence per bin; NaN in an empty bin."""
        return (self.confidence + self.residual) / self.count

    def gap(self) -> jax.Array:
        """Sum of (correct - confidence) per bin; 0 in an empty bin. Divided by ``count``: per row.

        Positive: underconfident.
        """
        return (self.correct - self.confidence) - self.residual

    def merge(self, other: "BinStats") -> "BinStats":
        """The statistics of both sets of rows together."""
        return merge(self, other)


@jax.jit
def merge(first: BinStats, second: BinStats) -> BinStats:
    """Sum of two ``BinStats`` over disjoint rows; exact in the counts, compensated in the sums.

    Example:
        >>> a = bin_stats([[0.75, 0.25]], [0]); b = bin_stats([[0.5, 0.5]], [1])
        >>> whole = bin_stats([[0.75, 0.25], [0.5, 0.5]], [0, 1])
        >>> bool((merge(a, b).confidence == whole.confidence).all())
        True
    """
    confidence, lost = two_sum(first.confidence, second.confidence)
    count = add_counts(first.count, second.count)
    return BinStats(
        count=count,
        correct=add_counts(first.correct, second.correct),
        # More than 2^31 - 1 rows in a bin: NaN, never a wrapped figure.
        confidence=confidence + 0 * known_count(count),
        residual=first.residual + second.residual + lost,
    )


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def bin_stats(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
) -> BinStats:
    """Top-label statistics: rows binned by the confidence of their prediction.

    Per bin m: n_m, the number of correct predictions, and the sum of max_k p_k.
    Every counted row is in exactly one bin: the counts sum to N.

    Args:
        probs: [N, K] option probabilities; cast to float32.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        num_bins: M.
        edges: "right" for bins (a, b], "left" for [a, b); see ``bin_index``.
        weights: [N], how often each row counts; None means once. Weight 0: not at all.

    Returns:
        ``BinStats`` of shape [M].

    Example:
        >>> stats = bin_stats([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6]], [0, 1, 1], num_bins=4)
        >>> stats.count.tolist(), stats.correct.tolist()
        ([0, 0, 1, 2], [0, 0, 1, 1])
    """

    def columns(probs, answers, mask):
        correct = predictions(probs, mask) == answers
        return confidences(probs, mask)[:, None], correct[:, None], None

    stats = _row_bin_stats(columns, probs, answers, mask, weights, num_bins, edges)
    return jax.tree.map(lambda x: x[0], stats)


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def class_bin_stats(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
) -> BinStats:
    """Class-wise statistics: per option k, all rows binned by p_k.

    Per class k and bin m: n_km, the number of rows whose answer is k, and the sum of p_k.
    A masked option of a row is in no bin, so row k of the counts sums to the number of rows in
    which option k exists.

    Arguments as in ``bin_stats``. Returns ``BinStats`` of shape [K, M].

    Example:
        >>> stats = class_bin_stats([[0.9, 0.1], [0.4, 0.6]], [0, 1], num_bins=2)
        >>> stats.count.tolist(), stats.correct.tolist()
        ([[1, 1], [1, 1]], [[0, 1], [0, 1]])
    """

    def columns(probs, answers, mask):
        return probs, answer_matrix(answers, probs.shape[1]), mask

    return _row_bin_stats(columns, probs, answers, mask, weights, num_bins, edges)


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def ovr_bin_stats(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
) -> BinStats:
    """One-versus-rest statistics: per option k, all rows binned by p_k, right or wrong about k.

    As ``class_bin_stats``, but ``correct`` counts the rows whose decision "k or not k" is right,
    1[(prediction = k) = (answer = k)]. What ``sce_ovr`` is made of.

    Example:
        >>> ovr_bin_stats([[0.9, 0.1], [0.4, 0.6]], [0, 0], num_bins=2).correct.tolist()
        [[0, 1], [1, 0]]
    """

    def columns(probs, answers, mask):
        predicted = answer_matrix(predictions(probs, mask), probs.shape[1])
        return probs, predicted == answer_matrix(answers, probs.shape[1]), mask

    return _row_bin_stats(columns, probs, answers, mask, weights, num_bins, edges)


def _row_bin_stats(columns, probs, answers, mask, weights, num_bins, edges) -> BinStats:
    """``group_bin_stats`` of what ``columns`` makes of rows: values, labels and valid."""
    checked_probs, checked_mask = as_probs(probs, mask)
    num_rows = checked_probs.shape[0]
    answers, weights = as_answers(answers, num_rows), as_weights(weights, num_rows)
    if weights is not None:
        # In one block: what the weights do not change is computed once for all resamples.
        values, labels, valid = columns(checked_probs, answers, checked_mask)
        return group_bin_stats(values, labels, valid, weights, num_bins=num_bins, edges=edges)

    def parts(probs, answers, mask):
        probs, mask = as_probs(probs, mask)
        return _block_sums(*columns(probs, answers, mask), None, num_bins, edges)

    arrays = jnp.asarray(probs), answers, None if mask is None else jnp.asarray(mask)
    return _total(*by_blocks(parts, *arrays))


def group_bin_stats(
    values: jax.Array,
    labels: jax.Array,
    valid: jax.Array | None,
    weights: jax.Array | None,
    num_bins: int,
    edges: str,
) -> BinStats:
    """``BinStats`` [G, M] of float32 ``values`` [N, G], boolean ``labels`` and ``valid`` [N, G].

    Kernel of the functions above: the columns are binned separately, ``weights`` [N] are int32,
    float32 or None.
    """
    return _total(*_block_sums(values, labels, valid, weights, num_bins, edges))


def _block_sums(values, labels, valid, weights, num_bins, edges) -> tuple[jax.Array, jax.Array]:
    """Weight and float32 distance from the bin's middle, by short blocks of rows: [B, G, M, 2].

    The last axis tells rows with a wrong label from those with a right one.
    """
    num_rows, num_groups = values.shape
    index = bin_index(values, num_bins, edges)
    # A running float32 total loses what is small beside it (3.7e-3 of ECE at 1e7 rows; worst for
    # many equal values). So: the distance from the bin's middle is summed, at most 1/2M, in short
    # blocks of 16M or so consecutive rows, whose totals are added by a tree. The relative error
    # is bounded by 4e-7 for any data, and the cells stay fewer than the values.
    block = min(1 << (16 * num_bins - 1).bit_length(), 1 << 14)
    num_blocks = -(-num_rows // block) if num_rows else 1
    row = jnp.arange(num_rows, dtype=jnp.int32)[:, None]
    group = jnp.arange(num_groups, dtype=jnp.int32)
    cell = ((row // block) * num_groups + group) * num_bins + index
    distance = values - _bin_middle(index, num_bins)

    # Rows with a right and with a wrong label are counted apart: one index serves both counts.
    cell = (2 * cell + labels).ravel()
    shape = (num_blocks, num_groups, num_bins, 2)
    if weights is None:
        # A block's counts are exact in float32, so one scatter adds up counts and distances.
        ones = jnp.ones_like(distance) if valid is None else valid.astype(jnp.float32)
        distance = distance if valid is None else jnp.where(valid, distance, 0)
        pairs = jnp.stack([ones, distance], axis=-1).reshape(-1, 2)
        sums = jax.ops.segment_sum(pairs, cell, num_segments=math.prod(shape))
        both, distance = sums[:, 0].astype(jnp.int32), sums[:, 1]
    else:
        weight = jnp.broadcast_to(weights[:, None], values.shape)
        if valid is not None:
            weight = jnp.where(valid, weight, 0)
        distance = jnp.where(weight == 0, 0, distance * weight)
        both, distance = (
            jax.ops.segment_sum(x.ravel(), cell, num_segments=math.prod(shape))
            for x in (weight, distance)
        )
    return both.reshape(shape), distance.reshape(shape)


def _total(both: jax.Array, distance: jax.Array) -> BinStats:
    """The statistics of the blocks of ``_block_sums`` together."""
    num_bins = both.shape[2]
    both, distance = tree_sum(both), tree_sum(distance).sum(axis=-1)
    count, correct = both.sum(axis=-1), both[..., 1]
    middle = _bin_middle(jnp.arange(num_bins, dtype=jnp.int32), num_bins)
    confidence, residual = two_sum(count * middle, distance)
    return BinStats(count, correct, confidence, residual)


def _bin_middle(index: jax.Array, num_bins: int) -> jax.Array:
    """About (i + 1/2) / M, on a grid of 2^-12: the same number wherever it is computed."""
    return jnp.round((index + 0.5) * (4096 / num_bins)) / 4096
