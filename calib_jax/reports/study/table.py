"""The study's tables: the paper's Table 1 (ranks) and every change, in all their forms."""

import csv
import dataclasses
import io
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import rich.box
import rich.console
import rich.table
import rich.text

from calib_jax.reports.atomic import write_text
from calib_jax.reports.study.changes import (
    METRICS,
    SMALLEST_BASE,
    Cells,
    column,
    from_dict,
    methods_of,
    tasks_of,
)
from calib_jax.reports.study.wording import (
    caption,
    change_text,
    falls_text,
    label,
    published_text,
    values_text,
    verdict,
)
from calib_jax.reports.table import escape, standard_console
from calib_jax.reports.tables_export import latex_escape

# What pairs are ranked by.
RANKED = ("cw_ece", "sce_ovr", "conf_ece")
# The console shows values and changes of so many cells, of more of them the changes alone.
_FULL = 24


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Table 1 for one method and metric.

    Attributes:
      columns: tasks that order the pairs alike share a column.
      orders: of each column, the pairs on place 1, 2, ...; "a = b" where two share a place, ""
        where none has it.
    """

    columns: tuple[tuple[str, ...], ...]
    orders: tuple[tuple[str, ...], ...]

    @property
    def ties(self) -> bool:
        return any(" = " in name for order in self.orders for name in order)


def ranking(cells: Cells, method: str, metric: str) -> Ranking:
    """The pairs by their change ratio, largest first, for every task.

    Args:
      cells: with ranks.
      method, metric: of which ratio.
    """
    found = column(cells, method, metric)
    by_order: dict[tuple[str, ...], list[str]] = {}
    for task in tasks_of(cells):
        places = {p: c.rank for (p, t), c in found.items() if t == task and c.rank is not None}
        if places:
            order = tuple(
                " = ".join(pair for pair, place in places.items() if place == i)
                for i in range(1, len(places) + 1)
            )
            by_order.setdefault(order, []).append(task)
    return Ranking(tuple(map(tuple, by_order.values())), tuple(by_order))


def ranking_rows(found: Ranking) -> tuple[list[str], list[list[str]]]:
    """Header and lines of a ranking: the place, then a pair for every column."""
    header = ["rank", *(", ".join(tasks) for tasks in found.columns)]
    depth = max(map(len, found.orders), default=0)
    lines = [
        [str(i + 1), *(order[i] if i < len(order) else "" for order in found.orders)]
        for i in range(depth)
    ]
    return header, lines


def metrics_in(cells: Cells) -> list[str]:
    """The metrics that any cell holds."""
    return [
        metric
        for metric in METRICS
        if any(column(cells, method, metric) for method in methods_of(cells))
    ]


def notes(cells: Cells) -> list[str]:
    """What a reader must know of these cells: ties, ratios that there are not, questions left out.

    Returns:
      Sentences, none where there is nothing to say.
    """
    found = []
    every = [
        change
        for method in methods_of(cells)
        for metric in metrics_in(cells)
        for change in column(cells, method, metric).values()
    ]
    if any(
        ranking(cells, method, metric).ties for method in methods_of(cells) for metric in RANKED
    ):
        found.append("Pairs with equal ratios share a rank, and the next rank is left out.")
    without = [c for c in every if math.isnan(c.ratio) and not math.isnan(c.change)]
    if without:
        found.append(
            f"{len(without)} change(s) have no ratio and no rank: the base's value is below "
            f"{SMALLEST_BASE}."
        )
    dropped = {
        (task, method): cell.dropped
        for by_task in cells.values()
        for task, by_method in by_task.items()
        for method, cell in by_method.items()
        if cell.dropped
    }
    for (task, method), count in dropped.items():
        found.append(
            f"{task}, {method}: {count} question(s) left out that have another number of options "
            "than the rest."
        )
    return found


def _console_table(header: Sequence[str], aligned: int) -> rich.table.Table:
    """A table whose first columns are names."""
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    for i, name in enumerate(header):
        side = "left" if i < aligned else "right"
        table.add_column(rich.text.Text(name), justify=side, overflow="fold")
    return table


def show(
    cells: Cells, console: rich.console.Console, files: Mapping[str, str] | None = None
) -> None:
    """Prints a table of changes per method, and Table 1 where there are pairs to rank.

    Args:
      cells: the changes, with ranks.
      console: where to.
      files: where they are published ones: path -> which SCE it holds.
    """
    styles = {"better": "green", "worse": "red", "": ""}
    metrics = metrics_in(cells)
    if files:
        console.print()
        console.print(rich.text.Text(f"{published_text(files)}."))
    for method in methods_of(cells):
        keys = list(column(cells, method, "conf_ece"))
        full = len(keys) <= _FULL
        table = _console_table(["task", "pair", *map(label, metrics)], 2)
        for task in tasks_of(cells):
            for pair in (p for p, t in keys if t == task):
                texts = []
                for metric in metrics:
                    change = cells[pair][task][method].changes.get(metric)
                    if change is None:
                        texts.append(rich.text.Text(""))
                        continue
                    text = change_text(change, metric, interval=False)
                    style = styles[verdict(change, metric)]
                    above = values_text(change) + "\n" if full else ""
                    texts.append(rich.text.Text(above).append(text, style=style))
                table.add_row(task, pair, *texts)
        console.print()
        title = f"{method}: base → aligned{', published' if files else ''}"
        console.print(rich.text.Text(title, style="bold"))
        console.print(table)
        console.print(rich.text.Text(falls_text(cells, method), style="dim"))
    if len(cells) > 1:
        for method in methods_of(cells):
            for metric in (m for m in RANKED[:2] if m in metrics):
                if not column(cells, method, metric):
                    continue
                header, lines = ranking_rows(ranking(cells, method, metric))
                table = _console_table(header, len(header))
                for line in lines:
                    table.add_row(*line)
                console.print()
                console.print(rich.text.Text(title_of(method, metric), style="bold"))
                console.print(table)
    console.print()
    for text in [*notes(cells), caption(cells, console=True)]:
        console.print(rich.text.Text(text, style="dim"))


def show_summary(result: Mapping[str, Any], console: rich.console.Console | None = None) -> None:
    """Prints a study's summary.json: its changes, or the published ones where it measured none."""
    cells, console = from_dict(result["pairs"]), standard_console(console, 110)
    if cells:
        show(cells, console)
    else:
        show(from_dict(result["published"]), console, result.get("published_files"))
    for text in (*result.get("not_used", ()), *result.get("low_mass", ())):
        console.print(rich.text.Text(text))


def _change_lines(cells: Cells, method: str) -> list[list[str]]:
    """Task, pair, questions, then values and change of every metric."""
    lines = []
    for task in tasks_of(cells):
        for pair, by_task in cells.items():
            cell = by_task.get(task, {}).get(method)
            if cell is None:
                continue
            texts = [
                f"{values_text(change)}; {change_text(change, m)}" if change else ""
                for m in metrics_in(cells)
                for change in [cell.changes.get(m)]
            ]
            lines.append([task, pair, "" if cell.n is None else f"{cell.n:,}", *texts])
    return lines


def _header(cells: Cells) -> list[str]:
    return ["task", "pair", "n", *map(label, metrics_in(cells))]


def changes_markdown(cells: Cells) -> str:
    """Every change with its interval, a table per method."""
    parts = []
    for method in methods_of(cells):
        parts.append(f"**{escape(method)}**\n")
        parts.append(_markdown(_header(cells), _change_lines(cells, method), 2))
        parts.append(f"{escape(falls_text(cells, method))}.\n")
    return "\n".join([*parts, *notes(cells), caption(cells)]) + "\n"


def changes_latex(cells: Cells) -> str:
    """Every change with its interval, a ``table`` per method (package booktabs)."""
    parts = [r"% Needs \usepackage{booktabs}."]
    for method in methods_of(cells):
        text = f"Change by alignment, {method}. {caption(cells)}"
        parts.append(_latex(_header(cells), _change_lines(cells, method), "llr", text))
    return "\n".join(parts) + "\n"


def table1_markdown(cells: Cells) -> str:
    """Table 1 for every method and form of the error."""
    parts = []
    for method, metric, found in _rankings(cells):
        parts.append(f"**{escape(title_of(method, metric))}**\n")
        parts.append(_markdown(*ranking_rows(found), 1))
    return "\n".join([*parts, *notes(cells)]) + "\n"


def table1_latex(cells: Cells) -> str:
    """Table 1 for every method and form of the error (package booktabs)."""
    parts = [r"% Needs \usepackage{booktabs}."]
    for method, metric, found in _rankings(cells):
        parts.append(_latex(*ranking_rows(found), "r", title_of(method, metric) + "."))
    return "\n".join(parts) + "\n"


def _rankings(cells: Cells) -> list[tuple[str, str, Ranking]]:
    return [
        (method, metric, ranking(cells, method, metric))
        for method in methods_of(cells)
        for metric in RANKED
        if column(cells, method, metric)
    ]


def title_of(method: str, metric: str) -> str:
    """What a ranking is called."""
    return f"Pairs by the change ratio of {METRICS[metric][0]}, {method}; rank 1: the largest"


def _markdown(header: Sequence[str], lines: Sequence[Sequence[str]], names: int) -> str:
    rows = ["| " + " | ".join(map(escape, header)) + " |"]
    rows.append("|" + "---|" * names + "---:|" * (len(header) - names))
    rows += ["| " + " | ".join(map(escape, line)) + " |" for line in lines]
    return "\n".join(rows) + "\n"


def _latex(
    header: Sequence[str], lines: Sequence[Sequence[str]], columns: str, caption: str
) -> str:
    """A ``table``; further columns than `columns` names are on the left."""

    def safe(text: str) -> str:
        text = latex_escape(text).replace("[", "{[}")
        for sign, code in (("→", "$\\to$"), ("↓", "$\\downarrow$"), ("↑", "$\\uparrow$")):
            text = text.replace(sign, code)
        return text

    columns = columns.ljust(len(header), "l")
    body = [" & ".join(map(safe, line)) + r" \\" for line in lines]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            " & ".join(map(safe, header)) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{safe(caption)}}}",
            r"\end{table}",
        ]
    )


def changes_csv(cells: Cells) -> str:
    """A line per pair, task, method and metric, as plain numbers."""
    text = io.StringIO()
    out = csv.writer(text, lineterminator="\n")
    out.writerow(
        ["pair", "task", "method", "metric", "n", "pt", "it", "change", "low", "high", "ratio",
         "rank", "pt_low", "pt_high", "it_low", "it_high"]
    )  # fmt: skip
    none = ("", "")
    for pair, by_task in cells.items():
        for task, by_method in by_task.items():
            for method, cell in by_method.items():
                for metric, change in cell.changes.items():
                    figures = [change.pt, change.it, change.change, *(change.interval or none),
                               change.ratio, change.rank, *(change.pt_range or none),
                               *(change.it_range or none)]  # fmt: skip
                    out.writerow(
                        [pair, task, method, metric, "" if cell.n is None else cell.n]
                        + ["" if v is None or v != v else v for v in figures]
                    )
    return text.getvalue()


def write(folder: str | os.PathLike, cells: Cells) -> None:
    """Writes changes.{csv,md,tex} and table1.{md,tex} into `folder`."""
    folder = pathlib.Path(folder)
    for name, text in {
        "changes.csv": changes_csv(cells),
        "changes.md": changes_markdown(cells),
        "changes.tex": changes_latex(cells),
        "table1.md": table1_markdown(cells),
        "table1.tex": table1_latex(cells),
    }.items():
        write_text(folder / name, text)
