"""Questions from a Hugging Face data set, by its id or from a local folder in the same layout."""

import hashlib
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from calib_jax.errors import UserError
from calib_jax.provenance import reads, reads_value
from calib_jax.questions.answers import AnswerReader
from calib_jax.questions.record import LETTERS, Question
from calib_jax.questions.rows import ANSWER_FIELDS, question_from_row, unused_fields

if TYPE_CHECKING:
    import datasets

log = logging.getLogger(__name__)

SPELLING = "hf:owner/name:split or hf:owner/name:config:split"
WITHOUT_NETWORK = (
    "without one, use a local .jsonl, .csv or .parquet file, or offline:<task>/<split>"
)


def parse(spec: str) -> tuple[str, str | None, str]:
    """Splits ``repo:split`` or ``repo:config:split`` into repo, config (or None) and split.

    >>> parse("allenai/openbookqa:main:test")
    ('allenai/openbookqa', 'main', 'test')
    """
    parts = spec.split(":")
    if len(parts) not in (2, 3) or not all(parts):
        raise UserError(f"{spec!r} does not name a Hugging Face split; write {SPELLING}")
    return parts[0], parts[1] if len(parts) == 3 else None, parts[-1]


def load(spec: str, answers: AnswerReader | None = None) -> list[Question]:
    """All questions of a split, in its order, through ``datasets.load_dataset``.

    The layouts understood are those of ``rows.question_from_row``. A row without ``id`` gets
    ``"<split>/row-<number>"`` (from 1), so that splits can be joined; one without ``task`` the
    repository's name. Equal options are not refused here: ``has_duplicate_choices`` marks them.

    Args:
      spec: ``repo:split`` or ``repo:config:split``; ``repo`` may be a local folder.
      answers: reads the answers; the numbers of classes count from 0 whatever it says.

    Raises:
      UserError: the data set cannot be loaded, or a row is invalid or repeats an id.
    """
    repo, config, split = parse(spec)
    dataset = open_split(repo, config, split)
    import datasets

    task = repo.rstrip("/").rsplit("/", 1)[-1]
    names = {
        name: list(feature.names)
        for name, feature in dataset.features.items()
        if name in ANSWER_FIELDS and isinstance(feature, datasets.ClassLabel)
    }
    answers = AnswerReader("0") if names else answers or AnswerReader()
    questions: list[Question] = []
    row_of_id: dict[str, int] = {}
    for number, row in enumerate(dataset, 1):
        where = f"{spec} row {number}"
        for name, labels in names.items():
            row[name] = _class_value(name, row[name], labels, f"{where}: field {name!r}")
        question = question_from_row(row, where, f"{split}/row-{number}", task, answers)
        first = row_of_id.setdefault(question.id, number)
        if first != number:
            raise UserError(f"{where}: id {question.id!r} appears in row {first} already")
        questions.append(question)
    if not questions:
        raise UserError(f"{spec}: the split has no rows")
    answers.check(spec)
    if unused := unused_fields([dataset.features]):
        log.warning("%s: columns not used: %s", spec, ", ".join(unused))
    return questions


def open_split(
    repo: str, config: str | None, split: str, otherwise: str = WITHOUT_NETWORK
) -> "datasets.Dataset":
    """A split as it lies on the hub, or in a local folder in the same layout.

    Args:
      otherwise: what the message of a failure tells the user to do without a network.

    Raises:
      UserError: the data set cannot be loaded.
    """
    import datasets

    if Path(repo).expanduser().is_dir():
        for path in sorted(Path(repo).expanduser().rglob("*")):
            if path.is_file() and not path.name.startswith("."):
                reads(path)
    try:
        dataset = datasets.load_dataset(repo, config, split=split)
    except Exception as error:  # the hub, its network stack and its readers raise many kinds
        raise UserError(
            f"cannot load the Hugging Face data set {repo!r} (config {config!r}, split {split!r}): "
            f"{type(error).__name__}: {error}. Check the spelling ({SPELLING}) and the network; "
            f"{otherwise}"
        ) from error
    reads_value(f"hf:{repo}:{config or ''}:{split}", lambda: _digest(dataset))
    return dataset


def _digest(dataset: "datasets.Dataset") -> str:
    """A hash of a split's rows."""
    digest = hashlib.sha256()
    for rows in dataset.with_format("arrow").iter(1000):
        digest.update(repr(rows.to_pylist()).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def class_names(dataset: "datasets.Dataset", column: str) -> list[str] | None:
    """The names of a column's classes; None where it has none."""
    return getattr(dataset.features.get(column), "names", None)


def _class_value(name: str, value, names: list[str], where: str) -> int | str:
    """A class as the row layouts want it: its place where the names count the options, else its
    name, which is then an option's text; an ``answerKey`` is a name always."""
    if not isinstance(value, int) or not 0 <= value < len(names):  # -1: no answer is known
        raise UserError(f"{where} is {value!r}: the row has no answer")
    count = range(len(names))
    orders = (list(LETTERS), [*map(str, count)], [str(i + 1) for i in count])
    counted = any([n.upper() for n in names] == order[: len(names)] for order in orders)
    return value if counted and name != "answerKey" else names[value]
