"""Compiles a run's E-step and M-step for hardware that is not there, and reads what they take.

The programs are the engine's and the training's own, with shapes in place of arrays.
"""

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from calib_jax.confidence.asked import split_groups
from calib_jax.confidence.engine import Engine
from calib_jax.confidence.forward import score_rows
from calib_jax.confidence.shapes import Flops
from calib_jax.models import quantize, splash
from calib_jax.models.config import ModelConfig
from calib_jax.models.lora import LoraConfig, init_lora
from calib_jax.models.model import Model
from calib_jax.models.table import Row, Tree, build_tree, projections, stacked_shape
from calib_jax.parallel import mesh as meshes
from calib_jax.parallel.shards import lora_sharding, row_sharding, sharding
from calib_jax.plan import costs
from calib_jax.plan.topology import GIB, Topology
from calib_jax.questions.encoder import Encoded
from calib_jax.questions.record import Question
from calib_jax.training import terms
from calib_jax.training.em import EmTraining
from calib_jax.training.inputs import LABELS
from calib_jax.training.step import TrainState, train_step

# Options of a question, and what an accelerator's engine takes where the config says 0.
OPTIONS, TOKEN_BUDGET, MULTIPLE, READS_AT_A_TIME = 4, 16384, 128, 2048
CPU_READS_AT_A_TIME = 128


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one chip.

    Attributes:
      arguments: weights, adapters, optimiser state and the batch.
      temporaries: everything that lives within the program only.
      other: results that are no argument's successor, and the program itself.
    """

    arguments: int
    temporaries: int
    other: int

    @property
    def total(self) -> int:
        return self.arguments + self.temporaries + self.other


@dataclasses.dataclass(frozen=True)
class Compiled:
    """One program.

    Attributes:
      rows, length: of its batch.
      memory: None where the compiler gave up for want of it.
      needed: bytes on one chip, all that could be learnt.
      costs: on one chip; None where the compiler gave up.
      ideal: operations of the whole mesh that the model needs for this, see ``ideal_m_step``.
    """

    rows: int
    length: int
    memory: Memory | None
    needed: int
    costs: costs.Costs | None
    ideal: int


class _Unsent(Engine):
    """An engine that shows its batches instead of sending them off."""

    def _send(self, arrays: dict, count: int, prefix: Any, chunk: int) -> dict:
        return {"arrays": arrays, "chunk": chunk}


class _Shapes(EmTraining):
    """A training run whose state is shapes and layouts."""

    def _trainable(self, model: Model, lora: LoraConfig | None) -> Tree:
        if lora is None:
            return model.params
        adapters = jax.eval_shape(lambda: init_lora(jax.random.key(0), model.config, lora))
        return _laid_out(adapters, lora_sharding(self.mesh, model.config, lora))

    def _initial(self, trainable: Tree) -> TrainState:
        layout = meshes.replicated(self.mesh)
        moments = jax.eval_shape(self.optimizer.transformation().init, trainable)
        stats = jax.eval_shape(self.initial_stats)
        counter: Any = jax.ShapeDtypeStruct((), jnp.int32, sharding=layout)
        return TrainState(
            counter,
            trainable,
            _laid_out(moments, self._moment_shardings(trainable)),
            _laid_out(stats, jax.tree.map(lambda _: layout, stats)),
        )


def _laid_out(tree: Any, layouts: Any) -> Any:
    """Shapes with their layouts."""
    return jax.tree.map(
        lambda x, layout: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout), tree, layouts
    )


def _abstract(tree: Any, layout: jax.sharding.Sharding) -> Any:
    """Shapes of host arrays, all laid out alike."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(np.shape(x), np.asarray(x).dtype, sharding=layout), tree
    )


def abstract_params(
    config: ModelConfig, mesh: jax.sharding.Mesh, dtype: Any, scheme: str = ""
) -> Tree:
    """The shapes of a model's parameters, laid out as ``models.load`` lays them out.

    Args:
      dtype: of the arrays; under quantisation of those that are not projections.
      scheme: of ``config.model.quantize``.
    """
    layouts = row_sharding(mesh)

    def leaf(row: Row) -> Any:
        array = jax.ShapeDtypeStruct(stacked_shape(config, row), dtype)
        layout = layouts(row)
        if scheme and row.kind == "projection":
            layout = quantize.layout(layout, array.shape, scheme)
            array = jax.eval_shape(lambda weight: quantize.quantize(weight, scheme), array)
        return _laid_out(array, layout)

    return build_tree(config, leaf)


def _questions(count: int, length: int, vocab_size: int) -> Encoded:
    """Questions of so many tokens each, no two of which begin alike."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, vocab_size, (count, length), dtype=np.int32)
    tokens[:, 0] = np.arange(count) % vocab_size
    question = Question("planned", "?", (".",) * OPTIONS, 0)
    return Encoded(
        questions=(question,) * count,
        tokens=tuple(tokens),
        letter_ids=np.arange(OPTIONS, dtype=np.int32),
        mask=np.ones((count, OPTIONS), bool),
        answers=np.arange(count, dtype=np.int32) % OPTIONS,
    )


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is compiled.

    Attributes:
      config: of the run, with ``prompt.max_length`` for the length of every question.
      model: its dimensions.
      topology, mesh: the hardware.
    """

    config: ml_collections.ConfigDict
    model: ModelConfig
    topology: Topology
    mesh: jax.sharding.Mesh

    @property
    def dtype(self) -> str:
        cpu = self.topology.kind == "cpu"
        auto = "float32" if cpu else "bfloat16"
        return auto if self.config.model.dtype == "auto" else self.config.model.dtype

    @property
    def attention(self) -> str:
        if self.config.model.attention != "auto":
            return self.config.model.attention
        tpu = self.topology.kind == "tpu" and splash.refusal(self.model) is None
        return "splash" if tpu else "xla"

    def training(self, batch_size: int) -> _Shapes:
        """The run, every batch full and every question as long as may be."""
        config = ml_collections.ConfigDict(self.config.to_dict())
        config.train.batch_size, config.train.epochs = batch_size, 1
        accelerator = self.topology.kind != "cpu"
        config.batch.token_budget = config.batch.token_budget or (
            TOKEN_BUDGET if accelerator else 1024
        )
        config.batch.length_multiple = config.batch.length_multiple or (
            MULTIPLE if accelerator else 8
        )
        full = config.train.method == "full"
        params = abstract_params(
            self.model,
            self.mesh,
            jnp.dtype(jnp.float32 if full else self.dtype),
            config.model.quantize,
        )
        model = Model(
            name=config.model.name,
            config=self.model,
            params=params,
            tokenizer=None,
            dtype=jnp.dtype(self.dtype),
            fingerprint="",
            mesh=self.mesh,
            attention=self.attention,
        )
        count = max(batch_size, config.batch.token_budget // config.prompt.max_length)
        encoded = _questions(count, config.prompt.max_length, self.model.vocab_size)
        return _Shapes(config, model, encoded)

    def m_step(self, batch_size: int) -> Compiled:
        """The optimiser step over so many questions."""
        run = self.training(batch_size)
        batch = run.make_batch(np.arange(batch_size), run.empty_aux())
        A, B, L = batch["rows"]["tokens"].shape
        with meshes.use(self.mesh):
            lowered = train_step.lower(
                run.state,
                run.base,
                {
                    "rows": _abstract(batch["rows"], sharding(self.mesh, (None, "batch"))),
                    "whole": _abstract(batch["whole"], meshes.replicated(self.mesh)),
                },
                decoder=run.decoder.clone(train=True),
                objective=run.objective,
                optimizer=run.optimizer,
                vocab_shards=self.mesh.shape["tensor"],
                seed=self.config.seed,
            )
        ideal = ideal_m_step(
            self.model,
            self.config.train,
            run.decoder.lora,
            batch_size,
            self.config.prompt.max_length,
        )
        return self._compile(lowered, A * B, L, ideal)

    def e_step(self) -> Compiled:
        """The scoring pass's longest rows, as many as its token budget holds."""
        run = self.training(self.config.train.batch_size)
        groups = split_groups(run.encoded)
        engine = _Unsent(
            Model(
                name="",
                config=self.model,
                params={},
                tokenizer=None,
                dtype=jnp.dtype(self.dtype),
                fingerprint="",
                mesh=self.mesh,
                attention=self.attention,
                lora=run.decoder.lora,
            ),
            token_budget=run.config.batch.token_budget,
            max_shapes=run.config.batch.max_buckets,
            length_multiple=run.config.batch.length_multiple,
        )
        engine.reads_at_a_time = (
            CPU_READS_AT_A_TIME if self.topology.kind == "cpu" else READS_AT_A_TIME
        )
        engine.plan(groups)
        _, sent = next(engine.batches(groups, list(range(len(groups)))))
        arrays = _abstract(sent["arrays"], sharding(self.mesh, ("batch",)))
        arrays["count"] = jax.ShapeDtypeStruct((), jnp.int32, sharding=meshes.replicated(self.mesh))
        with meshes.use(self.mesh):
            lowered = score_rows.lower(
                engine.decoder, run.variables, arrays, None, sent["chunk"], False
            )
        B, L = arrays["tokens"].shape
        ideal = ideal_e_step(self.model, run.decoder.lora, B, L)
        compiled = self._compile(lowered, B, L, ideal)
        # The optimiser's state stays where it is meanwhile.
        resting = _held(run.state.opt_state)
        return dataclasses.replace(compiled, needed=compiled.needed + resting)

    def _compile(self, lowered: Any, rows: int, length: int, ideal: int) -> Compiled:
        try:
            program = lowered.compile()
        except jax.errors.JaxRuntimeError as error:
            needed = _needed(str(error))
            if needed is None:
                raise
            return Compiled(rows, length, None, needed, None, ideal)
        stats = program.memory_analysis()
        memory = Memory(
            arguments=stats.argument_size_in_bytes,
            temporaries=stats.temp_size_in_bytes,
            other=stats.output_size_in_bytes
            - stats.alias_size_in_bytes
            + stats.generated_code_size_in_bytes,
        )
        counted = costs.count(program.as_text())
        return Compiled(rows, length, memory, memory.total, counted, ideal)


def _held(tree: Any) -> int:
    """Bytes of laid-out shapes on one chip."""
    total = 0
    for x in jax.tree.leaves(tree):
        if isinstance(x, jax.ShapeDtypeStruct):
            shape = x.sharding.shard_shape(x.shape)
            total += int(np.prod(shape)) * x.dtype.itemsize
    return total


_UNITS = {"K": 2**10, "M": 2**20, "G": GIB}


def _needed(message: str) -> int | None:
    """What a compiler that ran out of memory says it needs; None for another error."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    # Arguments are among what either message calls used or required.
    for form in (r"Used ([\d.]+)([KMG]) of", r"temporaries \(([\d.]+)([KMG])\) exceeds"):
        if found := re.search(form, message):
            return int(float(found[1]) * _UNITS[found[2]])
    return None


def ideal_e_step(config: ModelConfig, lora: LoraConfig | None, rows: int, length: int) -> int:
    """Operations of scoring so many questions of a length, the answer's place read once.

    Every projection for every token, attention to the tokens before alone, the LM head where it is
    read; two for a multiply-add.
    """
    flops, tokens = Flops.of(config), rows * length
    pairs = rows * length * (length + 1) // 2
    return tokens * (flops.token + _lora(config, lora)) + pairs * flops.key + rows * flops.read


def ideal_m_step(
    config: ModelConfig,
    train: ml_collections.ConfigDict,
    lora: LoraConfig | None,
    questions: int,
    length: int,
) -> int:
    """Operations of an optimiser step over questions of a length.

    Forward once, backward towards the activations once and towards what trains once; with
    ``train.remat`` the layers' forward pass again, and the logits at every token, which are never
    kept, where a term (SFT2) needs them.
    """
    flops, tokens = Flops.of(config), questions * length
    pairs = questions * length * (length + 1) // 2
    frozen = lora is not None
    passes = (2 if frozen else 3) + bool(train.remat)
    total = tokens * flops.token * passes
    total += tokens * _lora(config, lora) * (3 + bool(train.remat))
    total += pairs * flops.key * (3 + bool(train.remat))
    total += questions * flops.read * (2 if frozen else 3)
    if LABELS in terms.needs(train):
        total += tokens * flops.read * (3 if frozen else 4)
    return total


def _lora(config: ModelConfig, lora: LoraConfig | None) -> int:
    """Of the adapters' products, a token."""
    if lora is None:
        return 0
    sizes = [sum(row.shape) for row in projections(config) if lora.adapts(row.path[-1])]
    return 2 * config.num_layers * lora.rank * sum(sizes)
