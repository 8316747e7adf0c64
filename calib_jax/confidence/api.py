"""``calib_jax.score``: questions in, scores out, in one call."""

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from calib_jax.confidence.engine import Engine
from calib_jax.confidence.methods import check_methods
from calib_jax.confidence.readout import Reading, plan_reading
from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError, UserNotice
from calib_jax.models.model import Model
from calib_jax.questions.pairs import PairEncoder
from calib_jax.questions.record import Question
from calib_jax.questions.tasks import Task, get_task, task_names


def score(
    model: Model,
    questions: Sequence[Question],
    method: str = "choice",
    prompt: str | None = None,
    *,
    token_budget: int = 1024,
    engine: Engine | None = None,
) -> Scores:
    """Reads a model's confidence in every option of every question.

    The options are scored in the order given, and nothing is shuffled.

    Args:
      model: from ``load_model``.
      questions: N questions, 2 to 26 options each; of several tasks if need be.
      method: "choice": the letter's probability after a prompt that lists the options.
        "choice_permuted", "choice_contextual": the same without the model's preference for a
        letter. "continuation_sum", "_min", "_token", "_char", "_byte", "_pmi": the probability of
        the option's own text.
      prompt: a template with {question}, {options} (lines "A. text"; continuations do without) and
        the other fields of ``prompts.render``. None for that of the question's task where
        ``question.task`` names one of ``calib_jax.questions.tasks``, and else
        "Question: {question}\\n\\nOptions:\\n{options}\\n\\nAnswer:" for letters and
        "Question: {question}\\nAnswer:" for texts. What is scored after it is " " + letter or
        " " + text.
      token_budget: tokens a batch.
      engine: one of this model to score with; None for a new one.

    Returns:
      Scores, K being the largest number of options among the questions.

    Raises:
      UserError: an unknown method, no tokenizer, letters that are not single tokens, a prompt with
        letters that is beyond the model's length, an option of which no token is left after the
        context, a tokenizer of another vocabulary, or weights that give no numbers.
    """
    check_methods([method])
    if prompt is not None and not prompt.strip():
        raise UserError("prompt is empty; give a template, or None for the task's own.")
    encoder = PairEncoder(model.tokenizer, model.config.max_length)
    template: dict[str, Any] = {method.partition("_")[0]: prompt} if prompt is not None else {}
    readings = []
    tasks = [_task_of(q) if prompt is None else None for q in questions]
    names = list(dict.fromkeys(task and task.name for task in tasks))
    rows = [[i for i, task in enumerate(tasks) if (task and task.name) == name] for name in names]
    for some in rows:
        part = [questions[i] for i in some]
        reading = plan_reading(part, tasks[some[0]], (method,), encoder, **template)
        _check(reading, part, method, encoder.max_length)
        readings.append(reading)
    engine = engine or Engine(model, token_budget=token_budget)
    groups = [group for reading in readings for group in reading.groups]
    ids = [key.split("/", 2)[-1] for reading in readings for key in reading.keys]
    found = iter(engine.score(groups, name_of=lambda i: f"question {ids[i]!r}"))
    parts = [r.finish([next(found) for _ in r.groups])[method] for r in readings]
    if not parts:
        parts, rows = [plan_reading((), None, (method,), encoder).finish([])[method]], [[]]
    return _merge(parts, np.argsort([i for some in rows for i in some], kind="stable"))


def _task_of(question: Question) -> Task | None:
    return get_task(question.task) if question.task in task_names() else None


def _check(reading: Reading, questions: Sequence[Question], method: str, limit: int) -> None:
    """Nothing is left out here, and letters without the options that they stand for say nothing."""
    if len(reading.questions) < len(questions):
        kept = {q.id for q in reading.questions}
        lost = next(q for q in questions if q.id not in kept)
        raise UserError(
            f"question {lost.id!r}: with this prompt and tokenizer no token is left of one of its "
            "options, for its text merges with the prompt's end. Give a prompt that ends where a "
            "word can begin (for example in 'Answer:'), or leave the question out."
        )
    if reading.cut and method.startswith("choice"):
        name, tokens = next(iter(reading.cut.items()))
        raise UserError(
            f"question {name!r} has a prompt of {limit + tokens} tokens, and the limit is {limit}, "
            "the model's own. Remove the question; prompts with letters are not cut."
        )
    if reading.cut:
        warnings.warn(
            f"{len(reading.cut)} of {len(questions)} prompts are longer than the model's {limit} "
            f"tokens and were cut at the left: {', '.join(list(reading.cut)[:5])}",
            UserNotice,
            stacklevel=3,
        )


def _merge(parts: Sequence[Scores], order: np.ndarray) -> Scores:
    """Scores of several tasks as one, in another order; narrower ones are filled up with masks."""
    K = max(part.mask.shape[1] for part in parts)
    fill = {"log_scores": -np.inf, "probs": 0, "mask": False}
    merged = {}
    for field in dataclasses.fields(Scores):
        values = [getattr(part, field.name) for part in parts]
        if field.name in fill:
            wide = [
                np.pad(v, ((0, 0), (0, K - v.shape[1])), constant_values=fill[field.name])
                for v in values
            ]
            merged[field.name] = np.concatenate(wide)[order]
        elif any(value is None for value in values):
            merged[field.name] = None
        elif isinstance(values[0], np.ndarray):
            merged[field.name] = np.concatenate(values)[order]
        elif isinstance(values[0], tuple):
            if field.name == "clusters":  # () of a part whose questions stand alone
                values = [part.clusters or (None,) * len(part) for part in parts]
            joined = [item for value in values for item in value]
            merged[field.name] = tuple(joined[i] for i in order)
    return dataclasses.replace(parts[0], **merged)
