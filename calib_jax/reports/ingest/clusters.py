"""Which rows of a predictions file depend on each other: by a column, a passage, or their text."""

import dataclasses
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


def read(path: str, numbers: Sequence[int], rows: Sequence[Mapping], column: str | None) -> Names:
    """The clusters that a column names; () where no two rows share one. An empty cell is none.

    Raises:
      UserError: a cell that holds neither text nor an integer.
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


def of_docs(path: str, docs: Sequence[Mapping[str, Any]], reading: Reading) -> Names:
    """Clusters of the documents in samples that lm-evaluation-harness logs."""
    columns = list(dict.fromkeys(name for doc in docs for name in doc))
    column = column_of(path, docs, columns, [], reading)
    return read(path, range(1, len(docs) + 1), docs, column)


def of_ours(path: str | os.PathLike, scores: Scores, reading: Reading) -> Scores:
    """The scores of this project's own file, with the clusters that are asked for."""
    if reading.clusters == "auto":
        return scores
    table = parquet.read_table(path)
    if reading.clusters == "none":
        names: Names = ()
    else:
        rows = table.select([c for c in table.column_names if c == reading.clusters]).to_pylist()
        rows = rows or [{}] * len(scores)
        column = column_of(str(path), rows, table.column_names, [], reading)
        names = read(str(path), range(1, len(rows) + 1), rows, column)
    return dataclasses.replace(scores, clusters=names)


def said(names: Names, column: str | None) -> str | None:
    """What was read, for summary.json and the console; None where rows are independent."""
    if not names:
        return None
    count = len(set(names) - {None}) + names.count(None)
    where = f"column {column!r}" if column else "rows that share a passage or a question"
    return f"{where}: {plural(len(names), 'row')} in {plural(count, 'cluster')}"
