"""The tasks of ``config.data.eval``: their questions, and what is asked of a model about them."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from calib_jax.confidence.readout import Reading, plan_reading
from calib_jax.confidence.scores import Scores
from calib_jax.config import split_list
from calib_jax.errors import UserError
from calib_jax.models.model import Checkpoint, Model
from calib_jax.questions import Question, prepare, shuffle_options, sources
from calib_jax.questions.chat import control_line
from calib_jax.questions.pairs import PairEncoder
from calib_jax.questions.prompts import letter_template
from calib_jax.questions.tasks import Task, get_task, load_task
from calib_jax.reports import remarks
from calib_jax.runs import chat_prompt
from calib_jax.runs.probe import TaskProbe
from calib_jax.runs.run import say

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
      UserError: a source is unknown or cannot be reached, two have one name, or a task has no split
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
            assert task is not None  # shots are of tasks that have a file
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


def plan_task(
    config: ml_collections.ConfigDict,
    loaded: LoadedTask,
    methods: Sequence[str],
    model: Checkpoint | Model,
) -> Reading:
    """What must be scored of a task, as a model's tokens.

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
    reading = plan_reading(
        loaded.questions,
        loaded.task,
        tuple(methods),
        PairEncoder(model.tokenizer, model.config.max_length),
        shots=config.data.shots,
        seed=config.seed,
        chat=chat_prompt.chat_of(config, model.tokenizer),
        choice=letter_template(prompt),
        continuation=prompt.continuation,
        letter_prefix=prompt.letter_prefix,
        shot_questions=loaded.shot_questions,
    )
    _check_lengths(loaded.name, reading, limit)
    if line := control_line(loaded.name, reading.counts):
        say(line)
    _say_cut(loaded.name, reading, model.config.max_length)
    return reading


def task_probes(
    config: ml_collections.ConfigDict,
    tasks: Sequence[LoadedTask],
    methods: Sequence[str] | None = None,
    **options: Any,
) -> list[TaskProbe]:
    """A probe per task.

    Args:
      config: the run's config.
      tasks: from ``load_tasks``.
      methods: the readings; None for the config's.
      **options: further attributes of the probes.
    """
    methods = tuple(methods or split_list(config.confidence.methods))
    return [
        TaskProbe(
            task.name, functools.partial(plan_task, config, task, methods), methods, **options
        )
        for task in tasks
    ]


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
