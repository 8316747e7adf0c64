"""What CFT and its relatives minimise: weighted terms such as SFT + λ · ECE.

Source: Xiao et al. 2025, Algorithm 1.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from calib_jax import metrics
from calib_jax.models.attention import Forest
from calib_jax.models.decoder import Decoder, head_logits, head_weights
from calib_jax.models.table import Tree
from calib_jax.training import losses
from calib_jax.training.inputs import BINS, LABELS, OWN, TARGETS, Answers, Settings
from calib_jax.training.targets import shrunk_accuracy, target_distribution
from calib_jax.training.terms import TERMS, Term


@dataclasses.dataclass(frozen=True)
class OnlineBins:
    """Bins and targets from the training batches' own forward passes, without an E-step.

    The counts of the bins are running sums that forget by one epoch's worth of questions:
    n_m <- n_m · (1 - B / N) + (questions of this batch in bin m). A batch's targets come from the
    sums before it.

    Attributes:
      num_bins, edges: as in ``e_step``.
      shrinkage: κ; at least 1 here, because a bin may be empty when a question falls into it.
      memory: N, the questions of an epoch.
    """

    num_bins: int
    edges: str
    shrinkage: float
    memory: int

    def start(self, batch_size: int, mask: Any) -> Tree:
        """Before the first batch: one batch of questions at chance, spread over the bins."""
        count = jnp.full(self.num_bins, batch_size / self.num_bins, jnp.float32)
        chance = jnp.mean(1.0 / jnp.sum(jnp.asarray(mask), axis=1)).astype(jnp.float32)
        return {"count": count, "correct": count * chance}


def weighted(**weights: float) -> tuple[tuple[Term, float], ...]:
    """Terms with their weights, by their names in ``terms.TERMS``."""
    return tuple((TERMS[name], weight) for name, weight in weights.items())


def asked_of(batch: Tree) -> dict[str, Any]:
    """The fields of ``Answers`` that a batch holds: those of B · Q places for questions, as N."""
    flat = {
        field: batch[name].reshape(-1, *batch[name].shape[2:])
        for name, field in (
            ("mask", "mask_NxK"),
            ("answers", "answers_N"),
            ("weights", "weights_N"),
            ("targets", "targets_NxK"),
            ("own", "own_NxK"),
        )
        if name in batch
    }
    return flat | {
        "num_rows": batch["num_rows"],
        "num_tokens": batch["num_tokens"],
        "bin_accuracy_M": batch.get("bin_accuracy"),
        "bin_counts_M": batch.get("bin_counts"),
    }


@dataclasses.dataclass(frozen=True)
class EmObjective:
    """Σ_t w_t · L_t over some of ``terms.TERMS``.

    Attributes:
      weighted: the terms and their weights.
      settings: what the terms read beside them.
      online: how targets are made within the step; None where the batch brings them.
    """

    weighted: tuple[tuple[Term, float], ...]
    settings: Settings = Settings()
    online: OnlineBins | None = None

    @property
    def needs(self) -> frozenset[str]:
        """What the terms need together; see ``terms.Term``."""
        return frozenset().union(*(term.needs for term, _ in self.weighted))

    @property
    def needs_e_step(self) -> bool:
        """Whether anything reads what an E-step finds."""
        return self.online is None and bool(self.needs & {TARGETS, BINS, OWN})

    @property
    def logged(self) -> tuple[str, ...]:
        """What the log calls the loss and its terms."""
        return ("loss", *(term.key for term, _ in self.weighted))

    def terms(
        self,
        decoder: Decoder,
        variables: Tree,
        batch: Tree,
        dropout: jax.Array | None = None,
        vocab_shards: int = 1,
    ) -> dict[str, Any]:
        """See ``step.Objective``: every term by its name in the log, and "loss", their sum.

        Args:
          batch: see ``answers``.
        """
        answers = self.answers(decoder, variables, batch, dropout, vocab_shards)
        seen = {}
        if self.online is not None:
            targets_NxK, seen["stats"] = self._online(answers, batch["stats"])
            answers = dataclasses.replace(answers, targets_NxK=targets_NxK)
        values = {term.key: term.loss(answers, self.settings) for term, _ in self.weighted}
        loss = sum(weight * values[term.key] for term, weight in self.weighted)
        return {**values, "loss": loss, **seen}

    def answers(
        self,
        decoder: Decoder,
        variables: Tree,
        batch: Tree,
        dropout: jax.Array | None,
        vocab_shards: int,
    ) -> Answers:
        """What the model says to a microbatch's questions, read by their letters.

        Args:
          batch: tokens [B, L]; positions, ends, segments [B, L] where rows hold several questions;
            for Q questions a row: last [B, Q], mask [B, Q, K], answers [B, Q], weights [B, Q] (0
            for none); of the whole batch letter_ids [K], num_rows and num_tokens; and what the
            terms need: targets [B, Q, K] (unless they are made here), own [B, Q, K], labels [B, L],
            -1 where nothing is predicted, or bin_accuracy and bin_counts [M] of the whole batch.
        """
        rngs = None if dropout is None else {"dropout": dropout}
        forest = None
        if "ends" in batch:
            forest = Forest(batch["positions"], batch["ends"], batch["segments"])
        hidden_BxLxD: Any = decoder.apply(variables, batch["tokens"], forest, rngs=rngs)
        hidden_BxQxD = jnp.take_along_axis(hidden_BxLxD, batch["last"][:, :, None], axis=1)
        # From here on questions alone matter, N = B · Q of them.
        hidden_NxD = hidden_BxQxD.reshape(-1, hidden_BxQxD.shape[-1])
        answers = Answers(
            logits_NxV=head_logits(decoder.config, variables["params"], hidden_NxD),
            letter_ids_K=batch["letter_ids"],
            **asked_of(batch),
        )
        if LABELS in self.needs:
            loss_BxL = losses.next_token_loss(
                decoder.config,
                hidden_BxLxD,
                head_weights(variables["params"]),
                jnp.maximum(batch["labels"], 0),
                shards=vocab_shards,
            )
            loss_BxL = jnp.where(batch["labels"] >= 0, loss_BxL, 0.0)
            answers = dataclasses.replace(answers, token_losses_BxL=loss_BxL)
        return answers

    def _online(self, answers: Answers, stats: Tree) -> tuple[jax.Array, Tree]:
        """Targets from the running sums, and what these questions add to the sums."""
        online, mask_NxK = self.online, answers.mask_NxK
        assert online is not None  # asked for by ``terms``
        probs_NxK = jax.lax.stop_gradient(answers.probs_NxK)
        bins_N = metrics.bin_index(
            metrics.confidences(probs_NxK, mask_NxK),
            num_bins=online.num_bins,
            edges=online.edges,
        )
        shrinkage = max(online.shrinkage, 1.0)
        accuracy_M = shrunk_accuracy(stats["correct"], stats["count"], shrinkage)
        targets_NxK = target_distribution(probs_NxK, accuracy_M[bins_N], mask_NxK)
        correct_N = jnp.argmax(probs_NxK, axis=-1) == answers.answers_N
        held_NxM = jax.nn.one_hot(bins_N, online.num_bins) * answers.weights_N[:, None]
        seen = {
            "count": held_NxM.sum(axis=0),
            "correct": jnp.where(correct_N[:, None], held_NxM, 0.0).sum(axis=0),
        }
        return targets_NxK, seen

    def update(self, stats: Tree, seen: Tree) -> Tree:
        """See ``step.Objective``."""
        assert self.online is not None  # its ``terms`` returned statistics
        keep = 1.0 - jnp.minimum(seen["count"].sum() / self.online.memory, 1.0)
        return jax.tree.map(lambda old, new: old * keep + new, stats, seen)
