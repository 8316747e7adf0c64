"""report.html: one self-contained file: numbers, figures, and how to get them again."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax.confidence.scores import Scores
from calib_jax.reports import content
from calib_jax.reports.atomic import write_text
from calib_jax.reports.page import pictures, questions, results
from calib_jax.reports.page.layout import escape, facts, for_figures, note
from calib_jax.reports.page.script import POLICY, SCRIPT
from calib_jax.reports.page.style import CSS
from calib_jax.reports.writers import plain


def _again(
    summary: Mapping[str, Any], config: Mapping[str, Any] | None, command: str | None
) -> str:
    """Command, costs, versions and configuration."""
    parts = [f"<pre>{escape(command)}</pre>"] if command else []
    keys = {
        "wall_time_s": "wall time in s",
        "peak_memory_gib": "peak memory in GiB",
        "versions": "versions",
    }
    parts.append(facts({name: summary[key] for key, name in keys.items() if summary.get(key)}))
    if config is not None:
        text = escape(json.dumps(plain(config), indent=2, default=str))
        parts.append(f"<details><summary>Configuration</summary><pre>{text}</pre></details>")
    return "\n".join(parts)


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
    drawn, limits = for_figures(states)
    limit = "".join(note(text) for text in limits)
    bins = (num_bins, edges)

    # (title, content) in the order of the page.
    sections = [
        ("Results", results.results(states, summary.get("change"))),
        ("Reliability", limit + pictures.diagrams(drawn, scores, *bins)),
        ("Smooth reliability", pictures.smooth(drawn, scores)),
        ("Letter by letter", pictures.class_grid(drawn, scores, *bins)),
        ("Confidences", pictures.confidences(drawn, scores, log)),
        ("Risk and coverage", pictures.risk_coverage(drawn, scores)),
    ]
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
    sections.append(("How to get this again", _again(summary, config, command)))

    model, method = summary.get("model"), summary.get("method")
    title = "Calibration" + (f" of {model}" if model else "")
    kicker = " · ".join(str(v) for v in (method, summary.get("config")) if v)
    headline = escape(results.headline(states))
    links = "".join(f'<li><a href="#s{i}">{name}</a></li>' for i, (name, _) in enumerate(sections))
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}: {headline}</title>",
        f"<style>\n{CSS}\n</style>\n</head>\n<body>\n<main>",
        f'<h1>{escape(title)}</h1>\n<p class="kicker">{escape(kicker)}</p>',
        f"<p>{headline}.</p>",
        results.cards(states),
        f'<nav aria-label="Contents"><ul>{links}</ul></nav>',
        *(
            f'<section>\n<h2 id="s{i}">{name}</h2>\n{body}\n</section>'
            for i, (name, body) in enumerate(sections)
        ),
        f"</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def write(
    path: str | os.PathLike,
    summary: Mapping[str, Any],
    scores: Mapping[str, Mapping[str, Scores]],
    **options: Any,
) -> pathlib.Path:
    """Writes `render(summary, scores, **options)` to `path`, atomically."""
    write_text(path, render(summary, scores, **options))
    return pathlib.Path(path)
