"""From one row of a file or data set, in any of the usual layouts, to a Question."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from calib_jax.errors import UserError
from calib_jax.questions.answers import AnswerReader
from calib_jax.questions.record import LETTERS, MAX_CHOICES, Question

QUESTION_FIELDS = ("question", "question_stem")
ANSWER_FIELDS = ("answer", "answerKey", "cop")
SUBJECT_FIELDS = ("subject", "subject_name")
MEDMCQA_FIELDS = ("opa", "opb", "opc", "opd")
USED_FIELDS = frozenset(
    ("id", "task", "context", "group", "choices", *QUESTION_FIELDS, *ANSWER_FIELDS, *SUBJECT_FIELDS)
).union(MEDMCQA_FIELDS, LETTERS)

LAYOUTS = (
    "a row needs 'question' (or 'question_stem'); 'choices' (a list of strings, or "
    '{"text": [...], "label": [...]}) or the columns A, B, C, ... or opa..opd; '
    "and 'answer', 'answerKey' or 'cop'; it may have 'id', 'subject', 'task', 'context' and 'group'"
)


class MissingColumn(UserError):
    """A column that a row should have."""


def question_from_row(
    row: Mapping,
    where: str,
    default_id: str,
    task: str | None,
    answers: AnswerReader | None = None,
) -> Question:
    """Reads one row strictly; what could be read in two ways is refused.

    The options are ``choices`` as a list of strings, as ``{"text": [...], "label": [...]}`` (ARC
    and OpenBookQA on the hub; labels A, B, ... or 1, 2, ...) or either of them as JSON text; or the
    columns A, B, C, ...; or opa to opd (MedMCQA).

    The answer is a letter, one of the labels, an option's text or a number, which counts from 0
    unless ``answers`` says otherwise. Where the labels are numbers, and in ``answerKey``, a number
    may be a label, so it counts the options only where ``answers`` says from where. Other fields
    are not used (see ``unused_fields``).

    Args:
      row: field name to value.
      where: what error messages begin with, such as ``"data.jsonl row 17"``.
      default_id, task: used where the row has no ``id`` or ``task``.
      answers: reads the answers of all rows of the source; None: of this one alone.

    Raises:
      UserError: a field is missing (``MissingColumn``), empty, ill-typed, out of range or
        ambiguous.
    """
    try:
        choices, labels = _choices(row)
        name, answer = _one_of(row, ANSWER_FIELDS, "answer")
        index = (answers or AnswerReader()).index(
            f"field {name!r}", answer, choices, labels, key=name == "answerKey"
        )
        return Question(
            id=_id(row, default_id),
            question=_one_of(row, QUESTION_FIELDS, "question")[1],
            choices=tuple(choices),
            answer=index,
            subject=_optional(row, SUBJECT_FIELDS),
            task=_optional(row, ("task",)) or task,
            context=_optional(row, ("context",)),
            group=group_of(row.get("group"), "field 'group'"),
        )
    except UserError as error:
        raise type(error)(f"{where}: {error}") from None


def unused_fields(rows: Iterable[Mapping]) -> list[str]:
    """Names of the fields that ``question_from_row`` does not look at, sorted."""
    return sorted({str(name) for row in rows for name in row} - USED_FIELDS)


def _one_of(row: Mapping, names: tuple[str, ...], role: str) -> tuple[str, Any]:
    """The one field of ``names`` that the row has."""
    present = [name for name in names if name in row]
    if not present:
        raise MissingColumn(
            f"no field {role!r} among the columns {', '.join(map(str, row)) or '(none)'}; {LAYOUTS}"
        )
    if len(present) > 1:
        raise UserError(f"the {role} appears in {' and '.join(present)}: keep one of them")
    return present[0], row[present[0]]


def _id(row: Mapping, default_id: str) -> str:
    value = row.get("id")
    if value is None:
        return default_id
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"field 'id' must be a non-empty string or an integer, not {value!r}")
    return value


def group_of(value, where: str) -> str | None:
    """What rows share that must not be divided (see ``division``); None where there is none."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UserError(f"{where} must be a string or an integer, not {value!r}")
    return str(value)


def _optional(row: Mapping, names: tuple[str, ...]) -> str | None:
    """The text of the first field present; null and the empty cell of a csv file mean none."""
    for name in names:
        value = row.get(name)
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise UserError(f"field {name!r} must be a string, not {value!r}")
        return value
    return None


def _choices(row: Mapping) -> tuple[list[str], list[str] | None]:
    """The options and, where the row names them, their labels."""
    lettered = [letter for letter in LETTERS if letter in row]
    medmcqa = [name for name in MEDMCQA_FIELDS if name in row]
    layouts = {"choices": "choices" in row, "A, B, ...": lettered, "opa..opd": medmcqa}
    present = [name for name, there in layouts.items() if there]
    if not present:
        _one_of(row, ("choices",), "choices")
    if len(present) > 1:
        raise UserError(f"the options appear in {' and in '.join(present)}: keep one of them")
    if "choices" in row:
        return _from_choices(row["choices"])
    columns = lettered or medmcqa
    expected = list(LETTERS[: len(lettered)]) if lettered else list(MEDMCQA_FIELDS)
    if columns != expected:
        raise UserError(
            f"the option columns are {', '.join(columns)}; expected {', '.join(expected)}"
        )
    for name in columns:
        if row[name] is None or row[name] == "":
            raise UserError(
                f"field {name!r} is empty; where the number of options varies from row to row, "
                "give them as one field 'choices' with a JSON list"
            )
    return [row[name] for name in columns], None


def _from_choices(value) -> tuple[list[str], list[str] | None]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            value = str(value)
        if not isinstance(value, (list, dict)):
            raise UserError(
                f'field \'choices\' must be a JSON list such as ["one", "two"], not {value!r}'
            )
    if isinstance(value, list):
        return value, None  # Question checks what it holds
    if not isinstance(value, Mapping):
        raise UserError(f"field 'choices' must be a list of strings, not {value!r}")
    if set(value) != {"text", "label"}:
        raise UserError(
            f"field 'choices' has the keys {', '.join(map(str, value))}; expected text and label"
        )
    texts, labels = value["text"], value["label"]
    for name, part in (("text", texts), ("label", labels)):
        if not isinstance(part, list) or not all(isinstance(item, str) for item in part):
            raise UserError(f"field 'choices', {name!r}, must be a list of strings, not {part!r}")
    if len(texts) != len(labels):
        raise UserError(f"field 'choices' has {len(texts)} texts but {len(labels)} labels")
    known = (list(LETTERS), [str(i + 1) for i in range(MAX_CHOICES)])
    if not any(labels == names[: len(labels)] for names in known):
        raise UserError(
            f"field 'choices' has the labels {', '.join(labels)}; expected A, B, C, ... or "
            "1, 2, 3, ... in this order"
        )
    return texts, labels
