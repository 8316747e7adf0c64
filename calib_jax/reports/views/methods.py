"""Tables that hold methods, readings and calibrators against one another."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax.reports import catalogue, remarks
from calib_jax.reports import states as of
from calib_jax.reports.catalogue import Metric
from calib_jax.reports.states import States
from calib_jax.reports.tables import Cell, Column, Row, Table, as_csv, figure
from calib_jax.reports.views.splits import here
from calib_jax.reports.words import interval, number, sentence

BEST = (
    "Bold: the best of a column, where its 95% interval overlaps no other method's; where none is "
    "bold, the intervals do not allow to say which is best."
)
# What a calibrator's name ends in where it is a row among methods.
POST_HOC = " (post hoc)"
# Intervals of fewer questions are too short to call one reading better than another.
MIN_BEST = 30
OVERVIEW_NOTE = (
    "Brackets: 95% intervals over questions. cw-ECE: the class-wise error, also known as SCE. SCE "
    "ovr: of one-versus-rest decisions, as some published tables have it; sharpness alone raises "
    "it. mean conf.: mean confidence. mass: mean probability of all options together, before they "
    "are made to sum to 1 (–: of scores that are no probabilities)."
)


def best(rows: Sequence[Mapping[str, Any] | None], metric: Metric) -> int | None:
    """Which row's figure is best beyond doubt: its interval overlaps no other's.

    Args:
      rows: figures; None where a method was not measured on the split.
      metric: with the direction that is better.

    Returns:
      The row's index; None where the intervals do not allow to say, where there is nothing to
      compare, or where neither direction is better.
    """
    known: list[tuple[int, float, Any, Any]] = []
    for i, row in enumerate(rows):
        value = (row or {}).get(metric.key)
        if value is None or not math.isfinite(value):
            continue
        low, high = (row or {}).get(f"{metric.key}_ci") or (None, None)
        known.append((i, metric.direction * value, low, high))
    if len(known) < 2 or not metric.direction:
        return None
    first = max(known, key=lambda item: item[1])
    for other in known:
        if other is first:
            continue
        if None in (*first[2:], *other[2:]):
            return None
        if not (first[3] < other[2] or other[3] < first[2]):
            return None
    return first[0]


def overview(states: States) -> Table:
    """A row per task and reading; with a single state, its reading's name where it is known."""
    chosen = [
        metric
        for metric in catalogue.at(catalogue.OVERVIEW)
        if any(row.get(metric.key) is not None for by in states.values() for row in by.values())
    ]
    rows, bold = [], False
    for split in of.ordered_splits(states):
        found = here(states, split)
        few = min(row["n"] for row in found.values()) < MIN_BEST
        wins = {m.key: None if few else best(list(found.values()), m) for m in chosen}
        for i, (name, row) in enumerate(found.items()):
            label = row.get("method", name) if len(states) == 1 else name
            cells = [figure(row, metric) for metric in chosen]
            for j, metric in enumerate(chosen):
                if wins[metric.key] == i:
                    cells[j], bold = dataclasses.replace(cells[j], verdict="best"), True
            n = Cell(f"{row['n']:,}", value=row["n"])
            rows.append(Row((Cell(split), Cell(label), n, *cells)))
    columns = (
        Column("task", text=True),
        Column("method", text=True),
        Column("n"),
        *(Column(metric.brief, direction=metric.direction) for metric in chosen),
    )
    notes = [sentence(text) for text in remarks.low_mass(_named(states))]
    notes += [OVERVIEW_NOTE, *([BEST] if bold else [])]
    return Table(
        "overview",
        columns,
        tuple(rows),
        "Calibration by task and method",
        tuple(notes),
        sortable=True,
        stacked=True,
    )


def _named(states: States) -> dict[str, Mapping[str, Any]]:
    """ "split, state" -> figures."""
    return {f"{s}, {name}": row for name, rows in states.items() for s, row in rows.items()}


def overview_csv(states: States) -> str:
    """The overview as plain numbers, every figure beside the ends of its interval."""
    chosen = [
        metric.key
        for metric in catalogue.at(catalogue.OVERVIEW)
        if any(row.get(metric.key) is not None for by in states.values() for row in by.values())
    ]
    lines = []
    for split in of.ordered_splits(states):
        for name, row in here(states, split).items():
            label = row.get("method", name) if len(states) == 1 else name
            line = [split, label, row["n"]]
            for key in chosen:
                line += [row.get(key), *(row.get(f"{key}_ci") or (None, None))]
            lines.append(line)
    heads = [name for key in chosen for name in (key, f"{key}_low", f"{key}_high")]
    return as_csv(["task", "method", "n", *heads], lines)


def with_calibrators(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The measured states, then the calibrators, out of fold, under names that say so."""
    found = summary.get("posthoc") or {}
    return {
        **of.states_of(summary),
        **{f"{method}{POST_HOC}": splits for method, splits in found.items()},
    }


def methods(states: States) -> Table:
    """Table 2 of Xiao et al. 2025: a row per method; conf-ECE, cw-ECE, accuracy on each split."""
    columns, cells = [Column("method", text=True)], []
    for metric in catalogue.at(catalogue.METHODS):
        for split in of.ordered_splits(states):
            rows = [by_split.get(split) for by_split in states.values()]
            domain = next((row.get("domain") for row in rows if row), "")
            short = {"in": "ID: ", "out": "OOD: "}.get(domain or "", "")
            columns.append(Column(short + split, metric.brief, metric.direction))
            top = best(rows, metric)
            cells.append(
                [
                    dataclasses.replace(
                        figure(row, metric, digits=4) if row else Cell("–"),
                        interval="",
                        verdict="best" if i == top else "",
                    )
                    for i, row in enumerate(rows)
                ]
            )
    lines = (Row((Cell(name), *(column[i] for column in cells))) for i, name in enumerate(states))
    return Table("methods", tuple(columns), tuple(lines), "Calibration by method", (BEST,))


def methods_csv(table: Table) -> str:
    """The table of methods as CSV: one header line, plain numbers."""
    heads = [f"{column.group} {column.label}".strip() for column in table.columns]
    lines = [["" if c.text == "–" else c.text for c in row.cells] for row in table.rows]
    return as_csv(heads, lines)


def metrics_csv(states: States) -> str:
    """Every figure: a line per state, split and metric, with its interval where it has one."""
    lines = []
    for state, splits in states.items():
        for split, row in splits.items():
            for key, value in row.items():
                if key == "n" or isinstance(value, bool):
                    continue
                if value is not None and not isinstance(value, (int, float)):
                    continue
                ends = row.get(f"{key}_ci") or ("", "")
                lines.append([state, split, row.get("domain"), row.get("n"), key, value, *ends])
    return as_csv(["state", "split", "domain", "n", "metric", "value", "low", "high"], lines)


# --- Calibrators and quantisation -----------------------------------------------------------------


def calibrators(methods: States, states: States) -> list[Table]:
    """Per split what calibrators make of the scores, beneath the scores as they are.

    Args:
      methods: calibrator -> split -> figures, out of fold.
      states: the measured states, shown first.
    """
    found = []
    for split in dict.fromkeys(split for by_split in methods.values() for split in by_split):
        measured, fitted = here(states, split), here(methods, split)
        chosen = [
            metric
            for metric in catalogue.at(catalogue.RESULTS)
            if any(row.get(metric.key) is not None for row in fitted.values()) and not metric.is_p
        ]
        names = [(f"{name}, as measured", "base", row) for name, row in measured.items()]
        names += [(name.replace("_", " "), "", row) for name, row in fitted.items()]
        rows = (
            Row((Cell(name), *(figure(row, metric) for metric in chosen)), kind)
            for name, kind, row in names
        )
        columns = (
            Column("method", text=True),
            *(Column(metric.label, direction=metric.direction) for metric in chosen),
        )
        said = remarks.zero_notes(measured | fitted) + remarks.calibrator_notes(fitted)
        title = f"Calibrators on {split}"
        found.append(
            Table(title, columns, tuple(rows), title, tuple(map(sentence, said)), stacked=True)
        )
    return found


def quantization(splits: Mapping[str, Mapping[str, Any]]) -> Table:
    """What quantised weights change on the same questions: a column per split."""
    shifts = {
        "mean_confidence_shift": "mean shift of the confidence",
        "mean_abs_confidence_shift": "mean size of the shift",
        "max_abs_confidence_shift": "largest size",
    }
    rows = [
        Row((Cell(label), *(Cell(number(row[key])) for row in splits.values())))
        for key, label in shifts.items()
    ]
    agreed = (Cell(f"{row['argmax_agreement']:.1%}") for row in splits.values())
    rows.append(Row((Cell("same prediction"), *agreed)))
    for metric in catalogue.at(catalogue.QUANTIZED):
        cells = [Cell(metric.label)]
        for found in (row[metric.key] for row in splits.values()):
            course = f"{number(found['unquantized'])} → {number(found['quantized'])}"
            cells.append(Cell(course, f"change {interval(found['change_ci'], signed=True)}"))
        rows.append(Row(tuple(cells)))
    note = (
        "The same questions scored with the weights as they are and quantised, before any "
        "training. Shift: of the confidence, quantised less unquantised."
    )
    columns = (Column("", text=True), *map(Column, splits))
    return Table("What quantisation changes", columns, tuple(rows), notes=(note,), stacked=True)
