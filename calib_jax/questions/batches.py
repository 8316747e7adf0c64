"""Batches of constant shape: at most five lengths a run, little padding, ragged tails masked."""

import math
from collections.abc import Sequence

import numpy as np

from calib_jax.errors import UserError
from calib_jax.questions.encoder import Encoded

MAX_BUCKETS = 5


def choose_buckets(
    lengths: Sequence[int] | np.ndarray, max_buckets: int = MAX_BUCKETS, multiple: int = 8
) -> tuple[int, ...]:
    """The padded lengths, at most ``max_buckets`` of them, that waste the fewest tokens.

    Lengths are rounded up to a multiple and split into contiguous groups, each padded to its
    longest; the best split is found exactly by dynamic programming.

    Args:
      lengths: [N], the tokens of each of the run's prompts.
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


def spread(lengths: Sequence[int] | np.ndarray, num_rows: int) -> list[list[int]]:
    """Puts sequences into ``num_rows`` rows of like length: the longest first, each where room is.

    Returns:
      The sequences of every row.
    """
    rows: list[list[int]] = [[] for _ in range(num_rows)]
    filled = [0] * num_rows
    for item in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = min(range(num_rows), key=lambda r: (filled[r], len(rows[r])))
        rows[row].append(item)
        filled[row] += int(lengths[item])
    return rows


def row_layout(encoded: Encoded, rows: Sequence[Sequence[int]], length: int) -> dict:
    """Rows of whole prompts, one after the other, right-padded.

    Args:
      encoded: the questions.
      rows: which of them stand in each row, B rows.
      length: L.

    Returns:
      tokens, positions, ends, segments [B, L] int32 (see ``models.attention.Forest``; a padding
      token is a sequence of its own) and labels [B, L] int32: the token after each within its
      question, the right letter's at the answer position, -1 in the padding.
    """
    shape = len(rows), length
    tokens, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    ends = np.tile(np.arange(1, length + 1, dtype=np.int32), (len(rows), 1))
    segments, labels = np.zeros(shape, np.int32), np.full(shape, -1, np.int32)
    for b, questions in enumerate(rows):
        at = 0
        for number, question in enumerate(questions, 1):
            ids = encoded.tokens[question]
            here = slice(at, at + len(ids))
            tokens[b, here] = ids
            positions[b, here] = np.arange(len(ids))
            ends[b, here] = at + len(ids)
            segments[b, here] = number
            labels[b, here][:-1] = ids[1:]
            labels[b, here][-1] = encoded.letter_ids[encoded.answers[question]]
            at += len(ids)
    return {
        "tokens": tokens,
        "positions": positions,
        "ends": ends,
        "segments": segments,
        "labels": labels,
    }


def asked(
    mask: np.ndarray, answers: np.ndarray, rows: Sequence[Sequence[int]], slots: int
) -> dict[str, np.ndarray]:
    """What is asked in each row, for up to Q questions a row.

    Args:
      mask: [N, K] bool, the options of each question.
      answers: [N] int32.
      rows: which questions stand in each row, B rows.
      slots: Q.

    Returns:
      mask [B, Q, K] bool; answers [B, Q] int32; weights [B, Q] float32, 1 for a question and 0 for
      a place without one; and index [B, Q], the question (0 where there is none).
    """
    shape, K = (len(rows), slots), mask.shape[1]
    result = {
        "mask": np.ones((*shape, K), bool),
        "answers": np.zeros(shape, np.int32),
        "weights": np.zeros(shape, np.float32),
        "index": np.zeros(shape, np.int32),
    }
    for b, questions in enumerate(rows):
        here = b, slice(len(questions))
        result["mask"][here] = mask[questions]
        result["answers"][here] = answers[questions]
        result["weights"][here] = 1
        result["index"][here] = questions
    return result


def answer_positions(lengths: np.ndarray, rows: Sequence[Sequence[int]], slots: int) -> np.ndarray:
    """[B, Q] int32, where each question of a row ends; 0 where there is none. See ``row_layout``.

    Args:
      lengths: [N], tokens of each question.
      rows, slots: as for ``asked``.
    """
    last = np.zeros((len(rows), slots), np.int32)
    for b, questions in enumerate(rows):
        last[b, : len(questions)] = np.cumsum(lengths[questions]) - 1
    return last


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
