"""report.html: one self-contained file: numbers, figures, and how to get them again."""

import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax.confidence.scores import Scores
from calib_jax.reports import content, overview, verdicts
from calib_jax.reports.atomic import write_text
from calib_jax.reports.page import classes, pictures, questions, results
from calib_jax.reports.page.document import again, document
from calib_jax.reports.page.layout import MAX_DIAGRAM_SPLITS, facts, for_figures, note


def render(
    summary: Mapping[str, Any],
    scores: Mapping[str, Mapping[str, Scores]],
    log: Sequence[Mapping[str, Any]] = (),
    config: Mapping[str, Any] | None = None,
    command: str | None = None,
    num_bins: int = 10,
    edges: str = "right",
) -> str:
    """The report as one HTML document that takes nothing from outside.

    Its one script sorts the tables of subjects; all else works without it. A content security
    policy in the page forbids every other script and every request.

    Args:
      summary: what summary.json holds. Parts that it lacks are left out of the page.
      scores: state ("before", "after") -> split -> scores, for figures and per-bin tables.
      log: the lines of metrics.jsonl.
      config: the resolved configuration.
      command: the shell command that runs this again.
      num_bins: M bins of equal width.
      edges: "right" or "left", the side on which a bin is closed.
    """
    states = content.columns(summary)
    (drawn, limits), (diagrams, fewer) = (
        for_figures(states), for_figures(states, MAX_DIAGRAM_SPLITS)
    )  # fmt: skip
    limit, fewer_limit = ("".join(map(note, texts)) for texts in (limits, fewer))
    bins = (num_bins, edges)
    changes = summary.get("change")
    table, said = results.results(states, changes), verdicts.of_states(states, changes)
    cards = results.cards(states, changes)
    if overview.is_by_method(summary):
        # Thousands of figures: there for who asks for them.
        title = "<summary>Every figure, task by task</summary>"
        table = f"<details>{title}{table}</details>"
        said, cards = verdicts.of_methods(states), ""
    if overview.worth_showing(states):
        table = results.one_table(states) + table

    # (title, content) in the order of the page.
    sections = [
        ("Results", table),
        ("Reliability", fewer_limit + pictures.diagrams(diagrams, scores, *bins)),
        ("Smooth reliability", limit + pictures.smooth(drawn, scores)),
        (_by_option(states), pictures.class_grid(drawn, scores, *bins)),
        ("Confidences", pictures.confidences(drawn, scores, log)),
        ("Risk and coverage", pictures.risk_coverage(drawn, scores)),
    ]
    if any(row.get("by_class") for rows in states.values() for row in rows.values()):
        sections.insert(4, ("Classes", classes.tables(states)))
    if results.has_subjects(states):
        sections.append(("Subjects", results.subjects(states)))
    if summary.get("posthoc"):
        sections.append(("Post-hoc calibration", results.posthoc(summary["posthoc"], states)))
    if summary.get("quantization"):
        sections.append(("Quantisation", results.quantization(summary["quantization"])))
    sections.append(("Confidently wrong", questions.section(states, scores)))
    if log:
        sections.append(("Course of the training", pictures.course_of_training(log)))
    for key, name in (("data", "Data"), ("training", "Training")):
        if summary.get(key):
            sections.append((name, facts(summary[key])))
    sections.append(("Bins", results.bin_tables(states, scores, *bins)))
    sections.append(("How to get this again", again(summary, config, command)))

    model, method = summary.get("model"), summary.get("method")
    title = "Calibration" + (f" of {model}" if model else "")
    kicker = " · ".join(str(v) for v in (method, summary.get("config")) if v)
    return document(title, kicker, said, sections, cards)


def _by_option(states: Mapping[str, Mapping[str, Any]]) -> str:
    """The title of the class-wise diagrams."""
    named = {bool(row.get("classes")) for rows in states.values() for row in rows.values()}
    titles = {True: "Class by class", False: "Letter by letter"}
    return titles[named.pop()] if len(named) == 1 else "Option by option"


def write(
    path: str | os.PathLike,
    summary: Mapping[str, Any],
    scores: Mapping[str, Mapping[str, Scores]],
    **options: Any,
) -> pathlib.Path:
    """Writes `render(summary, scores, **options)` to `path`, atomically."""
    write_text(path, render(summary, scores, **options))
    return pathlib.Path(path)
