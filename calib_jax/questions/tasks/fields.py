"""Where the rows of a data set hold what a Question needs, and how to read it from there."""

import dataclasses
import re
from collections.abc import Callable, Mapping

from calib_jax.errors import UserError
from calib_jax.questions.answers import AnswerReader, whole
from calib_jax.questions.record import Question
from calib_jax.questions.rows import MissingColumn, group_of


def _wikihow(text: str) -> str:
    """HellaSwag's text without the marks of the WikiHow pages that it was taken from."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


FILTERS: dict[str, Callable[[str], str]] = {
    "strip": str.strip,
    "lstrip": str.lstrip,
    "capitalize": str.capitalize,
}
CLEAN: dict[str, Callable[[str], str]] = {"": lambda text: text, "wikihow": _wikihow}

SLOT = re.compile(r"\{([^{}|]+)(?:\|([^{}|]*))?\}")  # a column, perhaps with a filter


@dataclasses.dataclass(frozen=True)
class Fields:
    """From a row's columns to a Question's fields.

    A *text* is a template over columns: ``"{ctx_a} {ctx_b|capitalize}"``; the filters are those of
    ``FILTERS``. A *path* names a column, or a key inside one: ``"choices.text"``.

    Attributes:
      question: a text.
      choices: the path of a list, or a list of texts, one for each option.
      answer: the path of the right option's label where there are ``labels``; else of its number,
        which counts from 0 (or as ``Task.answer_base`` says), its letter, its text, or a list of 0
        and 1 with a single 1; or, as a number, the index from 0 in every row.
      labels: the path of the options' labels, or the labels themselves, one for each option in
        their order: what the answer's column calls them, such as ``["1", "2"]``.
      context, subject, id: a text, a path and a path; "" for none.
      group: the path of what rows share that must not be divided (see ``division``); "" for none.
      clean: a key of ``CLEAN``, applied to the question and the options.
      parse: column to a text with plain slots: its inverse is applied to the column, which yields
        further columns. Every slot but the last takes as much as it can.
    """

    question: str
    choices: str | tuple[str, ...]
    answer: str | int
    labels: str | tuple[str, ...] = ()
    context: str = ""
    subject: str = ""
    id: str = ""
    group: str = ""
    clean: str = ""
    parse: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def read(
        self, row: Mapping, default_id: str, task: str, answers: AnswerReader | None = None
    ) -> Question:
        """The question of one row.

        Args:
          row: column to value.
          default_id: where no column holds an id.
          task: the question's.
          answers: reads the answers of all rows of the source; None: of this one alone.

        Raises:
          UserError: a column is missing, empty, ill-typed or out of range; it names the column.
        """
        if self.parse:
            row = dict(row)
            for column, template in self.parse.items():
                row |= _parse(template, _get(row, column), column)
        clean = CLEAN[self.clean]
        if isinstance(self.choices, str):
            choices = _get(row, self.choices)
            if not isinstance(choices, list) or not all(isinstance(c, str) for c in choices):
                raise UserError(f"column {self.choices!r} must be a list of texts, not {choices!r}")
        else:
            choices = [_text(row, choice) for choice in self.choices]
        context = _text(row, self.context) if self.context else ""
        choices = [clean(choice) for choice in choices]
        subject = _get(row, self.subject) if self.subject else None
        group = _get(row, self.group) if self.group else None
        return Question(
            id=str(_get(row, self.id)) if self.id else default_id,
            question=clean(_text(row, self.question)),
            choices=tuple(choices),
            answer=self._answer(row, choices, answers or AnswerReader()),
            subject=subject or None,
            task=task,
            context=context if context.strip() else None,
            group=group_of(group, f"column {self.group!r}"),
        )

    def _answer(self, row: Mapping, choices: list[str], answers: AnswerReader) -> int:
        if isinstance(self.answer, int):
            return self.answer
        value = _get(row, self.answer)
        where = f"column {self.answer!r}"
        if self.labels:
            labels = self.labels if isinstance(self.labels, tuple) else _get(row, self.labels)
            labels = [str(label).strip() for label in labels]
            if len(labels) != len(choices):
                raise UserError(f"{len(choices)} options but {len(labels)} labels")
            names = (str(value).strip(), str(whole(value)))
            found = next((name for name in names if labels.count(name) == 1), None)
            if found is None:
                raise UserError(f"{where} is {value!r}; expected one of {', '.join(labels)}")
            return labels.index(found)
        if isinstance(value, list):
            if sorted(map(str, value)) != ["0"] * (len(choices) - 1) + ["1"]:
                raise UserError(
                    f"{where} is {value!r}; expected {len(choices)} numbers, one of them 1, others "
                    "0"
                )
            return list(map(str, value)).index("1")
        if isinstance(value, bool):
            return int(value)
        return answers.index(where, value, choices)


def _get(row: Mapping, path: str):
    """The value at a path of keys joined by dots."""
    value = row
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            columns = ", ".join(map(str, row)) or "(none)"
            raise MissingColumn(f"no column {path!r} among {columns}")
        value = value[key]
    return value


def _text(row: Mapping, template: str) -> str:
    def fill(match: re.Match) -> str:
        value = _get(row, match[1])
        if not isinstance(value, str):
            raise UserError(f"column {match[1]!r} must be text, not {value!r}")
        return FILTERS[match[2]](value) if match[2] else value

    if template in row:
        raise UserError(f"{template!r} is a column: write {{{template}}} for what it holds")
    return SLOT.sub(fill, template)


def _parse(template: str, text: str, column: str) -> dict[str, str]:
    literals = [re.escape(literal) for literal in SLOT.sub("\0", template).split("\0")]
    slots = [f"(?P<{slot[1]}>.*)" for slot in SLOT.finditer(template)]
    pattern = literals[0] + "".join(map("".join, zip(slots, literals[1:], strict=True)))
    match = re.fullmatch(pattern, text, re.DOTALL)
    if not match:
        raise UserError(f"column {column!r} does not have the form {template!r}")
    return match.groupdict()
