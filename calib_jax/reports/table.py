"""The result table: on the console with rich, and as Markdown for a README."""

import itertools
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
import rich.console
import rich.measure
import rich.table
import rich.text

from calib_jax.reports import content

_STYLES = {"better": "green", "worse": "red", "": ""}


def standard_console(
    console: rich.console.Console | None, width: int = 100
) -> rich.console.Console:
    """`console`, or standard output; `width` columns wide where nothing tells the width."""
    if console is not None:
        return console
    piped = not sys.stdout.isatty() and "COLUMNS" not in os.environ
    return rich.console.Console(
        file=sys.stdout, width=width if piped else None, highlight=False, markup=False, emoji=False
    )


def _tables(sections: list[content.Section], layout: str) -> list[rich.table.Table]:
    """One table per section, with equal column widths throughout."""

    def text(cell: content.Cell) -> rich.text.Text:
        result = rich.text.Text(cell.value, style=_STYLES[cell.verdict])
        if layout != "plain" and cell.interval:
            result.append("\n" if layout == "stack" else " ")
            result.append(cell.interval, style="dim")
        return result

    def width(column: int) -> int:
        cells = [row.cells[column] for s in sections for row in s.rows if column < len(row.cells)]
        return max(len(line) for cell in cells for line in text(cell).plain.split("\n"))

    widths = [width(i) for i in range(max(len(s.header) for s in sections))]
    label_width = max(len(row.label) for s in sections for row in s.rows)
    tables = []
    for section in sections:
        table = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
        table.add_column("", min_width=label_width, no_wrap=True)
        for name, minimum in zip(section.header, widths, strict=False):
            table.add_column(rich.text.Text(name), justify="right", min_width=minimum)
        for row in section.rows:
            table.add_row(row.label, *map(text, row.cells))
        tables.append(table)
    return tables


def show(
    states: Mapping[str, Mapping[str, Any]],
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    console: rich.console.Console | None = None,
) -> None:
    """Prints columns of measurements, one section per split, in-domain first.

    Intervals stand beside the figures where the console is wide enough, else beneath them, else
    they are left out.

    Args:
      states: column name -> split -> ROW of summary.json.
      changes: split -> paired differences; a last column.
      console: a rich console; None: standard output.
    """
    show_sections(content.sections(states, changes), content.caption(bool(changes)), console)


def show_sections(
    sections: list[content.Section],
    caption: str,
    console: rich.console.Console | None = None,
) -> None:
    """Prints tables; intervals stand where the console has room, see `show`."""
    console = standard_console(console)
    for layout in ("line", "stack", "plain"):
        tables = _tables(sections, layout)
        unbounded = console.options.update(max_width=10_000)
        needed = (rich.measure.Measurement.get(console, unbounded, t).maximum for t in tables)
        if max(needed) <= console.width:
            break
    for section, table in zip(sections, tables, strict=True):
        console.print()
        console.print(rich.text.Text(section.title, style="bold"))
        console.print(table)
        for note in section.notes:
            console.print(rich.text.Text(note, style="dim"))
    if layout == "plain":
        caption = "The 95% intervals need a wider console; summary.json and report.html hold them."
    console.print()
    console.print(rich.text.Text(caption, style="dim"))


def say(sentences: Sequence[str], console: rich.console.Console | None = None) -> None:
    """Prints what a page begins with: sentences that come without their full stops."""
    console = standard_console(console)
    console.print()
    for sentence in sentences:
        console.print(rich.text.Text(f"{sentence}.", style="bold"))


def show_summary(summary: Mapping[str, Any], console: rich.console.Console | None = None) -> None:
    """Prints a summary.json: before, after and change; or the one measured model."""
    show(content.columns(summary), summary.get("change"), console)


def compare(
    summaries: Mapping[str, Mapping[str, Any]], console: rich.console.Console | None = None
) -> None:
    """Prints several runs side by side: what all started from, then each run's result.

    Args:
      summaries: name of the run (sft, cft, ...) -> its summary.
      console: a rich console; None: standard output.

    Raises:
      UserError: two runs were measured on other questions.
    """
    show(content.side_by_side(summaries), None, console)


def escape(text: str) -> str:
    """``text`` as a cell of a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")


def markdown(summary: Mapping[str, Any]) -> str:
    """A summary as one Markdown table with intervals, and its notes beneath."""
    return _markdown(content.columns(summary), summary.get("change"))


def markdown_compare(summaries: Mapping[str, Mapping[str, Any]]) -> str:
    """Several runs side by side as one Markdown table; see `compare`."""
    return _markdown(content.side_by_side(summaries), None)


def _markdown(states: Mapping[str, Any], changes: Mapping[str, Any] | None) -> str:
    return markdown_sections(content.sections(states, changes), content.caption(bool(changes)))


def _begins_alike(one: Sequence[str], other: Sequence[str]) -> bool:
    return all(x == y for x, y in zip(one, other, strict=False))


def markdown_sections(sections: list[content.Section], caption: str) -> str:
    """Sections as Markdown tables, their notes beneath, and what brackets mean.

    Sections share a table as long as the shorter header is how the longer one begins (a split may
    lack its change).
    """
    header, lines = (), []
    for i, section in enumerate(sections):
        if not _begins_alike(header, section.header) or i == 0:
            rest = [s.header for s in sections[i:]]
            alike = itertools.takewhile(lambda h, own=rest[0]: _begins_alike(own, h), rest)
            header = max(alike, key=len)
            lines += ["", "| " + " | ".join(["", *map(escape, header)]) + " |"]
            lines.append("|---|" + "---:|" * len(header))
        lines.append(f"| **{escape(section.title)}** |" + " |" * len(header))
        for row in section.rows:
            texts = [escape(str(cell)) for cell in row.cells]
            texts += [""] * (len(header) - len(texts))
            lines.append(f"| {row.arrow} | " + " | ".join(texts) + " |")
    lines = [*lines[1:], ""]
    for section in sections:
        if section.notes:
            lines.append(f"*{escape(section.split)}*: {'; '.join(section.notes)}.  ")
    lines.append(caption)
    return "\n".join(lines) + "\n"
