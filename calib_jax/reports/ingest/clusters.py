"""Which rows of a predictions file depend on each other: by a column, a passage, or their text."""

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError
from calib_jax.questions.clusters import asked_again, named
from calib_jax.reports import parquet
from calib_jax.reports.ingest import layout
from calib_jax.reports.ingest.places import Reading
from calib_jax.reports.words import plural

FIELD = "config.report.clusters"
Names = tuple[str | None, ...]
# Roles of columns that name no clusters, and what they hold.
_HOLDS = {
    "answer": "the right answers",
    "probs": "the options' probabilities or scores",
    "log_scores": "the options' probabilities or scores",
    "prediction": "what the model said, or whether it was right",
    "choices": "the options",
    "split": "the parts of the file that are measured by themselves",
}


def column_of(
    path: str,
    rows: Sequence[Mapping],
    columns: Sequence[str],
    as_role: Sequence[str],
    reading: Reading,
) -> str | None:
    """The column that names the clusters; None where there is none or none is wanted.

    Args:
      path: how messages call the file.
      rows, columns: of the file.
      as_role: what ``config.report.columns`` says of the role cluster.
      reading: of it, ``clusters``.

    Raises:
      UserError: two columns, or one that no row has.
    """
    wanted = reading.clusters
    if as_role or wanted not in ("auto", "none"):
        refuse_outcome(path, as_role[0] if as_role else wanted)
    if as_role and wanted != "auto":
        raise UserError(
            f"{FIELD} is {wanted!r}, and {layout.FIELD} says cluster={as_role[0]}: leave out one"
        )
    if as_role or wanted not in ("auto", "none"):
        column = as_role[0] if as_role else wanted
        if all(layout.value_of(row, column) in (None, "") for row in rows):
            raise UserError(
                f"{path}: no column {column!r} for the clusters ({FIELD}) among "
                f"{', '.join(map(str, columns))}"
            )
        return column
    if wanted == "none":
        return None
    return next((name for name in layout.CLUSTERS if name in columns), None)


def refuse_outcome(path: str, column: str | None, also: Mapping[str, str] | None = None) -> None:
    """Refuses a column that holds an outcome, by which rows would be sorted and not related.

    Args:
      path: how messages call the file.
      column: of the clusters, or None.
      also: columns, besides those of known names, -> the role that each of them has.

    Raises:
      UserError: a column of answers, probabilities, predictions, choices or splits.
    """
    if column is None:
        return
    role = (also or {}).get(column)
    if role is None and column.lower() in layout.OUTCOMES:
        role = "prediction"
    known = layout.by_name(column) & _HOLDS.keys()
    if role is None and known and column not in layout.CLUSTERS:
        role = sorted(known)[0]
    if role in _HOLDS:
        raise UserError(
            f"{path}: {FIELD} names {column!r}, which holds {_HOLDS[role]}: rows that are alike in "
            "it do not depend on each other. Name the column of what they share, such as a "
            "passage, a person or a repeated question, or set it to none"
        )


def read(path: str, numbers: Sequence[int], rows: Sequence[Mapping], column: str | None) -> Names:
    """The clusters that a column names; () where no two rows share one. An empty cell is none.

    Raises:
      UserError: a cell that holds neither text nor an integer, or a column of fractions.
    """
    if column is None:
        return ()
    names: list[str | None] = []
    for number, row in zip(numbers, rows, strict=True):
        value = layout.value_of(row, column)
        if isinstance(value, bool) or not isinstance(value, (int, str, type(None))):
            raise UserError(
                f"{path} row {number}: column {column!r} holds {value!r}; the name of a cluster is "
                "text or an integer"
            )
        names.append(None if value in (None, "") else str(value))
    filled = [name for name in names if name is not None]
    if filled and all(map(_is_number, filled)) and not all(map(_is_integer, filled)):
        each = zip(numbers, names, strict=True)
        number, name = next((n, x) for n, x in each if x is not None and not _is_integer(x))
        raise UserError(
            f"{path} row {number}: column {column!r} holds numbers that are no integers, such as "
            f"{name}; the name of a cluster is text or an integer"
        )
    return _shared(names, column in ("passage", "context"))


def _shared(names: Sequence[str | None], are_texts: bool) -> Names:
    """The names, or digests of texts; () where no two rows share one."""
    digests = named([None if name is None else ["passage", name] for name in names])
    return digests if are_texts or not digests else tuple(names)


def repeats(
    questions: Sequence[str | None] | None, choices: Sequence[Sequence[str]] | None
) -> Names:
    """Clusters of rows that ask one question with the same options, in whatever order."""
    if questions is None or choices is None:
        return ()
    return named(
        [asked_again(q, c) if q else None for q, c in zip(questions, choices, strict=True)]
    )


def of_docs(
    path: str, docs: Sequence[Mapping[str, Any]], reading: Reading
) -> tuple[Names, str | None]:
    """Clusters of the documents in samples that lm-evaluation-harness logs, and what is said."""
    columns = list(dict.fromkeys(name for doc in docs for name in doc))
    column = column_of(path, docs, columns, [], reading)
    names = read(path, range(1, len(docs) + 1), docs, column)
    return names, said(names, column, docs)


def of_ours(path: str | os.PathLike, scores: Scores, reading: Reading) -> tuple[Scores, str | None]:
    """The scores of this project's own file, with the clusters asked for, and what is said."""
    if reading.clusters == "auto":
        return scores, said(scores.clusters, None)
    table = parquet.read_table(path)
    in_words = None
    if reading.clusters == "none":
        names: Names = ()
    else:
        rows = table.select([c for c in table.column_names if c == reading.clusters]).to_pylist()
        rows = rows or [{}] * len(scores)
        column = column_of(str(path), rows, table.column_names, [], reading)
        names = read(str(path), range(1, len(rows) + 1), rows, column)
        in_words = said(names, column, rows)
    return dataclasses.replace(scores, clusters=names), in_words


def said(names: Names, column: str | None, rows: Sequence[Mapping] = ()) -> str | None:
    """What was read, for summary.json and the console; None where no column says more.

    Args:
      names: of the clusters.
      column: that names them, or None.
      rows: that it was read from: their empty cells are counted.
    """
    if not names:
        if column is None:
            return None
        return f"column {column!r}: no two rows share a value, so they are taken for independent"
    count = len(set(names) - {None}) + names.count(None)
    where = f"column {column!r}" if column else "rows that share a passage or a question"
    text = f"{where}: {plural(len(names), 'row')} in {plural(count, 'cluster')}"
    empty = 0
    if column is not None:
        empty = sum(layout.value_of(row, column) in (None, "") for row in rows)
    if empty:
        verb = "is a cluster of its own" if empty == 1 else "are clusters of their own"
        text += f"; {plural(empty, 'row')} whose cell is empty {verb}"
    return text


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _is_integer(text: str) -> bool:
    return text.strip().lstrip("+-").isdecimal()
