"""Any predictions files to Scores by state and split: what `config.job = "report"` starts from."""

import contextlib
import dataclasses
import gc
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError
from calib_jax.questions.local import READERS
from calib_jax.reports import parquet, predictions
from calib_jax.reports.ingest import clusters, columns, harness, layout
from calib_jax.reports.ingest.places import Place, Reading, Table, check
from calib_jax.reports.ingest.sources import RESERVED, Source, parse

States = dict[str, dict[str, Scores]]


@dataclasses.dataclass(frozen=True)
class Ingested:
    """All files, read and checked.

    Attributes:
      states: state ("before", "after", a model's name) -> split -> scores. The scores of a split
        are of the same questions in the same order in every state.
      about: file -> what was read as what, for summary.json.
    """

    states: States
    about: dict[str, Any]


def load(text: str, reading: Reading | None = None) -> Ingested:
    """Reads, checks and pairs the files that ``text`` names (see ``sources.parse``).

    A file is parquet, jsonl or csv, or a JSON list of rows: this project's predictions, samples
    logged by lm-evaluation-harness, or a table with probabilities and answers
    (``columns.LAYOUTS``). Of a folder, files that cannot be read, such as the samples of a task
    that generates text, are left out; ``about`` says which and why.

    A state is named by the entry. Files without a name are "measured" together when they hold
    different splits, and each is called by its stem when a split occurs twice. A task that
    lm-evaluation-harness logs subject by subject (mmlu_anatomy, ...) is one split. A split is named
    by the entry, by the column ``split``, by the one task that all rows state, or "all". This
    project's files "<state>-<split>.parquet" name both.

    Raises:
      UserError: a file that is missing, empty, damaged or of another kind; missing or ambiguous
        columns; the first bad row with how many there are: rows that do not sum to 1, negative
        values, NaN, answers outside 0..K-1, masked answers, mixed K, duplicate ids; two files of
        one split with different questions.
    """
    reading = reading or Reading()
    if reading.answer_base not in ("auto", "0", "1"):
        raise UserError(
            f"config.report.answer_base is {reading.answer_base!r}; expected 'auto', '0' or '1'"
        )
    if not 0 <= reading.sum_tolerance < 1:
        raise UserError(
            f"config.report.sum_tolerance is {reading.sum_tolerance}; expected 0 up to below 1"
        )
    layout.parse(reading.columns)
    states: States = {}
    origin: dict[tuple[str, str], str] = {}
    about: dict[str, Any] = {}
    sources, tables = _read(parse(text), reading, about)
    if reading.columns and not any("columns_as_said" in table.about for table in tables):
        raise UserError(
            f"{layout.FIELD} says what columns hold, but {sources[0].path} is "
            f"{tables[0].about['format']}, whose columns are known; leave the field empty"
        )
    unnamed = [
        (split, table.part)
        for source, table in zip(sources, tables, strict=True)
        for state, split in _named(source, table, None)
        if state is None
    ]
    apart = len(set(unnamed)) == len(unnamed)
    parts: set[tuple[str, str, str | None]] = set()
    for source, table in zip(sources, tables, strict=True):
        facts = dict(table.about)
        default = "measured" if apart else source.path.stem
        for (state, split), scores in _named(source, table, default).items():
            whole = states.setdefault(state, {}).get(split)
            taken = {(state, split, table.part), (state, split, None)} & parts
            if whole is not None and (taken or table.part is None):
                raise UserError(
                    f"{source.path} and {origin[state, split]} would both be {state!r} on "
                    f"{split!r}: name them, for example before={origin[state, split]},"
                    f"after={source.path}, or NAME:SPLIT=FILE for other questions"
                )
            if re.search(r"[/\\\x00-\x1f]", state + split):
                raise UserError(f"{source.path}: {state!r}, {split!r}: no name may hold a slash")
            parts.add((state, split, table.part))
            origin.setdefault((state, split), str(source.path))
            states[state][split] = scores if whole is None else _joined(whole, scores)
            facts.setdefault("shown_as", []).append(f"{state}: {split}")
        about[str(source.path)] = facts
    first = [name for name in ("before", "after") if name in states]
    states = {name: states[name] for name in [*first, *states]}
    for split in dict.fromkeys(s for splits in states.values() for s in splits):
        _pair(states, split, origin, about)
    return Ingested(states, about)


def _read(
    sources: list[Source], reading: Reading, about: dict[str, Any]
) -> tuple[list[Source], list[Table]]:
    """The files that can be read; of a folder's, the others are left out and named in ``about``."""
    kept, tables = [], []
    for source in sources:
        try:
            with _without_collection():
                table = read_file(source.path, reading)
        except UserError as error:
            others = [other for other in sources if other.folder == source.folder]
            if source.folder is None or len(others) == 1:
                raise
            about[str(source.path)] = {"left_out": str(error).removeprefix(f"{source.path}: ")}
        else:
            kept.append(source)
            tables.append(table)
    for folder in dict.fromkeys(source.folder for source in sources):
        if folder is not None and not any(source.folder == folder for source in kept):
            inside = [str(source.path) for source in sources if source.folder == folder]
            raise UserError(
                f"{folder}: none of its {len(inside)} files can be read. The first, {inside[0]}: "
                f"{about[inside[0]]['left_out']}"
            )
    return kept, tables


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """No garbage collection: of millions of rows, none in a cycle, it takes half of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _json_list(path: Path) -> list[tuple[int, dict]] | None:
    """The numbered rows of a file that is one JSON list of objects; None where it is none."""
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    if data.lstrip()[:1] != b"[":
        return None
    try:
        rows = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: begins like a JSON list, but is not valid: {error}") from None
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise UserError(f"{path} row {number}: {str(row)[:60]!r} is no JSON object")
    return list(enumerate(rows, 1))


def read_file(path: Path, reading: Reading) -> Table:
    """One file; see ``load``."""
    kind = path.suffix.lower()
    if kind not in (*READERS, ".json"):
        raise UserError(f"{path}: a predictions file must end in {', '.join(READERS)} or .json")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        if kind == ".parquet" and predictions.is_ours(path):
            table = _ours(path, reading)
        else:
            numbered = _json_list(path) if kind in (".jsonl", ".json") else None
            if numbered is None:
                numbered = list(READERS[".jsonl" if kind == ".json" else kind](path))
            if not numbered:
                raise UserError(f"{path}: the file has no rows")
            if harness.is_samples(numbered[0][1]):
                table = harness.read_samples(str(path), numbered, reading)
            else:
                table = columns.read_rows(str(path), numbered, reading, _stored_type(path, kind))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read: {error}") from None
    return dataclasses.replace(table, about={**table.about, "sha256": digest})


def _stored_type(path: Path, kind: str) -> str:
    """The coarsest floating-point type among a parquet file's columns; text holds doubles."""
    if kind != ".parquet":
        return "double"
    types = {str(field.type) for field in parquet.read_schema(path)}
    return "halffloat" if any("halffloat" in t for t in types) else "double"


def _ours(path: Path, reading: Reading) -> Table:
    """A file that ``predictions.write`` made; ragged where its questions are."""
    methods = predictions.methods_of(path)
    if len(methods) > 1 and not reading.method:
        raise UserError(
            f"{path}: holds the methods {', '.join(methods)}: choose one with "
            "--config.report.method=<method>"
        )
    scores = predictions.read(path, reading.method or None)
    scores, in_words = clusters.of_ours(path, scores, reading)
    if not len(scores):
        raise UserError(f"{path}: the file has no rows")
    place = Place(str(path), range(1, len(scores) + 1), scores.ids)
    check(place, scores.probs, scores.answers, scores.mask)
    counts = scores.mask.sum(axis=1)
    about = {
        "rows": len(scores),
        "format": "calib_jax predictions",
        "options": sorted({int(k) for k in counts}),
        "probabilities": f"column 'probs_{scores.method}'",
        "answers": "column 'answer', 0-based index",
        "ids": "column 'id'",
    }
    if in_words:
        about["clusters"] = in_words
    return Table(scores, (None,) * len(scores), about)


def _named(source: Source, table: Table, default: str | None) -> dict[tuple[Any, Any], Scores]:
    """(state, split) -> scores; the state is ``default`` where nothing names it."""
    state, split = source.state, source.split
    ours = table.about.get("format") == "calib_jax predictions"
    if ours and "-" in source.path.stem:
        first, _, rest = source.path.stem.partition("-")
        # A name that was given stands for the state, and the file still names its split.
        state, split = state or first, split or rest
    if state is None:
        state = default
    if state in RESERVED:
        raise UserError(
            f"{source.path}: {state!r} cannot name predictions, because summary.json has a field "
            f"of that name; give another: NAME={source.path}"
        )
    if split is None and any(table.splits):
        names = dict.fromkeys(table.splits)
        return {
            (state, name): table.scores.take([i for i, s in enumerate(table.splits) if s == name])
            for name in names
        }
    if split is None:
        tasks = set(table.scores.tasks)
        split = next(iter(tasks)) if len(tasks) == 1 and None not in tasks else "all"
    return {(state, split): table.scores}


def _pair(
    states: States, split: str, origin: Mapping[tuple[str, str], str], about: dict[str, Any]
) -> None:
    """Brings every state's scores of a split into the first one's order, or refuses."""
    names = [state for state, splits in states.items() if split in splits]
    first = states[names[0]][split]
    for state in names[1:]:
        other, files = states[state][split], (origin[names[0], split], origin[state, split])
        where = {name: i for i, name in enumerate(other.ids)}
        missing = [name for name in first.ids if name not in where]
        added = set(other.ids) - set(first.ids)
        if missing or added:
            unnamed = [f for f in files if "none" in str(about[f].get("ids", ""))]
            hint = f"; {unnamed[0]} has no ids, so its rows are named by number" if unnamed else ""
            example = (
                f"{missing[0]!r} is only in {files[0]}"
                if missing
                else (f"{min(added)!r} is only in {files[1]}")
            )
            raise UserError(
                f"{files[0]} and {files[1]} hold other questions for {split!r}: {len(missing)} ids "
                f"are only in the first, {len(added)} only in the second ({example}{hint}). Give "
                "both the same questions, or name their splits: NAME:SPLIT=FILE"
            )
        if other.ids != first.ids:
            other = other.take([where[name] for name in first.ids])
            about[files[1]]["reordered"] = f"rows brought into the order of {files[0]}"
        if first.classes != other.classes and sorted(first.classes) == sorted(other.classes):
            other = _with_classes(other, first.classes)
            about[files[1]]["classes_reordered"] = f"brought into the order of {files[0]}"
        for what, a, b in (
            ("answer", first.answers, other.answers),
            ("number of options", first.mask.sum(axis=1), other.mask.sum(axis=1)),
            ("choices", _texts(first, other), _texts(other, first)),
        ):
            bad = [i for i in range(len(a)) if a[i] != b[i]]
            if bad:
                raise UserError(
                    f"{files[0]} and {files[1]}: id {first.ids[bad[0]]!r} has another {what} in "
                    f"each ({a[bad[0]]} and {b[bad[0]]}; {len(bad)} such of {len(a)}): the options "
                    "must be the same and in the same order"
                )
        if not other.clusters:
            other = dataclasses.replace(other, clusters=first.clusters)
        if other.clusters != first.clusters:
            raise UserError(
                f"{files[0]} and {files[1]} name other clusters for the questions of {split!r}. "
                "Give both the same column, or set --config.report.clusters=none."
            )
        states[state][split] = other
    width = max(states[name][split].mask.shape[1] for name in names)
    for name in names:
        states[name][split] = _widened(states[name][split], width)


def _with_classes(scores: Scores, classes: tuple[str, ...]) -> Scores:
    """The scores with their classes in another order."""
    order = [scores.classes.index(name) for name in classes]
    return dataclasses.replace(
        scores,
        log_scores=scores.log_scores[:, order],
        probs=scores.probs[:, order],
        mask=scores.mask[:, order],
        answers=np.argsort(order)[scores.answers].astype(np.int32),
        choices=(classes,) * len(scores),
    )


def _texts(scores: Scores, other: Scores) -> tuple:
    """The options' texts, where both files have them."""
    return scores.choices if scores.choices and other.choices else ()


def _joined(first: Scores, second: Scores) -> Scores:
    """The scores of two parts of one split."""
    width = max(first.mask.shape[1], second.mask.shape[1])
    first, second = _widened(first, width), _widened(second, width)
    arrays: dict[str, Any] = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])
        for name in ("log_scores", "probs", "mask", "answers")
    }
    names = {
        name: getattr(first, name) + getattr(second, name)
        for name in ("ids", "tasks", "subjects", "questions", "choices")
    }
    if first.clusters or second.clusters:
        names["clusters"] = tuple(
            name for s in (first, second) for name in s.clusters or [None] * len(s)
        )
    masses = [scores.mass for scores in (first, second) if scores.mass is not None]
    mass = np.concatenate(masses) if len(masses) == 2 else None
    return dataclasses.replace(first, **arrays, **names, mass=mass)


def _widened(scores: Scores, width: int) -> Scores:
    pad = ((0, 0), (0, width - scores.mask.shape[1]))
    return dataclasses.replace(
        scores,
        log_scores=np.pad(scores.log_scores, pad, constant_values=-np.inf),
        probs=np.pad(scores.probs, pad),
        mask=np.pad(scores.mask, pad),
    )
