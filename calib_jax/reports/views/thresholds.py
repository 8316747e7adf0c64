"""Tables "If you act above this confidence": what is kept, and what of it is wrong."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calib_jax.metrics import shares, thresholds
from calib_jax.reports import headline
from calib_jax.reports import states as of
from calib_jax.reports.headline import percent
from calib_jax.reports.states import States
from calib_jax.reports.tables import Cell, Column, Row, Table, as_csv
from calib_jax.reports.views.splits import here
from calib_jax.reports.words import UNKNOWN, plural

# Of more states there is a row each, with fewer thresholds; of more splits there is no table.
MAX_BESIDE, MAX_SPLITS = 3, 24
FEWER = (0.5, 0.7, 0.9, 0.95)
_POOLED = ("kept", "errors", "kept_low", "kept_high", "error_low", "error_high")
NOTE = (
    "An answer is acted on where its confidence is at or above the threshold, equal ones included. "
    "Wrong: of those acted on. Brackets: 95% Wilson intervals, "
    "over clusters where there are any."
)


def tables(states: States) -> list[Table]:
    """A table per split, with a pair of columns or a section per state."""
    return [
        table
        for split in of.ordered_splits(states)[:MAX_SPLITS]
        for table in _tables(split, here(states, split))
    ]


def first(states: States) -> list[Table]:
    """The table of the page's first screen: the first split's, or of many splits together."""
    splits = of.ordered_splits(states)
    if len(splits) <= headline.MAX_SPLITS:
        return _tables(splits[0], here(states, splits[0]))
    together: dict[str, dict[str, Any]] = {}
    for state, rows in states.items():
        whole = [row for split, row in rows.items() if not of.is_part(split, rows)]
        if whole and all(row.get("act_above") for row in whole):
            together[state] = _pooled(whole)
    return _tables("all splits together", together)


def as_text(states: States) -> str:
    """Every figure as CSV: a line per split, state and threshold."""
    columns = thresholds.ActAbove._fields
    lines = [
        [split, state, row["n"], *values]
        for split in of.ordered_splits(states)
        for state, row in here(states, split).items()
        if (above := row.get("act_above"))
        for values in zip(*(above[name] for name in columns), strict=True)
    ]
    return as_csv(["split", "state", "n", *columns], lines)


def _pooled(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """n and act_above of several splits' questions together, all at the same thresholds."""
    total = sum(row["n"] for row in rows)
    sets = {key: np.array([row["act_above"][key] for row in rows], float) for key in _POOLED}
    kept, errors = (sets[key].sum(axis=0) for key in ("kept", "errors"))
    found = thresholds.shares(rows[0]["act_above"]["threshold"], kept, errors, total)._asdict()
    cases = np.broadcast_to([[row["n"]] for row in rows], sets["kept"].shape)
    for share, some, count in (("kept", "kept", cases), ("error", "errors", sets["kept"])):
        columns = sets[some], count, sets[f"{share}_low"], sets[f"{share}_high"]
        each = zip(*(column.T for column in columns), strict=True)
        ends = np.array([shares.pooled_interval(*one) for one in each])
        found[f"{share}_low"], found[f"{share}_high"] = ends.T
    return {"n": total, "act_above": {k: v.tolist() for k, v in found.items()}}


def _tables(split: str, rows: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """One table, or none where no state knows of thresholds."""
    known = {state: row for state, row in rows.items() if row.get("act_above")}
    if not known:
        return []
    counts = {row["n"] for row in known.values()}
    asked = f" ({plural(counts.pop(), 'question')})" if len(counts) == 1 else ""
    heads, notes = ("acted on", "wrong"), [NOTE]
    if few := len(known) <= MAX_BESIDE:
        cells = zip(*map(_cells, known.values()), strict=True)
        lines = [Row((limits[0][0], *(c for one in limits for c in one[1:]))) for limits in cells]
        groups = list(known) if len(known) > 1 else [""]
    else:
        found = {state: [c for c in _cells(r) if c[0].value in FEWER] for state, r in known.items()}
        lines = [
            Row((Cell(state), *(c for one in limits for c in one[1:])))
            for state, limits in found.items()
        ]
        groups = [limit[0].text for limit in next(iter(found.values()))]
        if len(groups) < len(next(iter(known.values()))["act_above"]["threshold"]):
            notes.append("tables/thresholds.csv has further thresholds.")
    columns = [Column("", text=True), *(Column(head, group) for group in groups for head in heads)]
    title = f"If you act above this confidence{headline.named(split, ': {}')}{asked}"
    name = f"thresholds {split}"
    return [Table(name, tuple(columns), tuple(lines), title, tuple(notes), stacked=not few)]


def _cells(row: Mapping[str, Any]) -> list[tuple[Cell, Cell, Cell]]:
    """Per threshold: itself, what is acted on, and what of it is wrong."""
    above = row["act_above"]
    ones = [dict(zip(above, values, strict=True)) for values in zip(*above.values(), strict=True)]
    return [
        (
            Cell(f"≥ {100 * one['threshold']:.4g}%", value=one["threshold"]),
            _share(one, "kept", "kept_share", "kept"),
            _share(one, "errors", "error_rate", "error"),
        )
        for one in ones
    ]


def _share(one: Mapping[str, Any], count: str, share: str, ends: str) -> Cell:
    value = one[share]
    if value is None or value != value:
        return Cell(UNKNOWN)
    low, high = (percent(one[f"{ends}_{end}"]) for end in ("low", "high"))
    return Cell(f"{percent(value)} ({one[count]:,.0f})", f"[{low}, {high}]", value=value)
