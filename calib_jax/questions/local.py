"""Questions from a local jsonl, csv or parquet file: every row is good or the file is refused.

Rows are counted from 1: lines of a jsonl file, records below the header of a csv file. Blank rows
at the end of a file are no rows.
"""

import csv
import io
import itertools
import json
import logging
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from calib_jax.errors import UserError
from calib_jax.provenance import reads
from calib_jax.questions.answers import AnswerReader
from calib_jax.questions.record import Question
from calib_jax.questions.rows import MissingColumn, question_from_row, unused_fields

log = logging.getLogger(__name__)

Rows = Iterator[tuple[int, dict]]  # row number, field name to value


HEADER = (
    " A csv file begins with a line that names its columns, such as question,A,B,C,D,answer: where "
    "the file has none, put one first."
)

Build = Callable[[dict, str, int], Question]  # from a row, what names it, and its number


def load(
    path: str | Path,
    task: str | None = None,
    build: Build | None = None,
    answers: AnswerReader | None = None,
) -> list[Question]:
    """All questions of a file, in its order.

    The layouts understood are those of ``rows.question_from_row``. A row without ``id`` gets
    ``"row-<number>"``, one without ``task`` the one given here, or else the file's stem. Columns
    that are not used are logged.

    Args:
      build: makes the questions of rows in a layout of their own.
      answers: reads the answers, or helps ``build`` to; None for a plain ``AnswerReader``.

    Raises:
      UserError: the file is missing, empty or of an unknown kind; or a row is invalid, repeats an
        id, or has two equal options; or the answers may count from 0 or from 1. The message names
        the file and the row.
    """
    answers = answers or AnswerReader()
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

    questions: list[Question] = []
    row_of_id: dict[str, int] = {}
    for number, row in rows:
        where = f"{path} row {number}"
        try:
            if build:
                question = build(row, where, number)
            else:
                question = question_from_row(
                    row, where, f"row-{number}", task or path.stem, answers
                )
        except MissingColumn as error:
            hint = HEADER if path.suffix.lower() == ".csv" else ""
            raise UserError(f"{error}.{hint}" if hint else str(error)) from None
        if question.has_duplicate_choices:
            raise UserError(f"{where}: question {question.id!r} has two equal options")
        first = row_of_id.setdefault(question.id, number)
        if first != number:
            raise UserError(f"{where}: id {question.id!r} appears in row {first} already")
        questions.append(question)
    answers.check(str(path))
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


def json_rows(path: Path) -> Rows:
    """The rows of a .json file, which holds one list of objects."""
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


def _without_repeats(pairs: list[tuple[str, object]]) -> dict:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise UserError(f"field {repeated!r} appears twice")
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
    first = text.lstrip().partition("\n")[0]
    if "," not in first and (found := re.search(r"[;\t|]", first)):
        raise UserError(
            f"{path}: the header has 1 column: separate the columns by commas, not by {found[0]!r} "
            '(in a spreadsheet: save as "CSV UTF-8, comma delimited")'
        )
    # The module's own limit is 131,072 characters, for the whole process; a cell is never longer
    # than its file.
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        records = list(reader)
    except csv.Error as error:
        raise UserError(f"{path} line {reader.line_num}: not valid csv: {error}") from None
    while records and not records[0]:
        records.pop(0)
    records = _without_blank_end(path, records)
    if not records:
        return
    header = [name.strip() for name in records[0]]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise UserError(
            f"{path}: the first line names {', '.join(map(repr, repeated))} twice.{HEADER}"
        )
    for number, cells in enumerate(records[1:], 1):
        if len(cells) != len(header):
            raise UserError(
                f"{path} row {number}: {len(cells)} cells, but the header has {len(header)} "
                f"column{'s' if len(header) > 1 else ''}"
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
    end = len(records)
    while end and all(map(_is_blank, records[end - 1].values())):
        end -= 1
    _without_blank_end(path, [list(record.values()) for record in records[end:]])
    yield from enumerate(itertools.islice(records, end), 1)


def _without_blank_end(path: Path, rows: list[list]) -> list[list]:
    """Spreadsheets leave rows of empty cells behind, and data frames rows of NaN."""
    end = len(rows)
    while end and all(_is_blank(cell) for cell in rows[end - 1]):
        end -= 1
    if count := sum(map(bool, rows[end:])):  # an empty line is no row at all
        log.warning("%s: %d blank row%s at the end left out", path, count, "s" * (count > 1))
    return rows[:end]


def _is_blank(cell) -> bool:
    return cell is None or cell != cell or (isinstance(cell, str) and not cell.strip())


READERS: dict[str, Callable[[Path], Rows]] = {
    ".jsonl": _jsonl_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}
