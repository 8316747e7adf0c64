"""From one row of a file or data set, in any of the usual layouts, to a Question."""

import json
from collections.abc import Iterable, Mapping

from calib_jax.errors import UserError
from calib_jax.questions.record import LETTERS, MAX_CHOICES, Question

QUESTION_FIELDS = ("question", "question_stem")
ANSWER_FIELDS = ("answer", "answerKey", "cop")
SUBJECT_FIELDS = ("subject", "subject_name")
MEDMCQA_FIELDS = ("opa", "opb", "opc", "opd")
USED_FIELDS = frozenset(
    ("id", "task", "context", "choices", *QUESTION_FIELDS, *ANSWER_FIELDS, *SUBJECT_FIELDS)
).union(MEDMCQA_FIELDS, LETTERS)

LAYOUTS = (
    "a row needs 'question' (or 'question_stem'); 'choices' (a list of strings, or "
    '{"text": [...], "label": [...]}) or the columns A, B, C, ... or opa..opd; '
    "and 'answer', 'answerKey' or 'cop'; it may have 'id', 'subject', 'task' and 'context'"
)


def question_from_row(row: Mapping, where: str, default_id: str, task: str | None) -> Question:
    """Reads one row strictly; what could be read in two ways is refused.

    The options are ``choices`` as a list of strings, as ``{"text": [...], "label": [...]}`` (ARC
    and OpenBookQA on the hub; labels A, B, ... or 1, 2, ...) or either of them as JSON text; or the
    columns A, B, C, ...; or opa to opd (MedMCQA).

    The answer is a 0-based integer, a letter, or one of the labels. Digits as text are a label
    where there are labels and a 0-based index otherwise; ``answerKey`` is never an index. Other
    fields are not used (see ``unused_fields``).

    Args:
      row: field name to value.
      where: what error messages begin with, such as ``"data.jsonl row 17"``.
      default_id, task: used where the row has no ``id`` or ``task``.

    Raises:
      UserError: a field is missing, empty, ill-typed, out of range or ambiguous.
    """
    try:
        choices, labels = _choices(row)
        name, answer = _one_of(row, ANSWER_FIELDS, "answer")
        return Question(
            id=_id(row, default_id),
            question=_one_of(row, QUESTION_FIELDS, "question")[1],
            choices=choices,
            answer=_answer_index(name, answer, choices, labels),
            subject=_optional(row, SUBJECT_FIELDS),
            task=_optional(row, ("task",)) or task,
            context=_optional(row, ("context",)),
        )
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def unused_fields(rows: Iterable[Mapping]) -> list[str]:
    """Names of the fields that ``question_from_row`` does not look at, sorted."""
    return sorted({str(name) for row in rows for name in row} - USED_FIELDS)


def _one_of(row: Mapping, names: tuple[str, ...], role: str) -> tuple[str, object]:
    """The one field of ``names`` that the row has."""
    present = [name for name in names if name in row]
    if not present:
        raise UserError(
            f"no field {role!r} among the columns {', '.join(map(str, row)) or '(none)'}; {LAYOUTS}"
        )
    if len(present) > 1:
        raise UserError(f"the {role} stands in {' and '.join(present)}: keep one of them")
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
        raise UserError(f"the options stand in {' and in '.join(present)}: keep one of them")
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


def _answer_index(name: str, answer, choices: list, labels: list[str] | None) -> int:
    """The 0-based index that ``answer`` stands for; a non-string is left for Question to check."""
    digits = labels is not None and labels[:1] == ["1"]
    if not isinstance(answer, str):
        if digits or name == "answerKey":
            raise UserError(
                f"field {name!r} is the number {answer!r}, which may be a label or a 0-based "
                "index: give a label as text"
            )
        return answer
    text = answer.strip()
    K = len(choices)
    if labels is not None and text in labels:
        index = labels.index(text)
    elif len(text) == 1 and text.upper() in LETTERS[:K] and not digits:
        index = LETTERS.index(text.upper())
    elif text.isascii() and text.isdecimal() and labels is None and name != "answerKey":
        index = int(text)
    else:
        allowed = labels or [*LETTERS[:K]]
        more = "" if labels or name == "answerKey" else ", or a 0-based index"
        raise UserError(f"field {name!r} is {answer!r}; expected one of {', '.join(allowed)}{more}")
    # Text that also equals another option ("B" for the blood type) could mean either.
    same = [i for i, choice in enumerate(choices) if isinstance(choice, str) and choice == text]
    if labels is None and same and same != [index]:
        raise UserError(
            f"field {name!r} is {answer!r}, which is also the text of option {LETTERS[same[0]]}: "
            "give the 0-based index as a number, or reorder the options"
        )
    return index
