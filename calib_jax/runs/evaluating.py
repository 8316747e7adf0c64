"""Model x tasks x methods -> scores: what the jobs evaluate, study and lifecycle share."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from calib_jax.confidence.engine import Engine, TokenScores
from calib_jax.confidence.next_token import Places
from calib_jax.confidence.reading import Reading, plan_reading
from calib_jax.confidence.scores import Scores
from calib_jax.config import check_config, split_list
from calib_jax.errors import UserError
from calib_jax.models.model import Model
from calib_jax.questions import Question, prepare, shuffle_options, sources
from calib_jax.questions.chat import control_line
from calib_jax.questions.pairs import PairEncoder
from calib_jax.questions.prompts import letter_template
from calib_jax.questions.tasks import Task, get_task, load_task
from calib_jax.reports import Progress, predictions, remarks
from calib_jax.runs import journal, measuring, quantization, results
from calib_jax.runs.measuring import say
from calib_jax.runs.run import Run, agreed, settle

TaskScores = dict[str, dict[str, Scores]]


@dataclasses.dataclass(frozen=True)
class LoadedTask:
    """The questions of one entry of ``config.data.eval``.

    Attributes:
      name: under which it is reported.
      task: its prompts; None for a plain source, which has the default ones.
      questions: sampled and shuffled as the config says.
      shot_questions: all that examples may be drawn from; () without examples.
      data: what was done to the questions, as in ``questions.prepare``'s report.
    """

    name: str
    task: Task | None
    questions: list[Question]
    shot_questions: tuple[Question, ...]
    data: dict[str, Any]


def load_tasks(config: ml_collections.ConfigDict) -> list[LoadedTask]:
    """Loads ``config.data.eval``: tasks, task files and plain sources.

    ``data.eval_size`` draws at most so many questions of each, by a hash of the seed and the
    question: a uniform sample, so that a task's subjects keep their shares.
    ``data.shuffle_options`` permutes the options of every question and of every example, also where
    a task's own order is fixed (SciQ's right answer stands last, TruthfulQA's first);
    ``data.shuffle_tasks`` names the tasks of which it does, where not of all.

    Raises:
      UserError: a source is not known or not to be had, two have one name, or a task has no split
        to draw ``data.shots`` examples from.
    """
    data = config.data
    specs = split_list(data.eval)
    tasks = [sources.task_of(spec) for spec in specs]
    for spec, task in zip(specs, tasks, strict=True):
        source = spec.partition("=")[2] or spec
        if task is None and not set("/.:") & set(source):
            get_task(source)  # a task's name alone can be written so: says which there are
        if data.shots and (task is None or not task.shots_split):
            what = "a plain source" if task is None else "a task without a split for examples"
            raise UserError(
                f"config.data.shots is {data.shots}, but {spec} is {what}. Set --config.data.shots"
                "=0, or describe it in a task file (.toml) that states shots_split."
            )
    prepared = prepare(
        (),
        specs,
        eval_size=data.eval_size,
        seed=config.seed,
        shuffle=data.shuffle_options,
        shuffle_tasks=split_list(data.shuffle_tasks),
        answer_base=data.answer_base,
    )
    loaded = []
    for task, (name, questions) in zip(tasks, prepared.evals.items(), strict=True):
        shots: Sequence[Question] = ()
        if data.shots:
            shots = load_task(task, task.shots_split)
            if data.shuffle_options:
                shots, _ = shuffle_options(shots, config.seed, split_list(data.shuffle_tasks))
        facts = {
            key: value[name]
            for key, value in prepared.report.items()
            if isinstance(value, Mapping) and name in value
        }
        loaded.append(LoadedTask(name, task, questions, tuple(shots), facts))
    return loaded


def plan_tasks(
    config: ml_collections.ConfigDict,
    model: Model,
    tasks: Sequence[LoadedTask],
    methods: Sequence[str] | None = None,
) -> dict[str, Reading]:
    """Task name -> what must be scored of it, as tokens.

    Raises:
      UserError: no tokenizer, or a prompt that is longer than ``config.prompt.max_length``, where
        that is not 0.
    """
    prompt, limit = config.prompt, config.prompt.max_length
    if limit > model.config.max_length:
        raise UserError(
            f"config.prompt.max_length is {limit}, and the model was made for "
            f"{model.config.max_length} tokens. Set --config.prompt.max_length to at most that, or "
            "to 0."
        )
    template = letter_template(prompt)
    encoder = PairEncoder(model.tokenizer, model.config.max_length)
    chat = measuring.chat_of(config, model.tokenizer)
    readings = {}
    for loaded in tasks:
        reading = plan_reading(
            loaded.questions,
            loaded.task,
            tuple(methods or split_list(config.confidence.methods)),
            encoder,
            shots=config.data.shots,
            seed=config.seed,
            chat=chat,
            choice=template,
            continuation=prompt.continuation,
            letter_prefix=prompt.letter_prefix,
            shot_questions=loaded.shot_questions,
        )
        _check_lengths(loaded.name, reading, limit)
        if line := control_line(loaded.name, reading.counts):
            say(line)
        _say_cut(loaded.name, reading, model.config.max_length)
        readings[loaded.name] = reading
    return readings


def _say_cut(name: str, reading: Reading, length: int) -> None:
    """A line for prompts that are longer than the model; none where all fit."""
    if reading.cut:
        say(
            f"{name}: {len(reading.cut)} of {len(reading.questions)} questions have prompts beyond "
            f"the {length} tokens that the model takes; they were cut at the left, by up to "
            f"{max(reading.cut.values())} tokens"
        )


def _check_lengths(name: str, reading: Reading, limit: int) -> None:
    for key, group in zip(reading.keys, reading.groups, strict=True):
        length = max((len(p.tokens) - p.num_targets + p.num_cut for p in group), default=0)
        if 0 < limit < length:
            raise UserError(
                f"{name}: {key} has a prompt of {length} tokens, and the limit is {limit}. Raise "
                "config.prompt.max_length, or set it to 0: then prompts longer than the model's "
                "own length are cut at the left, and counted."
            )


def measure_tasks(
    config: ml_collections.ConfigDict,
    model: Model,
    tasks: Sequence[LoadedTask],
    folder: Path,
    check: Callable[[], None],
    *,
    readings: Mapping[str, Reading] | None = None,
    methods: Sequence[str] | None = None,
    state: str = "measured",
    keep: Callable[[str, Reading, list[list[TokenScores]]], None] | None = None,
) -> TaskScores:
    """Scores every task, or reads what an interrupted run of this folder has scored.

    Scores go to ``partial/<state>-<task>.jsonl`` as they come (see ``journal.Journal``); once a
    task is complete they become ``predictions/<state>-<task>.parquet``, with all methods.

    Args:
      config: of the run.
      model: on its mesh.
      tasks: from ``load_tasks``.
      folder: of the run.
      check: called between batches; raises to stop.
      readings: from ``plan_tasks``; None: planned here.
      methods: None for those of the config.
      state: the first part of the files' names.
      keep: called on process 0 as (task's name, its reading, what the engine said, with the top
        tokens), before the task's predictions are written.

    Returns:
      task name -> method -> scores, on process 0; other processes of a pod, which write nothing,
      get {}.

    Raises:
      UserError: see ``plan_tasks`` and ``Engine.score``.
    """
    methods = tuple(methods or split_list(config.confidence.methods))
    readings = readings or plan_tasks(config, model, tasks, methods)
    batch = config.batch
    engine = Engine(
        model,
        token_budget=batch.token_budget,
        max_shapes=batch.max_buckets,
        length_multiple=batch.length_multiple,
        top_tokens=keep is not None,
    )
    # Over everything, done or not: a run that goes on computes in the shapes that it began with.
    engine.plan([group for reading in readings.values() for group in reading.groups])
    header = {
        "model": model.fingerprint,
        "dtype": config.model.dtype,
        "quantize": config.model.quantize if state == "measured" else "",
    }
    if keep is not None:
        header["top_tokens"] = "named"
    settle()
    scores: TaskScores = {}
    for loaded in tasks:
        path = folder / "predictions" / f"{state}-{loaded.name}.parquet"
        partial = folder / "partial" / f"{state}-{loaded.name}.jsonl"
        if not agreed(path.exists()):
            reading = readings[loaded.name]
            title = f"{state}: {loaded.name}"
            found = score_with_journal(engine, reading, partial, header, title, check)
            if jax.process_index() == 0:
                if keep is not None:
                    keep(loaded.name, reading, found)
                finished = reading.finish(found)
                predictions.write(path, *(finished[method] for method in methods))
        if jax.process_index() == 0:
            partial.unlink(missing_ok=True)
            scores[loaded.name] = {m: predictions.read(path, m) for m in methods}
    if jax.process_index() == 0 and (folder / "partial").exists():
        (folder / "partial").rmdir()
    return scores


def low_mass(scores: Mapping[str, TaskScores]) -> list[str]:
    """A sentence where letters hold little of a model's probability, of model -> its scores."""
    rows = {
        f"{model}, {task}, {method}": {"method": method, "candidate_mass": float(s.mass.mean())}
        for model, by_task in scores.items()
        for task, by_method in by_task.items()
        for method, s in by_method.items()
        if s.mass is not None
    }
    return remarks.low_mass(rows)


def score_with_journal(
    engine: Engine,
    reading: Reading | Places,
    path: Path,
    header: Mapping[str, str],
    title: str,
    check: Callable[[], None],
) -> list[list[TokenScores]]:
    """The scores of all groups in order on process 0: what the journal holds, and the rest."""
    settle()
    keys, groups = reading.keys, reading.groups
    book = None
    if jax.process_index() == 0:
        pairs = journal.fingerprint(keys, groups)
        book = journal.Journal(path, {**header, "pairs": pairs})
        if book.replaced:
            say(f"{path} is of other questions, prompts or weights, and is started anew.")
        if book.done:
            cut = f"; its last {book.cut} bytes are no whole line" if book.cut else ""
            say(f"{path} holds {len(book.done)} of {len(keys)} prompts{cut}; going on from there.")
    done = np.array([bool(book) and key in book.done for key in keys], bool)
    if jax.process_count() > 1:
        done = np.asarray(multihost_utils.broadcast_one_to_all(done))
    left = np.flatnonzero(~done)
    found = dict(book.done) if book else {}
    try:
        with Progress(len(keys), title, unit="prompts", initial=int(done.sum())) as bar:

            def on_group(i: int, scores: list[TokenScores]) -> None:
                key = keys[left[i]]
                if book:
                    found[key] = scores
                    book.write(key, scores)
                bar.update(1)

            if len(left):
                engine.score(
                    [groups[i] for i in left],
                    on_group,
                    check,
                    lambda i: f"{title}: {keys[left[i]]}",
                )
    finally:
        if book:
            book.close()
    return [found[key] for key in keys] if book else []


def run_evaluation(run: Run, quietly: bool = False) -> None:
    """Every task by every reading: predictions, figures, report and summary.

    Args:
      run: within its folder.
      quietly: whether nothing of the result is printed.

    Raises:
      UserError: bad input; nothing is written then.
      Stopped: SIGTERM; the same call continues.
    """
    config, workdir, stop = run.config, run.workdir, run.stop

    # --- Questions, then model, then tokens: what is cheap to find wrong comes first --------------
    check_config(config)
    methods, tasks = split_list(config.confidence.methods), load_tasks(config)
    results.check_folds(config, {loaded.name: len(loaded.questions) for loaded in tasks})
    compared = measuring.measures_quantization(config)
    model = measuring.load(config, "" if compared else config.model.quantize)
    readings = plan_tasks(config, model, tasks)
    run.claim()

    # --- Scores -----------------------------------------------------------------------------------
    # The shift that quantisation causes is read by letters, where those are read at all.
    shifted = "choice" if "choice" in methods else methods[0]
    unquantized: TaskScores = {}
    if compared:
        unquantized = measure_tasks(
            config, model, tasks, workdir, stop.check, methods=[shifted], state="unquantized"
        )
        # Freed first: both at once would take the memory that quantisation is to save.
        model = model.without_params()
        model = measuring.load(config, config.model.quantize)
    scores = measure_tasks(config, model, tasks, workdir, stop.check, readings=readings)
    if jax.process_index() != 0:
        return

    # --- Results ----------------------------------------------------------------------------------
    extra = quantization.shift(
        config,
        {name: by_method[shifted] for name, by_method in unquantized.items()},
        {name: by_method[shifted] for name, by_method in scores.items()},
    )
    groups = {loaded.name: loaded.task.groups for loaded in tasks if loaded.task}
    columns = ("measured",) if len(methods) == 1 else methods
    states = {
        column: results.grouped({name: s[method] for name, s in scores.items()}, groups)
        for column, method in zip(columns, methods, strict=True)
    }
    own = {
        "method": config.method,
        "model": config.model.name,
        "fingerprint": model.fingerprint,
        "data": _data_report(config, tasks, readings),
        **extra,
    }
    domains = dict.fromkeys(states[columns[0]], "")
    title = config.model.name.removeprefix("offline:")
    several = len(methods) > 1
    results.finish(run, states, domains, own, title=title, by_reading=several, quietly=quietly)


def _data_report(
    config: ml_collections.ConfigDict,
    tasks: Sequence[LoadedTask],
    readings: Mapping[str, Reading],
) -> dict[str, Any]:
    """What was done to questions and prompts, for ``summary.json``."""
    report: dict[str, Any] = {
        "seed": config.seed,
        "shuffled": list(split_list(config.data.shuffle_tasks)) or config.data.shuffle_options,
        "shots": config.data.shots,
    }
    for loaded in tasks:
        for key, value in loaded.data.items():
            report.setdefault(key, {})[loaded.name] = value
        for key, value in readings[loaded.name].counts.items():
            report.setdefault("reading", {}).setdefault(loaded.name, {})[key] = value
    harness = {t.name: t.task.harness for t in tasks if t.task and t.task.harness}
    return report | ({"templates_of": harness} if harness else {})
