"""What is shown of SFT and DPO: letters before and after, then preference pairs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from calib_jax.reports import catalogue, tables
from calib_jax.reports.alignment.tables import CAPTION
from calib_jax.reports.tables import Table, transposed
from calib_jax.reports.views import Block, View, measurement, note

_TITLES = {
    "held_out": "held-out preference pairs",
    "training": "preference pairs that were trained on",
}


def preference_tables(preferences: Mapping[str, Any]) -> list[Table]:
    """A table for every set of pairs."""
    return [
        transposed(
            name, part["pairs"], catalogue.PAIRS,
            {"after − before": part["change"]["pairs"]["after"]},
            title=f"{_TITLES.get(name, name)} ({part['pairs']['before']['n']:,})",
        )
        for name, part in preferences.items()
    ]  # fmt: skip  # the table's parts


def console(summary: Mapping[str, Any]) -> list[Block]:
    """What is printed."""
    found = preference_tables(summary["preferences"])
    return [*measurement.console(summary), *found, *([note(CAPTION)] if found else [])]


def view(summary: Mapping[str, Any], *arguments: Any, **options: Any) -> View:
    """The view of the letters, with the tables of pairs on the console and as a file."""
    shown = measurement.view(summary, *arguments, **options)
    found = preference_tables(summary["preferences"])
    files = {"tables/preferences.md": tables.markdown(found, CAPTION)} if found else {}
    return dataclasses.replace(shown, console=console(summary), files={**shown.files, **files})
