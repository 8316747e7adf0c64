"""Tables: what they hold, and how Markdown, LaTeX and CSV lay them out.

The console lays the same tables out in ``console``, and the page by its templates.
"""

import csv
import dataclasses
import io
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from calib_jax.reports.catalogue import Metric
from calib_jax.reports.words import interval, number, p_value

# What direction a column's or a row's figures are better in.
ARROWS = {-1: " ↓", 1: " ↑", 0: ""}


@dataclasses.dataclass(frozen=True)
class Cell:
    """A figure as text.

    Attributes:
      text: the figure.
      interval: in brackets, beside it or beneath it.
      spread: "± ...", over seeds.
      note: what stands small beneath it, such as a p-value.
      verdict: "better", "worse" (colours a change), "best" (bold), or "".
      value: what a reader's sorting goes by; None for the text.
    """

    text: str = ""
    interval: str = ""
    spread: str = ""
    note: str = ""
    verdict: str = ""
    value: float | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, (self.text, self.spread, self.interval, self.note)))


@dataclasses.dataclass(frozen=True)
class Column:
    """A column: its label, the group of columns it stands in, its direction; or one of texts."""

    label: str
    group: str = ""
    direction: int = 0
    text: bool = False

    @property
    def arrow(self) -> str:
        """The label with an arrow that points to the better side."""
        return self.label + ARROWS[self.direction]


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
      cells: one per column; the first is the row's name.
      kind: "inset" for figures that belong to the row above, "base" for what others are compared
        with, or "".
      section: rows of one section stand together beneath its name; "" for none.
    """

    cells: tuple[Cell, ...]
    kind: str = ""
    section: str = ""


@dataclasses.dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
      name: unique in a report, read aloud by a screen reader; LaTeX's label.
      columns: the first of them names the rows.
      rows: in order.
      title: what stands above; "" for nothing.
      notes: sentences beneath.
      sortable: whether the page's reader can sort it.
      stacked: whether the page and LaTeX put intervals beneath their figures, so that many columns
        fit.
    """

    name: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    title: str = ""
    notes: tuple[str, ...] = ()
    sortable: bool = False
    stacked: bool = False

    # A longer table scrolls within the page.
    MOST_ROWS = 24

    @property
    def tall(self) -> bool:
        """Whether the page lets it scroll within itself."""
        return len(self.rows) > self.MOST_ROWS

    @property
    def groups(self) -> list[tuple[str, int]]:
        """(group, how many columns it spans), from the left; [] where no column has a group."""
        if not any(column.group for column in self.columns):
            return []
        runs = itertools.groupby(self.columns, key=lambda column: column.group)
        return [(group, len(list(columns))) for group, columns in runs]

    @property
    def by_section(self) -> list[tuple[str, list[Row]]]:
        """(section, its rows) in order."""
        runs = itertools.groupby(self.rows, key=lambda row: row.section)
        return [(section, list(rows)) for section, rows in runs]


def figure(row: Mapping[str, Any] | None, metric: Metric, digits: int = 0) -> Cell:
    """A metric of a measurement with its interval; an empty cell where it was not measured."""
    if row is None or metric.key not in row:
        return Cell()
    value, ends = row[metric.key], row.get(f"{metric.key}_ci")
    known = value is not None and math.isfinite(value)
    digits = digits or metric.digits
    text = p_value(value) if metric.is_p else number(value, metric.signed, digits)
    if known and metric.key == "candidate_mass" and 0 < value < 0.5 * 10**-digits:
        return Cell(f"{value:.0e}", value=value)  # whose interval is as small
    beside = interval(ends, metric.signed, metric.digits)
    return Cell(text, beside, value=value if known else None)


def verdict(ends: Sequence[float | None] | None, direction: int, null: float = 0.0) -> str:
    """ "better" or "worse" where the whole interval lies on one side of ``null``, else ""."""
    known = [end for end in ends or () if end is not None and not math.isnan(end)]
    if not direction or len(known) < 2:
        return ""
    low, high = ((end - null) * direction for end in known)
    return "better" if min(low, high) > 0 else "worse" if max(low, high) < 0 else ""


def change(row: Mapping[str, Any] | None, metric: Metric) -> Cell:
    """A paired difference, or a factor, with its interval; coloured where that is a change."""
    if row is None or metric.change_key not in row:
        return Cell()
    value, ends = row[metric.change_key], row.get(f"{metric.change_key}_ci")
    text, null = number(value, not metric.factor, metric.digits), 0.0
    if metric.factor:
        text, null = f"× {text}", 1.0
    return Cell(
        text,
        interval(ends, not metric.factor, metric.digits),
        verdict=verdict(ends, metric.direction, null),
        value=value,
    )


def transposed(
    table_name: str,
    measured: Mapping[str, Mapping[str, Any]],
    chosen: Sequence[Metric],
    changes: Mapping[str, Mapping[str, Any]] | None = None,
    **options: Any,
) -> Table:
    """A row per metric and a column per measurement, then a column per change.

    Args:
      table_name: of the table.
      measured: column -> figures.
      chosen: the metrics; those that no measurement has are left out.
      changes: column -> paired differences.
      **options: further attributes of the table.
    """
    changes = changes or {}
    rows = [
        Row(
            (
                Cell(metric.label + ARROWS[metric.direction]),
                *(figure(row, metric) for row in measured.values()),
                *(change(row, metric) for row in changes.values()),
            ),
            "inset" if metric.inset else "",
        )
        for metric in chosen
        if any(metric.key in row for row in measured.values())
        or any(metric.change_key in row for row in changes.values())
    ]
    columns = (Column("", text=True), *map(Column, (*measured, *changes)))
    return Table(table_name, columns, tuple(rows), **options)


# --- Markdown -------------------------------------------------------------------------------------


def escape(text: str) -> str:
    """``text`` as a cell of a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def _markdown_cell(cell: Cell) -> str:
    text = escape(cell.text)
    text = f"**{text}**" if cell.verdict == "best" and text else text
    text = " ".join(filter(None, (text, cell.spread, escape(cell.interval))))
    return f"{text}<br>{escape(cell.note)}" if cell.note else text


def markdown(tables: Sequence[Table], caption: str = "") -> str:
    """Tables as Markdown, each with its title and its notes, and a caption at the end."""
    parts = []
    for table in tables:
        heads = [f"{column.group} {column.arrow}".strip() for column in table.columns]
        rules = ["---" if column.text else "---:" for column in table.columns]
        lines = [f"**{escape(table.title)}**", ""] if table.title else []
        lines += [f"| {' | '.join(map(escape, heads))} |", f"|{'|'.join(rules)}|"]
        for section, rows in table.by_section:
            if section:
                lines.append(f"| *{escape(section)}* |" + " |" * (len(heads) - 1))
            for row in rows:
                lines.append(f"| {' | '.join(map(_markdown_cell, row.cells))} |")
        parts.append("\n".join([*lines, *(f"\n{escape(note)}" for note in table.notes)]))
    return "\n\n".join([*parts, *([escape(caption)] if caption else [])]) + "\n"


# --- LaTeX ----------------------------------------------------------------------------------------

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#",
    "%": r"\%", "_": r"\_", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}",
    "<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "\n": " ",
    # A bracket after a line's end would be read as its argument.
    "[": "{[}", "]": "{]}",
    "±": r"$\pm$", "–": "--", "∞": r"$\infty$", "λ": r"$\lambda$", "→": r"$\to$",
    "ε": r"$\varepsilon$", "α": r"$\alpha$", "·": r"$\cdot$", "−": "$-$", "⁻³": "$^{-3}$",
    "↓": r"$\downarrow$", "↑": r"$\uparrow$", "×": r"$\times$", "≥": r"$\ge$", "π": r"$\pi$",
    "*": "$^{*}$", "β": r"$\beta$", "κ": r"$\kappa$", "⁻": "$^{-}$", "³": "$^{3}$",
}  # fmt: skip  # signs and their codes in pairs


def latex_escape(text: str) -> str:
    r"""``text`` as LaTeX prints it verbatim.

    Example:
        >>> latex_escape("a_b 50%")
        'a\\_b 50\\%'
    """
    return "".join(_LATEX.get(c, c) for c in text.replace("⁻³", "\0")).replace("\0", "$^{-3}$")


def _latex_cell(cell: Cell, stacked: bool) -> str:
    text = latex_escape(cell.text)
    text = rf"\textbf{{{text}}}" if cell.verdict == "best" else text
    beside = _latex_small(cell.spread, "" if stacked else cell.interval)
    return f"{text} {beside}" if beside else text


def _latex_small(*texts: str) -> str:
    shown = latex_escape(" ".join(filter(None, texts)))
    return rf"{{\scriptsize {shown}}}" if shown else ""


def latex(tables: Sequence[Table], caption: str = "") -> str:
    """Tables as LaTeX, each a ``table`` of the package booktabs."""
    parts = [r"% Needs \usepackage{booktabs}; \small or \resizebox where the page is narrow."]
    for table in tables:
        kinds = "".join("l" if column.text else "r" for column in table.columns)
        lines = [r"\begin{table}", r"\centering", rf"\begin{{tabular}}{{{kinds}}}", r"\toprule"]
        if table.groups:
            lines += _latex_groups(table)
        lines.append(" & ".join(latex_escape(column.arrow) for column in table.columns) + r" \\")
        for section, rows in table.by_section:
            lines.append(r"\midrule")
            if section:
                span = rf"\multicolumn{{{len(table.columns)}}}{{l}}"
                lines.append(rf"{span}{{\textit{{{latex_escape(section)}}}}} \\")
            for row in rows:
                shown = (_latex_cell(cell, table.stacked) for cell in row.cells)
                lines.append(" & ".join(shown) + r" \\")
                beneath = [
                    _latex_small(cell.interval if table.stacked else "", cell.note)
                    for cell in row.cells
                ]
                if any(beneath):
                    lines.append(" & ".join(beneath) + r" \\")
        said = " ".join([*([f"{table.title}."] if table.title else []), *table.notes, caption])
        lines += [
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{latex_escape(said.strip())}}}",
            rf"\label{{tab:{table.name}}}",
            r"\end{table}",
        ]
        parts.append("\n".join(lines))
    return "\n".join(parts) + "\n"


def _latex_groups(table: Table) -> list[str]:
    heads, rules, at = [], [], 1
    for group, span in table.groups:
        head = rf"\multicolumn{{{span}}}{{c}}{{{latex_escape(group)}}}"
        heads.append(head if group else "&" * (span - 1))
        rules += [rf"\cmidrule(lr){{{at}-{at + span - 1}}}"] if group else []
        at += span
    return [" & ".join(heads) + r" \\", " ".join(rules)]


# --- CSV ------------------------------------------------------------------------------------------


def as_csv(header: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    """Lines as CSV: plain numbers, "" for what is not known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(["" if v is None or v != v else v for v in line] for line in lines)
    return text.getvalue()


def files(stem: str, tables: Sequence[Table], caption: str = "") -> dict[str, str]:
    """<stem>.md and <stem>.tex with their texts; {} without tables."""
    if not tables:
        return {}
    return {f"{stem}.md": markdown(tables, caption), f"{stem}.tex": latex(tables, caption)}
