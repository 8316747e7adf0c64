"""What the terms of a fine-tuning loss read: the model's answers, what they need, the settings."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from calib_jax.confidence.choice import choice_log_scores, renormalise

# What a term may need beside the model's answers; the first two come from the confidence bins, the
# fourth from the E-step, without any bin; the last are questions whose options are confidences.
TARGETS, BINS, LABELS, OWN, LEVELS = "targets", "bins", "labels", "own", "levels"


@dataclasses.dataclass(frozen=True)
class Answers:
    """What the model says to a microbatch's N questions, and what it should say.

    Properties are computed where a term reads them, so that gradients add up in the terms' order.

    Attributes:
      logits_NxV: [N, V] float32, at the answer positions; where letters are read.
      mask_NxK: [N, K] bool, the options of each question.
      answers_N: [N] int32, the right options.
      weights_N: [N] float32, 0 for places without a question.
      letter_ids_K: [K] int32, the letters' tokens; where letters are read.
      num_rows, num_tokens: questions of the whole batch, and tokens of their prompts.
      targets_NxK: [N, K] float32, p of Eq. 6, constants; for terms that need ``TARGETS``.
      bin_accuracy_M, bin_counts_M: [M], of the E-step; for terms that need ``BINS``.
      token_losses_BxL: [B, L] float32, −log p of the next token, 0 where none is predicted; for
        terms that need ``LABELS``.
      own_NxK: [N, K] float32, the options' probabilities of the E-step, constants; for terms that
        need ``OWN``.
      text_log_probs_NxK: [N, K] float32, log p of all tokens of each option's text; where texts are
        read, and there are no logits at the answer positions.
      text_scores_NxK: [N, K] float32, their log-scores by the run's reading; where texts are read.
    """

    mask_NxK: jax.Array
    answers_N: jax.Array
    weights_N: jax.Array
    num_rows: jax.Array
    num_tokens: jax.Array
    logits_NxV: Any = None
    letter_ids_K: Any = None
    # Arrays, for the terms that need them.
    targets_NxK: Any = None
    bin_accuracy_M: Any = None
    bin_counts_M: Any = None
    token_losses_BxL: Any = None
    own_NxK: Any = None
    text_log_probs_NxK: Any = None
    text_scores_NxK: Any = None

    @property
    def log_scores_NxK(self) -> jax.Array:
        """[N, K] float32, the letters' log-probabilities or texts' scores; -inf where masked."""
        if self.text_scores_NxK is not None:
            return jnp.where(self.mask_NxK, self.text_scores_NxK, -jnp.inf)
        return choice_log_scores(self.logits_NxV, self.letter_ids_K, self.mask_NxK)

    @property
    def probs_NxK(self) -> jax.Array:
        """[N, K] float32, renormalised over the options; 0 where masked."""
        return renormalise(self.log_scores_NxK, self.mask_NxK)

    def mean(self, losses_N: jax.Array) -> jax.Array:
        """The microbatch's share of the mean over the whole batch's questions."""
        return jnp.sum(self.weights_N * losses_N) / self.num_rows


@dataclasses.dataclass(frozen=True)
class Settings:
    """What terms read of the config beside their weights: fields of ``train`` and ``em``."""

    label_smoothing: float = 0.0
    smooth_over: str = "vocabulary"
    sft2_reduction: str = "sum"
    divergence: str = "squared"
    num_bins: int = 10
    edges: str = "right"
