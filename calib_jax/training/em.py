"""Algorithm 1, (Regularized) Calibration-Aware Fine-Tuning: an EM loop over confidence bins."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from calib_jax.confidence.engine import Engine
from calib_jax.confidence.scores import Scores
from calib_jax.confidence.scoring import letter_groups, score_encoded
from calib_jax.config import split_list
from calib_jax.errors import UserError
from calib_jax.models.decoder import Decoder
from calib_jax.models.lora import LoraConfig, check_lora, init_lora, merge_lora
from calib_jax.models.model import Model
from calib_jax.models.table import Tree
from calib_jax.parallel import mesh as meshes
from calib_jax.parallel.sharding import lora_sharding
from calib_jax.questions.batching import bucket_of, make_batch, training_order
from calib_jax.questions.encoding import Encoded
from calib_jax.training.checkpoints import Checkpoints
from calib_jax.training.interrupt import Stopped, StopRequest
from calib_jax.training.optimizer import OptimizerConfig
from calib_jax.training.step import Objective, TrainState, train_step, variables_of
from calib_jax.training.targets import EStep, e_step


def lora_settings(train: ml_collections.ConfigDict, adapter: LoraConfig | None) -> LoraConfig:
    """The settings of the adapters that train.

    Args:
      train: ``config.train``.
      adapter: of the adapter that training goes on from (``config.model.adapter``): its rank, scale
        and targets stay, and only the dropout is the config's. None for fresh adapters.
    """
    asked = LoraConfig(
        rank=train.lora.rank,
        alpha=train.lora.alpha,
        dropout=train.lora.dropout,
        targets=split_list(train.lora.targets),
    )
    return asked if adapter is None else dataclasses.replace(adapter, dropout=asked.dropout)


@dataclasses.dataclass
class Listener:
    """What the job wants to hear of: all optional, all called in the order of events.

    Attributes:
      on_scored: (epoch, questions), after every batch of an E-step.
      on_e_step: (epoch, step, scores of the training set, EStep), before the epoch's first step.
      on_step: (epoch, step, questions, questions of this epoch so far, loss terms), one step late.
      on_epoch_end: (epoch, step), after the epoch's last step.
    """

    on_scored: Callable[[int, int], None] = lambda *_: None
    on_e_step: Callable[[int, int, Scores, EStep], None] = lambda *_: None
    on_step: Callable[[int, int, int, int, dict], None] = lambda *_: None
    on_epoch_end: Callable[[int, int], None] = lambda *_: None


class EmTraining:
    """One run of Algorithm 1: its plan, its state, and the loop.

    Args:
      config: the whole config; ``train``, ``em``, ``batch`` and ``checkpoint`` are read.
      model: the base; under full fine-tuning its parameters are consumed (donated). With an adapter
        beside them, LoRA trains that one on, and full fine-tuning starts from the merged weights.
      encoded: the training set.
      buckets: padded lengths of a training batch.
      measured: the splits that ``score`` will be given besides: their shapes are planned too.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        model: Model,
        encoded: Encoded,
        buckets: Sequence[int],
        measured: Sequence[Encoded] = (),
    ):
        train = config.train
        self.config, self.encoded, self.buckets = config, encoded, buckets
        self.mesh = model.mesh
        lora = None
        if train.method == "lora":
            lora = lora_settings(train, model.lora)
            check_lora(model.config, lora)
        elif train.method != "full":
            raise UserError(f"config.train.method is {train.method!r}; expected 'full' or 'lora'.")
        self.decoder = Decoder(
            model.config, model.dtype, lora, attention=model.attention, remat=train.remat
        )
        # Its variables are those of the moment: see ``score``.
        self.engine = Engine(
            dataclasses.replace(model.without_params(), lora=lora),
            token_budget=config.batch.token_budget,
            max_shapes=config.batch.max_buckets,
            length_multiple=config.batch.length_multiple,
        )
        self.engine.plan([g for split in (encoded, *measured) for g in letter_groups(split)])
        self.objective = Objective(train.sft, train.ece_weight, train.sft2_reduction)
        self._check()

        self.steps_per_epoch = len(self._order(0))
        self.num_steps = train.epochs * self.steps_per_epoch
        self.optimizer = OptimizerConfig(
            learning_rate=train.learning_rate,
            num_steps=self.num_steps,
            warmup_ratio=train.warmup_ratio,
            weight_decay=train.weight_decay,
            clip_norm=train.clip_norm,
        )
        self.schedule = self.optimizer.schedule()
        with meshes.use(self.mesh):
            self.base, trainable = (None if lora is None else model.params), model.params
            if lora is not None:
                layouts = lora_sharding(self.mesh, model.config, lora)
                if model.adapters is None:
                    trainable = jax.jit(
                        lambda key: init_lora(key, model.config, lora), out_shardings=layouts
                    )(jax.random.key(config.seed))
                else:  # a copy, because steps consume what they are given
                    trainable = jax.jit(
                        lambda adapters: jax.tree.map(jnp.copy, adapters), out_shardings=layouts
                    )(model.adapters)
            elif model.adapters is not None:
                trainable = jax.jit(
                    merge_lora,
                    static_argnums=2,
                    donate_argnums=0,
                    out_shardings=jax.tree.map(lambda x: x.sharding, model.params),
                )(model.params, model.adapters, model.lora)
            self.state = self._initial(trainable)
            self.letter_ids = jax.device_put(encoded.letter_ids, meshes.replicated(self.mesh))

    def _check(self) -> None:
        train, shards = self.config.train, meshes.batch_shards(self.mesh)
        if self.objective.sft not in ("sft1", "sft2", "none"):
            raise UserError(
                f"config.train.sft is {train.sft!r}; expected 'sft1', 'sft2' or 'none'."
            )
        if not 0 <= train.ece_weight < float("inf"):
            raise UserError(
                f"config.train.ece_weight is {train.ece_weight}; expected a number >= 0."
            )
        if self.objective.sft == "none" and not train.ece_weight:
            raise UserError("config.train.sft is 'none' and config.train.ece_weight is 0: no loss.")
        if self.objective.sft2_reduction not in ("mean", "sum"):
            raise UserError(
                f"config.train.sft2_reduction is {train.sft2_reduction!r}; expected 'mean' or "
                "'sum'."
            )
        for key in ("epochs", "batch_size", "microbatches"):
            if train[key] < 1:
                raise UserError(f"config.train.{key} is {train[key]}; expected at least 1.")
        if train.batch_size % (train.microbatches * shards):
            raise UserError(
                f"config.train.batch_size {train.batch_size} is not a multiple of microbatches "
                f"{train.microbatches} times the {shards} ways in which the mesh splits a batch "
                "(data × fsdp)."
            )
        if not len(self.encoded):
            raise UserError("config.data.train leaves no question to train on.")

    def _initial(self, trainable: Tree) -> TrainState:
        """Step 0; every array is laid out over the mesh, scalars included."""
        layout = meshes.replicated(self.mesh)

        def place(x: jax.Array) -> jax.Array:
            return x if x.ndim else jax.device_put(x, layout)

        opt_state = jax.jit(
            self.optimizer.transformation().init,
            out_shardings=self._moment_shardings(trainable),
        )(trainable)
        return TrainState(
            jax.device_put(jnp.zeros((), jnp.int32), layout),
            trainable,
            jax.tree.map(place, opt_state),
        )

    def _moment_shardings(self, trainable: Tree) -> Any:
        """A moment lies where its parameter lies; counters lie everywhere."""
        layout = meshes.replicated(self.mesh)
        by_path = {
            jax.tree_util.keystr(path): leaf.sharding
            for path, leaf in jax.tree_util.tree_leaves_with_path(trainable)
        }

        def find(path: tuple, leaf: Any) -> Any:
            for start in range(len(path)):
                if (found := by_path.get(jax.tree_util.keystr(path[start:]))) is not None:
                    return found
            return layout

        abstract = jax.eval_shape(self.optimizer.transformation().init, trainable)
        return jax.tree_util.tree_map_with_path(find, abstract)

    def _order(self, epoch: int) -> list[np.ndarray]:
        train = self.config.train
        return training_order(
            self.encoded.lengths,
            train.batch_size,
            self.config.seed,
            epoch,
            strata=self.encoded.answers,
        )

    @property
    def variables(self) -> Tree:
        return variables_of(self.decoder, self.state.trainable, self.base)

    def score(
        self, encoded: Encoded, on_batch: Callable[[int], None] = lambda count: None
    ) -> Scores:
        """The current model's confidence, in eval mode."""
        self.engine.variables = self.variables
        try:
            return score_encoded(self.engine, encoded, on_batch)
        finally:
            self.engine.variables = {}  # a step consumes what trains

    def run(self, checkpoints: Checkpoints, stop: StopRequest, listener: Listener) -> None:
        """Trains from the newest checkpoint, or from the start, to the end.

        Raises:
          Stopped: SIGTERM; a checkpoint of the last finished step is on disk.
          FloatingPointError: a loss is not finite; names the step, the epoch and the questions.
        """
        epoch, batch_in_epoch, estep = 0, 0, None
        if checkpoints.latest_step() is not None:
            self.state, restored, position = checkpoints.restore(
                self.state, jax.tree.map(np.asarray, self._empty_e_step())._asdict()
            )
            epoch, batch_in_epoch = position["epoch"], position["batch"]
            estep = EStep(**restored)
        while epoch < self.config.train.epochs:
            if batch_in_epoch == 0:
                estep = self._e_step(epoch, stop, listener)
            self._m_step(epoch, batch_in_epoch, estep, checkpoints, stop, listener)
            epoch, batch_in_epoch = epoch + 1, 0
            listener.on_epoch_end(epoch - 1, int(self.state.step))
            checkpoints.save(
                int(self.state.step), self.state, estep._asdict(), {"epoch": epoch, "batch": 0}
            )
        checkpoints.wait()

    def _empty_e_step(self) -> EStep:
        N, K = self.encoded.mask.shape
        M = self.config.em.num_bins
        return EStep(
            np.zeros(N, np.int32),
            np.zeros(M, np.float32),
            np.zeros(M, np.int32),
            np.zeros((N, K), np.float32),
        )

    def _e_step(self, epoch: int, stop: StopRequest, listener: Listener) -> EStep:
        """π on every training question, then bins z, accuracies q, targets p: constants."""

        def on_batch(count: int) -> None:
            listener.on_scored(epoch, count)
            stop.check()

        scores = self.score(self.encoded, on_batch)
        em = self.config.em
        estep = e_step(
            scores.probs, scores.answers, scores.mask, num_bins=em.num_bins, edges=em.edges
        )
        estep = EStep(*(np.asarray(x) for x in estep))
        listener.on_e_step(epoch, int(self.state.step), scores, estep)
        return estep

    def _m_step(
        self,
        epoch: int,
        first: int,
        estep: EStep,
        checkpoints: Checkpoints,
        stop: StopRequest,
        listener: Listener,
    ) -> None:
        """One epoch of optimiser steps on SFT + λ · D(p, π)."""
        order = self._order(epoch)
        every = self.config.checkpoint.every_steps
        step = int(self.state.step)
        done = sum(len(rows) for rows in order[:first])
        pending = None
        for index in range(first, len(order)):
            with meshes.use(self.mesh):
                self.state, terms = train_step(
                    self.state,
                    self.base,
                    self._batch(order[index], estep.targets),
                    self.letter_ids,
                    decoder=self.decoder.clone(train=True),
                    objective=self.objective,
                    optimizer=self.optimizer,
                    vocab_shards=self.mesh.shape["tensor"],
                    seed=self.config.seed,
                )
            step += 1
            done += len(order[index])
            if pending:
                self._report(*pending, listener)
            pending = (epoch, step, order[index], done, terms)
            stopping = stop.requested or checkpoints.reached_preemption(step)
            if stopping or (every and step % every == 0) or index + 1 == len(order):
                self._report(*pending, listener)  # raises before a broken state is saved
                pending = None
            if stopping or (every and step % every == 0 and index + 1 < len(order)):
                position = {"epoch": epoch, "batch": index + 1}
                if index + 1 == len(order):
                    position = {"epoch": epoch + 1, "batch": 0}
                checkpoints.save(step, self.state, estep._asdict(), position)
            if stopping:
                checkpoints.wait()
                raise Stopped

    def _report(
        self, epoch: int, step: int, rows: np.ndarray, done: int, terms: Tree, listener: Listener
    ) -> None:
        values = {key: float(value) for key, value in terms.items()}
        if not all(math.isfinite(value) for value in values.values()):
            ids = ", ".join(self.encoded.questions[row].id for row in rows[:8])
            raise FloatingPointError(
                f"the loss is not finite at step {step} (epoch {epoch}, questions {ids}"
                f"{', ...' if len(rows) > 8 else ''}): {values}. Lower config.train.learning_rate "
                "or config.train.clip_norm; the last checkpoint is from before this step."
            )
        values["learning_rate"] = float(self.schedule(step - 1))
        listener.on_step(epoch, step, len(rows), done, values)

    def _batch(self, rows: np.ndarray, targets: np.ndarray) -> Tree:
        """The rows as [A, B / A, ...] arrays over the mesh, with the whole batch's normalisers."""
        train, K = self.config.train, self.encoded.mask.shape[1]
        length = bucket_of(int(self.encoded.lengths[rows].max()), self.buckets)
        batch = make_batch(self.encoded, rows, length, train.batch_size)
        padded = np.zeros((train.batch_size, K), np.float32)
        padded[: len(rows)] = targets[rows]
        arrays = {
            "tokens": batch.tokens,
            "last": batch.last,
            "mask": batch.mask,
            "answers": batch.answers,
            "weights": batch.weights,
            "targets": padded,
        }
        A = train.microbatches
        arrays = {key: x.reshape(A, -1, *x.shape[1:]) for key, x in arrays.items()}
        arrays = meshes.put_batch(arrays, self.mesh, microbatched=True)
        tokens = float(((batch.last + 1) * batch.weights).sum())
        layout = meshes.replicated(self.mesh)
        for key, value in (("num_rows", float(len(rows))), ("num_tokens", tokens)):
            arrays[key] = jax.device_put(np.float32(value), layout)
        return arrays
