"""The table of the job "winrate": on the console, and as Markdown."""

from collections.abc import Mapping
from typing import Any

import rich.box
import rich.console
import rich.table
import rich.text

from calib_jax.reports.table import escape, standard_console

HEADER = ("n", "win rate %", "± s.e.", "length-controlled %", "won/tied/lost", "length ratio")
NOTES = (
    "Win rate: the model's share of games, a tie being half; intervals: 95 %, bootstrap over "
    "questions. Length-controlled: at equal lengths, by a logistic fit with tanh(difference in "
    "length / its standard deviation) and a small ridge; AlpacaEval's own number also knows each "
    "instruction's difficulty and two gamed baselines, and differs.",
    "Arena-Hard: two games a question, a verdict of >> counts 3; with one baseline this is the "
    "Bradley-Terry win rate against it.",
)


def _percent(value: float | None, ends: list[float | None] | None = None) -> str:
    if value is None:
        return "-"
    text = f"{100 * value:.1f}"
    if ends and None not in ends:
        text += f" [{100 * ends[0]:.1f}, {100 * ends[1]:.1f}]"
    return text


def cells(row: Mapping[str, Any]) -> list[str]:
    """A contest's label and its figures, as text."""
    label = f"{row['model']} : {row['baseline']}"
    label += f" ({row['category']})" if row["category"] else ""
    ratio = row["length_ratio"]
    return [
        label,
        f"{row['n']:,}",
        _percent(row["win_rate"], row["win_rate_ci"]),
        _percent(row["standard_error"]),
        _percent(row["length_controlled_win_rate"], row["length_controlled_win_rate_ci"]),
        f"{row['won']}/{row['tied']}/{row['lost']}",
        "-" if ratio is None else f"{ratio:.2f}",
    ]


def left_out(summary: Mapping[str, Any]) -> list[str]:
    """A line for every contest with questions that are not counted."""
    lines = []
    for row in summary["contests"]:
        label = cells(row)[0]
        if row["unjudged"]:
            lines.append(f"{label}: {row['unjudged']} questions without a verdict are left out.")
        if row["length_controlled_win_rate"] is None:
            lines.append(f"{label}: no length control: {row['no_length_control']}.")
    return lines


def notes(summary: Mapping[str, Any]) -> list[str]:
    """What the figures are, as far as it concerns these contests."""
    arena = any(row["layout"] == "arena_hard" for row in summary["contests"])
    return list(NOTES if arena else NOTES[:1])


def show_summary(summary: Mapping[str, Any], console: rich.console.Console | None = None) -> None:
    """Prints a summary.json of the job "winrate"."""
    console = standard_console(console, 130)
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD, show_edge=False)
    table.add_column("model : baseline")
    for name in HEADER:
        table.add_column(name, justify="right")
    for row in summary["contests"]:
        table.add_row(*map(rich.text.Text, cells(row)))
    console.print()
    console.print(table)
    for line in left_out(summary):
        console.print(rich.text.Text(line))
    for note in notes(summary):
        console.print(rich.text.Text(note, style="dim"))


def as_markdown(summary: Mapping[str, Any]) -> str:
    """The same as a Markdown table with its notes beneath."""
    lines = ["| model : baseline | " + " | ".join(HEADER) + " |", "|---|" + "---:|" * len(HEADER)]
    for row in summary["contests"]:
        lines.append("| " + " | ".join(map(escape, cells(row))) + " |")
    extra = [f"{line}  " for line in (*left_out(summary), *notes(summary))]
    return "\n".join([*lines, "", *extra]) + "\n"
