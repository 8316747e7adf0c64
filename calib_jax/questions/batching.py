"""Batches of constant shape: at most five lengths a run, little padding, ragged tails masked."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from calib_jax.errors import UserError
from calib_jax.questions.encoding import Encoded

MAX_BUCKETS = 5


@dataclasses.dataclass(frozen=True)
class Batch:
    """B rows of L right-padded tokens.

    Attributes:
      tokens: [B, L] int32, 0 where padded.
      last: [B] int32, the answer position.
      mask: [B, K] bool, the options of each row.
      answers: [B] int32.
      weights: [B] float32, 1 for a question and 0 for a row that only fills the batch.
    """

    tokens: np.ndarray
    last: np.ndarray
    mask: np.ndarray
    answers: np.ndarray
    weights: np.ndarray


def choose_buckets(
    lengths: Sequence[int] | np.ndarray, max_buckets: int = MAX_BUCKETS, multiple: int = 8
) -> tuple[int, ...]:
    """The padded lengths, at most ``max_buckets`` of them, that waste the fewest tokens.

    Lengths are rounded up to a multiple and split into contiguous groups, each padded to its
    longest; the best split is found exactly by dynamic programming.

    Args:
      lengths: [N], tokens of every prompt of the run.
      max_buckets: the number of shapes, hence of compilations.
      multiple: of the padded lengths (128 suits TPU and GPU kernels, 8 a CPU).

    Returns:
      Increasing lengths; the last one holds the longest prompt.
    """
    rounded = -(-np.asarray(lengths) // multiple) * multiple
    sizes, counts = np.unique(rounded, return_counts=True)
    if len(sizes) <= max_buckets:
        return tuple(int(size) for size in sizes)
    total = np.concatenate([[0], np.cumsum(counts)])
    n = len(sizes)
    # cost[j]: fewest padded tokens for the first j sizes with the buckets used so far.
    cost = np.full(n + 1, math.inf)
    cost[0] = 0
    choice = np.zeros((max_buckets + 1, n + 1), int)
    for used in range(1, max_buckets + 1):
        last = cost
        cost = np.full(n + 1, math.inf)
        for j in range(1, n + 1):
            options = last[:j] + (total[j] - total[:j]) * sizes[j - 1]
            choice[used, j] = int(np.argmin(options))
            cost[j] = options[choice[used, j]]
    ends, j = [], n
    for used in range(max_buckets, 0, -1):
        ends.append(int(sizes[j - 1]))
        j = choice[used, j]
        if j == 0:
            break
    return tuple(reversed(ends))


def bucket_of(length: int, buckets: Sequence[int]) -> int:
    """The shortest bucket that holds the length; raises UserError when none does."""
    for bucket in buckets:
        if length <= bucket:
            return bucket
    raise UserError(f"a prompt of {length} tokens fits none of the buckets {tuple(buckets)}.")


def make_batch(encoded: Encoded, rows: np.ndarray, length: int, size: int) -> Batch:
    """The questions at ``rows``, padded to ``length`` tokens and ``size`` rows."""
    K = encoded.mask.shape[1]
    batch = Batch(
        tokens=np.zeros((size, length), np.int32),
        last=np.zeros(size, np.int32),
        mask=np.ones((size, K), bool),
        answers=np.zeros(size, np.int32),
        weights=np.zeros(size, np.float32),
    )
    for i, row in enumerate(rows):
        ids = encoded.tokens[row]
        batch.tokens[i, : len(ids)] = ids
        batch.last[i] = len(ids) - 1
    n = len(rows)
    batch.mask[:n] = encoded.mask[rows]
    batch.answers[:n] = encoded.answers[rows]
    batch.weights[:n] = 1
    return batch


def rows_per_batch(length: int, token_budget: int, multiple_of: int) -> int:
    """How many rows of a length fill the token budget: at least one, rounded to the multiple."""
    rows = max(1, token_budget // length)
    return max(multiple_of, rows // multiple_of * multiple_of)


def training_order(
    lengths: np.ndarray,
    batch_size: int,
    seed: int,
    epoch: int,
    *,
    strata: np.ndarray | None = None,
    window: int = 16,
) -> list[np.ndarray]:
    """The rows of each batch of one epoch: a function of the seed and the epoch alone.

    Questions are permuted, then sorted by length within windows of ``window`` batches, so that a
    batch holds questions of like length and hardly pads, and the batches are permuted again. A
    window is at most a quarter of the epoch, so that an epoch's batches are not the last one's.
    Only the epoch's smallest batch can be ragged. Every batch holds the strata (the right letters)
    in the proportions of the whole, so that no step teaches a letter which chance put into it.
    """
    rng = np.random.default_rng([seed, epoch])
    strata = np.zeros(len(lengths), int) if strata is None else strata
    order = _interleaved(rng.permutation(len(lengths)), strata)
    window = max(1, min(window, len(order) // (4 * batch_size)))
    batches = []
    for start in range(0, len(order), window * batch_size):
        rows = order[start : start + window * batch_size]
        rows = _interleaved(rows[np.argsort(lengths[rows], kind="stable")], strata)
        batches += [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return [batches[i] for i in rng.permutation(len(batches))]


def _interleaved(rows: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """The rows with every stratum spread evenly, the order within each one kept."""
    place = np.empty(len(rows))
    for stratum in np.unique(strata[rows]):
        members = np.flatnonzero(strata[rows] == stratum)
        place[members] = (np.arange(len(members)) + 0.5) / len(members)
    return rows[np.argsort(place, kind="stable")]
