"""How many answers were right, and where the questions about them are."""

from collections.abc import Mapping
from typing import Any

from calib_jax.reports.tables import Cell, Column, Row, Table
from calib_jax.reports.views import Block, View


def console(summary: Mapping[str, Any]) -> list[Block]:
    """A row per task: answers, how many are right, files."""
    columns = (
        Column("task", text=True),
        Column("answers"),
        Column("right"),
        Column("files", text=True),
    )
    rows = (
        Row(
            (
                Cell(name),
                Cell(f"{row['n']:,}"),
                Cell(f"{row['right']:,} ({row['right'] / row['n']:.1%})"),
                Cell("\n".join(row["files"].values())),
            )
        )
        for name, row in summary["graded"].items()
    )
    return [Table("graded", columns, tuple(rows), "Graded answers")]


def view(summary: Mapping[str, Any]) -> View:
    """The table on the console."""
    return View("Graded answers", "grade", (), console(summary))
