"""The tables of a stage of alignment: letters before and after, then preference pairs."""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import rich.console

from calib_jax.reports import overview, table
from calib_jax.reports.alignment import tables
from calib_jax.reports.atomic import write_text
from calib_jax.reports.content import Section

_TITLES = {
    "held_out": "held-out preference pairs",
    "training": "preference pairs that were trained on",
}


def sections(preferences: Mapping[str, Any]) -> list[Section]:
    """A section for every set of pairs of a summary's "preferences"; all notes beneath the last."""
    found = []
    for name, part in preferences.items():
        (section,) = tables.sections(part)
        title = f"{_TITLES.get(name, name)} ({part['pairs']['before']['n']:,})"
        last = len(found) == len(preferences) - 1
        notes = section.notes if last else ()
        found.append(dataclasses.replace(section, title=title, notes=notes))
    return found


def show_summary(summary: Mapping[str, Any], console: rich.console.Console | None = None) -> None:
    """Prints the tables of a summary.json of the job align."""
    overview.show_summary(summary, console)
    if summary["preferences"]:
        table.show_sections(sections(summary["preferences"]), tables.CAPTION, console)


def write(folder: str | os.PathLike, preferences: Mapping[str, Any]) -> None:
    """Writes preferences.md into ``folder``."""
    if preferences:
        text = table.markdown_sections(sections(preferences), tables.CAPTION)
        write_text(pathlib.Path(folder) / "preferences.md", text)
