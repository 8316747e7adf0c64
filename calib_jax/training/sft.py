"""SFT on demonstrations: the answers' tokens, nothing of the prompts."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from calib_jax.models.decoder import Decoder
from calib_jax.models.model import Model
from calib_jax.models.table import Tree
from calib_jax.questions.encoder import Encoded
from calib_jax.training.answers import AnswerTraining, Group, answer_log_probs
from calib_jax.training.step import Objective


@dataclasses.dataclass(frozen=True)
class SftObjective(Objective):
    """−(1 / T) Σ log π(y_t | x, y_<t), over the T answer tokens of a batch."""

    def terms(
        self,
        decoder: Decoder,
        variables: Tree,
        batch: Tree,
        dropout: jax.Array | None = None,
        vocab_shards: int = 1,
    ) -> dict[str, Any]:
        """See ``step.Objective`` and ``answers.layout``; "loss", nats per token."""
        log_probs = answer_log_probs(decoder, variables, batch, 1, dropout, vocab_shards)
        return {"loss": -jnp.sum(log_probs) / batch["num_tokens"]}


class SftTraining(AnswerTraining):
    """SFT; arguments as of ``AnswerTraining``, groups of one answer each."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        model: Model,
        groups: Sequence[Group],
        ids: Sequence[str],
        measured: Sequence[Encoded] = (),
        measured_groups: Sequence[Group] = (),
    ):
        super().__init__(config, model, SftObjective(), groups, ids, measured, measured_groups)
