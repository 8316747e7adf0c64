"""Training on answers of many tokens: what SFT on demonstrations and DPO share.

An example is a group of ``Pair``: one prompt with its answers (one to learn, or the chosen and the
rejected one). A group is laid out as a prefix tree, so that its prompt is computed once; rows hold
one group, or several where they are packed; and the LM head is applied where answers are predicted
alone, in chunks of the vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from calib_jax.confidence.forest import build_tree, tree_size
from calib_jax.confidence.letter_scores import letter_groups
from calib_jax.confidence.preference import PreferenceScores, score_preferences
from calib_jax.errors import UserError
from calib_jax.models.attention import Forest
from calib_jax.models.decoder import Decoder, head_weights
from calib_jax.models.model import Model
from calib_jax.models.table import Tree
from calib_jax.parallel import mesh as meshes
from calib_jax.questions.batches import bucket_of, choose_buckets, spread, training_order
from calib_jax.questions.encoder import Encoded
from calib_jax.questions.pairs import Pair
from calib_jax.training.loop import Training
from calib_jax.training.losses import next_token_loss
from calib_jax.training.step import Objective

Group = Sequence[Pair]


def token_log_probs(
    decoder: Decoder,
    variables: Tree,
    batch: Tree,
    dropout: jax.Array | None = None,
    vocab_shards: int = 1,
) -> jax.Array:
    """log p of every answer's every token, after what comes before it.

    Args:
      decoder, variables, dropout, vocab_shards: see ``step.Objective``.
      batch: of ``layout``: tokens, positions, ends (and segments) [B, L]; places and next_tokens
        [B, T].

    Returns:
      [B, T] float32, nats.
    """
    rngs = None if dropout is None else {"dropout": dropout}
    forest = Forest(batch["positions"], batch["ends"], batch.get("segments"))
    hidden_BxLxD: Any = decoder.apply(variables, batch["tokens"], forest, rngs=rngs)
    hidden_BxTxD = jnp.take_along_axis(hidden_BxLxD, batch["places"][:, :, None], axis=1)
    return -next_token_loss(
        decoder.config,
        hidden_BxTxD,
        head_weights(variables["params"]),
        batch["next_tokens"],
        shards=vocab_shards,
    )


def per_answer(log_probs_BxT: jax.Array, batch: Tree, sides: int, least: bool = False) -> jax.Array:
    """log π(y | x) of every answer: the sum over its tokens, or the least of them.

    Args:
      log_probs_BxT: of ``token_log_probs``.
      batch: of ``layout``: slots [B, T]; weights [B, Q].
      sides: G, answers of a group.
      least: its least likely token's in place of the sum.

    Returns:
      [B, Q, G] float32, nats; 0 where there is no answer.
    """
    B, Q = batch["weights"].shape
    # A slot beyond the last one (padding) is no row of the one-hot matrix. No product of matrices:
    # these would round to bfloat16 on a TPU.
    held_BxTxS = batch["slots"][:, :, None] == jnp.arange(Q * sides)
    held_log_probs_BxTxS = jnp.where(held_BxTxS, log_probs_BxT[..., None], 0.0)
    of_each_BxS = held_log_probs_BxTxS.min(axis=1) if least else held_log_probs_BxTxS.sum(axis=1)
    return of_each_BxS.reshape(B, Q, sides)


def answer_log_probs(
    decoder: Decoder,
    variables: Tree,
    batch: Tree,
    sides: int,
    dropout: jax.Array | None = None,
    vocab_shards: int = 1,
) -> jax.Array:
    """log π(y | x) of every answer, summed over its tokens; see ``token_log_probs``.

    Returns:
      [B, Q, G] float32, nats; 0 where there is no answer.
    """
    tokens = token_log_probs(decoder, variables, batch, dropout, vocab_shards)
    return per_answer(tokens, batch, sides)


def layout(
    rows: Sequence[Sequence[Sequence[Pair | None]]],
    length: int,
    reads: int,
    slots: int,
    share: bool = True,
    sides: int = 0,
) -> dict[str, np.ndarray]:
    """Rows of groups, right-padded.

    Args:
      rows: the groups of each row, B rows; a group has up to G answers, None for a missing one.
      length: L, tokens of a row.
      reads: T, predicted tokens of a row.
      slots: Q, groups of a row, at most.
      share: whether a group is a prefix tree; else its answers are sequences of their own.
      sides: G; 0 for that of the largest group.

    Returns:
      tokens, positions, ends [B, L] int32 (and segments, unless groups are trees that branch), see
      ``models.attention.Forest``; places, next_tokens, slots [B, T] int32: the token after
      ``places`` belongs to answer ``slots`` % G of group ``slots`` // G, to none where it is Q · G;
      weights [B, Q] float32, 1 for a group.
    """
    B, shape = len(rows), (len(rows), length)
    sides = sides or max((len(group) for row in rows for group in row), default=1)
    tokens, positions = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    ends = np.tile(np.arange(1, length + 1, dtype=np.int32), (B, 1))
    segments = np.zeros(shape, np.int32)
    places, targets = np.zeros((B, reads), np.int32), np.zeros((B, reads), np.int32)
    owners = np.full((B, reads), slots * sides, np.int32)
    weights = np.zeros((B, slots), np.float32)
    for b, groups in enumerate(rows):
        at, read, segment = 0, 0, 0
        weights[b, : len(groups)] = 1
        for q, group in enumerate(groups):
            there_are = [(side, pair) for side, pair in enumerate(group) if pair is not None]
            for part in [there_are] if share else [[one] for one in there_are]:
                tree = build_tree([pair for _, pair in part])
                here = slice(at, at + len(tree))
                segment += 1
                tokens[b, here], positions[b, here] = tree.tokens, tree.positions
                ends[b, here], segments[b, here] = tree.ends + at, segment
                for (side, _), found in zip(part, tree.found, strict=True):
                    there = slice(read, read + len(found))
                    places[b, there] = tree.reads[found[:, 0]] + at
                    targets[b, there] = tree.targets[found[:, 0], found[:, 1]]
                    owners[b, there] = q * sides + side
                    read += len(found)
                at += len(tree)
    result = {
        "tokens": tokens,
        "positions": positions,
        "ends": ends,
        "places": places,
        "next_tokens": targets,
        "slots": owners,
        "weights": weights,
    }
    return result if share and sides > 1 else result | {"segments": segments}


class AnswerTraining(Training):
    """Training on groups of answers; a method is a subclass with an objective.

    Args:
      config: see ``Training``; ``train.packing`` puts several groups into a row.
      model: see ``Training``.
      objective: takes the batches of ``layout``.
      groups: N examples, each a prompt with its answers.
      ids: their names.
      measured: questions that ``score`` will be given: their shapes are planned too.
      measured_groups: and groups that the engine will be given.

    Raises:
      UserError: no examples, or settings that are not valid.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        model: Model,
        objective: Objective,
        groups: Sequence[Group],
        ids: Sequence[str],
        measured: Sequence[Encoded] = (),
        measured_groups: Sequence[Group] = (),
    ):
        if not groups:
            raise UserError("config.align.train leaves nothing to train on.")
        self.groups, self.ids = groups, ids
        # A kernel for whole sequences knows no trees.
        self.share = model.attention != "splash"
        self.lengths = np.array([self._size(group) for group in groups], np.int32)
        self.reads = np.array([sum(pair.num_targets for pair in group) for group in groups])
        super().__init__(config, model, objective)
        self._plan_rows()
        letters = [group for split in measured for group in letter_groups(split)]
        self.engine.plan([*letters, *groups, *measured_groups])

    def _size(self, group: Group) -> int:
        if self.share:
            return tree_size(group).tokens
        return sum(len(pair.tokens) - 1 for pair in group)

    def _plan_rows(self) -> None:
        """Fixes the shapes of the run's batches: rows, their lengths, and the reads of each."""
        train = self.config.train
        self.num_rows, self.slots = train.batch_size, 1
        batches = [rows for epoch in range(train.epochs) for rows in self.batch_rows(epoch)]
        if train.packing:
            least = train.microbatches * meshes.batch_shards(self.mesh)
            tokens = float(np.mean([self.lengths[rows].sum() for rows in batches]))
            self.num_rows = least * max(1, round(tokens / self.lengths.max() / least))
            self.num_rows = min(self.num_rows, train.batch_size)
        placed = [self._placed(rows) for rows in batches]
        if train.packing:
            self.slots = max(len(row) for rows in placed for row in rows)
        lengths = [max(int(self.lengths[row].sum()) for row in rows) for rows in placed]
        reads = [max(int(self.reads[row].sum()) for row in rows) for rows in placed]
        most = self.config.batch.max_buckets
        self.buckets = choose_buckets(lengths, most, self.engine.multiple)
        # One number of reads for every length, or shapes would multiply.
        self.bucket_reads = dict.fromkeys(self.buckets, 0)
        for length, count in zip(lengths, reads, strict=True):
            bucket = bucket_of(length, self.buckets)
            self.bucket_reads[bucket] = max(self.bucket_reads[bucket], count)

    def _placed(self, rows: np.ndarray) -> list[list[int]]:
        """Which examples stand in each row of a batch."""
        if self.config.train.packing:
            return [
                [int(rows[i]) for i in row] for row in spread(self.lengths[rows], self.num_rows)
            ]
        return [[int(row)] for row in rows] + [[]] * (self.num_rows - len(rows))

    def batch_rows(self, epoch: int) -> list[np.ndarray]:
        train = self.config.train
        return training_order(self.lengths, train.batch_size, self.config.seed, epoch)

    def example_name(self, row: int) -> str:
        return f"example {self.ids[row]}"

    def make_batch(self, rows: np.ndarray, aux: dict[str, np.ndarray]) -> dict[str, dict]:
        placed = self._placed(rows)
        longest = max(int(self.lengths[row].sum()) for row in placed)
        length = bucket_of(longest, self.buckets)
        groups = [[self.groups[i] for i in row] for row in placed]
        batch = layout(groups, length, self.bucket_reads[length], self.slots, self.share)
        index = np.zeros((len(placed), self.slots), np.int32)
        for b, row in enumerate(placed):
            index[b, : len(row)] = row
        batch |= self.extra(index, aux)
        A = self.config.train.microbatches
        return {
            "rows": {name: x.reshape(A, -1, *x.shape[1:]) for name, x in batch.items()},
            "whole": {
                "num_rows": np.float32(len(rows)),
                "num_tokens": np.float32(self.reads[rows].sum()),
            },
        }

    def score_pairs(
        self,
        pairs: Sequence[tuple[Pair, Pair]],
        ids: Sequence[str],
        rates: Sequence[float | None] | None = None,
        on_pair: Callable[[], None] = lambda: None,
        check: Callable[[], None] = lambda: None,
    ) -> PreferenceScores:
        """The current model's log-probabilities of preference pairs, in eval mode."""
        with self.current_engine() as engine:
            return score_preferences(engine, pairs, ids, rates, lambda *_: on_pair(), check)

    def extra(self, index: np.ndarray, aux: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """What the objective takes besides, of the examples ``index`` [B, Q]."""
        return {}
