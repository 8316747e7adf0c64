"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290).

    L = −log σ(m),   m = β [(log π(y_w | x) − log π_ref(y_w | x))
                            − (log π(y_l | x) − log π_ref(y_l | x))]

The reference is the model that training starts from. Its log-probabilities are computed once,
before the first step, and kept with every checkpoint: no second copy of any weights is needed,
under LoRA or full fine-tuning.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from calib_jax.models.decoder import Decoder
from calib_jax.models.model import Model
from calib_jax.models.table import Tree
from calib_jax.questions.encoder import Encoded
from calib_jax.training.answers import AnswerTraining, Group, answer_log_probs
from calib_jax.training.interrupt import StopRequest
from calib_jax.training.loop import Listener
from calib_jax.training.step import Objective


def dpo_loss(margins: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """−(1 − ε) log σ(m) − ε log σ(−m) per pair.

    Args:
      margins: [...] float32, β times the difference of log-ratios.
      label_smoothing: ε, the share of pairs whose label is taken to be wrong.

    Returns:
      [...] float32. Source: Rafailov et al. 2023, Eq. 7; Mitchell 2023 for ε (cDPO).
    """
    agree, differ = jax.nn.log_sigmoid(margins), jax.nn.log_sigmoid(-margins)
    return -(1.0 - label_smoothing) * agree - label_smoothing * differ


@dataclasses.dataclass(frozen=True)
class DpoObjective(Objective):
    """The sigmoid loss of DPO.

    Attributes:
      beta: β, how far the policy may go from the reference for a reward.
      label_smoothing: ε of cDPO, in [0, 1/2).
    """

    beta: float
    label_smoothing: float = 0.0

    def terms(
        self,
        decoder: Decoder,
        variables: Tree,
        batch: Tree,
        dropout: jax.Array | None = None,
        vocab_shards: int = 1,
    ) -> dict[str, Any]:
        """See ``step.Objective``: "loss", and means over pairs: "chosen_reward" and
        "rejected_reward", β times each log-ratio, "reward_margin", their difference, and
        "reward_accuracy", how often it is positive.

        Args:
          batch: of ``answers.layout``, with reference [B, Q, 2] float32.
        """
        log_probs = answer_log_probs(decoder, variables, batch, 2, dropout, vocab_shards)
        rewards = self.beta * (log_probs - batch["reference"])
        margins = rewards[..., 0] - rewards[..., 1]

        def mean(values: jax.Array) -> jax.Array:
            return jnp.sum(batch["weights"] * values) / batch["num_rows"]

        return {
            "loss": mean(dpo_loss(margins, self.label_smoothing)),
            "chosen_reward": mean(rewards[..., 0]),
            "rejected_reward": mean(rewards[..., 1]),
            "reward_margin": mean(margins),
            "reward_accuracy": mean((margins > 0).astype(jnp.float32)),
        }


class DpoTraining(AnswerTraining):
    """DPO; arguments as of ``AnswerTraining``, groups of (chosen, rejected)."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        model: Model,
        groups: Sequence[Group],
        ids: Sequence[str],
        measured: Sequence[Encoded] = (),
        measured_groups: Sequence[Group] = (),
    ):
        align = config.align
        objective = DpoObjective(align.beta, align.label_smoothing)
        super().__init__(config, model, objective, groups, ids, measured, measured_groups)

    def empty_aux(self) -> dict[str, np.ndarray]:
        return {"reference": np.zeros((len(self.groups), 2), np.float32)}

    def prepares(self, epoch: int, index: int) -> bool:
        return epoch == 0 and index == 0

    def prepare(self, epoch: int, stop: StopRequest, listener: Listener) -> dict[str, np.ndarray]:
        """The reference's log-probabilities: the model of the moment is the one at the start."""
        pairs = [(group[0], group[1]) for group in self.groups]
        scores = self.score_pairs(
            pairs, self.ids, None, lambda: listener.on_scored(epoch, 1), stop.check
        )
        reference = np.stack([scores.chosen, scores.rejected], axis=1)
        return {"reference": reference.astype(np.float32)}

    def extra(self, index: np.ndarray, aux: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {"reference": aux["reference"][index]}
