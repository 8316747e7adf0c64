"""report.html of the stages: the figure, the tables, what was done at every stage."""

from collections.abc import Mapping
from typing import Any

from calib_jax.reports.page import layout, results
from calib_jax.reports.page.document import again, document
from calib_jax.reports.page.layout import facts, note
from calib_jax.reports.stages import figures, tables


def render(
    summary: Mapping[str, Any],
    panels: figures.Panels,
    config: Mapping[str, Any],
    command: str,
) -> str:
    """The report as one HTML document that takes nothing from outside."""
    said = tables.sentences(summary)
    drawn = figures.draw(panels, summary["pairs"], figures.headings(summary["drawn"]))
    label = (
        f"Reliability diagrams of every stage, and figures across the stages. {'. '.join(said)}."
    )
    sections = [
        ("Figure", layout.figure(drawn, "stages", label, wide=True)),
        ("Results", results.section_tables(tables.sections(summary)) + note(_LEGEND)),
        ("Stages", facts(summary["stages"])),
        ("Data", facts(summary["data"])),
        ("How to get this again", again(summary, config, command)),
    ]
    course = " → ".join(summary["stages"])
    return document("Calibration after every stage", f"stages · {course}", said, sections)


_LEGEND = (
    "↓ lower is better, ↑ higher is better. "
    + tables.CAPTION
    + " Coloured and bold: the whole interval lies on one side of 0."
)
