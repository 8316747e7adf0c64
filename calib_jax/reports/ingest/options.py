"""Where a table holds its options' probabilities or log-scores, and what the options are called."""

import dataclasses
import itertools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calib_jax.errors import UserError
from calib_jax.reports.ingest import layout
from calib_jax.reports.ingest.places import Place, Reading, softmax
from calib_jax.reports.words import LETTERS

_SHORT = re.compile(r"\d+|[A-Za-z]")
# How far from 1 the sum of columns may be that only their numbers show to be probabilities.
_CLOSE = 0.02


@dataclasses.dataclass(frozen=True)
class Options:
    """The option values of N rows.

    Attributes:
      kind: "probs" or "scores".
      text: how messages call where they stand.
      columns: that hold them.
      values: N rows of numbers.
      names: of each row's options, where the file names them.
      method: of probs_<method>.
      sorted_from: the first row, 0-based, that states the options of the first row in another
        order, so that they stand by the alphabet; None where the rows agree.
    """

    kind: str
    text: str
    columns: tuple[str, ...]
    values: list[list[float]]
    names: tuple[tuple[str, ...], ...] | None
    method: str
    sorted_from: int | None = None


@dataclasses.dataclass(frozen=True)
class _Group:
    """Columns that hold the options together; `names` are theirs where each holds one's."""

    method: str
    text: str
    columns: tuple[str, ...]
    names: tuple[str, ...] | None = None


def _is_plain(rows: Sequence[Mapping], column: str) -> bool:
    """Whether a column holds single values: no lists, no objects, no JSON of these."""
    filled = (row[column] for row in rows if row.get(column) not in (None, ""))
    value = next(filled, None)
    starts = isinstance(value, str) and value.lstrip()[:1] in ("[", "{")
    return not starts and not isinstance(value, (list, Mapping))


def _groups(rows: Sequence[Mapping], columns: list[str]) -> dict[str, list[_Group]]:
    """What holds option values, by kind ("probs", "scores")."""
    found: dict[str, list[_Group]] = {"probs": [], "scores": []}
    wide: dict[tuple[str, str], dict[str, str]] = {}
    for column in columns:
        for pattern, kind in layout.WIDE:
            match = pattern.fullmatch(str(column))
            if match and _is_plain(rows, column):
                wide.setdefault((kind, match[1]), {})[match[2]] = column
    groups = [(kind, prefix, *_ordered(prefix, ends)) for (kind, prefix), ends in wide.items()]
    # One column alone, such as probs_x, is of the method "x".
    groups = [group for group in groups if len(group[2]) > 1]
    taken = {column for *_, ordered, _ in groups for column in ordered}
    for names, kind in ((layout.PROBS, "probs"), (layout.LOG_SCORES, "scores")):
        for column in columns:
            if column in taken:
                continue
            if column in names:
                found[kind].append(_Group("", f"column {column!r}", (column,)))
            elif str(column).startswith(("probs_",) if kind == "probs" else ("log_scores_",)):
                method = str(column).removeprefix("probs_").removeprefix("log_scores_")
                found[kind].append(_Group(method, f"column {column!r}", (column,)))
    for kind, _, ordered, ends in sorted(groups, key=lambda group: group[3] is not None):
        # p_value and p_adjusted beside the column probs are no options.
        if ends is None or not any(group.names is None for group in found[kind]):
            text = f"columns {ordered[0]} to {ordered[-1]}"
            found[kind].append(_Group("", text, tuple(ordered), ends))
    return found


def _ordered(prefix: str, group: Mapping[str, str]) -> tuple[list[str], tuple[str, ...] | None]:
    """The columns of the endings 0, 1, ... or A, B, ... in order, without names; else as named.

    Raises:
      UserError: numbers or letters with a gap.
    """
    short = {end.upper(): column for end, column in group.items() if _SHORT.fullmatch(end)}
    if len(short) < 2:
        return list(group.values()), tuple(group)
    ends = list(short)
    numeric = all(end.isdigit() for end in ends)
    ends.sort(key=int if numeric else str)
    start = int(ends[0]) if numeric else 0
    expected = [str(start + k) for k in range(len(ends))] if numeric else list(LETTERS[: len(ends)])
    if [str(int(end)) if numeric else end for end in ends] != expected or start > 1:
        names = ", ".join(short[end] for end in ends)
        raise UserError(
            f"the columns {names} are not one per option: expected {prefix}_0, {prefix}_1, ... "
            f"or {prefix}_A, {prefix}_B, ... without a gap"
        )
    return [short[end] for end in ends], None


def options_of(place: Place, rows, columns, reading: Reading) -> Options:
    try:
        found = _groups(rows, columns)
    except UserError as error:
        raise UserError(f"{place.path}: {error}") from None
    kind = "probs" if found["probs"] else "scores"
    groups = found[kind]
    if not groups and (named := _named_columns(place, rows, columns)):
        kind, groups = "probs", [named]
    if not groups:
        layout.one_of(place.path, columns, (*layout.PROBS, *layout.LOG_SCORES), "probabilities")
    if reading.method:
        chosen = [g for g in groups if g.method == reading.method]
        if not chosen:
            known = ", ".join(sorted(g.method for g in groups if g.method)) or "none"
            raise UserError(
                f"{place.path}: no column probs_{reading.method} (config.report.method); the "
                f"methods are: {known}"
            )
        groups = chosen
    if len(groups) > 1:
        raise UserError(
            f"{place.path}: probabilities appear in {' and in '.join(g.text for g in groups)}: "
            "choose one probs_<method> with --config.report.method=<method>, or keep one of them"
        )
    group = groups[0]
    values, names, sorted_from = _values_of(place, rows, group)
    if reading.ordered:
        order = names if sorted_from is None else tuple(map(tuple, _cells(place, rows, group)))
        check_order(place, order, group.text)
    method = group.method or "given"
    return Options(kind, group.text, group.columns, values, names, method, sorted_from)


def check_order(place: Place, names: Sequence[Sequence[str]] | None, where: str) -> None:
    """Refuses options of a scale (``config.report.ordered``) whose order is not one.

    Args:
      place: names rows.
      names: of each row's options, in the order that the row states; None where they have none.
      where: how messages call where they stand.

    Raises:
      UserError: two rows state the same options in different orders.
    """
    first: dict[frozenset[str], tuple[int, Sequence[str]]] = {}
    for i, of in enumerate(names or ()):
        row, order = first.setdefault(frozenset(of), (i, of))
        if list(order) != list(of):
            raise UserError(
                f"{place.row(i)}: {where} has the options {', '.join(map(repr, of))}, and row "
                f"{place.numbers[row]} the same as {', '.join(map(repr, order))}: "
                "--config.report.ordered=True needs them in one order, lowest first. Write every "
                "row in that order"
            )


def _named_columns(place: Place, rows, columns) -> _Group | None:
    """Columns that the answers name, and those that sum to 1 with them: the options' names alone.

    Raises:
      UserError: neither these nor all columns of numbers from 0 to 1 sum to 1 in every row.
    """
    present = [name for name in layout.ANSWERS if name in columns]
    known = {*layout.IDS, *layout.ANSWERS, *layout.OPTIONAL}
    numbers = {}
    for name in columns:
        values = [as_number(row.get(name)) for row in rows] if name not in known else [None]
        if None not in values:
            numbers[name] = np.array(values)
    if len(present) != 1 or len(numbers) < 2:
        return None
    answers = {str(row.get(present[0])).strip() for row in rows}
    named = tuple(name for name in numbers if name in answers)
    if len(named) < len(answers):
        return None
    shares = tuple(n for n, v in numbers.items() if ((v >= -_CLOSE) & (v <= 1 + _CLOSE)).all())
    for names in (named, shares):
        sums = np.sum([numbers[name] for name in names], axis=0)
        if len(names) > 1 and (np.abs(sums - 1) <= _CLOSE).all():
            return _Group("", f"columns {', '.join(names)}", names, names)
    sums = np.sum([numbers[name] for name in named], axis=0)
    place.refuse(
        np.flatnonzero(np.abs(sums - 1) > _CLOSE) if len(named) > 1 else [0],
        lambda i: (
            f"has the numbers {', '.join(f'{numbers[n][i]:.6g}' for n in named)} in the columns "
            f"{', '.join(named)}, which the answers name, and they do not sum to 1"
        ),
        f"say which columns hold the options: --{layout.FIELD}={','.join(numbers)}, or, of scores "
        f"before a softmax, --{layout.FIELD}={','.join(f'log_scores={name}' for name in numbers)}",
    )
    return None


def as_number(value: Any) -> float | None:
    """A cell as a number; None for one that is none."""
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _cells(place: Place, rows, group: _Group) -> list[Any]:
    """The lists, or the objects, of the one column of a group."""
    column = group.columns[0]
    return [_cell(place, i, column, row.get(column)) for i, row in enumerate(rows)]


def _values_of(place: Place, rows, group: _Group) -> tuple[Any, Any, int | None]:
    """(option values of every row, their names where there are any, ``Options.sorted_from``)."""
    if len(group.columns) > 1:
        values = [_from_columns(place, i, row, group.columns) for i, row in enumerate(rows)]
        return values, group.names and tuple(group.names[: len(row)] for row in values), None
    column, cells = group.columns[0], _cells(place, rows, group)
    place.refuse(
        [i for i, cell in enumerate(cells) if type(cell) is not type(cells[0])],
        lambda i: f"holds {str(cells[i])[:60]!r} in column {column!r}, other than the first row",
        "write a list in every row, or {name: value} in every row",
    )
    if isinstance(cells[0], list):
        if set(map(type, itertools.chain.from_iterable(cells))) == {float}:
            return cells, None, None
        lists = [[_number(place, i, column, v) for v in cell] for i, cell in enumerate(cells)]
        return lists, None, None
    first = sorted(cells[0], key=int) if all(map(str.isdecimal, cells[0])) else list(cells[0])
    letters = list(LETTERS[: len(first)])
    sorted_from = None
    if sorted(first) == letters:
        first = letters
    elif not all(map(str.isdecimal, first)):
        same = (i for i, cell in enumerate(cells) if cell.keys() == cells[0].keys())
        sorted_from = next((i for i in same if list(cells[i]) != first), None)
        if sorted_from is not None:
            first.sort()  # Each row may be in the order of its probabilities.
    orders = [first if cell.keys() == set(first) else list(cell) for cell in cells]
    values = [
        [_number(place, i, column, cell[name]) for name in order]
        for i, (cell, order) in enumerate(zip(cells, orders, strict=True))
    ]
    lettered = all(order == letters for order in orders)
    return values, None if lettered else tuple(map(tuple, orders)), sorted_from


def _cell(place: Place, i: int, column: str, value: Any) -> list | dict[str, Any]:
    """A list, or an object without the empty values that a parquet file fills it up with."""
    if isinstance(value, str) and value:
        value = layout.json_of(place, i, column, value)
    if isinstance(value, Mapping):
        value = {str(name): v for name, v in value.items() if v is not None}
    if not isinstance(value, (list, dict)) or not value:
        raise UserError(f"{place.row(i)}: column {column!r} holds {value!r}, not a list")
    return value


def _from_columns(place: Place, i: int, row: Mapping, used: Sequence[str]) -> list[float]:
    """The values of a column per option; those of the last options may be missing."""
    values = [row.get(name) for name in used]
    while values and values[-1] in (None, ""):
        values.pop()
    if not values:
        raise UserError(f"{place.row(i)}: the columns {used[0]} to {used[-1]} are empty")
    return [_number(place, i, name, v) for name, v in zip(used, values, strict=False)]


def given_log_scores(place: Place, rows, columns, options: Options, mask, probs, given_probs):
    """Log-scores that are given beside the probabilities, checked against them; else ln p.

    ln of the probabilities as the file gives them, before they are divided by their sums: so it can
    be seen what they were rounded to.
    """
    method = "" if options.method == "given" else options.method
    groups = [g for g in _groups(rows, columns)["scores"] if g.method == method]
    with np.errstate(divide="ignore"):
        derived = np.where(mask, np.log(np.where(mask, given_probs, 1).clip(0)), -np.inf)
    if len(groups) != 1:
        return derived, set()
    values, names, _ = _values_of(place, rows, groups[0])
    place.refuse(
        [
            i
            for i, row in enumerate(values)
            if len(row) != mask[i].sum() or (names and options.names and names != options.names)
        ],
        lambda i: (
            f"has {mask[i].sum()} probabilities and {len(values[i])} in {groups[0].text}, or of "
            "other names"
        ),
        "keep one of the two, or give both for every option",
    )
    given = np.full(mask.shape, -np.inf)
    given[mask] = [x for row in values for x in row]
    gap = np.abs(softmax(place, given, mask) - probs).max(axis=1)
    place.refuse(
        np.flatnonzero(gap > 1e-3),
        lambda i: f"has probabilities {gap[i]:.3g} away from the softmax of {groups[0].text}",
        "keep the one that is meant",
    )
    return given, set(groups[0].columns)


def _number(place: Place, i: int, column: str, value: Any) -> float:
    try:
        if isinstance(value, bool):
            raise ValueError
        return float(value)
    except (TypeError, ValueError):
        raise UserError(
            f"{place.row(i)}: column {column!r} holds {value!r}, not a number"
        ) from None
