"""From the rows of any predictions file to Scores: columns recognised by name, nothing guessed."""

import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError
from calib_jax.reports.content import LETTERS
from calib_jax.reports.ingest.places import Place, Reading, Table, check, softmax

PROBS = ("probs", "probabilities")
LOG_SCORES = ("log_scores", "logits", "log_probs", "logprobs")
ANSWERS = ("answer", "label", "gold", "target", "y_true")
IDS = ("id", "question_id", "doc_id")
OPTIONAL = ("subject", "task", "split", "question", "choices")
# prob_0 .. prob_3, p_A .. p_D: a column per option.
_WIDE = (
    (re.compile(r"(p|prob|probs|proba|probability)_(\d+|[A-Za-z])"), "probs"),
    (re.compile(r"(logit|logits|log_prob|logprob|log_score|log_scores)_(\d+|[A-Za-z])"), "scores"),
)
LAYOUTS = (
    "a row needs 'probs' or 'probs_<method>' (a list), or a column per option (prob_0, prob_1, ... "
    "or p_A, p_B, ...), or 'log_scores' or 'logits' (lists); and 'answer' (an index or a letter)"
)


def read_rows(
    path: str, numbered: Sequence[tuple[int, Mapping]], reading: Reading, dtype: str = "float64"
) -> Table:
    """Reads rows of a table.

    Args:
      path: how messages call the file.
      numbered: (row number from 1, column name -> value), N >= 1 of them.
      reading: the user's choices.
      dtype: the floating-point type that the file stores; sets the tolerance of a row's sum.

    Raises:
      UserError: see ``ingest.load``.
    """
    numbers, rows = zip(*numbered, strict=True)
    columns = list(dict.fromkeys(name for row in rows for name in row))
    ids, id_text, id_column = _ids(path, numbers, rows, columns)
    splits = _texts(path, numbers, rows, "split")
    # An id may come back in another split.
    names = ids if splits is None else [f"{s}/{i}" for s, i in zip(splits, ids, strict=True)]
    place = Place(path, numbers, names)

    kind, text, used, values, method = _option_values(place, rows, columns, reading)
    counts = np.array([len(row) for row in values])
    usual = int(np.bincount(counts).argmax())
    if not reading.ragged:
        place.refuse(
            np.flatnonzero(counts != usual),
            lambda i: f"has {counts[i]} options where most have {usual}",
            "mixed numbers of options are read with --config.report.ragged=True",
        )
    K = int(counts.max())
    mask = np.arange(K) < counts[:, None]
    dense = np.full(mask.shape, 0.0)
    dense[mask] = [x for row in values for x in row]
    about: dict[str, Any] = {"rows": len(rows), "options": _span(counts), "probabilities": text}
    if kind == "scores":
        log_scores = np.where(mask, dense, -np.inf)
        probs = softmax(place, log_scores, mask)
        about["probabilities"] = f"softmax of {text}"
    else:
        probs, log_scores = dense, None
    answers, answer_text, answer_column = _answers(place, rows, columns, counts, reading)
    tolerance = reading.sum_tolerance or (2e-3 if dtype == "halffloat" else None)
    check(place, probs, answers, mask, tolerance)
    given = probs
    if tolerance:
        off = np.abs(probs.sum(axis=1) - 1) > 1e-6
        probs = np.where(off[:, None], probs / probs.sum(axis=1, keepdims=True), probs)
        about["rows_divided_by_their_sum"] = int(off.sum())
    if log_scores is None:
        log_scores, also = _given_log_scores(place, rows, columns, used, mask, probs, given)
        used |= also

    texts = {name: _texts(path, numbers, rows, name) for name in ("subject", "task", "question")}
    choices = _choices(place, rows, counts) if "choices" in columns else None
    found = {k: v for k, v in (*texts.items(), ("choices", choices), ("split", splits)) if v}
    about |= {"answers": answer_text, "ids": id_text, "also_read": sorted(found)}
    used |= {answer_column, id_column, *found}
    about["columns_not_used"] = sorted(str(name) for name in columns if name not in used)
    scores = Scores(
        log_scores=log_scores.astype(np.float32),
        probs=np.where(mask, probs, 0).astype(np.float32),
        mask=mask,
        answers=answers.astype(np.int32),
        ids=tuple(ids),
        tasks=tuple(texts["task"] or [None] * len(rows)),
        subjects=tuple(texts["subject"] or [None] * len(rows)),
        method=method,
        questions=tuple(text or "" for text in texts["question"] or ()),
        choices=choices or (),
    )
    return Table(scores, tuple(splits or [None] * len(rows)), about)


def _span(counts: np.ndarray) -> int | list[int]:
    low, high = int(counts.min()), int(counts.max())
    return low if low == high else [low, high]


def _one_of(path: str, columns: list[str], names: Sequence[str], role: str) -> str:
    """The one column of ``names``; refused where there is none or more than one."""
    present = [name for name in names if name in columns]
    if len(present) > 1:
        raise UserError(
            f"{path}: the {role} stands in {' and '.join(present)}: keep one of these columns"
        )
    if not present:
        if len(columns) == 1 and (found := re.search(r"[;\t|]", str(columns[0]))):
            raise UserError(
                f"{path}: the header {str(columns[0])[:60]!r} is a single column; separate the "
                f"columns by commas, not by {found[0]!r}"
            )
        near = [
            f"should {str(column)!r} be called {match[0]!r}?"
            for column in columns
            if (match := difflib.get_close_matches(str(column).lower(), names, 1, 0.7))
        ]
        raise UserError(
            f"{path}: no column with the {role} among {', '.join(map(str, columns))}; "
            + (" ".join(near) or LAYOUTS)
        )
    return present[0]


def _ids(path, numbers, rows, columns) -> tuple[list[str], str, str | None]:
    present = [name for name in IDS if name in columns]
    if not present:
        return [f"row-{n}" for n in numbers], "none: rows are named by their number", None
    column = present[0]
    ids = []
    for number, row in zip(numbers, rows, strict=True):
        value = row.get(column)
        if isinstance(value, bool) or not isinstance(value, (int, str)) or str(value).strip() == "":
            raise UserError(f"{path} row {number}: column {column!r} holds {value!r}, not an id")
        ids.append(str(value))
    return ids, f"column {column!r}", column


def _texts(path, numbers, rows, column: str) -> list[str | None] | None:
    """A text column; empty cells are None; None where no row has any."""
    values = []
    for number, row in zip(numbers, rows, strict=True):
        value = row.get(column)
        value = None if value == "" else value
        if isinstance(value, int) and not isinstance(value, bool) and column != "question":
            value = str(value)
        if value is not None and not isinstance(value, str):
            raise UserError(f"{path} row {number}: column {column!r} holds {value!r}, not text")
        values.append(value)
    if column == "split" and None in values and any(values):
        number = numbers[values.index(None)]
        raise UserError(f"{path} row {number}: column 'split' is empty, and other rows name theirs")
    return values if any(values) else None


def _choices(place: Place, rows, counts) -> tuple[tuple[str, ...], ...] | None:
    result = []
    for i, row in enumerate(rows):
        value = row.get("choices")
        if isinstance(value, str) and value:
            value = _json(place, i, "choices", value)
        value = [] if value in (None, "") else value
        if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
            raise UserError(f"{place.row(i)}: column 'choices' must hold a list of strings")
        if value and len(value) != counts[i]:
            raise UserError(
                f"{place.row(i)}: {len(value)} choices stand beside {counts[i]} probabilities"
            )
        result.append(tuple(value))
    return tuple(result) if any(result) else None


def _json(place: Place, i: int, column: str, text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise UserError(
            f"{place.row(i)}: column {column!r} is not a JSON list: {text[:60]!r}"
        ) from None


def _number(place: Place, i: int, column: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise UserError(
            f"{place.row(i)}: column {column!r} holds {value!r}, not a number"
        ) from None


def _groups(columns: list[str]) -> dict[str, list[tuple[str, str, list[str]]]]:
    """What holds option values: kind ("probs", "scores") -> (method, spelling, columns)."""
    found: dict[str, list] = {"probs": [], "scores": []}
    wide: dict[tuple[str, str], dict[str, str]] = {}
    for column in columns:
        for pattern, kind in _WIDE:
            if match := pattern.fullmatch(str(column)):
                wide.setdefault((kind, match[1]), {})[match[2].upper()] = column
    # One column alone, such as probs_x, is a list of the method "x".
    wide = {key: group for key, group in wide.items() if len(group) > 1}
    taken = {column for group in wide.values() for column in group.values()}
    for names, kind in ((PROBS, "probs"), (LOG_SCORES, "scores")):
        for column in columns:
            if column in taken:
                continue
            if column in names:
                found[kind].append(("", f"column {column!r}", [column]))
            elif str(column).startswith(("probs_",) if kind == "probs" else ("log_scores_",)):
                method = str(column).removeprefix("probs_").removeprefix("log_scores_")
                found[kind].append((method, f"column {column!r}", [column]))
    for (kind, prefix), group in wide.items():
        ends = list(group)
        numeric = all(end.isdigit() for end in ends)
        ends.sort(key=int if numeric else str)
        start = int(ends[0]) if numeric else 0
        expected = (
            [str(start + k) for k in range(len(ends))] if numeric else list(LETTERS[: len(ends)])
        )
        if [str(int(end)) if numeric else end for end in ends] != expected or start > 1:
            names = ", ".join(group[end] for end in ends)
            raise UserError(
                f"the columns {names} are not one per option: expected {prefix}_0, {prefix}_1, ... "
                f"or {prefix}_A, {prefix}_B, ... without a gap"
            )
        ordered = [group[end] for end in ends]
        found[kind].append(("", f"columns {ordered[0]} to {ordered[-1]}", ordered))
    return found


def _option_values(place: Place, rows, columns, reading: Reading):
    """(kind, spelling, columns used, values of each row, method)."""
    try:
        found = _groups(columns)
    except UserError as error:
        raise UserError(f"{place.path}: {error}") from None
    kind = "probs" if found["probs"] else "scores"
    groups = found[kind]
    if not groups:
        _one_of(place.path, columns, (*PROBS, *LOG_SCORES), "probabilities")
    if reading.method:
        chosen = [g for g in groups if g[0] == reading.method]
        if not chosen:
            known = ", ".join(sorted(g[0] for g in groups if g[0])) or "none"
            raise UserError(
                f"{place.path}: no column probs_{reading.method} (config.report.method); the "
                f"methods are: {known}"
            )
        groups = chosen
    if len(groups) > 1:
        raise UserError(
            f"{place.path}: probabilities stand in {' and in '.join(g[1] for g in groups)}: choose "
            "one probs_<method> with --config.report.method=<method>, or keep one of them"
        )
    method, text, used = groups[0]
    values = [_row_values(place, i, row, used) for i, row in enumerate(rows)]
    return kind, text, set(used), values, method or "given"


def _row_values(place: Place, i: int, row: Mapping, used: list[str]) -> list[float]:
    """The option values of a row, from a list or from a column per option."""
    if len(used) == 1:
        value = row.get(used[0])
        if isinstance(value, str) and value:
            value = _json(place, i, used[0], value)
        if not isinstance(value, list) or not value:
            raise UserError(f"{place.row(i)}: column {used[0]!r} holds {value!r}, not a list")
        return [_number(place, i, used[0], v) for v in value]
    values = [row.get(name) for name in used]
    while values and values[-1] in (None, ""):
        values.pop()
    if not values:
        raise UserError(f"{place.row(i)}: the columns {used[0]} to {used[-1]} are empty")
    return [_number(place, i, name, v) for name, v in zip(used, values, strict=False)]


def _given_log_scores(place: Place, rows, columns, used, mask, probs, given_probs):
    """Log-scores that stand beside the probabilities, checked against them; else ln p.

    ln of the probabilities as the file gives them, before they are divided by their sums: so it can
    be seen what they were rounded to.
    """
    probs_column = next(iter(used)) if len(used) == 1 else ""
    method = probs_column.removeprefix("probs_") if probs_column.startswith("probs_") else ""
    groups = [g for g in _groups(columns)["scores"] if g[0] == method]
    with np.errstate(divide="ignore"):
        derived = np.where(mask, np.log(np.where(mask, given_probs, 1).clip(0)), -np.inf)
    if len(groups) != 1:
        return derived, set()
    values = [_row_values(place, i, row, groups[0][2]) for i, row in enumerate(rows)]
    place.refuse(
        [i for i, row in enumerate(values) if len(row) != mask[i].sum()],
        lambda i: f"has {mask[i].sum()} probabilities and {len(values[i])} in {groups[0][1]}",
        "keep one of the two, or give both for every option",
    )
    given = np.full(mask.shape, -np.inf)
    given[mask] = [x for row in values for x in row]
    gap = np.abs(softmax(place, given, mask) - probs).max(axis=1)
    place.refuse(
        np.flatnonzero(gap > 1e-3),
        lambda i: f"has probabilities {gap[i]:.3g} away from the softmax of {groups[0][1]}",
        "keep the one that is meant",
    )
    return given, set(groups[0][2])


def _answers(place: Place, rows, columns, counts, reading: Reading):
    """(answers [N] 0-based, how they were read, their column)."""
    column = _one_of(place.path, columns, ANSWERS, "answer")
    raw = [row.get(column) for row in rows]
    letters = [isinstance(v, str) and len(v.strip()) == 1 and v.strip().isalpha() for v in raw]
    if all(letters):
        answers = np.array([ord(v.strip().upper()) - ord("A") for v in raw])
        place.refuse(
            np.flatnonzero((answers < 0) | (answers >= counts)),
            lambda i: f"has answer {raw[i]!r} and {counts[i]} options",
            "the answer must be one of the row's options",
        )
        return answers, f"column {column!r}, letters", column
    numbers = [_whole(value) for value in raw]
    place.refuse(
        [i for i, n in enumerate(numbers) if n is None],
        lambda i: f"has answer {raw[i]!r} in column {column!r}",
        "answers are 0-based indices of the options, or letters in every row",
    )
    answers = np.array(numbers)
    base = reading.answer_base
    if base == "auto":
        if (answers == 0).any() or (answers < 0).any():
            base, why = "0", "0-based index (0 occurs)"
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
    return shifted, f"column {column!r}, {why}", column


def _whole(value: Any) -> int | None:
    """An integer, also as 2.0 (pandas writes it where a column once had gaps) or as text."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if math.isfinite(number) and number == int(number) else None
