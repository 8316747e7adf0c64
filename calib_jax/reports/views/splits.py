"""Tables of measured splits: results, subjects, classes, bins, the course of a training."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.reports import catalogue, remarks
from calib_jax.reports import states as of
from calib_jax.reports.figures.bins import Bins, bins_of
from calib_jax.reports.states import States
from calib_jax.reports.tables import Cell, Column, Row, Table, figure, transposed
from calib_jax.reports.words import DOMAINS, cut, interval, number, plural, sentence, share

# A split with more subjects than this shows those with the most questions.
MAX_SUBJECTS = 300
# The page's reader can sort; that many splits have a table of bins.
MAX_BIN_SPLITS = 24


def here(states: States, split: str) -> dict[str, Mapping[str, Any]]:
    return {name: by_split[split] for name, by_split in states.items() if split in by_split}


# --- Results --------------------------------------------------------------------------------------


def results(states: States, changes: Mapping[str, Any] | None = None) -> list[Table]:
    """A table per split, in-domain first: a row per metric, a column per state and the change.

    Args:
      states: state -> split -> figures.
      changes: split -> paired differences, shown as a last column.
    """
    return [
        result(split, here(states, split), (changes or {}).get(split))
        for split in of.ordered_splits(states)
    ]


def result(
    split: str, rows: Mapping[str, Mapping[str, Any]], change: Mapping[str, Any] | None = None
) -> Table:
    """The table of one split: state -> figures, and the paired differences."""
    first = next(iter(rows.values()))
    about = [DOMAINS.get(first.get("domain", ""), ""), remarks.size(first)]
    notes = [*remarks.clustered(first), remarks.uniform(first), remarks.gold(first)]
    notes += [said] if (said := remarks.sample_size(first)) else []
    notes += remarks.zero_notes(rows) + remarks.low_mass(rows)
    table = transposed(
        split,
        rows,
        catalogue.at(catalogue.RESULTS),
        {"change": change} if change else None,
        title=f"{split} ({', '.join(filter(None, about))})",
        notes=tuple(map(sentence, notes)),
    )
    return with_most_chosen(table, rows)


def with_most_chosen(table: Table, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    """The table and a last row: the letter or class that each measurement chose most often."""
    what = "class" if any(row.get("classes") for row in rows.values()) else "letter"
    tops = [
        Cell(f"{share(row['top_letter_share'], 1)} {cut(row['top_letter'], remarks.MAX_NAME)}")
        if row.get("top_letter")
        else Cell()
        for row in rows.values()
    ]
    if not any(row.get("top_letter") for row in rows.values()):
        return table
    rest = [Cell()] * (len(table.columns) - 1 - len(tops))
    cells = (Cell(f"most-chosen {what}"), *tops, *rest)
    return dataclasses.replace(table, rows=(*table.rows, Row(cells)))


def caption(changed: bool) -> str:
    """What brackets mean, and how a change was taken where there is one."""
    return f"{remarks.INTERVALS} {remarks.PAIRED}" if changed else remarks.INTERVALS


# --- Subjects, classes, bins ----------------------------------------------------------------------

# Of metrics.group_table; what a reader compares first stands at the front.
_GROUPED = tuple(
    catalogue.get(key)
    for key in (
        "conf_ece conf_ece_p_value conf_ece_p_adjusted conf_ece_null_q95 squared_ece nll brier "
        "cw_ece accuracy mean_confidence"
    ).split()
)


def subjects(states: States) -> list[Table]:
    """Per split a table with a row per subject, which the reader can sort."""
    found = []
    for split in of.ordered_splits(states):
        groups = {
            state: {str(group["group"]): group for group in row["groups"]}
            for state, row in here(states, split).items()
            if row.get("groups")
        }
        if not groups:
            continue
        every = {name: group for by_name in groups.values() for name, group in by_name.items()}
        names = sorted(every, key=lambda name: -every[name].get("n", 0))[:MAX_SUBJECTS]
        chosen = [
            (state, metric)
            for metric in _GROUPED
            for state, by_name in groups.items()
            if any(group.get(metric.key) is not None for group in by_name.values())
        ]
        rows = []
        for name in sorted(names):
            n = every[name].get("n", 0)
            cells = [figure(groups[state].get(name, {}), metric) for state, metric in chosen]
            rows.append(Row((Cell(name), Cell(f"{n:,}", value=n), *cells)))
        alone = len(groups) == 1
        columns = (
            Column("subject", text=True),
            Column("questions"),
            *(Column(m.label if alone else f"{m.label}, {state}") for state, m in chosen),
        )
        notes: tuple[str, ...] = ()
        if len(names) < len(every):
            notes = (f"The {len(names)} subjects with the most questions, of {len(every):,}.",)
        found.append(
            Table(
                f"Subjects of {split}",
                columns,
                tuple(rows),
                f"{split}: {plural(len(every), 'subject')}",
                notes,
                sortable=True,
                stacked=True,
            )
        )
    return found


_CLASS_COLUMNS = {
    "n": "right answer of",
    "chosen": "chosen for",
    "recall": "recall",
    "precision": "precision",
    "share": "share of the answers",
    "mean_probability": "mean probability",
    "ece": "class ECE",
}


def classes(states: States) -> list[Table]:
    """Per split and state a table with a row per class, which the reader can sort."""
    found = []
    for split in of.ordered_splits(states):
        for state, row in here(states, split).items():
            if not row.get("by_class"):
                continue
            rows = [
                Row((Cell(one["class"]), *(_plain(one[key]) for key in _CLASS_COLUMNS)))
                for one in row["by_class"]
            ]
            columns = (Column("class", text=True), *map(Column, _CLASS_COLUMNS.values()))
            title = f"{split}, {state}: {plural(len(rows), 'class', 'classes')}"
            found.append(
                Table(
                    f"Classes of {split}, {state}",
                    columns,
                    tuple(rows),
                    title,
                    sortable=True,
                    stacked=True,
                )
            )
    return found


def _plain(value: float | None) -> Cell:
    return Cell(f"{value:,}" if isinstance(value, int) else number(value), value=value)


def bins(
    states: States, scores: Mapping[str, Mapping[str, Scores]], num_bins: int, edges: str
) -> list[Table]:
    """Per split the bins behind the reliability diagram."""
    found = []
    for split in of.ordered_splits(states)[:MAX_BIN_SPLITS]:
        binned = {
            state: bins_of(scores[state][split], num_bins, edges)
            for state, rows in states.items()
            if split in rows
        }
        bounds = next(iter(binned.values())).edges
        rows = (
            Row(
                (
                    Cell(_bounds(bounds, m, edges)),
                    *(cell for one in binned.values() for cell in _bin(one, m)),
                )
            )
            for m in range(num_bins)
        )
        heads = ("questions", "accuracy", "confidence", "gap")
        columns = (
            Column("confidence in", text=True),
            *(Column(head, state) for state in binned for head in heads),
        )
        found.append(Table(f"Bins of {split}", columns, tuple(rows), split))
    return found


def _bounds(edges: np.ndarray, m: int, convention: str) -> str:
    low, high = f"{edges[m]:.3g}", f"{edges[m + 1]:.3g}"
    # The first and the last bin take the value that the half-open convention leaves over.
    if convention == "right":
        return f"{'[' if m == 0 else '('}{low}, {high}]"
    return f"[{low}, {high}{']' if m == len(edges) - 2 else ')'}"


def _bin(bins: Bins, m: int) -> list[Cell]:
    if not bins.counts[m]:
        return [Cell("0"), Cell(), Cell(), Cell()]
    accuracy, confidence = float(bins.accuracy[m]), float(bins.confidence[m])
    return [
        Cell(f"{int(bins.counts[m]):,}"),
        Cell(number(accuracy), interval([float(end[m]) for end in bins.interval])),
        Cell(number(confidence)),
        Cell(number(confidence - accuracy, signed=True)),
    ]


def measurements(header: Sequence[str], rows: Sequence[Sequence[str]], most: int) -> Table:
    """The course of a training as a table: the first and the last measurements of many."""
    shown = rows
    notes: tuple[str, ...] = ()
    if len(rows) > most:
        half = most // 2
        shown = [*rows[:half], *rows[-half:]]
        text = f"The first and last {half} of {len(rows):,} measurements; metrics.jsonl has all."
        notes = (text,)
    columns = tuple(Column(name, text=i in (0, 2)) for i, name in enumerate(header))
    return Table(
        "Measurements", columns, tuple(Row(tuple(map(Cell, row))) for row in shown), notes=notes
    )
