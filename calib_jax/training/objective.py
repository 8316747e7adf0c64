"""What CFT and its relatives minimise: SFT + λ · ECE on multiple-choice questions.

Source: Xiao et al. 2025, Algorithm 1.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from calib_jax import metrics
from calib_jax.confidence.choice import choice_log_scores, renormalise
from calib_jax.models.attention import Forest
from calib_jax.models.decoder import Decoder, head_logits, head_weights
from calib_jax.models.table import Tree
from calib_jax.training import losses
from calib_jax.training.released import ReleasedTerm
from calib_jax.training.targets import shrunk_accuracy, target_distribution


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


@dataclasses.dataclass(frozen=True)
class EmObjective:
    """Which losses are minimised.

    Attributes:
      sft: "sft1", the answer's token; "sft2", question and answer tokens; "none".
      ece_weight: λ; 0 leaves the calibration term out.
      sft_weight: of the SFT term; 1 but in the released objective.
      sft2_reduction: "sum" over the tokens of a question, averaged over questions: the answer's
        token has the weight that it has in SFT1. Or "mean" over the tokens of a batch, which
        divides the answer's weight by the questions' length T and leaves λ · ECE as it is.
      label_smoothing: ε of SFT1, see ``losses.sft1``.
      smooth_over: "vocabulary" or "letters".
      divergence: of the calibration term, see ``losses.calibration``.
      online: how targets are made within the step; None where the batch brings them.
      released: the calibration term of the authors' code in place of ``losses.calibration``.
    """

    sft: str
    ece_weight: float
    sft_weight: float = 1.0
    sft2_reduction: str = "sum"
    label_smoothing: float = 0.0
    smooth_over: str = "vocabulary"
    divergence: str = "squared"
    online: OnlineBins | None = None
    released: ReleasedTerm | None = None

    def terms(
        self,
        decoder: Decoder,
        variables: Tree,
        batch: Tree,
        dropout: jax.Array | None = None,
        vocab_shards: int = 1,
    ) -> dict[str, Any]:
        """See ``step.Objective``; "sft", "ece" and "loss", their weighted sum.

        Args:
          batch: tokens [B, L]; positions, ends, segments [B, L] where rows hold several questions;
            for Q questions a row: last [B, Q], mask [B, Q, K], answers [B, Q], weights [B, Q] (0
            for none) and, unless they are made here, targets [B, Q, K]; for SFT2 labels [B, L],
            -1 where nothing is predicted; and of the whole batch letter_ids [K], num_rows,
            num_tokens and, for ``released``, bin_accuracy and bin_counts [M].
        """
        rngs = None if dropout is None else {"dropout": dropout}
        forest = None
        if "ends" in batch:
            forest = Forest(batch["positions"], batch["ends"], batch["segments"])
        hidden_BxLxD = decoder.apply(variables, batch["tokens"], forest, rngs=rngs)
        hidden_BxQxD = jnp.take_along_axis(hidden_BxLxD, batch["last"][:, :, None], axis=1)
        # From here on questions alone matter, N = B · Q of them.
        asked = {
            name: batch[name].reshape(-1, *batch[name].shape[2:])
            for name in ("mask", "answers", "weights", "targets")
            if name in batch
        }
        hidden_NxD = hidden_BxQxD.reshape(-1, hidden_BxQxD.shape[-1])
        logits_NxV = head_logits(decoder.config, variables["params"], hidden_NxD)
        letters_K, mask_NxK, num_rows = batch["letter_ids"], asked["mask"], batch["num_rows"]

        sft = jnp.zeros((), jnp.float32)
        if self.sft == "sft1":
            smoothed = {"letter_ids_K": letters_K, "mask_BxK": mask_NxK}
            sft_N = losses.sft1(
                logits_NxV,
                letters_K[asked["answers"]],
                self.label_smoothing,
                **(smoothed if self.smooth_over == "letters" else {}),
            )
            sft = jnp.sum(asked["weights"] * sft_N) / num_rows
        elif self.sft == "sft2":
            loss_BxL = losses.next_token_loss(
                hidden_BxLxD,
                head_weights(variables["params"]),
                jnp.maximum(batch["labels"], 0),
                shards=vocab_shards,
                softcap=decoder.config.logit_softcap,
            )
            total = jnp.sum(jnp.where(batch["labels"] >= 0, loss_BxL, 0.0))
            sft = total / (batch["num_tokens"] if self.sft2_reduction == "mean" else num_rows)

        log_scores_NxK = choice_log_scores(logits_NxV, letters_K, mask_NxK)
        seen = {}
        if self.released is not None:
            ece_N = self.released.per_question(
                renormalise(log_scores_NxK, mask_NxK),
                mask_NxK,
                batch["bin_accuracy"],
                batch["bin_counts"],
            )
            ece = jnp.sum(asked["weights"] * ece_N)
        else:
            if self.online is not None:
                probs_NxK = renormalise(log_scores_NxK, mask_NxK)
                asked["targets"], seen["stats"] = self._online(probs_NxK, asked, batch["stats"])
            ece_N = losses.calibration(log_scores_NxK, asked["targets"], mask_NxK, self.divergence)
            ece = jnp.sum(asked["weights"] * ece_N) / num_rows
        loss = self.sft_weight * sft + self.ece_weight * ece
        return {"sft": sft, "ece": ece, "loss": loss, **seen}

    def _online(self, probs_NxK: jax.Array, asked: Tree, stats: Tree) -> tuple[jax.Array, Tree]:
        """Targets from the running sums, and what these questions add to the sums."""
        probs_NxK = jax.lax.stop_gradient(probs_NxK)
        bins_N = metrics.bin_index(
            metrics.confidences(probs_NxK, asked["mask"]),
            num_bins=self.online.num_bins,
            edges=self.online.edges,
        )
        shrinkage = max(self.online.shrinkage, 1.0)
        accuracy_M = shrunk_accuracy(stats["correct"], stats["count"], shrinkage)
        targets_NxK = target_distribution(probs_NxK, accuracy_M[bins_N], asked["mask"])
        correct_N = jnp.argmax(probs_NxK, axis=-1) == asked["answers"]
        held_NxM = jax.nn.one_hot(bins_N, self.online.num_bins) * asked["weights"][:, None]
        seen = {
            "count": held_NxM.sum(axis=0),
            "correct": jnp.where(correct_N[:, None], held_NxM, 0.0).sum(axis=0),
        }
        return targets_NxK, seen

    def update(self, stats: Tree, seen: Tree) -> Tree:
        """See ``step.Objective``."""
        keep = 1.0 - jnp.minimum(seen["count"].sum() / self.online.memory, 1.0)
        return jax.tree.map(lambda old, new: old * keep + new, stats, seen)
