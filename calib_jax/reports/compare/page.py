"""report.html of the jobs ``compare`` and ``sweep``: tables, sentences, figures."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax.reports.atomic import write_text
from calib_jax.reports.compare import tables
from calib_jax.reports.compare.comparison import Comparison
from calib_jax.reports.compare.tables import Cell, Grid
from calib_jax.reports.figures.canvas import Figure
from calib_jax.reports.page import layout
from calib_jax.reports.page.document import again, document
from calib_jax.reports.page.layout import escape, facts, note


def render(
    title: str,
    headline: Sequence[str],
    summary: Mapping[str, Any],
    comparisons: Sequence[Comparison],
    figures: Mapping[str, tuple[Figure, str]],
    legend: str,
    config: Mapping[str, Any] | None = None,
    command: str | None = None,
) -> str:
    """One HTML document that takes nothing from outside.

    Args:
      title: what the page is of.
      headline: the result in sentences without their full stops.
      summary: what summary.json holds.
      comparisons: this run's, then those of other runs that stand in the table with it.
      figures: name -> (figure, what a screen reader says).
      legend: what the figures' marks mean.
      config: the resolved configuration.
      command: the shell command that runs this again.
    """
    first = comparisons[0]
    rest = [text for text in summary.get("said", ()) if text not in headline]
    said = "".join(f"<li>{escape(text)}.</li>" for text in rest)
    sections = [("Result", html(tables.table2(comparisons), "result"))]
    if said:
        sections.append(("What it says", f"<ul>{said}</ul>"))
    drawn = [
        layout.figure(figure, name, label, wide=True) for name, (figure, label) in figures.items()
    ]
    if drawn:
        sections.append(("Figures", "\n".join([*drawn, note(legend)])))
    sections.append(("Against the reference", html(tables.versus(comparisons), "versus")))
    sections.append(
        ("Accuracy, confidence and scores", html(tables.extended(comparisons), "extended"))
    )
    if (by_split := tables.splits(first)) is not None:
        sections.append(("Every split", html(by_split, "splits")))
    if (own := tables.settings(comparisons)) is not None:
        sections.append(("Settings", html(own, "settings")))
    known = {key: summary[key] for key in ("methods", "fitted", "runs") if summary.get(key)}
    sections.append(("Runs", facts(known)))
    if summary.get("data"):
        sections.append(("Data", facts(summary["data"])))
    sections.append(("How to get this again", again(summary, config, command)))
    seeds = f"{len(first.seeds)} seed{'s' if len(first.seeds) > 1 else ''}"
    kicker = f"{first.model} · {seeds} · {len(first.labels)} rows"
    return document(title, kicker, headline, sections)


def write(path: str | os.PathLike, *args: Any, **options: Any) -> None:
    """Writes `render(...)` to `path`, atomically."""
    write_text(path, render(*args, **options))


def html(grid: Grid, name: str) -> str:
    """A table with its caption beneath."""
    columns = sum(len(parts) for _, parts in grid.groups)
    top = "".join(
        f'<th scope="colgroup" class="group" colspan="{len(parts)}">{escape(label)}</th>'
        for label, parts in grid.groups
    )
    head = f"<tr><td></td>{top}</tr><tr><td></td>" + layout.heads(
        [part for _, parts in grid.groups for part in parts]
    )
    rows = []
    for model in grid.models:
        if len(grid.models) > 1:
            rows.append(
                f'<tr><th scope="rowgroup" colspan="{columns + 1}">{escape(model)}</th></tr>'
            )
        for of, label, cells in grid.rows:
            if of == model:
                rows.append(
                    f'<tr><th scope="row">{escape(label)}</th>{"".join(map(_cell, cells))}</tr>'
                )
    return layout.table(f"{head}</tr>", rows, name, "stacked") + note(grid.caption)


def _cell(cell: Cell) -> str:
    kind = ' class="best"' if cell.bold else ""
    small = "".join(f" <small>{escape(s)}</small>" for s in (cell.spread, cell.small) if s)
    return f"<td{kind}>{escape(cell.text)}{small}</td>"
