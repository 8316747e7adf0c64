"""What a run prints: the tables and sentences of its view."""

import itertools
from collections.abc import Sequence

import rich.console
import rich.text

from calib_jax.reports import tables
from calib_jax.reports.tables import Table
from calib_jax.reports.views import Block, Text

_STYLES = {"said": "bold", "note": "dim", "warning": "yellow", "": ""}


def show(blocks: Sequence[Block], console: rich.console.Console | None = None) -> None:
    """Prints blocks in order; tables that follow one another share their widths and layout."""
    console = tables.standard_console(console, 120)
    runs = itertools.groupby(blocks, key=lambda block: isinstance(block, Table))
    for are_tables, run in runs:
        if are_tables:
            tables.show([block for block in run if isinstance(block, Table)], console)
            continue
        console.print()
        for block in run:
            if isinstance(block, Text):
                console.print(rich.text.Text(block.text, style=_STYLES[block.kind]))
