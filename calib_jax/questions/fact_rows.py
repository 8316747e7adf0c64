"""From one row of a file or data set, in any of the usual layouts, to the facts that it holds."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from calib_jax.errors import UserError

LAYOUTS = (
    "a row needs 'text', 'start' and 'end'; or 'subject', 'object' and 'template', which holds [X] "
    "and [Y] once each; or 'masked_sentence', which holds [MASK], and 'obj_surface' or 'obj_label' "
    "(LAMA); or 'text' and 'entities' with their 'boundaries' (T-REx)"
)
MASK = "[MASK]"
_SLOT = re.compile(r"\[([XY])\]")
_SENTENCES = ("masked_sentence", "masked_sentences", "evidences")
# T-REx's annotator of "He" and "She" at a sentence's beginning: no names.
_PRONOUNS = "Simple_Coreference"


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


def facts_of_row(
    row: Mapping, default_id: str, is_csv: bool = False
) -> tuple[list[Fact], Counter[str]]:
    """The facts of one row, whatever its layout: see ``LAYOUTS``.

    Args:
      row: field -> value.
      default_id: of a row that states none.
      is_csv: whether all values are text.

    Returns:
      The facts (several of a T-REx document), and how many were left out, by reason.

    Raises:
      UserError: a field is missing or ill-typed; it names the field.
    """
    readers = {
        "spans": {"text", "start", "end"} <= row.keys(),
        "triple": {"subject", "object", "template"} <= row.keys(),
        "sentences": has_sentences(row),
        "document": is_document(row),
    }
    if sum(readers.values()) != 1:
        raise UserError(f"the columns are {', '.join(map(str, row)) or '(none)'}; {LAYOUTS}")
    if readers["document"]:
        return document_facts(row, default_id)
    if readers["sentences"]:
        span = sentence_of(row)
        relation = next((row[k] for k in ("relation", "predicate_id", "pred") if row.get(k)), "")
        document = str(row.get("document") or row.get("uuid") or default_id)
        if span is None:
            return [], Counter(skipped_no_mask=1)
        return [Fact(_identity(row, default_id), *span, str(relation), document)], Counter()
    if readers["spans"]:
        text = field(row, "text")
        start, end = (_place(row, name, is_csv) for name in ("start", "end"))
        if start == end:
            raise UserError(f"empty span: 'start' and 'end' are both {start}")
        if not 0 <= start < end <= len(text):
            raise UserError(
                f"the span {start} to {end} does not lie in the text of {len(text)} characters"
            )
        span = text, start, end
    else:
        span = fill(*(field(row, name) for name in ("template", "subject", "object")))
    identity = _identity(row, default_id)
    relation, document = field(row, "relation", ""), field(row, "document", identity)
    return [Fact(identity, *span, relation, document)], Counter()


def has_sentences(row: Mapping) -> bool:
    """Whether the row holds real sentences with the object masked, as LAMA's do."""
    return any(row.get(name) for name in _SENTENCES)


def is_document(row: Mapping) -> bool:
    """Whether the row is a document with its entities, as T-REx's are."""
    return {"text", "entities"} <= row.keys()


def sentence_of(row: Mapping) -> tuple[str, int, int] | None:
    """The text of a LAMA row, and the object's span in it; None where no sentence has a mask.

    Of several sentences in which the object was found, the first with something before it. The
    object is put back as it stood there (``obj_surface``), or else by its label; each further mask
    is the same object.

    Raises:
      UserError: a field is missing or ill-typed; it names the field.
    """
    found = []
    for holder in _holders(row):
        sentence = holder["masked_sentence"]
        surface = holder.get("obj_surface") or row.get("obj_surface")
        entity = field({"obj_surface": surface}, "obj_surface") if surface else ""
        entity = entity or field(row, "obj_label")
        start = sentence.find(MASK)
        if start >= 0:
            found.append((sentence.replace(MASK, entity), start, start + len(entity)))
    return next((one for one in found if one[0][: one[1]].strip()), next(iter(found), None))


def _holders(row: Mapping) -> Iterable[Mapping]:
    """What holds a masked sentence: the row, or each of its evidences."""
    for name in _SENTENCES[:2]:
        if value := row.get(name):
            # Several are one text, sentence by sentence.
            parts = [value] if isinstance(value, str) else value
            if not isinstance(parts, list) or not all(isinstance(part, str) for part in parts):
                raise UserError(f"field {name!r} must be text or a list of texts, not {value!r}")
            yield {"masked_sentence": " ".join(parts)}
            return
    evidences = row.get("evidences")
    if not isinstance(evidences, list):
        raise UserError(f"field 'evidences' must be a list, not {evidences!r}")
    for number, evidence in enumerate(evidences, 1):
        if not isinstance(evidence, Mapping):
            raise UserError(f"evidence {number} must be an object, not {evidence!r}")
        if "masked_sentence" in evidence:
            field(evidence, "masked_sentence")
            yield evidence


def document_facts(row: Mapping, default_id: str) -> tuple[list[Fact], Counter[str]]:
    """Every entity of a T-REx document, with all of its text before it.

    Left out and counted: pronouns; spans that do not hold the entity's own name (offsets of
    another encoding of the text) or lie outside the text; of spans that begin in one place all but
    the longest.

    Raises:
      UserError: a field is missing or ill-typed; it names the field.
    """
    text = field(row, "text", "")
    # A URI, http://www.wikidata.org/entity/Q42, or a number.
    name = field(row, "docid", field(row, "document", default_id)).rstrip("/").rpartition("/")[2]
    entities = row["entities"]
    if not isinstance(entities, list):
        raise UserError(f"field 'entities' must be a list, not {entities!r}")
    spans: dict[int, int] = {}
    skipped: Counter[str] = Counter()
    for number, entity in enumerate(entities, 1):
        start, end = _boundaries(entity, number)
        if entity.get("annotator") == _PRONOUNS:
            skipped["skipped_pronouns"] += 1
            continue
        surface = entity.get("surfaceform")
        inside = 0 <= start < end <= len(text)
        if not inside or (surface is not None and text[start:end] != surface):
            skipped["skipped_other_text"] += 1
            continue
        skipped["skipped_same_start"] += start in spans
        spans[start] = max(end, spans.get(start, 0))
    skipped["documents_without_entities"] += not entities
    facts = [
        Fact(f"{name}#{start}", text, start, end, document=name)
        for start, end in sorted(spans.items())
    ]
    return facts, +skipped  # those above zero


def _boundaries(entity: Any, number: int) -> tuple[int, int]:
    bounds: Any = entity.get("boundaries") if isinstance(entity, Mapping) else None
    whole = isinstance(bounds, list | tuple) and len(bounds) == 2
    if not whole or not all(type(place) is int for place in bounds):
        raise UserError(
            f"entity {number}: field 'boundaries' must be [start, end] in characters, not "
            f"{bounds!r}"
        )
    return bounds[0], bounds[1]


def field(row: Mapping, name: str, default: str | None = None) -> str:
    """A row's field that must hold text; without a default it must not be blank.

    Raises:
      UserError: it does not.
    """
    value = row.get(name, default)
    numbered = isinstance(value, int) and not isinstance(value, bool)
    if numbered and name in ("id", "document", "docid"):
        value = str(value)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or (default is None and not value.strip()):
        raise UserError(f"field {name!r} must be a non-empty string, not {value!r}")
    return value


def _identity(row: Mapping, default_id: str) -> str:
    return field(row, "id", default_id)


def _place(row: Mapping, name: str, is_csv: bool) -> int:
    value = row[name]
    if is_csv and value.isascii() and value.isdecimal():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"field {name!r} must be an integer, not {value!r}")
    return value
