"""One jitted, sharded, donated optimiser step, whatever is minimised."""

import functools
from typing import Any, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import optax

from calib_jax.models.decoder import Decoder
from calib_jax.models.table import Tree
from calib_jax.training.optimizer import OptimizerConfig


class Objective(Protocol):
    """What is minimised: hashable, so that equal runs share one compiled step."""

    def terms(
        self,
        decoder: Decoder,
        variables: Tree,
        batch: Tree,
        dropout: jax.Array | None = None,
        vocab_shards: int = 1,
    ) -> dict[str, Any]:
        """The loss terms of a (micro)batch, as its share of the whole batch's means.

        Args:
          decoder: in train mode.
          variables: of the decoder.
          batch: the microbatch's arrays [B, ...], what the whole batch shares (normalisers above
            all), and the state's ``stats``.
          dropout: key of the adapters' dropout, None for none.
          vocab_shards: ways in which the mesh splits the vocabulary.

        Returns:
          "loss" and what it consists of, float32 scalars; and, from an objective that keeps
          statistics, "stats": what this microbatch adds to them.
        """

    def update(self, stats: Tree, seen: Tree) -> Tree:
        """The statistics after a batch; ``seen`` is the sum of its microbatches' "stats".

        Asked only of an objective that returns "stats".
        """
        return stats


class TrainState(flax.struct.PyTreeNode):
    """What a step changes: the parameters that train, the optimiser's state, the step counter.

    ``stats`` are statistics that an objective keeps from step to step; () for none.
    """

    step: jax.Array
    trainable: Tree
    opt_state: Any
    stats: Any = ()


def variables_of(decoder: Decoder, trainable: Tree, base: Tree | None) -> Tree:
    """The decoder's variables: adapters beside a frozen base, or all parameters training."""
    if decoder.lora is None:
        return {"params": trainable}
    return {"params": base, "lora": {"layers": trainable}}


@functools.partial(
    jax.jit,
    static_argnames=("decoder", "objective", "optimizer", "vocab_shards", "seed"),
    donate_argnames="state",
)
def train_step(
    state: TrainState,
    base: Tree | None,
    batch: Tree,
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
      batch: "rows", arrays [A, B, ...], the microbatches' rows; and "whole", arrays that all of
        them share, such as the number of examples of all A together, so that gradients equal those
        of one batch of A · B rows.
      decoder: in train mode.
      objective: what is minimised.
      optimizer: the settings of AdamW.
      vocab_shards: ways in which the mesh splits the vocabulary.
      seed: of the adapters' dropout; the stream is a function of it and the step.

    Returns:
      The new state, and the float32 scalars of the objective with grad_norm (before clipping).
    """
    rows = batch["rows"]
    count = jax.tree.leaves(rows)[0].shape[0]
    key = jax.random.fold_in(jax.random.key(seed), state.step)
    dropping = decoder.lora is not None and decoder.lora.dropout > 0

    def loss(trainable: Tree, microbatch: Tree, key: jax.Array) -> tuple[jax.Array, dict]:
        terms = objective.terms(
            decoder,
            variables_of(decoder, trainable, base),
            {**microbatch, **batch["whole"], "stats": state.stats},
            key if dropping else None,
            vocab_shards,
        )
        return terms["loss"], terms

    gradient = jax.grad(loss, has_aux=True)
    microbatches = (rows, jax.random.split(key, count))
    first = jax.tree.map(lambda x: x[0], microbatches)
    if count == 1:
        grads, terms = gradient(state.trainable, *first)
    else:

        def accumulate(carry: tuple, microbatch: tuple) -> tuple:
            return jax.tree.map(jnp.add, carry, gradient(state.trainable, *microbatch)), None

        shapes = jax.eval_shape(gradient, state.trainable, *first)
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        (grads, terms), _ = jax.lax.scan(accumulate, zeros, microbatches)
    seen = terms.pop("stats", None)
    stats = state.stats if seen is None else objective.update(state.stats, seen)
    updates, opt_state = optimizer.transformation().update(grads, state.opt_state, state.trainable)
    trainable = optax.apply_updates(state.trainable, updates)
    terms["grad_norm"] = optax.tree.norm(grads)
    return TrainState(state.step + 1, trainable, opt_state, stats), terms
