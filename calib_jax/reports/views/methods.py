"""Tables that hold methods, readings and calibrators against one another."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from calib_jax.reports import best, catalogue, remarks
from calib_jax.reports import states as of
from calib_jax.reports.best import Sets
from calib_jax.reports.catalogue import Metric
from calib_jax.reports.states import States
from calib_jax.reports.tables import Cell, Column, Row, Table, as_csv, figure
from calib_jax.reports.views.splits import here
from calib_jax.reports.words import interval, number, sentence

# What a calibrator's name ends in where it is a row among methods.
POST_HOC = " (post hoc)"
OVERVIEW_NOTE = (
    "Brackets: 95% intervals over questions. cw-ECE: the class-wise error, also known as SCE. SCE "
    "ovr: of one-versus-rest decisions, as some published tables have it; sharpness alone raises "
    "it. mean conf.: mean confidence. mass: mean probability of all options together, before they "
    "are made to sum to 1 (–: of scores that are no probabilities)."
)


def overview(states: States, sets: Sets | None = None) -> Table:
    """A row per task and reading; with a single state, its reading's name where it is known.

    Args:
      states: models or readings.
      sets: which of them may be the best, by ``best.sets``; None where that is not known.
    """
    chosen = [
        metric
        for metric in catalogue.at(catalogue.OVERVIEW)
        if any(row.get(metric.key) is not None for by in states.values() for row in by.values())
    ]
    rows, bold = [], False
    for split in of.ordered_splits(states):
        found = here(states, split)
        for name, row in found.items():
            label = row.get("method", name) if len(states) == 1 else name
            cells = [figure(row, metric) for metric in chosen]
            for j, metric in enumerate(chosen):
                if _is_bold(sets, split, metric, name):
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
    notes += [OVERVIEW_NOTE, *([best.NOTE] if bold else [])]
    return Table(
        "overview",
        columns,
        tuple(rows),
        "Calibration by task and method",
        tuple(notes),
        sortable=True,
        stacked=True,
    )


def _is_bold(sets: Sets | None, split: str, metric: Metric, name: str) -> bool:
    return best.is_bold((sets or {}).get(split, {}).get(metric.key, {}).get(name))


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


def methods(states: States, sets: Sets | None = None) -> Table:
    """Table 2 of Xiao et al. 2025: a row per method; conf-ECE, cw-ECE, accuracy on each split.

    Args:
      states: those of ``with_calibrators``.
      sets: which of them may be the best, by ``best.sets``; None where that is not known.
    """
    columns, cells = [Column("method", text=True)], []
    for metric in catalogue.at(catalogue.METHODS):
        for split in of.ordered_splits(states):
            rows = [by_split.get(split) for by_split in states.values()]
            domain = next((row.get("domain") for row in rows if row), "")
            short = {"in": "ID: ", "out": "OOD: "}.get(domain or "", "")
            columns.append(Column(short + split, metric.brief, metric.direction))
            cells.append(
                [
                    dataclasses.replace(
                        figure(row, metric, digits=4) if row else Cell("–"),
                        interval="",
                        verdict="best" if _is_bold(sets, split, metric, name) else "",
                    )
                    for name, row in zip(states, rows, strict=True)
                ]
            )
    lines = (Row((Cell(name), *(column[i] for column in cells))) for i, name in enumerate(states))
    notes = (best.NOTE,) if sets else ()
    return Table("methods", tuple(columns), tuple(lines), "Calibration by method", notes)


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
            if any(row.get(metric.key) is not None for row in fitted.values())
            and not metric.is_p
            and metric.key not in ("variational_over", "variational_under")
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
        said += remarks.fitted_notes(fitted)
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
