"""What is shown of SFT and DPO: letters before and after, then preference pairs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from calib_jax.reports import tables
from calib_jax.reports.views import Block, View, measurement, note, pairs


def console(summary: Mapping[str, Any]) -> list[Block]:
    """What is printed."""
    found = pairs.preferences_tables(summary["preferences"])
    return [*measurement.console(summary), *found, *([note(pairs.CAPTION)] if found else [])]


def view(summary: Mapping[str, Any], *arguments: Any, **options: Any) -> View:
    """The view of the letters, with the tables of pairs on the console and as files."""
    shown = measurement.view(summary, *arguments, **options)
    found = pairs.preferences_tables(summary["preferences"])
    files = tables.files("tables/preferences", found, pairs.CAPTION)
    return dataclasses.replace(shown, console=console(summary), files={**shown.files, **files})
