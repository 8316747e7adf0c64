"""Questions from a local jsonl, csv or parquet file: every row is good or the file is refused.

Rows are counted from 1: lines of a jsonl file, records below the header of a csv file.
"""

import csv
import io
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from calib_jax.errors import UserError
from calib_jax.provenance import reads
from calib_jax.questions.record import Question
from calib_jax.questions.rows import question_from_row, unused_fields

log = logging.getLogger(__name__)

Rows = Iterator[tuple[int, dict]]  # row number, field name to value


Build = Callable[[dict, str, int], Question]  # from a row, what names it, and its number


def load(path: str | Path, task: str | None = None, build: Build | None = None) -> list[Question]:
    """All questions of a file, in its order.

    The layouts understood are those of ``rows.question_from_row``. A row without ``id`` gets
    ``"row-<number>"``, one without ``task`` the one given here, or else the file's stem. Columns
    that are not used are logged.

    Args:
      build: makes the questions of rows in a layout of their own.

    Raises:
      UserError: the file is missing, empty or of an unknown kind; or a row is invalid, repeats an
        id, or has two equal options. The message names the file and the row.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() not in READERS:
        raise UserError(f"{path}: a question file must end in {', '.join(READERS)}")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        rows = list(READERS[path.suffix.lower()](path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not rows:
        raise UserError(f"{path}: the file has no rows")

    questions, row_of_id = [], {}
    for number, row in rows:
        where = f"{path} row {number}"
        if build:
            question = build(row, where, number)
        else:
            question = question_from_row(row, where, f"row-{number}", task=task or path.stem)
        if question.has_duplicate_choices:
            raise UserError(f"{where}: question {question.id!r} has two equal options")
        first = row_of_id.setdefault(question.id, number)
        if first != number:
            raise UserError(f"{where}: id {question.id!r} stands in row {first} already")
        questions.append(question)
    if not build and (unused := unused_fields(row for _, row in rows)):
        log.warning("%s: columns not used: %s", path, ", ".join(unused))
    return questions


def _jsonl_rows(path: Path) -> Rows:
    reads(path)
    # Split at line feeds only: str.splitlines would also split at U+2028 inside a string.
    lines = path.read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        where = f"{path} row {number}"
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UserError(f"{where}: not UTF-8 text ({error.reason})") from None
        if not text.strip():
            raise UserError(f"{where}: the line is blank")
        try:
            row = json.loads(text, object_pairs_hook=_without_repeats)
        except json.JSONDecodeError as error:
            raise UserError(f"{where}: not valid JSON: {error.msg}, column {error.colno}") from None
        except (UserError, RecursionError) as error:
            raise UserError(f"{where}: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}: expected a JSON object per line, not {type(row).__name__}")
        yield number, row


def _without_repeats(pairs: list[tuple[str, object]]) -> dict:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise UserError(f"field {repeated!r} stands there twice")
    return fields


def _csv_rows(path: Path) -> Rows:
    reads(path)
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} line {line}: not UTF-8 text ({error.reason}); save the file as UTF-8"
        ) from None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        records = list(reader)
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: not valid csv: {error}") from None
    while records and not any(cell.strip() for cell in records[-1]):
        records.pop()
    if not records:
        return
    header = [name.strip() for name in records[0]]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise UserError(f"{path}: the header names {', '.join(map(repr, repeated))} twice")
    for number, cells in enumerate(records[1:], 1):
        if len(cells) != len(header):
            hint = ""
            if len(header) == 1 and (found := re.search(r"[;\t|]", header[0])):
                hint = f": separate the columns by commas, not by {found[0]!r}"
            raise UserError(
                f"{path} row {number}: {len(cells)} cells, but the header has {len(header)} "
                f"column{'s' if len(header) > 1 else ''}{hint}"
            )
        yield number, dict(zip(header, cells, strict=True))


def _parquet_rows(path: Path) -> Rows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    reads(path)
    try:
        # ParquetFile, not read_table: the latter would take folders named a=b for columns.
        with open(path, "rb") as handle, pq.ParquetFile(handle) as file:
            records = file.read().to_pylist()
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a valid parquet file: {error}") from error
    yield from enumerate(records, 1)


def json_rows(path: Path) -> Rows:
    """The rows of a .json file, which holds a list of objects."""
    reads(path)
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        rows = json.loads(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} line {line}: not UTF-8 text ({error.reason}); save the file as UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        hint = " (one object a line is a .jsonl file)" if error.msg == "Extra data" else ""
        raise UserError(
            f"{path} line {error.lineno}: not valid JSON: {error.msg}, column {error.colno}{hint}"
        ) from None
    except RecursionError:
        raise UserError(f"{path}: not valid JSON: nested too deeply") from None
    if not isinstance(rows, list):
        raise UserError(f"{path}: expected a list of objects, not {type(rows).__name__}")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path} row {number}: expected an object, not {type(row).__name__}")
        yield number, row


READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _jsonl_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}
