"""The M-step: one jitted, sharded, donated optimiser step of SFT + λ · ECE."""

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from calib_jax.confidence.choice import choice_log_scores, renormalise
from calib_jax.models.decoder import Decoder, head_logits, head_weights
from calib_jax.models.table import Tree
from calib_jax.training import losses
from calib_jax.training.optimizer import OptimizerConfig

SFT_LOSSES = ("sft1", "sft2", "none")


@dataclasses.dataclass(frozen=True)
class Objective:
    """Which losses are minimised.

    Attributes:
      sft: "sft1", the answer's token; "sft2", question and answer tokens; "none".
      ece_weight: λ; 0 leaves the calibration term out.
      sft2_reduction: "mean" over the tokens of a batch (Hugging Face's convention, so that λ = 1
        keeps its meaning) or "sum" over the tokens of a question, averaged over questions.
    """

    sft: str
    ece_weight: float
    sft2_reduction: str = "mean"


class TrainState(flax.struct.PyTreeNode):
    """What a step changes: the parameters that train, the optimiser's state, the step counter."""

    step: jax.Array
    trainable: Tree
    opt_state: Any


def variables_of(decoder: Decoder, trainable: Tree, base: Tree | None) -> Tree:
    """The decoder's variables: adapters beside a frozen base, or all parameters training."""
    if decoder.lora is None:
        return {"params": trainable}
    return {"params": base, "lora": {"layers": trainable}}


def objective_terms(
    decoder: Decoder,
    objective: Objective,
    variables: Tree,
    batch: Tree,
    letter_ids: jax.Array,
    dropout: jax.Array | None = None,
    vocab_shards: int = 1,
) -> dict[str, jax.Array]:
    """The loss terms of a (micro)batch, as its share of the whole batch's means.

    Args:
      batch: tokens [B, L], last [B], mask [B, K], answers [B], weights [B], targets [B, K], and
        the whole batch's normalisers ``num_rows`` and ``num_tokens``, scalars.

    Returns:
      "sft", "ece" and "loss" = sft + λ · ece, float32 scalars.
    """
    rngs = None if dropout is None else {"dropout": dropout}
    hidden_BxLxD = decoder.apply(variables, batch["tokens"], rngs=rngs)
    hidden_BxD = jnp.take_along_axis(hidden_BxLxD, batch["last"][:, None, None], axis=1)[:, 0]
    logits_BxV = head_logits(decoder.config, variables["params"], hidden_BxD)
    answer_ids_B = letter_ids[batch["answers"]]
    weights_B, num_rows = batch["weights"], batch["num_rows"]

    sft = jnp.zeros((), jnp.float32)
    if objective.sft == "sft1":
        sft = jnp.sum(weights_B * losses.sft1(logits_BxV, answer_ids_B)) / num_rows
    elif objective.sft == "sft2":
        targets_BxL, counted_BxL = losses.shifted_targets(
            batch["tokens"], batch["last"], answer_ids_B
        )
        head_VxD = head_weights(variables["params"])
        loss_BxL = losses.next_token_loss(
            hidden_BxLxD,
            head_VxD,
            targets_BxL,
            shards=vocab_shards,
            softcap=decoder.config.logit_softcap,
        )
        total = jnp.sum(jnp.where(counted_BxL, loss_BxL, 0.0) * weights_B[:, None])
        mean = objective.sft2_reduction == "mean"
        sft = total / (batch["num_tokens"] if mean else num_rows)

    probs_BxK = renormalise(choice_log_scores(logits_BxV, letter_ids, batch["mask"]), batch["mask"])
    rows_B = losses.calibration(probs_BxK, batch["targets"])
    ece = jnp.sum(weights_B * rows_B) / num_rows
    return {"sft": sft, "ece": ece, "loss": sft + objective.ece_weight * ece}


@functools.partial(
    jax.jit,
    static_argnames=("decoder", "objective", "optimizer", "vocab_shards", "seed"),
    donate_argnames="state",
)
def train_step(
    state: TrainState,
    base: Tree | None,
    batch: Tree,
    letter_ids: jax.Array,
    *,
    decoder: Decoder,
    objective: Objective,
    optimizer: OptimizerConfig,
    vocab_shards: int = 1,
    seed: int = 0,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimiser step over A microbatches.

    Args:
      state: donated.
      base: the frozen parameters under LoRA, else None.
      batch: arrays [A, B, ...] (the microbatches' rows), and the scalars ``num_rows`` and
        ``num_tokens`` of all A together, so that gradients equal those of one batch of A · B.
      letter_ids: [K] int32.
      decoder: in train mode.
      seed: of the adapters' dropout; the stream is a function of it and the step.

    Returns:
      The new state, and the float32 scalars loss, sft, ece, grad_norm (before clipping).
    """
    scalars = {key: batch[key] for key in ("num_rows", "num_tokens")}
    rows = {key: value for key, value in batch.items() if key not in scalars}
    count = rows["answers"].shape[0]
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    dropping = decoder.lora is not None and decoder.lora.dropout > 0

    def loss(trainable: Tree, microbatch: Tree, key: jax.Array) -> tuple[jax.Array, dict]:
        terms = objective_terms(
            decoder,
            objective,
            variables_of(decoder, trainable, base),
            {**microbatch, **scalars},
            letter_ids,
            key if dropping else None,
            vocab_shards,
        )
        return terms["loss"], terms

    gradient = jax.grad(loss, has_aux=True)
    keys = jax.random.split(key, count)
    microbatches = (rows, keys)
    first = jax.tree.map(lambda x: x[0], microbatches)
    if count == 1:
        grads, terms = gradient(state.trainable, *first)
    else:

        def accumulate(carry: tuple, microbatch: tuple) -> tuple:
            return jax.tree.map(jnp.add, carry, gradient(state.trainable, *microbatch)), None

        shapes = jax.eval_shape(gradient, state.trainable, *first)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (grads, terms), _ = jax.lax.scan(accumulate, zeros, microbatches)
    updates, opt_state = optimizer.transformation().update(grads, state.opt_state, state.trainable)
    trainable = optax.apply_updates(state.trainable, updates)
    terms["grad_norm"] = optax.tree.norm(grads)
    return TrainState(state.step + 1, trainable, opt_state), terms
