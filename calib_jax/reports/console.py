"""What a run prints: the tables and sentences of its view."""

import itertools
import os
import sys
from collections.abc import Sequence

import rich.box
import rich.console
import rich.measure
import rich.table
import rich.text

from calib_jax.reports.tables import Cell, Table
from calib_jax.reports.views import Block, Text

_VERDICTS = {"better": "green", "worse": "red", "best": "bold", "": ""}
_STYLES = {"said": "bold", "note": "dim", "warning": "yellow", "": ""}


def show(blocks: Sequence[Block], console: rich.console.Console | None = None) -> None:
    """Prints blocks in order; tables that follow one another share their widths and layout."""
    console = standard_console(console, 120)
    runs = itertools.groupby(blocks, key=lambda block: isinstance(block, Table))
    for are_tables, run in runs:
        if are_tables:
            show_tables([block for block in run if isinstance(block, Table)], console)
            continue
        console.print()
        for block in run:
            if isinstance(block, Text):
                console.print(rich.text.Text(block.text, style=_STYLES[block.kind]))


def standard_console(
    console: rich.console.Console | None = None, width: int = 100
) -> rich.console.Console:
    """`console`, or standard output; `width` columns wide where nothing tells the width."""
    if console is not None:
        return console
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return rich.console.Console(
        file=sys.stdout, width=width if piped else None, highlight=False, markup=False, emoji=False
    )


# From the widest: intervals beside their figures; beneath them; notes alone; neither; and with
# figures that are broken at blanks.
_LAYOUTS = ("line", "stack", "noted", "plain", "fold")


def _console_cell(cell: Cell, layout: str) -> rich.text.Text:
    # An interval is that of the first line.
    figure, *more = cell.text.split("\n")
    shown = rich.text.Text(figure, style=_VERDICTS[cell.verdict])
    if cell.spread:
        shown.append(f"\n{cell.spread}", style="dim")
    if layout in ("line", "stack") and cell.interval:
        shown.append(f"{' ' if layout == 'line' else chr(10)}{cell.interval}", style="dim")
    for line in more:
        shown.append(f"\n{line}", style=_VERDICTS[cell.verdict])
    if layout in ("line", "stack", "noted") and cell.note:
        shown.append(f"\n{cell.note}", style="dim")
    return shown


def _drawn(tables: Sequence[Table], layout: str) -> list[rich.table.Table]:
    """The tables, those of equal columns with equal widths."""
    drawn = []
    for table in tables:
        alike = [other for other in tables if len(other.columns) == len(table.columns)]
        shown = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
        for i, column in enumerate(table.columns):
            head = f"{column.group}\n{column.label}".strip()
            cells = [row.cells[i] for other in alike for row in other.rows]
            lines = [line for c in cells for line in _console_cell(c, layout).plain.split("\n")]
            shown.add_column(
                rich.text.Text(head),
                justify="left" if column.text else "right",
                no_wrap=(whole := layout != "fold" and (i == 0 or not column.text)),
                min_width=max(map(len, lines), default=0) if whole else None,
                overflow="fold",
            )
        for section, rows in table.by_section:
            if section:
                shown.add_row(rich.text.Text(section, style="bold"))
            for row in rows:
                first, *rest = row.cells
                indent = "  " * ((row.kind == "inset") + bool(section))
                name = rich.text.Text(indent + first.text)
                shown.add_row(name, *(_console_cell(cell, layout) for cell in rest))
        drawn.append(shown)
    return drawn


def show_tables(tables: Sequence[Table], console: rich.console.Console | None = None) -> None:
    """Prints tables that belong together.

    Intervals stand beside the figures where the console is wide enough for all of the tables, else
    beneath them, else they are left out, which is said. Notes are left out last; nothing is cut.
    """
    console = standard_console(console, 120)
    unbounded = console.options.update(max_width=10_000)
    for layout in _LAYOUTS:
        drawn = _drawn(tables, layout)
        needed = (rich.measure.Measurement.get(console, unbounded, d).maximum for d in drawn)
        if max(needed) <= console.width:
            break
    for table, shown in zip(tables, drawn, strict=True):
        console.print()
        if table.title:
            console.print(rich.text.Text(table.title, style="bold"))
        console.print(shown)
        for note in table.notes:
            console.print(rich.text.Text(note, style="dim"))
    every = (cell for table in tables for row in table.rows for cell in row.cells)
    if layout not in ("line", "stack") and any(cell.interval for cell in every):
        text = "The intervals need a wider console; summary.json and report.html hold them."
        console.print(rich.text.Text(text, style="dim"))
