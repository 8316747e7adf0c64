"""Running text: documents from a text file, a table with a column of text, or a hub data set.

A .txt file is split into documents in one of two ways. Where its first line that is not blank is
an article heading as WikiText writes them (`` = Title = ``), every such heading begins a document,
which holds it; elsewhere documents are what blank lines separate. In a table or a hub data set a
row is a document.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calib_jax.errors import UserError
from calib_jax.provenance import reads
from calib_jax.questions import hub
from calib_jax.questions.local import READERS

HUB = "hf:"
SPELLINGS = (
    "a .txt file; a .jsonl, .csv or .parquet file, with :<column> behind it where the text is not "
    "in 'text'; or hf:<owner>/<name>[:<config>]:<split>[:<column>] (with a column, the config must "
    "stand there too, empty or not)"
)
COLUMN = "text"
# A level-one heading: subsections are written with more equals signs.
_HEADING = re.compile(r" ?= [^=](?:.*[^=])? = ?")


@dataclass(frozen=True)
class Document:
    """A text with the name it has in its source: ``row-17``, ``article-3``, ``paragraph-3``."""

    id: str
    text: str


class _Rows(Sequence):
    """The rows of a data set as documents, read one at a time: a hub set may be large."""

    def __init__(self, column: Sequence[str], ids: Sequence[int]):
        self.column, self.ids = column, ids

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i: Any) -> Any:
        text = self.column[self.ids[i]]
        return Document(f"row-{self.ids[i] + 1}", text)


def load(spec: str) -> tuple[Sequence[Document], dict[str, int]]:
    """The documents of a source, in its order.

    Args:
      spec: see ``SPELLINGS``.

    Returns:
      The documents, and what was left out: ``skipped_empty`` rows without text (null or blank).

    Raises:
      UserError: the source is missing, not understood or empty, or a row holds something else.
    """
    if not spec.strip():
        raise UserError(f"config.lifecycle.text names nothing; write {SPELLINGS}.")
    if spec.startswith(HUB):
        return _load_hub(spec)
    path, column = _local_parts(spec)
    if path.suffix.lower() != ".txt" and path.suffix.lower() not in READERS:
        raise UserError(f"{spec!r} names no text; write {SPELLINGS}.")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        if path.suffix.lower() == ".txt":
            found, empty = _text_file(path), 0
        else:
            found, empty = _table(path, column)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error
    if not found:
        raise UserError(f"{path}: the file holds no text")
    return found, {"skipped_empty": empty}


def _local_parts(spec: str) -> tuple[Path, str | None]:
    """The file, and the column behind the last colon where what stands before it is a table."""
    head, _, column = spec.rpartition(":")
    if column and Path(head).suffix.lower() in READERS:
        return Path(head).expanduser(), column
    return Path(spec).expanduser(), None


def _text_file(path: Path) -> list[Document]:
    reads(path)
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        lines = data.decode("utf-8").replace("\r\n", "\n").split("\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} line {line}: not UTF-8 text ({error.reason}); save the file as UTF-8"
        ) from None
    first = next((line for line in lines if line.strip()), "")
    articles = _HEADING.fullmatch(first) is not None
    kind, parts = ("article", _articles(lines)) if articles else ("paragraph", _paragraphs(lines))
    return [Document(f"{kind}-{i}", text) for i, text in enumerate(parts, 1)]


def _articles(lines: Sequence[str]) -> Iterator[str]:
    """A heading counts only between blank lines: text may hold equals signs of its own."""
    article: list[str] = []
    for i, line in enumerate(lines):
        around = (*lines[max(i - 1, 0) : i], *lines[i + 1 : i + 2])
        if _HEADING.fullmatch(line) and not any(near.strip() for near in around) and article:
            if text := "\n".join(article).strip():
                yield text
            article = []
        article.append(line)
    if text := "\n".join(article).strip():
        yield text


def _paragraphs(lines: Sequence[str]) -> Iterator[str]:
    paragraph: list[str] = []
    for line in [*lines, ""]:
        if line.strip():
            paragraph.append(line)
        elif paragraph:
            yield "\n".join(paragraph).strip()
            paragraph = []


def _table(path: Path, column: str | None) -> tuple[list[Document], int]:
    rows = list(READERS[path.suffix.lower()](path))
    if not rows:
        return [], 0
    # The first row's text may be null.
    texts = {key: None for _, row in rows for key, value in row.items() if isinstance(value, str)}
    name = _column(list(rows[0][1]), list(texts), column, str(path))
    documents = []
    for number, row in rows:
        if name not in row:
            raise UserError(f"{path} row {number}: no column {name!r}; it has: {', '.join(row)}")
        text = "" if row[name] is None else row[name]
        if not isinstance(text, str):
            raise UserError(
                f"{path} row {number}: column {name!r} must hold text, not {text!r}; another "
                "column is given as <file>:<column>"
            )
        if text.strip():
            documents.append(Document(f"row-{number}", text))
    return documents, len(rows) - len(documents)


def _column(names: list[str], texts: list[str], asked: str | None, where: str) -> str:
    """The column of the text: the one asked for, ``text``, or the only one that holds text."""
    if asked is not None:
        if asked not in names:
            raise UserError(f"{where}: no column {asked!r}; it has: {', '.join(names)}")
        return asked
    if COLUMN in names:
        return COLUMN
    if len(texts) != 1:
        raise UserError(
            f"{where}: no column 'text', and not one column of text alone, among "
            f"{', '.join(names) or '(none)'}; name it behind the source: <source>:<column>"
        )
    return texts[0]


def _load_hub(spec: str) -> tuple[Sequence[Document], dict[str, int]]:
    parts = spec.removeprefix(HUB).split(":")
    if not 2 <= len(parts) <= 4 or not parts[0] or not parts[-1]:
        raise UserError(f"{spec!r} names no Hugging Face split; write {SPELLINGS}.")
    asked = parts.pop() if len(parts) == 4 else None
    repo, split = parts[0], parts[-1]
    config = (parts[1] or None) if len(parts) == 3 else None
    dataset = hub.open_split(repo, config, split, otherwise="without one, give a local file.")
    texts = [n for n, f in dataset.features.items() if getattr(f, "dtype", "") == "string"]
    name = _column(list(dataset.features), texts, asked, spec)
    if name not in texts:
        raise UserError(f"{spec}: column {name!r} holds no text; these do: {', '.join(texts)}")
    column = dataset.with_format(None)[name]
    ids = [i for i, text in enumerate(column) if text and text.strip()]
    if not ids:
        raise UserError(f"{spec}: the split holds no text")
    return _Rows(column, ids), {"skipped_empty": len(column) - len(ids)}
