"""What alignment changes: the paper's Table 1 (ranks), every change, and Figures 1 and 2."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from calib_jax.reports import tables
from calib_jax.reports.study import authors_csv, figures, sentences, unlabelled
from calib_jax.reports.study.changes import (
    METRICS,
    Cells,
    Change,
    column,
    each,
    every_change,
    from_dict,
    methods_of,
    metrics_in,
    ranking,
    tasks_of,
)
from calib_jax.reports.tables import Cell, Column, Row, Table
from calib_jax.reports.views import Block, Facts, Heading, Picture, Section, Text, View, note, said
from calib_jax.reports.words import plural, sentence

# What pairs are ranked by; the paper's Table 1 has the first two.
RANKED = ("cw_ece", "sce_ovr", "conf_ece")
# Of more rows the console shows changes and ratios alone.
_FULL = 24
_COLOURS = (
    "Coloured: the whole interval of the change lies on one side of 0, each change on its own: one "
    "in twenty is coloured where nothing changes."
)
_AXES = "Axes whose ratios exceed 100% are linear up to 10% and logarithmic beyond."
_WHISKERS = (
    " Lines through marks: 95% intervals, where each line of a figure is one pair on one task."
)
_OVR = (
    "What Oh and Hwang (2024) call SCE fits the one-vs-rest form, not the class-wise ECE, and is "
    "compared with that."
)


def console(summary: Mapping[str, Any]) -> list[Block]:
    """The changes, or the published ones where none were measured; and the rankings."""
    cells, files = from_dict(summary["pairs"]), None
    if not cells:
        cells, files = from_dict(summary["published"]), summary.get("published_files")
    brief = any(len(column(cells, method, "conf_ece")) > _FULL for method in methods_of(cells))
    ranked = _rankings(cells, RANKED[:2]) if len(cells) > 1 else []
    return [
        *(said([sentences.published_text(files)]) if files else ()),
        *map(_by_task, _changes(cells, bool(files), _brief if brief else _in_lines)),
        note(sentences.caption(cells, elsewhere=brief)),
        *ranked,
        *map(note, _notes(cells)),
        *_repaired(summary),
        *map(Text, _warnings(summary)),
    ]


def view(summary: Mapping[str, Any]) -> View:
    """The study: console, page, tables, CSV files in the authors' layout, Figures 1 and 2."""
    cells, published = from_dict(summary["pairs"]), from_dict(summary["published"])
    shown, named = cells or published, summary.get("published_files")
    found = summary.get("unlabelled")
    drawn = {
        folder: (figures.figure1(some), figures.figure2(some))
        for folder, some in (("figures", cells), ("figures/published", published))
        if some
    }
    sections = []
    if cells:
        compared: list[Block] = [Facts(summary.get("compared", {})), *map(note, _warnings(summary))]
        sections.append(Section("What was compared", compared))
        if len(cells) > 1:
            ranked = _rankings(cells, RANKED)
            sections.append(Section("Ranking", [*ranked, *map(note, _notes(cells))]))
        below = [note(text) for text in (*_notes(cells), sentences.caption(cells), _COLOURS)]
        sections.append(Section("Changes", [*_changes(cells), *below]))
        if repaired := _repaired(summary):
            sections.append(Section("Repaired by the base", repaired))
        sections.append(Section("Figures", _pictures(cells, "measured", *drawn["figures"])))
    if published:
        above = [note(f"{sentences.published_text(named)}.")] if named else []
        if "sce_ovr" in metrics_in(published):
            above.append(note(_OVR))
        blocks = [
            *above,
            *_beside(published, cells),
            *_rankings(published, RANKED[:2], "published: "),
            *map(note, _notes(published)),
            *_pictures(published, "published", *drawn["figures/published"]),
            *(note(f"By {m} {sentences.falls_text(published, m)}.") for m in methods_of(published)),
        ]
        sections.append(Section("Published figures", blocks))
    return View(
        "What alignment changes in calibration",
        f"{plural(len(shown), 'pair')} · {', '.join(tasks_of(shown))} · "
        f"{', '.join(methods_of(shown))}",
        [sentences.headline(shown, None if cells else named)],
        console(summary),
        sections,
        files=_files("tables", cells)
        | (
            tables.files("tables/unlabelled", [unlabelled.table(found)], unlabelled.NOTE)
            if found
            else {}
        )
        | _files("tables/published", published)
        | (authors_csv.files("csv", cells) if cells else {}),
        figures={
            f"{folder}/figure{i}": figure
            for folder, both in drawn.items()
            for i, figure in enumerate(both, 1)
        },
    )


def _warnings(summary: Mapping[str, Any]) -> list[str]:
    return [sentence(text) for key in ("not_used", "low_mass") for text in summary.get(key, ())]


def _repaired(summary: Mapping[str, Any]) -> list[Block]:
    """What DACA and BaseCal-ReEval make of the aligned models' confidence; older studies none."""
    found = summary.get("unlabelled")
    return [unlabelled.table(found), note(unlabelled.NOTE)] if found else []


# --- Tables ---------------------------------------------------------------------------------------


def _changes(
    cells: Cells, published: bool = False, shown: Callable[[Change, str], Cell] | None = None
) -> list[Table]:
    """A table per method: every pair on every task, with the changes as `shown` says."""
    shown, metrics = shown or _with_values, metrics_in(cells)
    columns = (Column("task", text=True), Column("pair", text=True), Column("n"), *_heads(metrics))
    found = []
    for method in methods_of(cells):
        rows = []
        for task, pair in _places(cells):
            if (cell := cells[pair].get(task, {}).get(method)) is not None:
                n = Cell("" if cell.n is None else f"{cell.n:,}")
                changes = (
                    shown(cell.changes[m], m) if m in cell.changes else Cell() for m in metrics
                )
                rows.append(Row((Cell(task), Cell(pair), n, *changes)))
        title = f"{method}: base → aligned{', published' if published else ''}"
        below = (f"By {method} {sentences.falls_text(cells, method)}.",)
        found.append(Table(f"changes-{method}", columns, tuple(rows), title, below, stacked=True))
    return found


def _heads(metrics: Iterable[str]) -> Iterator[Column]:
    return (Column(METRICS[m].brief, direction=METRICS[m].direction) for m in metrics)


def _places(cells: Cells) -> list[tuple[str, str]]:
    """(task, pair), so that the pairs of one task stand together."""
    return [(task, pair) for task in tasks_of(cells) for pair in cells]


def _with_values(change: Change, metric: str) -> Cell:
    """The change with its interval; beneath it the ratio, and the values before and after."""
    below = ": ".join(
        filter(None, (sentences.ratio_text(change.ratio), sentences.values_text(change)))
    )
    return _coloured(change, metric, sentences.change_text(change, metric), note=below)


def _in_lines(change: Change, metric: str) -> Cell:
    """The same for a console: change and ratio on a line each leave room for four metrics."""
    lines = filter(
        None, (sentences.change_text(change, metric), sentences.ratio_text(change.ratio))
    )
    return _coloured(change, metric, "\n".join(lines), note=sentences.values_text(change))


def _brief(change: Change, metric: str) -> Cell:
    """The change and its ratio alone."""
    return dataclasses.replace(
        _coloured(change, metric, sentences.with_ratio(change, metric)), interval=""
    )


def _coloured(change: Change, metric: str, text: str, note: str = "") -> Cell:
    verdict = tables.verdict(change.change_ci, METRICS[metric].direction)
    return Cell(text, sentences.interval_text(change, metric), note=note, verdict=verdict)


def _by_task(table: Table) -> Table:
    """Tasks as sections, and without the number of questions: a narrower table."""
    rows = (Row((row.cells[1], *row.cells[3:]), section=row.cells[0].text) for row in table.rows)
    return dataclasses.replace(
        table, columns=(table.columns[1], *table.columns[3:]), rows=tuple(rows)
    )


def _rankings(cells: Cells, metrics: Sequence[str], prefix: str = "") -> list[Table]:
    """Table 1 for every method and form of the error: tasks of one order share a column."""
    found = []
    for method in methods_of(cells):
        for metric in (m for m in metrics if column(cells, method, m)):
            orders = ranking(cells, method, metric)
            heads = (Column(", ".join(tasks), text=True) for tasks in orders.values())
            rows = (
                Row((Cell(str(place)), *map(Cell, pairs)))
                for place, pairs in enumerate(itertools.zip_longest(*orders, fillvalue=""), 1)
            )
            label = METRICS[metric].label
            title = f"{prefix}pairs by the change ratio of {label}, {method}; rank 1: the largest"
            name, columns = f"ranking-{method}-{metric}", (Column("rank"), *heads)
            title = title[0].upper() + title[1:]
            found.append(Table(prefix + name, columns, tuple(rows), title))
    return found


def _beside(published: Cells, measured: Cells) -> list[Block]:
    """Measured and published changes of pairs, tasks and methods that have the same names."""
    metrics = [m for m in metrics_in(published) if m in metrics_in(measured)]
    rows = []
    for method in methods_of(measured):
        for task, pair in _places(measured):
            ours = measured[pair].get(task, {}).get(method)
            theirs = published.get(pair, {}).get(task, {}).get(method)
            if ours is None or theirs is None:
                continue
            # A file holds one form of SCE, and none of the other.
            texts = (_beneath(ours.changes[m], theirs.changes.get(m), m) for m in metrics)
            rows.append(Row((*map(Cell, (task, pair, method)), *texts)))
    names = (Column(name, text=True) for name in ("task", "pair", "method"))
    table = Table("Measured and published", (*names, *_heads(metrics)), tuple(rows), stacked=True)
    return [Heading("Measured, and published beneath"), table] if rows else []


def _beneath(ours: Change, theirs: Change | None, metric: str) -> Cell:
    """A measured change, and the published one beneath it."""
    published = sentences.with_ratio(theirs, metric) if theirs else ""
    return _coloured(ours, metric, sentences.with_ratio(ours, metric), note=published)


def _notes(cells: Cells) -> list[str]:
    orders = (
        order
        for method in methods_of(cells)
        for metric in RANKED
        for order in ranking(cells, method, metric)
    )
    return sentences.notes(cells, ties=any(" = " in name for order in orders for name in order))


def _files(folder: str, cells: Cells) -> dict[str, str]:
    """changes.{csv,md,tex} and table1.{md,tex}."""
    if not cells:
        return {}
    below = " ".join(_notes(cells))
    return {
        f"{folder}/changes.csv": _csv(cells),
        **tables.files(
            f"{folder}/changes", _changes(cells), f"{below} {sentences.caption(cells)}".strip()
        ),
        **tables.files(f"{folder}/table1", _rankings(cells, RANKED), below),
    }


def _csv(cells: Cells) -> str:
    """A line per pair, task, method and metric, as plain numbers."""
    header = "pair,task,method,metric,n,pt,it,change,low,high,ratio,rank"
    ranges = "pt_low,pt_high,it_low,it_high"
    none = (None, None)
    lines = (
        (
            pair,
            task,
            method,
            metric,
            cell.n,
            c.pt,
            c.it,
            c.change,
            *(c.change_ci or none),
            c.ratio,
            c.rank,
            *(c.pt_range or none),
            *(c.it_range or none),
        )
        for pair, task, method, cell in each(cells)
        for metric, c in cell.changes.items()
    )
    return tables.as_csv(f"{header},{ranges}".split(","), lines)


# --- Figures --------------------------------------------------------------------------------------


def _pictures(cells: Cells, name: str, figure1: figures.Figure, figure2: figures.Figure) -> list:
    """Figures 1 and 2."""
    reading = figures.reading_of(cells)
    known = any(change.change_ci is not None for change in every_change(cells))
    medians = [
        f"{METRICS[metric].label}, {method}: {sentences.median_text(cells, method, metric)}"
        for method in methods_of(cells)
        for metric in ("conf_ece", sentences.sce_of(cells, method))
    ]
    one = (
        f"Changes of ECE and SCE by model and task, read by {reading}, and change ratios by "
        f"method. {sentences.headline(cells)}."
    )
    two = f"Change ratios of ECE and SCE, a panel per method. Medians: {'; '.join(medians)}."
    below = f"Changes by model and task are read by {reading}. {_AXES}{_WHISKERS if known else ''}"
    return [
        Picture(figure1, f"{name}-1", one, wide=True),
        Picture(figure2, f"{name}-2", two, wide=True),
        note(below),
    ]
