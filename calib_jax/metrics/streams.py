"""Metrics over batches, devices and hosts: a small state per metric family that merges exactly.

A ``Stream`` is four pure functions, as an optax transformation is two. Its state is a pytree whose
size does not depend on the number of rows, so it can be carried through ``jax.lax.scan``, kept per
device or per host, saved, and merged in any order.
"""

import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.typing import ArrayLike

from calib_jax.metrics.bins import (
    BinStats,
    bin_index,
    bin_stats,
    class_bin_stats,
    merge,
    ovr_bin_stats,
)
from calib_jax.metrics.calibration import ece_from_bins, pool_classes
from calib_jax.metrics.inputs import as_answers, as_probs, as_weights
from calib_jax.metrics.letters import answer_counts, letter_counts
from calib_jax.metrics.scores import confidences, correctness, predictions, row_brier, row_nll
from calib_jax.metrics.smooth import SmoothStats, smooth_ece_from_stats, smooth_stats
from calib_jax.metrics.sums import Total, add_counts, known_count, tree_sum
from calib_jax.metrics.tails import call

State = Any


class Stream(NamedTuple):
    """A metric family over a stream of batches.

    Attributes:
        init: ``() -> state``, of no rows.
        update: ``(state, probs [B, K], answers [B], mask=None, weights=None, log_scores=None) ->
            state``. Weights (0 for padding) are integers or bool. ``log_scores`` [B, K] are read
            by the NLL, see ``metrics.nll``. All arrays may be sharded over a mesh with Auto
            axes; the state is then of all devices' rows.
        merge: ``(state, state) -> state`` of both sets of rows.
        compute: ``state -> {name: value}``, float32 or int32 arrays; NaN where there are no rows.

    Counts are int32; a state whose count passes 2^31 - 1 in any cell computes NaN, never a
    wrapped figure.

    Example:
        >>> stream = confidence_bins(num_bins=4)
        >>> state = stream.init()
        >>> for probs, answers in [([[0.75, 0.25]], [0]), ([[0.75, 0.25]], [1])]:
        ...     state = stream.update(state, probs, answers)
        >>> figures = stream.compute(state)
        >>> int(figures["n"]), float(figures["conf_ece"])
        (2, 0.25)
    """

    init: Callable[[], State]
    update: Callable[..., State]
    merge: Callable[[State, State], State]
    compute: Callable[[State], dict[str, jax.Array]]


def _stream(empty: State, measure: Callable[..., State], add: Callable, compute: Callable):
    """A stream from the statistics of one batch and their sum."""

    @jax.jit
    def update(state, probs, answers, mask=None, weights=None, log_scores=None):
        return add(state, call(measure, probs, answers, mask, weights, log_scores))

    # A function of no arguments that builds the state anew: a donated one is not reused.
    return Stream(lambda: jax.tree.map(jnp.array, empty), update, jax.jit(add), jax.jit(compute))


def _of_options(measure: Callable[..., State], num_options: int) -> Callable[..., State]:
    """``measure``, which refuses batches of another number of options."""

    def checked(probs, answers, mask, weights=None):
        shape = jnp.asarray(probs).shape
        if shape[1:] != (num_options,):
            raise ValueError(
                f"this stream is of num_options={num_options}, the batch's probs have shape "
                f"{shape}; pad the options with probability 0 and mask them"
            )
        return measure(probs, answers, mask, weights)

    return checked


def confidence_bins(num_bins: int = 10, edges: str = "right") -> Stream:
    """Top-label bins. State: ``BinStats`` [M].

    Computes n, accuracy, mean_confidence, conf_ece, mce (largest gap of a non-empty bin), rmsce
    (root of the mean squared gap), overconfidence_error and underconfidence_error (which sum to
    conf_ece). The same numbers as ``conf_ece`` and its relatives over all rows at once.

    Args:
        num_bins: M.
        edges: "right" for bins (a, b], "left" for [a, b).
    """

    def compute(stats: BinStats) -> dict[str, jax.Array]:
        n = stats.count.sum()
        rows = known_count(stats.count).sum()
        gap = stats.gap()
        return {
            "n": n,
            "accuracy": stats.correct.sum() / rows,
            "mean_confidence": (stats.confidence.sum() + stats.residual.sum()) / rows,
            "conf_ece": ece_from_bins(stats),
            "mce": ece_from_bins(stats, norm="max"),
            "rmsce": ece_from_bins(stats, norm="l2"),
            "overconfidence_error": jnp.maximum(-gap, 0).sum() / rows,
            "underconfidence_error": jnp.maximum(gap, 0).sum() / rows,
        }

    def measure(probs, answers, mask, weights=None):
        return bin_stats(probs, answers, mask, num_bins, edges, weights)

    return _stream(BinStats.empty(num_bins), measure, merge, compute)


def class_bins(num_options: int, num_bins: int = 10, edges: str = "right") -> Stream:
    """Class-wise bins. State: ``BinStats`` [K, M]. Computes cw_ece and pooled_ece.

    Example:
        >>> stream = class_bins(num_options=2)
        >>> state = stream.update(stream.init(), [[0.75, 0.25], [0.75, 0.25]], [0, 0])
        >>> float(stream.compute(state)["cw_ece"])
        0.25
    """

    def compute(stats: BinStats) -> dict[str, jax.Array]:
        return {"cw_ece": ece_from_bins(stats), "pooled_ece": ece_from_bins(pool_classes(stats))}

    def measure(probs, answers, mask, weights=None):
        return class_bin_stats(probs, answers, mask, num_bins, edges, weights)

    measure = _of_options(measure, num_options)
    return _stream(BinStats.empty(num_options, num_bins), measure, merge, compute)


def ovr_bins(num_options: int, num_bins: int = 10, edges: str = "right") -> Stream:
    """Bins of one-versus-rest decisions. State: ``BinStats`` [K, M]. Computes sce_ovr."""

    def measure(probs, answers, mask, weights=None):
        return ovr_bin_stats(probs, answers, mask, num_bins, edges, weights)

    empty, measure = BinStats.empty(num_options, num_bins), _of_options(measure, num_options)
    return _stream(empty, measure, merge, lambda stats: {"sce_ovr": ece_from_bins(stats)})


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class ScoreSums:
    """What the mean scores are made of: the rows counted and the compensated sums over them.

    Attributes:
        count: int32, rows.
        sums: name -> ``Total``: of -ln p_y in nats, of the Brier scores, of correct predictions
            and of confidences.
    """

    count: jax.Array
    sums: dict[str, Total]


def proper_scores() -> Stream:
    """State: ``ScoreSums``. Computes n, nll (nats), brier, accuracy, mean_confidence.

    Example:
        >>> stream = proper_scores()
        >>> state = stream.update(stream.init(), [[0.5, 0.5], [0.75, 0.25]], [0, 0])
        >>> float(stream.compute(state)["brier"])
        0.3125
    """

    def measure(probs, answers, mask, weights=None, log_scores=None):
        rows = {
            "nll": row_nll(probs, answers, mask, log_scores=log_scores),
            "brier": row_brier(probs, answers, mask),
            "accuracy": correctness(probs, answers, mask),
            "mean_confidence": confidences(probs, mask),
        }
        weights = as_weights(weights, len(probs))
        count = jnp.int32(len(probs)) if weights is None else tree_sum(weights)
        sums = {name: Total.of_rows(values, weights) for name, values in rows.items()}
        return ScoreSums(count, sums)

    def add(first: ScoreSums, second: ScoreSums) -> ScoreSums:
        sums = {name: first.sums[name] + second.sums[name] for name in first.sums}
        return ScoreSums(add_counts(first.count, second.count), sums)

    def compute(state: ScoreSums) -> dict[str, jax.Array]:
        n = known_count(state.count)
        means = {name: total.value() / n for name, total in state.sums.items()}
        return {"n": state.count, **means}

    names = ("nll", "brier", "accuracy", "mean_confidence")
    empty = ScoreSums(jnp.int32(0), {name: Total.empty() for name in names})
    return _stream(empty, measure, add, compute)


def letters(num_options: int) -> Stream:
    """State: two int32 [K] vectors. Computes letter_counts (predicted) and answer_counts (right).

    Example:
        >>> stream = letters(num_options=3)
        >>> state = stream.update(stream.init(), [[0.5, 0.25, 0.25], [0.75, 0.25, 0.0]], [0, 2])
        >>> stream.compute(state)["letter_counts"].tolist()
        [2, 0, 0]
    """

    def measure(probs, answers, mask, weights=None):
        return {
            "letter_counts": letter_counts(probs, mask, weights),
            "answer_counts": answer_counts(answers, num_options, weights),
        }

    def add(first, second):
        return jax.tree.map(add_counts, first, second)

    measure = _of_options(measure, num_options)
    zeros = jnp.zeros(num_options, jnp.int32)
    return _stream({"letter_counts": zeros, "answer_counts": zeros}, measure, add, dict)


def ranking(num_cells: int = 4096) -> Stream:
    """AUROC and AURC of the confidence from a fine histogram. State: two int32 [C] vectors.

    Rows are counted in C equal cells of the confidence, those with a wrong and those with a right
    prediction. Confidences in one cell count as tied, so that auroc is off by at most auroc_error,
    half the share of (right, wrong) pairs that share a cell; a figure of the very data, and
    0 when no such pair exists. aurc takes the expectation over the order within a cell.

    Computes auroc, auroc_error, aurc.

    Args:
        num_cells: C.

    Example:
        >>> stream = ranking()
        >>> state = stream.update(stream.init(), [[0.9, 0.1], [0.6, 0.4]], [0, 1])
        >>> figures = stream.compute(state)
        >>> [round(float(figures[name]), 4) for name in ("auroc", "auroc_error", "aurc")]
        [1.0, 0.0, 0.25]
    """

    def measure(probs, answers, mask, weights=None):
        probs, mask = as_probs(probs, mask)
        cell = bin_index(confidences(probs, mask), num_cells)
        right = predictions(probs, mask) == as_answers(answers, len(probs))
        weights = as_weights(weights, len(probs))
        weight = jnp.ones(len(probs), jnp.int32) if weights is None else weights
        counts = jax.ops.segment_sum(weight, 2 * cell + right, num_segments=2 * num_cells)
        return counts.reshape(num_cells, 2).T

    def compute(counts: jax.Array) -> dict[str, jax.Array]:
        # Shares instead of counts: products of int32 counts overflow.
        n = known_count(counts.sum())
        wrong, right = counts / n
        below = jnp.cumsum(wrong) - wrong
        pairs = right.sum() * wrong.sum()
        tied = (right * wrong).sum()
        # Most confident first. Mean over k of the expected share of wrong rows among the top k.
        wrong, right = counts[0, ::-1], counts[1, ::-1]
        size = wrong + right
        before, errors = jnp.cumsum(size) - size, jnp.cumsum(wrong) - wrong
        # Within a cell of m rows, e wrong, after b rows with f wrong: sum_{j=1..m} (f + e j/m) /
        # (b + j), by harmonic numbers: e + (f - e b / m) (H(b + m) - H(b)).
        rise = wrong / jnp.maximum(size, 1)
        harmonic = _harmonic(before + size) - _harmonic(before)
        risks = jnp.where(size > 0, wrong + (errors - rise * before) * harmonic, 0)
        return {
            "auroc": ((right[::-1] / n * below).sum() + tied / 2) / pairs,
            "auroc_error": tied / 2 / pairs,
            "aurc": risks.sum() / n,
        }

    return _stream(jnp.zeros((2, num_cells), jnp.int32), measure, add_counts, compute)


def _harmonic(n: jax.Array) -> jax.Array:
    """H(n) - γ = ψ(n + 1)."""
    return jax.scipy.special.digamma(n + 1.0)


def smooth() -> Stream:
    """State: ``SmoothStats``. Computes smooth_ece."""

    def compute(state: SmoothStats) -> dict[str, jax.Array]:
        return {"smooth_ece": smooth_ece_from_stats(state)}

    def measure(probs, answers, mask, weights=None):
        return smooth_stats(probs, answers, mask, weights=weights)

    return _stream(SmoothStats.empty(), measure, SmoothStats.merge, compute)


def combine(streams: Sequence[Stream]) -> Stream:
    """Several families in one stream; computes all their figures. State: a tuple of theirs.

    Example:
        >>> stream = combine([confidence_bins(), letters(num_options=2)])
        >>> state = stream.update(stream.init(), [[0.75, 0.25]], [0])
        >>> sorted(stream.compute(state))[:3]
        ['accuracy', 'answer_counts', 'conf_ece']
    """
    streams = tuple(streams)

    @jax.jit
    def update(state, probs, answers, mask=None, weights=None, log_scores=None):
        return tuple(
            stream.update(part, probs, answers, mask, weights, log_scores)
            for stream, part in zip(streams, state, strict=True)
        )

    @jax.jit
    def add(first, second):
        parts = zip(streams, first, second, strict=True)
        return tuple(stream.merge(a, b) for stream, a, b in parts)

    @jax.jit
    def compute(state):
        figures: dict[str, jax.Array] = {}
        for stream, part in zip(streams, state, strict=True):
            figures |= stream.compute(part)
        return figures

    return Stream(lambda: tuple(stream.init() for stream in streams), update, add, compute)


def everything(num_options: int, num_bins: int = 10, edges: str = "right") -> Stream:
    """All families at once, over K options.

    Example:
        >>> stream = everything(num_options=2)
        >>> figures = stream.compute(stream.update(stream.init(), [[0.75, 0.25]], [0]))
        >>> float(figures["conf_ece"]), float(figures["cw_ece"])
        (0.25, 0.25)
    """
    return combine(
        [
            confidence_bins(num_bins, edges),
            class_bins(num_options, num_bins, edges),
            ovr_bins(num_options, num_bins, edges),
            proper_scores(),
            letters(num_options),
            ranking(),
            smooth(),
        ]
    )


def merge_processes(stream: Stream, state: State) -> State:
    """The state of all processes' rows, on every process; a collective call.

    For states that each process has updated with rows of its own. A state that was updated under
    jit with arrays sharded over all processes is of all rows already.
    """
    if jax.process_count() == 1:
        return state
    gathered = multihost_utils.process_allgather(state)
    parts = [jax.tree.map(operator.itemgetter(i), gathered) for i in range(jax.process_count())]
    return functools.reduce(stream.merge, parts)


def collect(stream: Stream, batches: Sequence[Mapping[str, ArrayLike]]) -> dict[str, np.ndarray]:
    """The figures of an iterable of batches: {"probs", "answers"} each, with "mask",
    "weights" and "log_scores" where there are some.

    Example:
        >>> batches = [{"probs": [[0.75, 0.25]], "answers": [0]}] * 4
        >>> collect(confidence_bins(), batches)["conf_ece"].item()
        0.25
    """
    state = stream.init()
    for batch in batches:
        state = stream.update(state, **batch)
    return jax.tree.map(np.asarray, stream.compute(state))
