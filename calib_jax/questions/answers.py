"""From what a row says of its answer to the index of the right option."""

import decimal
import logging
import numbers
import re
from collections.abc import Sequence
from typing import Any

from calib_jax.errors import UserError
from calib_jax.questions.record import LETTERS

log = logging.getLogger(__name__)

BASES = ("auto", "0", "1")
FIELD = "config.data.answer_base"

# Of so many numbers one is 0 where they count from 0: of 30 among four options, all but once in
# 5,000 files. From the first count on it is said, from the second on the file is refused.
_NOTICED, _REFUSED = 10, 30
_WHOLE = re.compile(r"(-?\d+)(\.0*)?", re.ASCII)


class AnswerReader:
    """Reads the answers of one source.

    An answer is a letter; one of the labels, where the options have labels; the text of an option,
    as it is written there, upper and lower case kept; or a number that counts the options. Numbers
    may be text, and whole ones may be written as 1.0. What two of these read differently is
    refused.

    Args:
      base: whether numbers count from "0" or "1"; "auto": from 0, and refused where 30 or more of
        them never say 0 (see ``check``).
      remedy: how the base is said, with ``{base}`` in its place.

    Raises:
      UserError: no such base.
    """

    def __init__(self, base: str = "auto", remedy: str = f"--{FIELD}={{base}}"):
        if base not in BASES:
            raise UserError(f"{FIELD} is {base!r}; expected 'auto', '0' or '1'")
        self.base, self.remedy = base, remedy
        self._numbers: list[int] = []  # as written
        self._number_text: str | None = None  # one that could be read as an option's text alone

    def index(
        self,
        where: str,
        value,
        choices: Sequence[str],
        labels: Sequence[str] | None = None,
        key: bool = False,
    ) -> int:
        """The 0-based index of the option that an answer names.

        Args:
          where: how messages call the column, such as "field 'answer'".
          value: what the row holds.
          choices: the options' texts.
          labels: of the options, where the row has them; they come before everything else.
          key: whether the column is known to hold labels, so that a number in it says nothing
            until the base is known.

        Raises:
          UserError: the answer names no option, or different ones.
        """
        K = len(choices)
        number = whole(value)
        text = value.strip() if isinstance(value, str) else None
        if value is None or text == "":
            raise UserError(f"{where} is {value!r}: the row has no answer")
        if number is None and text is None:
            raise UserError(f"{where} must be an option's number, letter or text, not {value!r}")
        if labels is not None and text is not None:
            for label in (text, str(number)):
                if label in labels:
                    return list(labels).index(label)
        # A number among labels 1, 2, ... may be one of them or count from 0.
        counted = labels is not None and list(labels[:1]) == ["1"]
        if self.base == "auto" and number is not None and (counted or key):
            number = None
            if text is None:
                raise UserError(
                    f"{where} is the number {value!r}, which may be a label or count from 0: give "
                    f"the label as text, or say from where numbers count ({self._remedies()})"
                )
        found: dict[str, int] = {}
        if text is not None:
            same = [i for i, choice in enumerate(choices) if _same(choice, text)]
            if len(same) > 1:
                raise UserError(f"{where} is {value!r}, the text of more than one option")
            if same:
                found["text"] = same[0]
            if len(text) == 1 and text.isascii() and text.upper() in LETTERS[:K] and not counted:
                found["letter"] = LETTERS.index(text.upper())
        if number is not None:
            place = number - (self.base == "1")
            if 0 <= place < K:
                found["number"] = place
            elif not found:
                raise UserError(self._outside(where, number, K))
        if not found:
            raise UserError(self._unknown(where, value, choices, labels, key or counted))
        if len(set(found.values())) > 1:
            raise UserError(
                f"{where} is {value!r}, which is also the text of option "
                f"{LETTERS[found['text']]}: give the answer as that option's letter or text in "
                "every row, or give the option another text"
            )
        if list(found) == ["number"] and number is not None:
            self._numbers.append(number)
        elif list(found) == ["text"] and number is not None:
            self._number_text = text
        return next(iter(found.values()))

    def check(self, where: str) -> None:
        """Looks at all answers that were read.

        Args:
          where: how messages call the source.

        Raises:
          UserError: numbers that may count from 0 or from 1 (30 or more, none of them 0); or
            numbers that name an option by its text in one row and by its place in another.
        """
        if not self._numbers:
            return
        low, high, count = min(self._numbers), max(self._numbers), len(self._numbers)
        if self._number_text is not None:
            raise UserError(
                f"{where}: the answer {self._number_text!r} is the text of an option, and {count} "
                "other numbers can only be the place of one: give the answers in one way, for "
                "example as letters"
            )
        if self.base != "auto" or low == 0 or count < _NOTICED:
            return
        text = f"{where}: the {count} answers that are numbers run from {low} to {high}"
        if count >= _REFUSED:
            raise UserError(
                f"{text}, and none is 0, so they may count from 0 or from 1. Say which: "
                f"{self._remedies()}"
            )
        log.warning(
            "%s; they are read as counting from 0. If they count from 1: %s",
            text,
            self.remedy.format(base=1),
        )

    def _remedies(self) -> str:
        return " or ".join(self.remedy.format(base=base) for base in (0, 1))

    def _outside(self, where: str, number: int, K: int) -> str:
        first = int(self.base == "1")
        if number < 0:
            return f"{where} is {number}: the row has no answer"
        text = f"{where} is {number} but there are {K} choices ({first}-based: {first} to "
        text += f"{K - 1 + first})"
        if number == K and self.base == "auto":
            text += f"; if answers count from 1, say so: {self.remedy.format(base=1)}"
        elif number == 0:
            text += f", by {self.remedy.format(base=1)}"
        return text

    def _unknown(self, where: str, value, choices, labels, key: bool) -> str:
        allowed = [*labels] if labels else [*LETTERS[: len(choices)]]
        more = "" if key else f", a number from {int(self.base == '1')} on,"
        hint, text = "", value.strip().casefold()
        near = [c for c in choices if isinstance(c, str) and text == c.strip().casefold()]
        if text and near:
            hint = f" (the option is written {near[0]!r})"
        elif key and whole(value) is not None:
            hint = f"; if it counts the options, say from where: {self._remedies()}"
        return (
            f"{where} is {value!r}; expected one of {', '.join(allowed)}{more} or an option's "
            f"text{hint}"
        )


def whole(value: Any) -> int | None:
    """A whole number, also as 1.0 or as text; None for anything else."""
    if isinstance(value, str):
        match = _WHOLE.fullmatch(value.strip())
        return int(match[1]) if match else None
    number = isinstance(value, numbers.Real | decimal.Decimal) and not isinstance(value, bool)
    return int(value) if number and value == value and value % 1 == 0 else None


def _same(choice, text: str) -> bool:
    """Whether a text is an option's, white space aside."""
    return isinstance(choice, str) and choice.split() == text.split()
