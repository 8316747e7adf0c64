"""The job ``lifecycle``: calibration in text, facts and tasks over a series of models.

The study of Zhu et al. 2023 (arXiv 2311.13240): scales, steps of pre-training, epochs of tuning.
"""

import contextlib
import dataclasses
import gc
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections

from calib_jax.confidence import next_token
from calib_jax.confidence.engine import Engine, TokenScores
from calib_jax.confidence.next_token import NextTokens, Places
from calib_jax.confidence.reading import Reading
from calib_jax.confidence.scores import Scores
from calib_jax.config import split_list
from calib_jax.errors import UserError
from calib_jax.models.model import Checkpoint, Model, open_checkpoint
from calib_jax.questions import facts, text
from calib_jax.questions.facts import Fact
from calib_jax.questions.text import Document
from calib_jax.reports import measure, predictions, result
from calib_jax.reports.atomic import write_text
from calib_jax.reports.lifecycle import figures
from calib_jax.reports.lifecycle import measure as of_tokens
from calib_jax.reports.lifecycle import predictions as next_tokens
from calib_jax.reports.result import Result
from calib_jax.reports.views import lifecycle
from calib_jax.runs import evaluating, measuring, results
from calib_jax.runs.evaluating import LoadedTask
from calib_jax.runs.lifecycle_series import Entry, series
from calib_jax.runs.measuring import say
from calib_jax.runs.run import Run, agreed
from calib_jax.training.interrupt import StopRequest

TEXT, FACTS = "text", "facts"
# Of a task, the confidence over the whole vocabulary beside that over the letters.
VOCABULARY = "{}_vocabulary"
Read = NextTokens | Scores


@dataclasses.dataclass(frozen=True)
class Material:
    """What every model of the series is measured on.

    Attributes:
      documents: of running text; () for none.
      facts: sampled; () for none.
      tasks: of multiple choice, () for none.
      letters: whether tasks are read by letters, and over the whole vocabulary then too.
      data: where it comes from, for ``summary.json``.
    """

    documents: Sequence[Document]
    facts: Sequence[Fact]
    tasks: Sequence[LoadedTask]
    letters: bool
    data: dict[str, Any]

    @property
    def parts(self) -> list[str]:
        """The names of what is measured, in order."""
        given = [(TEXT, self.documents), (FACTS, self.facts)]
        names = [name for name, some in given if some]
        for task in self.tasks:
            names += [task.name, VOCABULARY.format(task.name)] if self.letters else [task.name]
        return names


def main(run: Run) -> None:
    """Measures one model after the other, then writes tables, figures, report and summary.

    A model's folder is ``models/<label>``; what it holds is kept, so a run that was stopped
    continues where it was.
    """
    config, stop = run.config, run.stop

    # --- What is cheap to find wrong comes first --------------------------------------------------
    results.check_options(config)
    measuring.check_batches(config)
    entries = series(config)
    for entry in entries:
        if not _on_the_hub(entry.model):
            open_checkpoint(entry.model, entry.revision or None)  # raises where there is none
    material = load_material(config)

    # --- Model by model ---------------------------------------------------------------------------
    read: dict[str, dict[str, Read]] = {}
    models: dict[str, Any] = {}
    for number, entry in enumerate(entries, 1):
        if len(entries) > 1:
            say(f"{entry.label}: model {number} of {len(entries)}")
        derived = _config_of(config, entry)
        folder = run.workdir / "models" / entry.label
        read[entry.label] = measure_model(derived, entry, material, folder, run.claim, stop)
        if jax.process_index() == 0:
            about = result.read(folder / "model.json")
            models[entry.label] = {**about, "place": entry.place, "setting": entry.setting}
        # Parameters and compiled programs of this one, before the next is loaded.
        gc.collect()
    if jax.process_index() == 0:
        bins = {"num_bins": config.em.num_bins, "edges": config.em.edges}
        rows = measured(config, read)
        panels = {
            name: {
                label: figures.panel(rows[label][name], by_part[name], **bins)
                for label, by_part in read.items()
            }
            for name in material.parts
        }
        own = {
            "method": config.method,
            "axis": config.lifecycle.axis,
            "models": models,
            **rows,
            "data": material.data,
        }
        run.finish(
            Result(own, result.of_states(rows)),
            lambda summary: lifecycle.view(summary, panels, **bins),
        )


def load_material(config: ml_collections.ConfigDict) -> Material:
    """Text, facts and tasks as ``config.lifecycle`` names them.

    Raises:
      UserError: nothing is named, or a source is missing or not understood.
    """
    lifecycle = config.lifecycle
    measuring.check_least(
        config, 0, ("lifecycle", "text_size"), ("lifecycle", "facts_size"), ("data", "eval_size")
    )
    measuring.check_least(config, 1, ("lifecycle", "positions"), ("lifecycle", "context_length"))
    documents: Sequence[Document] = ()
    chosen: Sequence[Fact] = ()
    loaded: Sequence[LoadedTask] = ()
    data: dict[str, Any] = {"seed": config.seed}
    if lifecycle.text:
        documents, counts = text.load(lifecycle.text)
        data[TEXT] = {"source": lifecycle.text, "documents": len(documents), **counts}
    if lifecycle.facts:
        every, counts = facts.load(lifecycle.facts, lifecycle.patterns)
        chosen = facts.sample_evenly(every, lifecycle.facts_size, config.seed)
        data[FACTS] = {"source": lifecycle.facts, "facts": len(every), **counts}
        data[FACTS]["sampled"] = len(chosen)
    if split_list(lifecycle.tasks):
        if len(evaluating.methods_of(config)) > 1:
            raise UserError(
                "config.confidence.methods names several methods; the job lifecycle reads tasks by "
                "one (the paper: choice)."
            )
        loaded = evaluating.load_tasks(_config_of_tasks(config))
        taken = {TEXT, FACTS, *(VOCABULARY.format(task.name) for task in loaded)}
        for task in loaded:
            if task.name in taken:
                raise UserError(f"config.lifecycle.tasks: no task can be called {task.name!r}.")
            data[task.name] = {"shots": config.data.shots, **task.data}
    if not (documents or chosen or loaded):
        raise UserError(
            "config.lifecycle names neither text nor facts nor tasks; there would be nothing to "
            "measure. Set --config.lifecycle.text, .facts or .tasks."
        )
    letters = bool(loaded) and evaluating.methods_of(config)[0].startswith("choice")
    return Material(documents, chosen, loaded, letters, data)


def measure_model(
    config: ml_collections.ConfigDict,
    entry: Entry,
    material: Material,
    folder: Path,
    begin: Callable[[], None],
    stop: StopRequest,
) -> dict[str, Read]:
    """Part -> what one model says, scored or read back from its folder.

    Args:
      config: with this entry's model as ``config.model``.
      entry: of the series.
      material: to be measured on.
      folder: of the model.
      begin: called once the input has proven good, before weights are read and files written.
      stop: asked between batches.

    Returns:
      On process 0; other processes of a pod, which write nothing, get {}.
    """
    tasks = {task.name for task in material.tasks}
    paths = {
        name: folder / "predictions" / f"{f'measured-{name}' if name in tasks else name}.parquet"
        for name in material.parts
    }
    whole = all(path.exists() for path in [*paths.values(), folder / "model.json"])
    if not agreed(whole):
        checkpoint = open_checkpoint(entry.model, entry.revision or None)
        places = _places(config, material, checkpoint)
        of_tasks = _config_of_tasks(config)
        # Of the checkpoint it takes the tokenizer and the length alone: no weights so far.
        readings = evaluating.plan_tasks(of_tasks, checkpoint, material.tasks)
        begin()
        model = measuring.load(config, config.model.quantize)
        if jax.process_index() == 0:
            _write_model(folder / "model.json", entry, model)
        _score_places(config, model, places, paths, folder, entry.label, stop)
        if material.tasks:

            def keep(name: str, reading: Reading, found: list[list[TokenScores]]) -> None:
                path = paths[VOCABULARY.format(name)]
                next_tokens.write(path, next_token.read_letters(reading, found))

            evaluating.measure_tasks(
                of_tasks, model, material.tasks, folder, stop.check, readings=readings,
                keep=keep if material.letters else None,
            )  # fmt: skip
    if jax.process_index() != 0:
        return {}
    return {
        name: predictions.read(path) if name in tasks else next_tokens.read(path)
        for name, path in paths.items()
    }


def _on_the_hub(name: str) -> bool:
    local = name.startswith((".", "/", "~", "offline:")) or Path(name).expanduser().exists()
    return not local and name.count("/") == 1


def _config_of(config: ml_collections.ConfigDict, entry: Entry) -> ml_collections.ConfigDict:
    """The run's config with one entry as its model."""
    derived = config.copy_and_resolve_references()
    derived.model.name = entry.model
    derived.model.revision, derived.model.adapter = entry.revision, entry.adapter
    return derived


def _config_of_tasks(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """The same as the job ``evaluate`` takes it."""
    derived = config.copy_and_resolve_references()
    derived.data.eval = config.lifecycle.tasks
    return derived


def _places(
    config: ml_collections.ConfigDict, material: Material, checkpoint: Checkpoint
) -> dict[str, Places]:
    """What must be scored of text and facts, as one model's tokens.

    Raises:
      UserError: see ``next_token``; or contexts longer than the model's own length.
    """
    lifecycle = config.lifecycle
    options = {"context_length": lifecycle.context_length}
    found: dict[str, Places] = {}
    if material.documents:
        found[TEXT] = next_token.text_places(
            material.documents, checkpoint.tokenizer, **options,
            size=lifecycle.text_size, positions=lifecycle.positions, seed=config.seed,
        )  # fmt: skip
    if material.facts:
        found[FACTS] = next_token.fact_places(material.facts, checkpoint.tokenizer, **options)
    limit = checkpoint.config.max_length
    for places in found.values():
        fed = max(len(pair.tokens) - 1 for group in places.groups for pair in group)
        if fed > limit:
            raise UserError(
                f"config.lifecycle.context_length is {lifecycle.context_length}, which makes up to "
                f"{fed} tokens, and {checkpoint.name} was made for {limit}. Set it to at most "
                f"{lifecycle.context_length - (fed - limit)}."
            )
    return found


def _write_model(path: Path, entry: Entry, model: Model) -> None:
    arrays = jax.tree.leaves(model.params)
    about = {
        "model": entry.model,
        "revision": entry.revision,
        "adapter": entry.adapter,
        "fingerprint": model.fingerprint,
        "parameters": sum(x.size for x in arrays),
    }
    write_text(path, json.dumps(about, indent=2) + "\n")


def _score_places(
    config: ml_collections.ConfigDict,
    model: Model,
    places: Mapping[str, Places],
    paths: Mapping[str, Path],
    folder: Path,
    label: str,
    stop: StopRequest,
) -> None:
    """Scores text and facts into their files, what was scored before the last stop aside."""
    if not places:
        return
    batch = config.batch
    engine = Engine(
        model,
        token_budget=batch.token_budget,
        max_shapes=batch.max_buckets,
        length_multiple=batch.length_multiple,
        top_tokens=True,
    )
    engine.plan([group for some in places.values() for group in some.groups])
    header = {
        "model": model.fingerprint,
        "dtype": config.model.dtype,
        "quantize": config.model.quantize,
    }
    for name, some in places.items():
        partial = folder / "partial" / f"{name}.jsonl"
        if not agreed(paths[name].exists()):
            title = f"{label}: {name}"
            scores = evaluating.score_with_journal(engine, some, partial, header, title, stop.check)
            if jax.process_index() == 0:
                next_tokens.write(paths[name], next_token.read(some, scores))
        if jax.process_index() == 0:
            partial.unlink(missing_ok=True)
    if jax.process_index() == 0:
        with contextlib.suppress(OSError):  # a task's is there yet, or there was none
            (folder / "partial").rmdir()


def measured(
    config: ml_collections.ConfigDict, read: Mapping[str, Mapping[str, Read]]
) -> dict[str, dict[str, Any]]:
    """label -> part -> figures."""
    options = {
        "num_bins": config.em.num_bins,
        "edges": config.em.edges,
        "seed": config.seed,
        "num_resamples": config.report.num_resamples,
    }
    return {
        label: {
            name: measure.measure(one, "", **options)
            if isinstance(one, Scores)
            else of_tokens.measure(one, figures.unit(name), **options)
            for name, one in by_part.items()
        }
        for label, by_part in read.items()
    }
