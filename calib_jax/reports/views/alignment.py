"""What of an alignment is kept: preference pairs and text, before and after."""

import functools
from collections.abc import Mapping
from typing import Any

from calib_jax.confidence.preference import PreferenceScores
from calib_jax.confidence.running_text import TextLosses
from calib_jax.reports import catalogue, tables
from calib_jax.reports.pairs import figures
from calib_jax.reports.tables import Table
from calib_jax.reports.views import Block, Facts, Picture, Section, View, note, pairs, said, series
from calib_jax.reports.views.pairs import CAPTION
from calib_jax.reports.views.series import Part
from calib_jax.reports.words import plural

# What a sentence is about, by the name of its part.
_HEADLINES = {"pairs": ("accuracy", "preference accuracy"), "text": ("perplexity", "perplexity")}


def parts(summary: Mapping[str, Any]) -> list[Part]:
    """Pairs and text, as far as they were asked."""
    found = []
    changes = summary["change"]
    if rows := summary.get("pairs"):
        title = f"pairs ({plural(rows['before']['n'], 'pair')})"
        found.append(pairs.part("pairs", rows, changes["pairs"], summary["beta"], title))
    if rows := summary.get("text"):
        window = summary["data"]["text"]["window"]
        how = (
            f"Windows of {window} tokens: every token is predicted once, after at least "
            f"{window // 2} others where its text has so many."
        )
        title = f"text ({plural(rows['before']['n'], 'document')})"
        found.append(Part("text", rows, catalogue.TEXT, changes["text"], title, (how,)))
    return found


def tables_of(summary: Mapping[str, Any]) -> list[Table]:
    """Every model's figures, and their changes from the first model's."""
    return [table for part in parts(summary) for table in part.tables(*pairs.CHANGES)]


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """ "preference accuracy: 0.610 (before); 0.600 (cft, no significant change: ...)"."""
    return [part.course(*_HEADLINES[part.name], arrow="; ") for part in parts(summary)]


def console(summary: Mapping[str, Any]) -> list[Block]:
    """Sentences, tables, and what brackets mean."""
    return [*said(sentences(summary)), *tables_of(summary), note(CAPTION)]


def view(
    summary: Mapping[str, Any],
    scores: Mapping[str, PreferenceScores],
    losses: Mapping[str, TextLosses],
) -> View:
    """Tables, the distributions of margins, and of changes of the loss document by document.

    Args:
      summary: what summary.json holds.
      scores, losses: model -> of its pairs and documents, the first model first; {} where none
        were asked.
    """
    found = tables_of(summary)
    sections, drawn = [Section("Results", [*found, series.legend(CAPTION)])], {}
    if scores:
        drawn["figures/margins"] = draw = functools.partial(figures.margins, scores)
        label = "Distribution of the margins of preference pairs, a curve per model."
        sections.append(Section("Margins", [Picture(draw, "margins", label, wide=True)]))
    if len(losses) > 1:
        drawn["figures/text"] = draw = functools.partial(figures.drift, losses)
        label = "Change of the loss per byte of every document, a curve per model."
        sections.append(Section("Text", [Picture(draw, "drift", label, wide=True)]))
    sections += [Section(name.capitalize(), [Facts(summary[name])]) for name in ("data", "models")]
    return View(
        title="Alignment kept?",
        kicker=f"alignment · {' · '.join(summary['models'])}",
        said=sentences(summary),
        console=console(summary),
        sections=sections,
        files={
            **tables.files("tables/alignment", found, CAPTION),
            "tables/alignment.csv": series.changes_csv(parts(summary), "model"),
        },
        figures=drawn,
    )
