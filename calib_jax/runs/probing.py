"""What is asked of every model of a comparison: letters, preference pairs, running text."""

import contextlib
import dataclasses
import gc
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections

from calib_jax.confidence import preference, running_text
from calib_jax.confidence.engine import Engine
from calib_jax.confidence.preference import PreferenceScores
from calib_jax.confidence.running_text import TextLosses, Windows
from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError
from calib_jax.models.model import Checkpoint, Model, open_checkpoint
from calib_jax.questions import text as texts
from calib_jax.questions.pairs import Pair
from calib_jax.questions.preferences import Preference, encode_preferences, load_preferences
from calib_jax.questions.prompts import letter_template
from calib_jax.questions.text import Document
from calib_jax.reports import predictions, result
from calib_jax.reports.atomic import write_text
from calib_jax.reports.pairs import predictions as stored
from calib_jax.runs import evaluating, measuring, restoring
from calib_jax.runs.evaluating import LoadedTask
from calib_jax.runs.pairs import Side
from calib_jax.runs.run import agreed
from calib_jax.training.interrupt import StopRequest

PAIRS, TEXT = "pairs", "text"


@dataclasses.dataclass(frozen=True)
class Material:
    """What every model is asked.

    Attributes:
      tasks: questions of multiple choice, () for none.
      pairs: sets of preference pairs by name; {} for none.
      documents: of running text, () for none.
      data: where it comes from and what was left out, for ``summary.json``.
    """

    tasks: Sequence[LoadedTask]
    pairs: Mapping[str, Sequence[Preference]]
    documents: Sequence[Document]
    data: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Answers:
    """What one model says; on processes other than 0 nothing.

    Attributes:
      letters: task -> scores.
      pairs: set -> scores.
      text: None where none was asked.
      about: model, fingerprint and what its tokenizer left out, for ``summary.json``.
    """

    letters: dict[str, Scores]
    pairs: dict[str, PreferenceScores]
    text: TextLosses | None
    about: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class _Pairs:
    """Encoded pairs in the form that is scored with a journal."""

    groups: list[tuple[Pair, Pair]]
    keys: list[str]
    rates: list[float | None]
    skipped: int


def load_material(
    config: ml_collections.ConfigDict,
    *,
    tasks: str = "",
    pairs: tuple[str, int] = ("", 0),
    text: tuple[str, int] = ("", 0),
) -> Material:
    """Questions, pairs and documents, as their fields name them.

    Args:
      config: of the run: seed, prompts, sizes of tasks.
      tasks: as ``config.data.eval``.
      pairs: as ``config.align.eval``, and how many at most.
      text: as ``config.alignment.text``, and how many documents at most.

    Raises:
      UserError: a source is missing or not understood.
    """
    data: dict[str, Any] = {"seed": config.seed}
    loaded: Sequence[LoadedTask] = ()
    sets: dict[str, Sequence[Preference]] = {}
    documents: Sequence[Document] = ()
    if tasks.strip():
        derived = config.copy_and_resolve_references()
        derived.data.eval = tasks
        loaded = evaluating.load_tasks(derived)
        for task in loaded:
            if task.name in (PAIRS, TEXT):
                raise UserError(f"config.data.eval: no task can be called {task.name!r} here.")
            data[task.name] = dict(task.data)
    if pairs[0].strip():
        prompt = config.prompt
        found = load_preferences(
            pairs[0],
            pairs[1],
            config.seed,
            template=letter_template(prompt) or None,
            prefix=prompt.letter_prefix,
            chat=prompt.chat,
            answer_base=config.data.answer_base,
        )
        sets[PAIRS], data[PAIRS] = found.items, dict(found.report)
    if text[0].strip():
        documents, counts = texts.load(text[0])
        data[TEXT] = {"source": text[0], "documents": len(documents), **counts}
    return Material(loaded, sets, documents, data)


def ask(
    config: ml_collections.ConfigDict,
    label: str,
    side: Side,
    material: Material,
    folder: Path,
    begin: Callable[[], None],
    stop: StopRequest,
) -> Answers:
    """Asks one model everything, or reads from its folder what it has said.

    Args:
      config: of the run.
      label: what messages call the model.
      side: the model.
      material: from ``load_material``.
      folder: of the model.
      begin: called once the input has proven good, before weights are read and files written.
      stop: asked between batches.

    Raises:
      UserError: the model cannot be read, or a text or prompt is too long for it.
      Stopped: SIGTERM; the same call continues.
    """
    place = folder / "predictions"
    paths = {task.name: place / f"measured-{task.name}.parquet" for task in material.tasks}
    paths |= {name: place / f"{name}.parquet" for name in material.pairs}
    if material.documents:
        paths[TEXT] = place / "text.parquet"
    if not agreed(all(path.exists() for path in [*paths.values(), folder / "model.json"])):
        checkpoint = open_checkpoint(*_named(side))
        pairs = {
            name: _encode_pairs(config, items, checkpoint) for name, items in material.pairs.items()
        }
        windows = _cut_text(config, material.documents, checkpoint)
        # Of the checkpoint it takes the tokenizer and the length alone: no weights so far.
        readings = {}
        if material.tasks:
            readings = evaluating.plan_tasks(config, checkpoint, material.tasks)
        begin()
        model = restoring.load(config, side)
        if jax.process_index() == 0:
            about = {"model": side.text, "fingerprint": model.fingerprint}
            about |= {f"{k}_skipped_too_long": p.skipped for k, p in pairs.items() if p.skipped}
            write_text(folder / "model.json", json.dumps(about, indent=2) + "\n")
        _score(config, label, model, {**pairs, TEXT: windows}, paths, folder, stop)
        if material.tasks:
            evaluating.measure_tasks(
                config, model, material.tasks, folder, stop.check, readings=readings
            )
        del model
        gc.collect()  # its parameters and programs, before the next one is loaded
    if jax.process_index() != 0:
        return Answers({}, {}, None, {})
    return Answers(
        letters={task.name: predictions.read(paths[task.name]) for task in material.tasks},
        pairs={name: stored.read_pairs(paths[name]) for name in material.pairs},
        text=stored.read_text(paths[TEXT]) if TEXT in paths else None,
        about=result.read(folder / "model.json"),
    )


def _named(side: Side) -> tuple[str, str | None]:
    name, revision = restoring.base_of(side)
    return name, revision or None


def _encode_pairs(
    config: ml_collections.ConfigDict, asked: Sequence[Preference], checkpoint: Checkpoint
) -> _Pairs:
    """The pairs as one model's tokens; those that are too long are counted.

    Raises:
      UserError: none is left, or the limit is beyond the model's own.
    """
    limit = config.align.max_length
    if limit > checkpoint.config.max_length:
        raise UserError(
            f"config.align.max_length is {limit}, and {checkpoint.name} was made for "
            f"{checkpoint.config.max_length} tokens. Set it to at most that."
        )
    items, groups, skipped = encode_preferences(
        checkpoint.tokenizer,
        asked,
        limit,
        measuring.chat_settings(config) if config.align.chat else None,
    )
    if not items:
        raise UserError(
            f"none of {len(asked)} preference pairs fits config.align.max_length={limit} "
            "tokens; raise it."
        )
    return _Pairs(groups, [item.id for item in items], [item.rate for item in items], skipped)


def _cut_text(
    config: ml_collections.ConfigDict, documents: Sequence[Document], checkpoint: Checkpoint
) -> Windows | None:
    if not documents:
        return None
    alignment, limit = config.alignment, checkpoint.config.max_length
    if not 2 <= alignment.window <= limit:
        raise UserError(
            f"config.alignment.window is {alignment.window}; expected 2 to {limit}, the length "
            f"that {checkpoint.name} was made for."
        )
    return running_text.text_windows(
        documents,
        checkpoint.tokenizer,
        window=alignment.window,
        size=alignment.text_size,
        seed=config.seed,
    )


def _score(
    config: ml_collections.ConfigDict,
    label: str,
    model: Model,
    parts: Mapping[str, _Pairs | Windows | None],
    paths: Mapping[str, Path],
    folder: Path,
    stop: StopRequest,
) -> None:
    """Pairs and text into their files; what was scored before the last stop is kept."""
    batch = config.batch
    engine = Engine(
        model,
        token_budget=batch.token_budget,
        max_shapes=batch.max_buckets,
        length_multiple=batch.length_multiple,
    )
    engine.plan([group for part in parts.values() if part for group in part.groups])
    header = {
        "model": model.fingerprint,
        "dtype": config.model.dtype,
        "quantize": config.model.quantize,
    }
    for name, part in parts.items():
        if part is None:
            continue
        partial = folder / "partial" / f"{name}.jsonl"
        if not agreed(paths[name].exists()):
            title = f"{label}: {name}"
            found = evaluating.score_with_journal(engine, part, partial, header, title, stop.check)
            if jax.process_index() == 0 and name == TEXT:
                stored.write_text(paths[name], running_text.read(part, found))
            elif jax.process_index() == 0:
                stored.write_pairs(paths[name], preference.collect(found, part.keys, part.rates))
        if jax.process_index() == 0:
            partial.unlink(missing_ok=True)
    if jax.process_index() == 0:
        with contextlib.suppress(OSError):  # a task's is there yet, or there was none
            (folder / "partial").rmdir()
