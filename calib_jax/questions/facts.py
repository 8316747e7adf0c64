"""Facts: texts with the span of an entity in them, from T-REx-like files.

A folder holds the facts of a relation as <relation>.jsonl with ``sub_label`` and ``obj_label``
(LAMA), and its templates as <relation>.jsonl with ``pattern`` (ParaRel) or in one file with
``relation`` and ``template`` (LAMA), anywhere below it. A single file has rows with ``text``,
``start`` and ``end`` (characters of the span, as T-REx marks entities in real sentences) or with
``subject``, ``object`` and ``template``; both may have ``id``, ``relation`` and ``document``.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from calib_jax.errors import UserError
from calib_jax.provenance import reads_folder
from calib_jax.questions.local import READERS

PATTERNS = ("first", "all")
LAYOUTS = (
    "a row needs 'text', 'start' and 'end', or 'subject', 'object' and 'template', which holds "
    "[X] and [Y] once each"
)
_SLOT = re.compile(r"\[([XY])\]")


@dataclass(frozen=True)
class Fact:
    """A text in which the characters ``start`` to ``end`` name an entity.

    Attributes:
      id: unique among the facts.
      text: the whole of it.
      start, end: the span, 0 <= start < end <= len(text).
      relation: "P19", or "" where none is known.
      document: what the fact is from; facts of one document are not independent.
    """

    id: str
    text: str
    start: int
    end: int
    relation: str = ""
    document: str = ""

    @property
    def has_context(self) -> bool:
        """Whether anything stands before the span."""
        return bool(self.text[: self.start].strip())


def fill(template: str, subject: str, object: str) -> tuple[str, int, int]:
    """The template's text with subject and object in it, and the object's span.

    Texts are put in verbatim, also where they contain [X] or [Y].

    Raises:
      UserError: the template does not hold [X] and [Y] once each.

    >>> fill("[X] was born in [Y] .", "Ada", "London")
    ('Ada was born in London .', 16, 22)
    """
    parts = _SLOT.split(template)
    if sorted(parts[1::2]) != ["X", "Y"]:
        raise UserError(f"the template {template!r} must hold [X] and [Y] once each")
    values = {"X": subject, "Y": object}
    parts[1::2] = [values[name] for name in parts[1::2]]
    where = _SLOT.split(template).index("Y")
    start = len("".join(parts[:where]))
    return "".join(parts), start, start + len(object)


def load(path: str | Path, patterns: str = "first") -> tuple[list[Fact], dict[str, int]]:
    """The facts of a folder or file, in the order of its relations' names and of the rows.

    Args:
      path: see above.
      patterns: of a folder: "first", the first template of every relation, or "all" of them; the
        texts of one fact then have one ``document``.

    Returns:
      The facts with something before the span, and what was left out:
      ``skipped_no_text_before`` facts whose object comes first, ``skipped_no_template`` facts of
      relations without templates; and ``relations``, of how many relations there are facts.

    Raises:
      UserError: nothing is there, or a row is not understood; the message names it.
    """
    path = Path(path).expanduser()
    if patterns not in PATTERNS:
        raise UserError(
            f"config.lifecycle.patterns is {patterns!r}; expected {' or '.join(PATTERNS)}."
        )
    if not path.exists():
        raise UserError(f"{path}: there is no such file or folder")
    if path.is_dir():
        facts, without = _from_folder(path, patterns)
    else:
        facts, without = _from_file(path), 0
    kept = [fact for fact in facts if fact.has_context]
    if not kept:
        raise UserError(f"{path}: no fact has text before its object ({len(facts)} facts read)")
    return kept, {
        "relations": len({fact.relation for fact in kept}),
        "skipped_no_text_before": len(facts) - len(kept),
        "skipped_no_template": without,
    }


def sample_evenly(facts: Sequence[Fact], size: int, seed: int) -> list[Fact]:
    """At most ``size`` facts (0 for all), as evenly over the relations as they have facts.

    Seeded by every fact's own hash, so that a smaller sample of a relation is part of a larger
    one. The facts keep their order.
    """
    if not size or size >= len(facts):
        return list(facts)
    groups: dict[str, list[tuple[bytes, int]]] = {}
    for i, fact in enumerate(facts):
        key = hashlib.sha256(json.dumps([int(seed), fact.relation, fact.id]).encode()).digest()
        groups.setdefault(fact.relation, []).append((key, i))
    # Small relations first: what they lack is shared by those that are left.
    chosen: list[int] = []
    left = sorted(groups.values(), key=len)
    for number, members in enumerate(left):
        share = -(-(size - len(chosen)) // (len(left) - number))
        chosen += [i for _, i in sorted(members)[:share]]
    return [facts[i] for i in sorted(chosen[:size])]


def _from_file(path: Path) -> list[Fact]:
    facts, row_of_id = [], {}
    is_csv = path.suffix.lower() == ".csv"
    for number, row in _rows(path):
        where = f"{path} row {number}"
        try:
            fact = _fact(row, f"row-{number}", is_csv)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        first = row_of_id.setdefault(fact.id, number)
        if first != number:
            raise UserError(f"{where}: id {fact.id!r} stands in row {first} already")
        facts.append(fact)
    if not facts:
        raise UserError(f"{path}: the file has no rows")
    return facts


def _rows(path: Path) -> list[tuple[int, dict]]:
    if path.suffix.lower() not in READERS:
        raise UserError(f"{path}: a file of facts must end in {', '.join(READERS)}")
    try:
        return list(READERS[path.suffix.lower()](path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def _text(row: Mapping, name: str, default: str | None = None) -> str:
    value = row.get(name, default)
    if isinstance(value, int) and not isinstance(value, bool) and name in ("id", "document"):
        value = str(value)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or (default is None and not value.strip()):
        raise UserError(f"field {name!r} must be a non-empty string, not {value!r}")
    return value


def _fact(row: Mapping, default_id: str, is_csv: bool) -> Fact:
    spans, triple = {"text", "start", "end"} <= row.keys(), {"subject", "object", "template"}
    if spans == (triple <= row.keys()):
        raise UserError(f"the columns are {', '.join(map(str, row)) or '(none)'}; {LAYOUTS}")
    if spans:
        text = _text(row, "text")
        start, end = (_place(row, name, is_csv) for name in ("start", "end"))
        if start == end:
            raise UserError(f"empty span: 'start' and 'end' are both {start}")
        if not 0 <= start < end <= len(text):
            raise UserError(
                f"the span {start} to {end} does not lie in the text of {len(text)} characters"
            )
    else:
        text, start, end = fill(*(_text(row, name) for name in ("template", "subject", "object")))
    identity = _text(row, "id", default_id)
    return Fact(
        identity, text, start, end,
        relation=_text(row, "relation", ""), document=_text(row, "document", identity),
    )  # fmt: skip


def _place(row: Mapping, name: str, is_csv: bool) -> int:
    value = row[name]
    if is_csv and value.isascii() and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"field {name!r} must be an integer, not {value!r}")
    return value


def _from_folder(folder: Path, patterns: str) -> tuple[list[Fact], int]:
    triples: dict[str, list[tuple[str, str, str]]] = {}  # relation -> (where, subject, object)
    templates: dict[str, list[tuple[str, str]]] = {}  # relation -> (where, template)
    files = sorted(folder.rglob("*.jsonl"))
    for place in sorted({folder, *(path.parent for path in files)}):
        reads_folder(place, (".jsonl",))
    if not files:
        raise UserError(
            f"{folder}: no .jsonl file in it; give a folder in T-REx's layout or a file"
        )
    for path in files:
        for number, row in _rows(path):
            where = f"{path} row {number}"
            try:
                if {"sub_label", "obj_label"} <= row.keys():
                    pair = _text(row, "sub_label"), _text(row, "obj_label")
                    triples.setdefault(path.stem, []).append((where, *pair))
                elif "pattern" in row:
                    templates.setdefault(path.stem, []).append((where, _text(row, "pattern")))
                elif {"relation", "template"} <= row.keys():
                    name = _text(row, "relation")
                    templates.setdefault(name, []).append((where, _text(row, "template")))
                else:
                    raise UserError(
                        f"the columns are {', '.join(map(str, row)) or '(none)'}; in a folder, "
                        "facts have sub_label and obj_label, templates pattern, or relation and "
                        "template. Give a folder that holds these alone."
                    )
            except UserError as error:
                raise UserError(f"{where}: {error}") from None
    if not triples:
        raise UserError(f"{folder}: no facts (rows with sub_label and obj_label) in it")
    facts, without = [], 0
    for relation in sorted(triples):
        chosen = templates.get(relation, [])[: 1 if patterns == "first" else None]
        without += len(triples[relation]) if not chosen else 0
        for number, (_, subject, object) in enumerate(triples[relation], 1):
            document = f"{relation}-{number}"
            for i, (where, template) in enumerate(chosen, 1):
                identity = document if patterns == "first" else f"{document}-{i}"
                try:
                    filled = fill(template, subject, object)
                except UserError as error:
                    raise UserError(f"{where}: {error}") from None
                facts.append(Fact(identity, *filled, relation=relation, document=document))
    if not facts:
        raise UserError(
            f"{folder}: facts of {', '.join(sorted(triples))}, but no template of any of them"
        )
    return facts, without
