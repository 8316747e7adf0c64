"""Facts: texts with the span of an entity in them, as LAMA, T-REx and ParaRel hold them.

A single source has rows in one of ``fact_rows.LAYOUTS``; they may have ``id``, ``relation`` and
``document``. It is a .jsonl, .json (a list), .csv or .parquet file, or
``hf:<owner>/<name>[:<config>]:<split>``.

A folder holds, anywhere below it, either T-REx's documents (.json or .jsonl, with ``text`` and
``entities``), or the facts of a relation as <relation>.jsonl with ``obj_label`` (LAMA). A fact's
text is a sentence in which it was found (``masked_sentence``, ``evidences``); or, with
``sub_label``, one of the relation's templates, which are <relation>.jsonl with ``pattern``
(ParaRel) or one file with ``relation`` and ``template`` (LAMA).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from calib_jax.errors import UserError
from calib_jax.provenance import reads_folder
from calib_jax.questions import fact_rows, hub
from calib_jax.questions.fact_rows import Fact, fill
from calib_jax.questions.local import READERS, json_rows

__all__ = ["PATTERNS", "Fact", "fill", "load", "sample_evenly"]

PATTERNS = ("auto", "sentences", "first", "all")
HUB = "hf:"
_READERS = {**READERS, ".json": json_rows}
_IN_FOLDERS = (".jsonl", ".json")
_HOW_TO_GET = (
    "LAMA's facts come with https://dl.fbaipublicfiles.com/LAMA/data.zip: unzip it, and data/TREx "
    "is such a folder. Leave config.lifecycle.facts empty to measure none"
)


def load(path: str | Path, patterns: str = "auto") -> tuple[list[Fact], dict[str, int]]:
    """The facts of a source, in the order of its rows; of a folder, of its relations' names first.

    Args:
      path: see above.
      patterns: what the facts' texts are, in a folder of relations: "sentences" (of each fact the
        first with something before the object), "first", the first template of every relation, or
        "all" of them, and the texts of one fact then have one ``document``; "auto": sentences
        where there are any, else the first template.

    Returns:
      The facts with something before the span, and what was left out:
      ``skipped_no_text_before`` facts whose object comes first, ``skipped_no_template`` facts of
      relations without templates, further reasons as ``fact_rows`` gives them; and ``relations``,
      of how many relations there are facts.

    Raises:
      UserError: nothing is there, or a row is not understood; the message names it.
    """
    if patterns not in PATTERNS:
        raise UserError(
            f"config.lifecycle.patterns is {patterns!r}; choose from: {', '.join(PATTERNS)}."
        )
    if str(path).startswith(HUB):
        parts = hub.parse(str(path).removeprefix(HUB))
        dataset = hub.open_split(*parts, otherwise="without one, give a local file or folder")
        facts, skipped = _from_rows(str(path), enumerate(dataset, 1))
    else:
        path = Path(path).expanduser()
        if not path.exists():
            raise UserError(f"{path}: there is no such file or folder. {_HOW_TO_GET}.")
        if path.is_dir():
            return _kept(path, *_from_folder(path, patterns))
        rows = _rows(path)
        if not rows:
            raise UserError(f"{path}: the file has no rows")
        facts, skipped = _from_rows(str(path), rows, path.suffix.lower() == ".csv")
    _check_patterns(path, patterns)
    return _kept(path, facts, skipped)


def _check_patterns(path: str | Path, patterns: str) -> None:
    if patterns != "auto":
        raise UserError(
            f"config.lifecycle.patterns is {patterns!r}, but {path} holds its facts' own texts; "
            "leave it at 'auto'."
        )


def _kept(
    path: str | Path, facts: Sequence[Fact], skipped: Counter[str]
) -> tuple[list[Fact], dict[str, int]]:
    """The facts with something before their span, and the counts."""
    kept = [fact for fact in facts if fact.has_context]
    if not kept:
        reasons = "".join(f", {n} {key.replace('_', ' ')}" for key, n in sorted(skipped.items()))
        raise UserError(
            f"{path}: no fact has text before its object ({len(facts)} facts read{reasons})"
        )
    return kept, {
        "relations": len({fact.relation for fact in kept}),
        "skipped_no_text_before": len(facts) - len(kept),
        **skipped,
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


def _rows(path: Path) -> list[tuple[int, dict]]:
    if path.suffix.lower() not in _READERS:
        raise UserError(f"{path}: a file of facts must end in {', '.join(_READERS)}")
    try:
        return list(_READERS[path.suffix.lower()](path))
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error}") from error


def _from_rows(
    source: str, rows: Iterable[tuple[int, Mapping]], is_csv: bool = False
) -> tuple[list[Fact], Counter[str]]:
    facts: list[Fact] = []
    skipped: Counter[str] = Counter()
    row_of_id: dict[str, int] = {}
    documents: set[str] = set()
    for number, row in rows:
        where = f"{source} row {number}"
        try:
            found, left_out = fact_rows.facts_of_row(row, f"row-{number}", is_csv)
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        skipped += left_out
        if fact_rows.is_document(row):
            facts += _own_names(found, documents)
            continue
        for fact in found:
            first = row_of_id.setdefault(fact.id, number)
            if first != number:
                raise UserError(f"{where}: id {fact.id!r} appears in row {first} already")
            facts.append(fact)
    return facts, skipped


def _own_names(found: Sequence[Fact], documents: set[str]) -> list[Fact]:
    """A document's facts; one whose name stood before, under a name of its own."""
    if not found:
        return []
    name, times = found[0].document, 1
    while (own := name if times == 1 else f"{name}~{times}") in documents:
        times += 1
    documents.add(own)
    return [replace(fact, id=f"{own}#{fact.start}", document=own) for fact in found]


@dataclass(frozen=True)
class _Related:
    """A fact of a relation: what names its row, its labels, and its sentence with the span."""

    where: str
    labels: Mapping
    has_sentences: bool
    sentence: tuple[str, int, int] | None


@dataclass
class _Folder:
    """What the files of a folder hold: relation -> its facts, and its templates; or documents."""

    related: dict[str, list[_Related]] = field(default_factory=dict)
    templates: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    facts: list[Fact] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    documents: set[str] = field(default_factory=set)

    def add(self, row: Mapping, where: str, stem: str, number: int) -> None:
        """Takes in a row of the file ``stem``; ``where`` names both."""
        if fact_rows.is_document(row):
            found, left_out = fact_rows.document_facts(row, f"{stem}-{number}")
            self.facts += _own_names(found, self.documents)
            self.skipped += left_out
        elif "obj_label" in row and ("sub_label" in row or fact_rows.has_sentences(row)):
            # Of the row no more is kept: LAMA's hold hundreds of megabytes of evidences.
            labels = {name: row.get(name) for name in ("sub_label", "obj_label")}
            has = fact_rows.has_sentences(row)
            sentence = fact_rows.sentence_of(row) if has else None
            self.related.setdefault(stem, []).append(_Related(where, labels, has, sentence))
        elif "pattern" in row:
            pattern = fact_rows.field(row, "pattern")
            self.templates.setdefault(stem, []).append((where, pattern))
        elif {"relation", "template"} <= row.keys():
            name = fact_rows.field(row, "relation")
            template = fact_rows.field(row, "template")
            self.templates.setdefault(name, []).append((where, template))
        else:
            raise UserError(
                f"the columns are {', '.join(map(str, row)) or '(none)'}; in a folder, documents "
                "have text and entities; facts have obj_label, and sub_label or masked_sentence; "
                "templates have pattern, or relation and template. Give a folder that holds these "
                "alone."
            )


def _from_folder(path: Path, patterns: str) -> tuple[list[Fact], Counter[str]]:
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in _IN_FOLDERS)
    for place in sorted({path, *(file.parent for file in files)}):
        reads_folder(place, _IN_FOLDERS)
    if not files:
        raise UserError(
            f"{path}: no .jsonl and no .json file in it; give a folder in T-REx's or LAMA's layout "
            f"or a file. {_HOW_TO_GET}."
        )
    folder = _Folder()
    for file in files:
        for number, row in _rows(file):
            where = f"{file} row {number}"
            try:
                folder.add(row, where, file.stem, number)
            except UserError as error:
                raise UserError(f"{where}: {error}") from None
    if folder.documents and folder.related:
        raise UserError(
            f"{path} holds T-REx's documents and facts of relations; name the folder of one of them"
        )
    if folder.documents:
        _check_patterns(path, patterns)
        return folder.facts, folder.skipped
    if not folder.related:
        raise UserError(f"{path}: no facts (rows with obj_label) and no documents in it")
    if patterns == "auto":
        every = (one for members in folder.related.values() for one in members)
        patterns = "sentences" if any(one.has_sentences for one in every) else "first"
    if patterns == "sentences":
        return _in_sentences(path, folder)
    return _in_templates(path, folder, patterns)


def _in_sentences(path: Path, folder: _Folder) -> tuple[list[Fact], Counter[str]]:
    """Every fact in a sentence that it was found in."""
    facts: list[Fact] = []
    skipped: Counter[str] = Counter()
    for relation, members in sorted(folder.related.items()):
        for number, one in enumerate(members, 1):
            if one.sentence is None:
                skipped["skipped_no_mask" if one.has_sentences else "skipped_no_sentence"] += 1
                continue
            name = f"{relation}-{number}"
            facts.append(Fact(name, *one.sentence, relation=relation, document=name))
    if not facts:
        raise UserError(
            f"{path}: no fact has a sentence with {fact_rows.MASK} (masked_sentence, evidences); "
            "set config.lifecycle.patterns to 'first' or 'all' for templates"
        )
    return facts, skipped


def _in_templates(path: Path, folder: _Folder, patterns: str) -> tuple[list[Fact], Counter[str]]:
    """Every fact in the first or in all of its relation's templates."""
    facts: list[Fact] = []
    without = 0
    for relation, members in sorted(folder.related.items()):
        chosen = folder.templates.get(relation, [])[: 1 if patterns == "first" else None]
        without += len(members) if not chosen else 0
        for number, one in enumerate(members, 1):
            document = f"{relation}-{number}"
            try:
                names = [fact_rows.field(one.labels, name) for name in ("sub_label", "obj_label")]
            except UserError as error:
                raise UserError(f"{one.where}: {error}") from None
            for i, (place, template) in enumerate(chosen, 1):
                identity = document if patterns == "first" else f"{document}-{i}"
                try:
                    filled = fill(template, *names)
                except UserError as error:
                    raise UserError(f"{place}: {error}") from None
                facts.append(Fact(identity, *filled, relation=relation, document=document))
    if not facts:
        raise UserError(
            f"{path}: facts of {', '.join(sorted(folder.related))}, but no template of any of them"
        )
    return facts, Counter(skipped_no_template=without)
