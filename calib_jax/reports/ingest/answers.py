"""The answers of a table: indices, letters or the options' own texts; nothing guessed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calib_jax.errors import UserError
from calib_jax.reports.ingest.places import Place, Reading
from calib_jax.reports.words import LETTERS

Texts = Sequence[Sequence[str]]


def read_answers(
    place: Place,
    rows: Sequence[Mapping],
    column: str,
    counts: np.ndarray,
    texts: Texts | None,
    reading: Reading,
) -> tuple[np.ndarray, str]:
    """The right options [N], 0-based, and how they were read.

    All rows are read in one way: as whole numbers (from 0, or as ``reading.answer_base`` says), as
    letters, or as the texts of options, whose case counts.

    Args:
      place: names rows.
      rows: N.
      column: that holds the answers.
      counts: [N], how many options each row has.
      texts: of each row's options, where they are known; empty for rows that have none.
      reading: of it, ``answer_base``.

    Raises:
      UserError: a row's answer is none of its options, or may be two of them; or numbers that may
        count from 0 or from 1.
    """
    raw = [row.get(column) for row in rows]
    named: list[int | None] = [None] * len(raw)
    if texts:
        named = [_named(value, of) for value, of in zip(raw, texts, strict=True)]
    are_named = None not in named
    numbers = [_whole(value) for value in raw]
    if None in numbers:
        letters = [_letter(value) for value in raw]
        beyond = any(k is not None and k >= K for k, K in zip(letters, counts, strict=True))
        if None not in letters and not (are_named and beyond):
            if are_named:
                _ambiguous(place, raw, letters, named, "letter")
            place.refuse(
                np.flatnonzero(np.array(letters) >= counts),
                lambda i: f"has answer {raw[i]!r} and {counts[i]} options",
                "the answer must be one of the row's options",
            )
            return np.array(letters), f"column {column!r}, letters"
        if are_named:
            return np.array(named), f"column {column!r}, names of options"
        # The rows that do not fit the way in which most can be read.
        best = min((numbers, letters, named), key=lambda found: found.count(None))
        known = f" ({_few(texts[0])})" if texts and texts[0] else ", which column choices can give"
        place.refuse(
            [i for i, index in enumerate(best) if index is None],
            lambda i: f"has answer {raw[i]!r} in column {column!r}",
            "answers are 0-based indices of the options, letters in every row, or the options' "
            f"texts in every row{known}, whose case counts",
        )
    answers = np.array(numbers)
    if reading.answer_base == "auto" and are_named:
        if (answers >= counts).any():
            return np.array(named), f"column {column!r}, names of options"
        if any(isinstance(value, str) for value in raw):
            _ambiguous(place, raw, numbers, named, "0-based index")
    return _from_base(place, answers, column, counts, reading.answer_base)


def _from_base(
    place: Place, answers: np.ndarray, column: str, counts: np.ndarray, base: str
) -> tuple[np.ndarray, str]:
    if base == "auto":
        if (answers <= 0).any():
            base, why = "0", "0-based index (0 occurs)"
        elif (answers >= counts).any():
            raise UserError(
                f"{place.path}: the answers in column {column!r} run from {answers.min()} to "
                f"{answers.max()}, none is 0, and rows have {counts.min()} options or more, so "
                "they seem to count from 1. If so, say --config.report.answer_base=1"
            )
        else:
            raise UserError(
                f"{place.path}: the answers in column {column!r} run from {answers.min()} to "
                f"{answers.max()}, and none is 0, so they may count from 0 or from 1. Say which: "
                "--config.report.answer_base=0 or --config.report.answer_base=1"
            )
    else:
        why = f"{base}-based index (config.report.answer_base)"
    shifted = answers - int(base)
    place.refuse(
        np.flatnonzero((shifted < 0) | (shifted >= counts)),
        lambda i: (
            f"has answer {answers[i]}, outside {base}..{counts[i] - 1 + int(base)} of its "
            f"{counts[i]} options"
        ),
        "answers are 0-based indices; where they count from 1, set --config.report.answer_base=1",
    )
    return shifted, f"column {column!r}, {why}"


def _ambiguous(place: Place, raw: Sequence, one: Sequence, named: Sequence, what: str) -> None:
    place.refuse(
        [i for i, index in enumerate(one) if index != named[i]],
        lambda i: (
            f"has answer {raw[i]!r}, which is the {what} of option {one[i]} (from 0) and the text "
            f"of option {named[i]}"
        ),
        "give 0-based indices and say so, --config.report.answer_base=0",
    )


def _few(texts: Sequence[str]) -> str:
    shown = ", ".join(repr(text[:30]) for text in texts[:8])
    return f"{shown} and {len(texts) - 8} more" if len(texts) > 8 else shown


def _named(value: Any, texts: Sequence[str]) -> int | None:
    """The one option whose text the answer is."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool):  # JSON's true and false, which others spell True and False
        texts, value = [text.lower() for text in texts], str(value).lower()
    if not isinstance(value, (int, str)):
        return None
    places = [k for k, text in enumerate(texts) if text.strip() == str(value).strip()]
    return places[0] if len(places) == 1 else None


def _letter(value: Any) -> int | None:
    """Of A to Z; no other alphabet's letters, whose capitals may be two ("ß")."""
    text = value.strip().upper() if isinstance(value, str) and value.isascii() else ""
    return LETTERS.index(text) if len(text) == 1 and text in LETTERS else None


def _whole(value: Any) -> int | None:
    """An integer, also as 2.0 (pandas writes it where a column once had gaps) or as text."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if math.isfinite(number) and number == int(number) else None
