"""Algorithm 1 on options' texts: π is the softmax of a reading's scores of the texts.

A question's options stand after it as a prefix tree, so that it is computed once, and the loss is
the same function of the log-scores [N, K] as for letters:

    s_k = (1 / d_k) Σ_t log p(token t of option k | question, tokens before t)

with d_k = 1 (continuation_sum), the option's tokens, characters or bytes; the least likely token's
alone (continuation_min); or the sum less that without the question (continuation_pmi).
"""

import dataclasses
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np

from calib_jax.confidence.asked import Split
from calib_jax.confidence.forest import tree_size
from calib_jax.confidence.text_scores import EncodedTexts
from calib_jax.models.decoder import Decoder
from calib_jax.models.model import Model
from calib_jax.models.table import Tree
from calib_jax.questions.batches import bucket_of
from calib_jax.questions.pairs import Pair
from calib_jax.training.answers import layout, per_answer, token_log_probs
from calib_jax.training.em import EmTraining, objective_of
from calib_jax.training.inputs import Answers
from calib_jax.training.objective import EmObjective, asked_of


@dataclasses.dataclass(frozen=True)
class TextObjective(EmObjective):
    """Σ_t w_t · L_t of the texts' scores.

    Attributes:
      method: the reading.
    """

    method: str = "continuation_sum"

    def answers(
        self,
        decoder: Decoder,
        variables: Tree,
        batch: Tree,
        dropout: jax.Array | None,
        vocab_shards: int,
    ) -> Answers:
        """What the model says to a microbatch's questions, read by their options' texts.

        Args:
          batch: of ``answers.layout``, with as many answers a group as options, and as many again
            without the question under PMI; for Q questions a row mask and divisors [B, Q, K],
            answers and weights [B, Q]; and what ``EmObjective.answers`` says of the whole batch.
        """
        K = batch["mask"].shape[-1]
        sides = 2 * K if self.method == "continuation_pmi" else K
        log_probs_BxT = token_log_probs(decoder, variables, batch, dropout, vocab_shards)
        sums_BxQxS = per_answer(log_probs_BxT, batch, sides)
        texts_BxQxK = sums_BxQxS[..., :K]
        scores_BxQxK = texts_BxQxK / batch["divisors"]
        if self.method == "continuation_min":
            scores_BxQxK = per_answer(log_probs_BxT, batch, sides, least=True)
        elif self.method == "continuation_pmi":
            scores_BxQxK = texts_BxQxK - sums_BxQxS[..., K:]
        return Answers(
            **asked_of(batch),
            text_log_probs_NxK=texts_BxQxK.reshape(-1, K),
            text_scores_NxK=scores_BxQxK.reshape(-1, K),
        )


class TextEmTraining(EmTraining):
    """One run of Algorithm 1 on options' texts; arguments as of ``EmTraining``."""

    encoded: EncodedTexts
    objective: TextObjective

    def _objective(self, config: ml_collections.ConfigDict) -> EmObjective:
        plain = objective_of(config, len(self.encoded))
        return TextObjective(plain.weighted, plain.settings, plain.online, self.encoded.method)

    def _lengths(self, model: Model) -> np.ndarray:
        # A kernel for whole sequences knows no trees.
        self.share = model.attention != "splash"
        K, priors = self.encoded.mask.shape[1], self.encoded.priors
        self.groups: list[list[Pair | None]] = []
        for n, group in enumerate(self.encoded.options):
            missing: list[None] = [None] * (K - len(group))
            after_nothing = [*priors[n], *missing] if priors else []
            self.groups.append([*group, *missing, *after_nothing])
        pairs = [[pair for pair in group if pair is not None] for group in self.groups]
        self.reads = np.array([sum(pair.num_targets for pair in group) for group in pairs])
        if self.share:
            sizes = [tree_size(group).tokens for group in pairs]
        else:
            sizes = [sum(len(pair.tokens) - 1 for pair in group) for group in pairs]
        return np.array(sizes, np.int32)

    def _plan_shapes(self) -> None:
        super()._plan_shapes()
        # One number of reads for every length, or shapes would multiply.
        self.bucket_reads = dict.fromkeys(self.buckets, 0)
        for epoch in range(self.config.train.epochs):
            for rows in self.batch_rows(epoch):
                placed = self._place(rows)
                longest = max(int(self.lengths[row].sum()) for row in placed if row)
                bucket = bucket_of(longest, self.buckets)
                reads = max(int(self.reads[row].sum()) for row in placed if row)
                self.bucket_reads[bucket] = max(self.bucket_reads[bucket], reads)

    def _shared(self) -> dict[str, np.ndarray]:
        return {}

    def _layout(self, placed: list[list[int]], length: int) -> dict[str, np.ndarray]:
        encoded, K = self.encoded, self.encoded.mask.shape[1]
        arrays = layout(
            [[self.groups[n] for n in row] for row in placed],
            length,
            self.bucket_reads[length],
            self.slots,
            self.share,
            sides=2 * K if encoded.priors else K,
        )
        divisors = np.ones((len(placed), self.slots, K), np.float32)
        for b, row in enumerate(placed):
            divisors[b, : len(row)] = encoded.divisors[row]
        return {**arrays, "divisors": divisors}


def training_of(
    config: ml_collections.ConfigDict,
    model: Model,
    encoded: Split,
    measured: Sequence[Split] = (),
) -> EmTraining:
    """Algorithm 1 as the training set is read, by letters or by texts; see ``EmTraining``."""
    kind = TextEmTraining if isinstance(encoded, EncodedTexts) else EmTraining
    return kind(config, model, encoded, measured)
