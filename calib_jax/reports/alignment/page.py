"""report.html of the job alignment: tables, distributions of margins, text document by document."""

from collections.abc import Mapping
from typing import Any

from calib_jax.confidence.preference import PreferenceScores
from calib_jax.confidence.running_text import TextLosses
from calib_jax.reports.alignment import tables
from calib_jax.reports.alignment.figures import drift, margins
from calib_jax.reports.page import layout, results
from calib_jax.reports.page.document import again, document
from calib_jax.reports.page.layout import facts, note


def render(
    summary: Mapping[str, Any],
    pairs: Mapping[str, PreferenceScores],
    text: Mapping[str, TextLosses],
    config: Mapping[str, Any],
    command: str,
) -> str:
    """The report as one HTML document that takes nothing from outside.

    Args:
      summary: what summary.json holds.
      pairs, text: label -> scores, the first model first; {} where not measured.
    """
    parts = [("Results", results.section_tables(tables.sections(summary)) + note(_LEGEND))]
    if pairs:
        label = "Distribution of the margins of preference pairs, a curve per model."
        parts.append(("Margins", layout.figure(margins(pairs), "margins", label, wide=True)))
    if len(text) > 1:
        label = "Change of the loss per byte of every document, a curve per model."
        parts.append(("Text", layout.figure(drift(text), "drift", label, wide=True)))
    parts.append(("Data", facts(summary["data"])))
    parts.append(("Models", facts(summary["models"])))
    parts.append(("How to get this again", again(summary, config, command)))
    names = " · ".join(summary["models"])
    return document("Alignment kept?", f"alignment · {names}", tables.sentences(summary), parts)


_LEGEND = (
    "↓ lower is better, ↑ higher is better. "
    + tables.CAPTION
    + " Coloured and bold: the whole interval lies on one side of 0."
)
