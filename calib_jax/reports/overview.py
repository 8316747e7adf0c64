"""The one table of an evaluation: a row per task and method, with intervals."""

import csv
import dataclasses
import io
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import rich.box
import rich.console
import rich.measure
import rich.table
import rich.text

from calib_jax.reports import content, table, verdicts
from calib_jax.reports.atomic import write_text
from calib_jax.reports.tables_export import RULE, best, latex_escape

# (key in ROW, label, which way is better). sce_ovr has no direction: sharpness alone raises it.
COLUMNS = (
    ("accuracy", "accuracy", +1),
    ("conf_ece", "conf-ECE", -1),
    ("cw_ece", "cw-ECE", -1),
    ("sce_ovr", "SCE ovr", 0),
    ("mean_confidence", "conf.", 0),
    ("candidate_mass", "mass", 0),
)
NOTE = (
    "Brackets: 95% intervals over questions. cw-ECE: the class-wise error, also known as SCE. SCE "
    "ovr: of one-versus-rest decisions, as some published tables have it; sharpness alone raises "
    "it. conf.: mean confidence. mass: mean probability of all options together, before they are "
    "made to sum to 1 (-: of scores that are no probabilities)."
)
# A console shows the details of so many splits; of more, the overview alone.
MAX_DETAILED = 3
# Intervals of fewer questions are too short to call one method better than another.
MIN_BEST = 30
_WIDTH = 120


@dataclasses.dataclass(frozen=True)
class Line:
    """One task read by one method.

    Attributes:
      task, method: names.
      row: the ROW of summary.json.
      best: keys of the figures that are better than every other method's beyond doubt.
    """

    task: str
    method: str
    row: Mapping[str, Any]
    best: frozenset[str] = frozenset()


def lines(states: Mapping[str, Mapping[str, Any]]) -> list[Line]:
    """The table's lines, task by task.

    Args:
      states: column name -> split -> ROW; a single column is named by its method, where known.
    """
    found = []
    for split in content.ordered_splits(states):
        here = {name: rows[split] for name, rows in states.items() if split in rows}
        few = min(row["n"] for row in here.values()) < MIN_BEST
        top = {
            key: None if few else best(list(here.values()), key, direction)
            for key, _, direction in COLUMNS
            if direction
        }
        for i, (name, row) in enumerate(here.items()):
            label = row.get("method", name) if len(states) == 1 else name
            wins = frozenset(key for key, winner in top.items() if winner == i)
            found.append(Line(split, label, row, wins))
    return found


def low_mass(found: Sequence[Line]) -> list[str]:
    """What a reader of the table must know: where letters hold little of the probability."""
    return content.low_mass({f"{line.task}, {line.method}": line.row for line in found})


def columns(found: Sequence[Line]) -> list[tuple[str, str, int]]:
    """The columns that any of the lines has."""
    return [column for column in COLUMNS if any(line.row.get(column[0]) is not None
                                                for line in found)]  # fmt: skip


def worth_showing(states: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether there is anything but one model before and after training."""
    return "before" not in states and bool(lines(states))


def figure(row: Mapping[str, Any], key: str) -> str:
    """A figure without its interval; a mass may be tiny."""
    value = row.get(key)
    tiny = key == "candidate_mass" and value is not None and 0 < value < 5e-4
    return f"{value:.0e}" if tiny else content.number(value)


# --- Console ------------------------------------------------------------------------------------


def _line(row: Mapping[str, Any], key: str) -> str:
    return f"{figure(row, key)} {content.interval(row.get(f'{key}_ci'))}".strip()


def _short(row: Mapping[str, Any], key: str) -> str:
    """ ".427 [.40, .46]": two digits of the interval, no zero before the point."""

    def cut(value: float, digits: int) -> str:
        text = f"{value:.{digits}f}"
        return text[1:] if text.startswith("0") else text

    value, bounds = row.get(key), row.get(f"{key}_ci")
    if value is None or value != value:
        return "-"
    if not bounds or None in bounds:
        return cut(value, 3)
    return f"{cut(value, 3)} [{cut(bounds[0], 2)}, {cut(bounds[1], 2)}]"


def _rich(found: Sequence[Line], cell: Callable[[Mapping[str, Any], str], str]) -> rich.table.Table:
    result = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    result.add_column("", no_wrap=True)
    result.add_column("n", justify="right", no_wrap=True)
    shown = columns(found)
    for _, label, _ in shown:
        result.add_column(rich.text.Text(label), justify="right", no_wrap=True)
    single = len({line.method for line in found}) == 1
    for i, line in enumerate(found):
        if not single and (not i or found[i - 1].task != line.task):
            result.add_row(rich.text.Text(line.task, style="bold"), f"{line.row['n']:,}")
        figures = [
            rich.text.Text(
                figure(line.row, key) if key == "candidate_mass" else cell(line.row, key),
                style="bold" if key in line.best else "",
            )
            for key, _, _ in shown
        ]
        if single:
            result.add_row(line.task, f"{line.row['n']:,}", *figures)
        else:
            result.add_row(f"  {line.method}", "", *figures)
    return result


def show(
    states: Mapping[str, Mapping[str, Any]], console: rich.console.Console | None = None
) -> None:
    """Prints the overview; intervals are shortened, then left out, where the console is narrow.

    Args:
      states: column name -> split -> ROW of summary.json.
      console: a rich console; None: standard output.
    """
    console = table.standard_console(console, _WIDTH)
    found = lines(states)
    unbounded = console.options.update(max_width=10_000)
    for cell in (_line, _short, figure):
        drawn = _rich(found, cell)
        if rich.measure.Measurement.get(console, unbounded, drawn).maximum <= console.width:
            break
    console.print()
    methods = {line.method for line in found}
    if len(methods) == 1:
        console.print(rich.text.Text(f"Confidence read by: {methods.pop()}", style="bold"))
    console.print(drawn)
    note = NOTE
    if cell is figure:
        note += " The intervals need a wider console; summary.json and report.html hold them."
    if any(line.best for line in found):
        note += f" {RULE}"
    console.print()
    for warning in low_mass(found):
        console.print(rich.text.Text(f"Note: {warning}.", style="yellow"))
    console.print(rich.text.Text(note, style="dim"))


def show_summary(summary: Mapping[str, Any], console: rich.console.Console | None = None) -> None:
    """Prints a summary.json in words, then details of few splits, the overview of several tasks."""
    states = content.columns(summary)
    by_method = is_by_method(summary)
    said = verdicts.of_methods(states) if by_method else None
    table.say(said or verdicts.of_states(states, summary.get("change")), console)
    overview = worth_showing(states)
    few = len(content.ordered_splits(states)) <= MAX_DETAILED
    if not overview or (few and not by_method):
        table.show_summary(summary, console)
    if overview:
        show(states, console)


def is_by_method(summary: Mapping[str, Any]) -> bool:
    """Whether a summary's columns are several methods on one model."""
    measured = summary.get("measured")
    if not isinstance(measured, Mapping) or not measured:
        return False
    return "conf_ece" not in next(iter(measured.values()))


# --- Files --------------------------------------------------------------------------------------


def as_csv(states: Mapping[str, Mapping[str, Any]]) -> str:
    """The overview as CSV: plain numbers, every figure beside the ends of its interval."""
    found = lines(states)
    keys = [key for key, _, _ in columns(found)]
    header = ["task", "method", "n"]
    for key in keys:
        header += [key, f"{key}_low", f"{key}_high"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for line in found:
        cells = [line.task, line.method, line.row["n"]]
        for key in keys:
            bounds = line.row.get(f"{key}_ci") or (None, None)
            cells += ["" if v is None or v != v else v for v in (line.row.get(key), *bounds)]
        writer.writerow(cells)
    return text.getvalue()


def as_markdown(states: Mapping[str, Mapping[str, Any]]) -> str:
    """The overview as one Markdown table, and its notes beneath."""
    found = lines(states)
    shown = columns(found)
    names = [content.Row(label, direction, ()).arrow for _, label, direction in shown]
    rows = ["| task | method | n | " + " | ".join(names) + " |"]
    rows.append("|---|---|---:|" + "---:|" * len(names))
    for line in found:
        cells = [
            table.escape(line.task),
            table.escape(line.method),
            f"{line.row['n']:,}",
            *(
                f"**{_line(line.row, key)}**" if key in line.best else _line(line.row, key)
                for key, _, _ in shown
            ),
        ]
        rows.append("| " + " | ".join(cells) + " |")
    notes = [NOTE, *([RULE] if any(line.best for line in found) else [])]
    notes += [table.escape(f"{warning}.") for warning in low_mass(found)]
    return "\n".join([*rows, "", *(f"{note}  " for note in notes)]) + "\n"


def as_latex(states: Mapping[str, Mapping[str, Any]]) -> str:
    """The overview as a LaTeX ``table*`` (package booktabs)."""
    found = lines(states)
    shown = columns(found)

    def cell(line: Line, key: str) -> str:
        value = content.number(line.row.get(key)).replace("-", "--")
        bounds = content.interval(line.row.get(f"{key}_ci"))
        value = rf"\textbf{{{value}}}" if key in line.best else value
        return rf"{value} {{\scriptsize {bounds}}}" if bounds else value

    body, last = [], None
    for line in found:
        if last is not None and last != line.task:
            body.append(r"\addlinespace")
        name = latex_escape(line.task) if last != line.task else ""
        last = line.task
        cells = [name, latex_escape(line.method), f"{line.row['n']}"]
        body.append(" & ".join([*cells, *(cell(line, key) for key, _, _ in shown)]) + r" \\")
    rule = f" {RULE}" if any(line.best for line in found) else ""
    return "\n".join(
        [
            r"% Needs \usepackage{booktabs}.",
            r"\begin{table*}",
            r"\centering",
            r"\footnotesize",
            rf"\begin{{tabular}}{{ll{'r' * (1 + len(shown))}}}",
            r"\toprule",
            "task & method & $n$ & "
            + " & ".join(latex_escape(label) for _, label, _ in shown)
            + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{Calibration by task and method. {latex_escape(NOTE + rule)}}}",
            r"\end{table*}",
            "",
        ]
    )


def write(folder: str | os.PathLike, summary: Mapping[str, Any]) -> None:
    """Writes overview.{csv,md,tex} into ``folder``, where there is more than one line to show."""
    states = content.columns(summary)
    if not worth_showing(states):
        return
    folder = pathlib.Path(folder)
    write_text(folder / "overview.csv", as_csv(states))
    write_text(folder / "overview.md", as_markdown(states))
    write_text(folder / "overview.tex", as_latex(states))
