"""The loop that every method of training shares: state, steps, checkpoints, reports."""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from calib_jax.confidence.asked import Split, score_split
from calib_jax.confidence.engine import Engine
from calib_jax.confidence.scores import Scores
from calib_jax.config import check_config, split_list
from calib_jax.errors import UserError
from calib_jax.models.decoder import Decoder
from calib_jax.models.lora import LoraConfig, check_lora, init_lora, merge_lora
from calib_jax.models.model import Model
from calib_jax.models.table import Tree
from calib_jax.parallel import mesh as meshes
from calib_jax.parallel.shards import lora_sharding
from calib_jax.training.checkpoints import Checkpoints
from calib_jax.training.interrupt import Stopped, StopRequest
from calib_jax.training.optimizer import OptimizerConfig
from calib_jax.training.step import Objective, TrainState, train_step, variables_of


def lora_settings(train: ml_collections.ConfigDict, adapter: LoraConfig | None) -> LoraConfig:
    """The settings of the adapters that train.

    Args:
      train: ``config.train``.
      adapter: of the adapter that is trained on (``config.model.adapter``): its rank, scale
        and targets stay, and only the dropout is the config's. None for fresh adapters.
    """
    asked = LoraConfig(
        rank=train.lora.rank,
        alpha=train.lora.alpha,
        dropout=train.lora.dropout,
        targets=split_list(train.lora.targets),
    )
    return asked if adapter is None else dataclasses.replace(adapter, dropout=asked.dropout)


def check_shards(train: ml_collections.ConfigDict, shards: int) -> None:
    """Raises UserError for a batch that cannot be split.

    Args:
      train: ``config.train``.
      shards: ways in which the mesh splits a batch.
    """
    if train.batch_size % (train.microbatches * shards):
        raise UserError(
            f"config.train.batch_size {train.batch_size} is not a multiple of microbatches "
            f"{train.microbatches} times the {shards} ways in which the mesh splits a batch "
            "(data × fsdp)."
        )


def optimizer_settings(train: ml_collections.ConfigDict, num_steps: int) -> OptimizerConfig:
    """The settings of AdamW."""
    return OptimizerConfig(
        learning_rate=train.learning_rate,
        num_steps=num_steps,
        warmup_ratio=train.warmup_ratio,
        weight_decay=train.weight_decay,
        clip_norm=train.clip_norm,
    )


@dataclasses.dataclass
class Listener:
    """What the job wants to hear of: all optional, all called in the order of events.

    Attributes:
      on_scored: (epoch, examples), after every batch of a scoring pass within training.
      on_e_step: (epoch, step, scores of the training set, EStep), before the steps that use it.
      on_step: (epoch, step, examples, examples of this epoch so far, loss terms), one step late.
      on_epoch_end: (epoch, step), after the epoch's last step; returns how well a held-out split
        does, lower is better, or None where nothing is held out.
    """

    on_scored: Callable[[int, int], None] = lambda *_: None
    on_e_step: Callable[[int, int, Scores, Any], None] = lambda *_: None
    on_step: Callable[[int, int, int, int, dict], None] = lambda *_: None
    on_epoch_end: Callable[[int, int], float | None] = lambda *_: None


class Training:
    """One training run: its plan, its state, and the loop; a method is a subclass.

    Args:
      config: the whole config; ``train`` and ``checkpoint`` are read here.
      model: the base; under full fine-tuning its parameters are consumed (donated). With an adapter
        beside them, LoRA trains that one on, and full fine-tuning starts from the merged weights.
      objective: what is minimised.

    Attributes:
      engine: scores with the parameters of the moment; see ``score``.
      state: what the next step starts from.
      base: the frozen parameters under LoRA, else None.
      epochs_trained: fewer than asked for where early stopping ended the run.
      best_epoch: whose parameters a run with early stopping ended with, from 1; else None.
    """

    epochs_trained = 0
    best_epoch: int | None = None

    def __init__(self, config: ml_collections.ConfigDict, model: Model, objective: Objective):
        train = config.train
        assert model.mesh is not None  # every model that is loaded to train lies on one
        self.config, self.mesh, self.objective = config, model.mesh, objective
        check_config(config)
        lora = None
        if train.method == "lora":
            lora = lora_settings(train, model.lora)
            check_lora(model.config, lora)
        check_shards(train, meshes.batch_shards(self.mesh))
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
        self.steps_per_epoch = len(self.batch_rows(0))
        self.num_steps = train.epochs * self.steps_per_epoch
        self.optimizer = optimizer_settings(train, self.num_steps)
        self.schedule = self.optimizer.schedule()
        with meshes.use(self.mesh):
            self.base = None if lora is None else model.params
            self.state = self._initial(self._trainable(model, lora))

    # --- What a method says ----------------------------------------------------------------------

    def batch_rows(self, epoch: int) -> list[np.ndarray]:
        """The examples of each batch: a function of the config's seed and the epoch alone."""
        raise NotImplementedError

    def make_batch(self, rows: np.ndarray, aux: dict[str, np.ndarray]) -> dict[str, dict]:
        """The examples as host arrays: "rows" [A, B, ...] and "whole", see ``step.train_step``."""
        raise NotImplementedError

    # What messages call the examples, and each of them.
    examples = "examples"

    def example_name(self, row: int) -> str:
        raise NotImplementedError

    def empty_aux(self) -> dict[str, np.ndarray]:
        """What ``prepare`` returns, with zeros: a checkpoint is restored into it."""
        return {"nothing": np.zeros(1, np.float32)}

    def prepares(self, epoch: int, index: int) -> bool:
        """Whether ``prepare`` is called before the step ``index`` of the epoch."""
        return False

    def prepare(self, epoch: int, stop: StopRequest, listener: Listener) -> dict[str, np.ndarray]:
        """Arrays that stay as they are until the next call: the E-step, a reference's scores."""
        raise NotImplementedError

    def initial_stats(self) -> Any:
        """The objective's statistics before the first step."""
        return ()

    # --- State -----------------------------------------------------------------------------------

    def _trainable(self, model: Model, lora: LoraConfig | None) -> Tree:
        if lora is None:
            if model.adapters is None:
                return model.params
            return jax.jit(
                merge_lora,
                static_argnums=2,
                donate_argnums=0,
                out_shardings=jax.tree.map(lambda x: x.sharding, model.params),
            )(model.params, model.adapters, model.lora)
        layouts = lora_sharding(self.mesh, model.config, lora)
        if model.adapters is None:
            return jax.jit(lambda key: init_lora(key, model.config, lora), out_shardings=layouts)(
                jax.random.key(self.config.seed)
            )
        # A copy, because steps consume what they are given.
        return jax.jit(lambda adapters: jax.tree.map(jnp.copy, adapters), out_shardings=layouts)(
            model.adapters
        )

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
            jax.device_put(self.initial_stats(), layout),
        )

    def _moment_shardings(self, trainable: Tree) -> Any:
        """A moment lies where its parameter lies; counters lie everywhere."""
        layout = meshes.replicated(self.mesh)
        transformation = self.optimizer.transformation()
        return optax.tree.map_params(
            transformation,
            lambda _, parameter: parameter.sharding,
            jax.eval_shape(transformation.init, trainable),
            trainable,
            transform_non_params=lambda _: layout,
        )

    @property
    def variables(self) -> Tree:
        return variables_of(self.decoder, self.state.trainable, self.base)

    def score(self, split: Split, on_batch: Callable[[int], None] = lambda count: None) -> Scores:
        """The current model's confidence, in eval mode."""
        with self.current_engine() as engine:
            return score_split(engine, split, on_batch)

    @contextlib.contextmanager
    def current_engine(self) -> Iterator[Engine]:
        """The engine with the parameters of the moment."""
        self.engine.variables = self.variables
        try:
            yield self.engine
        finally:
            self.engine.variables = {}  # a step consumes what trains

    # --- The loop --------------------------------------------------------------------------------

    def run(
        self,
        checkpoints: Checkpoints,
        stop: StopRequest,
        listener: Listener,
        best: Checkpoints | None = None,
        epochs: Checkpoints | None = None,
    ) -> None:
        """Trains from the newest checkpoint, or from the start, to the end.

        Args:
          checkpoints: the run's checkpoints.
          stop: looked at after every step and within ``prepare``.
          listener: told of events.
          best: keeps the best epoch's parameters, for early stopping; ``listener.on_epoch_end``
            says how good an epoch is. In the end the best epoch's are in force.
          epochs: keeps what every epoch has trained, the epoch (from 1) for its step.

        Raises:
          Stopped: SIGTERM; a checkpoint of the last finished step is on disk.
          FloatingPointError: a loss is not finite; names the step, the epoch and the examples.
        """
        aux = self.empty_aux()
        at: dict[str, Any] = {"epoch": 0, "batch": 0, "best": None, "taken": False}
        if checkpoints.latest_step() is not None:
            self.state, aux, position = checkpoints.restore(self.state, aux)
            at |= {key: position[key] for key in at if key in position}
        while at["epoch"] < self.config.train.epochs and not self._worsens(at):
            aux = self._epoch(at, aux, checkpoints, stop, listener)
            epoch, step = at["epoch"], int(self.state.step)
            try:
                value = listener.on_epoch_end(epoch, step)
            except Stopped:
                self._stop(step, aux, at | {"batch": self.steps_per_epoch}, checkpoints)
            if best is not None and (at["best"] is None or value < at["best"]["value"]):
                at["best"] = {"epoch": epoch, "value": value}
                best.save(step, self.state, self.empty_aux(), at)
                best.wait()  # before the checkpoint that says so
            if epochs is not None:
                epochs.save(epoch + 1, {"trainable": self.state.trainable}, aux, at)
                epochs.wait()
            at |= {"epoch": epoch + 1, "batch": 0}
            checkpoints.save(step, self.state, aux, at)
        self.epochs_trained = at["epoch"]
        self.best_epoch = at["best"] and at["best"]["epoch"] + 1
        if best is not None and not at["taken"]:
            # One more step number, so that the newest checkpoint is what the run ends with.
            self.state, _, _ = best.restore(self.state, self.empty_aux())
            step = (checkpoints.latest_step() or 0) + 1
            checkpoints.save(step, self.state, aux, at | {"taken": True})
        checkpoints.wait()

    def _worsens(self, at: dict) -> bool:
        """Whether early stopping has seen enough epochs without a better one."""
        patience = self.config.train.early_stopping
        return bool(patience and at["best"] and at["epoch"] - 1 - at["best"]["epoch"] >= patience)

    def _epoch(
        self,
        at: dict,
        aux: dict[str, np.ndarray],
        checkpoints: Checkpoints,
        stop: StopRequest,
        listener: Listener,
    ) -> dict[str, np.ndarray]:
        """The steps of one epoch from ``at`` on; returns what ``prepare`` gave last."""
        epoch, first = at["epoch"], at["batch"]
        order = self.batch_rows(epoch)
        every = self.config.checkpoint.every_steps
        step = int(self.state.step)
        done = sum(len(rows) for rows in order[:first])
        pending = None
        for index in range(first, len(order)):
            if self.prepares(epoch, index):
                if pending:
                    self._report(*pending, listener)
                    pending = None
                aux = self.prepare(epoch, stop, listener)
            self._step(order[index], aux)
            step += 1
            done += len(order[index])
            if pending:
                self._report(*pending, listener)
            pending = (epoch, step, order[index], done, self.terms)
            last = index + 1 == len(order)
            stopping = stop.requested or checkpoints.reached_preemption(step)
            if stopping or (every and step % every == 0) or last:
                self._report(*pending, listener)  # raises before a broken state is saved
                pending = None
            if stopping:
                self._stop(step, aux, at | {"batch": index + 1}, checkpoints)
            if every and step % every == 0 and not last:
                checkpoints.save(step, self.state, aux, at | {"batch": index + 1})
        return aux

    def _stop(self, step: int, aux: dict, at: dict, checkpoints: Checkpoints) -> NoReturn:
        checkpoints.save(step, self.state, aux, at)
        checkpoints.wait()
        raise Stopped

    def _step(self, rows: np.ndarray, aux: dict[str, np.ndarray]) -> None:
        batch = self.make_batch(rows, aux)
        layout = meshes.replicated(self.mesh)
        with meshes.use(self.mesh):
            self.state, self.terms = train_step(
                self.state,
                self.base,
                {
                    "rows": meshes.put_batch(batch["rows"], self.mesh, microbatched=True),
                    "whole": jax.device_put(batch["whole"], layout),
                },
                decoder=self.decoder.clone(train=True),
                objective=self.objective,
                optimizer=self.optimizer,
                vocab_shards=self.mesh.shape["tensor"],
                seed=self.config.seed,
            )

    def _report(
        self, epoch: int, step: int, rows: np.ndarray, done: int, terms: Tree, listener: Listener
    ) -> None:
        values = {key: float(value) for key, value in terms.items()}
        if not all(math.isfinite(value) for value in values.values()):
            ids = ", ".join(self.example_name(row) for row in rows[:8])
            raise FloatingPointError(
                f"the loss is not finite at step {step} (epoch {epoch}, {self.examples} {ids}"
                f"{', ...' if len(rows) > 8 else ''}): {values}. Lower config.train.learning_rate "
                "or config.train.clip_norm; the last checkpoint is from before this step."
            )
        values["learning_rate"] = float(self.schedule(step - 1))
        listener.on_step(epoch, step, len(rows), done, values)
