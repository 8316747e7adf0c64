"""What judges said about answers."""

from collections.abc import Mapping
from typing import Any

from calib_jax.reports import tables
from calib_jax.reports.tables import Cell, Column, Row, Table
from calib_jax.reports.views import Block, Text, View, note
from calib_jax.reports.words import percent

_COLUMNS = ("n", "win rate %", "± s.e.", "length-controlled %", "won/tied/lost", "length ratio")
_NOTES = (
    "Win rate: the model's share of games, a tie being half; brackets: Wilson's 95 % interval over "
    "questions, of as many games as tell as much where games are tied or weighted. "
    "Length-controlled: at equal lengths, by a logistic fit with tanh(difference in length / its "
    "standard deviation) and a small ridge; brackets: its 95 % profile likelihood interval. "
    "AlpacaEval's own number also knows each instruction's difficulty and two gamed baselines, and "
    "differs.",
    "Arena-Hard: two games a question, a verdict of >> counts 3; with one baseline this is the "
    "Bradley-Terry win rate against it.",
)


def table(summary: Mapping[str, Any]) -> Table:
    """A row per contest."""
    rows = []
    for row in summary["contests"]:
        ratio = row["length_ratio"]
        cells = [
            Cell(_label(row)),
            Cell(f"{row['n']:,}"),
            _percent(row, "win_rate"),
            Cell(percent(row["standard_error"])),
            _percent(row, "length_controlled_win_rate"),
            Cell(f"{row['won']}/{row['tied']}/{row['lost']}"),
            Cell("–" if ratio is None else f"{ratio:.2f}"),
        ]
        rows.append(Row(tuple(cells)))
    columns = (Column("model : baseline", text=True), *map(Column, _COLUMNS))
    return Table("winrate", columns, tuple(rows))


def _label(row: Mapping[str, Any]) -> str:
    category = f" ({row['category']})" if row["category"] else ""
    return f"{row['model']} : {row['baseline']}{category}"


def _percent(row: Mapping[str, Any], key: str) -> Cell:
    ends = row[f"{key}_ci"]
    known = row[key] is not None and ends and None not in ends
    return Cell(percent(row[key]), f"[{percent(ends[0])}, {percent(ends[1])}]" if known else "")


def left_out(summary: Mapping[str, Any]) -> list[str]:
    """A line for every contest with questions that are not counted."""
    lines = []
    for row in summary["contests"]:
        if row["unjudged"]:
            count = f"{row['unjudged']} questions without a verdict"
            lines.append(f"{_label(row)}: {count} are left out.")
        if row["length_controlled_win_rate"] is None:
            lines.append(f"{_label(row)}: no length control: {row['no_length_control']}.")
    return lines


def _notes(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """What the figures are, as far as it concerns these contests."""
    arena = any(row["layout"] == "arena_hard" for row in summary["contests"])
    return _NOTES if arena else _NOTES[:1]


def console(summary: Mapping[str, Any]) -> list[Block]:
    """The table and what was left out."""
    return [table(summary), *map(Text, left_out(summary)), *map(note, _notes(summary))]


def view(summary: Mapping[str, Any]) -> View:
    """The table on the console and as winrate.md."""
    caption = "\n\n".join([*left_out(summary), *_notes(summary)])
    files = {"winrate.md": tables.markdown([table(summary)], caption)}
    return View("Win rates", "winrate", (), console(summary), files=files)
