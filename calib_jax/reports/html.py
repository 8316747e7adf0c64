"""report.html: one self-contained file: numbers, figures, and how to get them again."""

import html
import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.reports import content, reliability, training_log
from calib_jax.reports.atomic import write_text
from calib_jax.reports.bins import bins_of
from calib_jax.reports.style import CSS
from calib_jax.reports.writers import plain

States = Mapping[str, Mapping[str, Mapping[str, Any]]]


def _escape(value: Any) -> str:
    return html.escape(str(value), quote=True)


def _table(head: str, rows: Sequence[str]) -> str:
    return (
        f'<div class="scroll"><table><thead>{head}</thead>\n<tbody>\n'
        + "\n".join(rows)
        + "\n</tbody></table></div>"
    )


def _course(states: States, split: str, key: str) -> str:
    """A metric through the states: "0.410 → 0.050"."""
    values = [content.number(rows[split].get(key)) for rows in states.values() if split in rows]
    return " → ".join(values)


def headline(states: States) -> str:
    """The result in one sentence: "conf-ECE on openbookqa: 0.410 → 0.050; on ..."."""
    parts = [f"on {s}: {_course(states, s, 'conf_ece')}" for s in content.ordered_splits(states)]
    return "conf-ECE " + "; ".join(parts)


def _cards(states: States) -> str:
    cards = []
    for split in content.ordered_splits(states):
        row = next(rows[split] for rows in states.values() if split in rows)
        about = [split, content.DOMAINS.get(row.get("domain"), ""), f"{row['n']:,} questions"]
        also = (
            f"accuracy {_course(states, split, 'accuracy')}; "
            f"mean confidence {_course(states, split, 'mean_confidence')}"
        )
        cards.append(
            f"<li><span>{_escape(' · '.join(filter(None, about)))}</span>"
            f"<strong>conf-ECE {_course(states, split, 'conf_ece')}</strong>"
            f"<span>{also}</span></li>"
        )
    return '<ul class="cards">' + "".join(cards) + "</ul>"


def _results(states: States, changes: Mapping[str, Any] | None) -> str:
    parts = []
    for section in content.sections(states, changes):
        head = "".join(f'<th scope="col">{_escape(name)}</th>' for name in section.header)
        rows = []
        for row in section.rows:
            cells = "".join(
                f'<td class="{cell.verdict}">{_escape(cell.value)}'
                + (f" <small>{_escape(cell.interval)}</small>" if cell.interval else "")
                + "</td>"
                for cell in row.cells
            )
            rows.append(f'<tr><th scope="row">{_escape(row.arrow)}</th>{cells}</tr>')
        parts.append(f"<h3>{_escape(section.title)}</h3>")
        parts.append(_table(f"<tr><th></th>{head}</tr>", rows))
        parts += [f'<p class="note">{_escape(note)}</p>' for note in section.notes]
    legend = "↓ lower is better, ↑ higher is better. " + content.caption(bool(changes))
    if changes:
        legend += " Coloured and bold: the whole interval lies on one side of 0."
    parts.append(f'<p class="note">{legend}</p>')
    return "\n".join(parts)


def _figure(image: bytes, alt: str, caption: str) -> str:
    source = reliability.data_uri(image, "svg")
    return (
        f'<figure><img src="{source}" alt="{_escape(alt)}">'
        f"<figcaption>{_escape(caption)}</figcaption></figure>"
    )


def _diagrams(states: States, scores: Mapping[str, Any], num_bins: int, edges: str) -> str:
    figure = reliability.draw(states, scores, num_bins, edges)
    alt = "Reliability diagrams. " + " ".join(
        f"{split}, {state}: conf-ECE {content.number(rows[split]['conf_ece'])}, "
        f"accuracy {content.number(rows[split]['accuracy'])}, "
        f"mean confidence {content.number(rows[split]['mean_confidence'])}."
        for split in content.ordered_splits(states)
        for state, rows in states.items()
        if split in rows
    )
    caption = (
        "Height of a bar: accuracy of the questions whose confidence falls into the bin; the "
        "darker, the more questions. Hatched: the gap to their mean confidence. Beneath: the "
        "histogram of confidences with overall accuracy and mean confidence. Right: how often "
        "each letter was chosen, and how often it was the right one."
    )
    return _figure(reliability.svg(figure), alt, caption)


def _interval(edges: np.ndarray, m: int, convention: str) -> str:
    low, high = f"{edges[m]:.3g}", f"{edges[m + 1]:.3g}"
    # The first and the last bin take the value that the half-open convention leaves over.
    if convention == "right":
        return f"{'[' if m == 0 else '('}{low}, {high}]"
    return f"[{low}, {high}{']' if m == len(edges) - 2 else ')'}"


def _bin_tables(states: States, scores: Mapping[str, Any], num_bins: int, edges: str) -> str:
    parts = []
    for split in content.ordered_splits(states):
        tables = {
            state: bins_of(scores[state][split], num_bins, edges)
            for state, rows in states.items()
            if split in rows
        }
        top = "".join(f'<th class="group" colspan="4">{_escape(state)}</th>' for state in tables)
        names = "<th>questions</th><th>accuracy</th><th>confidence</th><th>gap</th>" * len(tables)
        rows = []
        bounds = next(iter(tables.values())).edges
        for m in range(num_bins):
            cells = [f'<th scope="row">{_interval(bounds, m, edges)}</th>']
            for bins in tables.values():
                if bins.counts[m]:
                    accuracy, confidence = float(bins.accuracy[m]), float(bins.confidence[m])
                    figures = [
                        f"{int(bins.counts[m]):,}",
                        content.number(accuracy),
                        content.number(confidence),
                        content.number(confidence - accuracy, signed=True),
                    ]
                else:
                    figures = ["0", "", "", ""]
                cells += [f"<td>{figure}</td>" for figure in figures]
            rows.append("<tr>" + "".join(cells) + "</tr>")
        parts.append(f"<h3>{_escape(split)}</h3>")
        parts.append(_table(f"<tr><th></th>{top}</tr><tr><th>confidence in</th>{names}</tr>", rows))
    parts.append('<p class="note">Gap: confidence − accuracy; positive is over-confident.</p>')
    return "\n".join(parts)


def _course_of_training(log: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    figure = training_log.draw(log)
    if figure is not None:
        alt = "Curves over the optimiser's steps: conf-ECE, accuracy and the training loss."
        caption = (
            "Every E-step measures the training set, every evaluation held-out questions. A "
            "training set that keeps improving while held-out questions get worse overfits."
        )
        parts.append(_figure(reliability.svg(figure), alt, caption))
    header, rows = training_log.table(log)
    if rows:
        head = "".join(
            f"<th{' class=text' if name == 'questions of' else ''}>{_escape(name)}</th>"
            for name in header
        )
        body = [
            "<tr>"
            + "".join(
                f"<td{' class=text' if i == 2 else ''}>{_escape(cell)}</td>"
                for i, cell in enumerate(row)
            )
            + "</tr>"
            for row in rows
        ]
        parts.append(_table(f"<tr>{head}</tr>", body))
    return "\n".join(parts)


def _facts(value: Any) -> str:
    """Nested dictionaries as definition lists; everything else as text."""
    if isinstance(value, Mapping):
        items = "".join(
            f"<dt>{_escape(str(k).replace('_', ' '))}</dt><dd>{_facts(v)}</dd>"
            for k, v in value.items()
        )
        return f'<dl class="facts">{items}</dl>' if items else "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(_facts(v) for v in value) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return _escape(value)


def render(
    summary: Mapping[str, Any],
    scores: Mapping[str, Mapping[str, Scores]],
    log: Sequence[Mapping[str, Any]] = (),
    config: Mapping[str, Any] | None = None,
    command: str | None = None,
    num_bins: int = 10,
    edges: str = "right",
) -> str:
    """The report as one HTML document without scripts and without anything from outside.

    Args:
      summary: what summary.json holds.
      scores: state ("before", "after") -> split -> scores, for figures and per-bin tables.
      log: the lines of metrics.jsonl.
      config: the resolved configuration.
      command: the shell command that runs this again.
      num_bins: M bins of equal width.
      edges: "right" or "left", the side on which a bin is closed.
    """
    states = content.columns(summary)
    model, method = summary.get("model"), summary.get("method")
    title = "Calibration" + (f" of {model}" if model else "")
    kicker = " · ".join(str(v) for v in (method, summary.get("config")) if v)
    parts = [
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_escape(title)}: {_escape(headline(states))}</title>",
        f"<style>\n{CSS}\n</style>\n</head>\n<body>\n<main>",
        f'<h1>{_escape(title)}</h1>\n<p class="kicker">{_escape(kicker)}</p>',
        f"<p>{_escape(headline(states))}.</p>",
        _cards(states),
        f"<h2>Reliability</h2>\n{_diagrams(states, scores, num_bins, edges)}",
        f"<h2>Results</h2>\n{_results(states, summary.get('change'))}",
    ]
    if log:
        parts.append(f"<h2>Course of the training</h2>\n{_course_of_training(log)}")
    for key, name in (("data", "Data"), ("training", "Training")):
        if summary.get(key):
            parts.append(f"<h2>{name}</h2>\n{_facts(summary[key])}")
    parts.append(f"<h2>Bins</h2>\n{_bin_tables(states, scores, num_bins, edges)}")
    parts.append("<h2>How to get this again</h2>")
    if command:
        parts.append(f"<pre>{_escape(command)}</pre>")
    keys = {
        "wall_time_s": "wall time in s",
        "peak_memory_gib": "peak memory in GiB",
        "versions": "versions",
    }
    parts.append(_facts({name: summary[key] for key, name in keys.items() if summary.get(key)}))
    if config is not None:
        text = json.dumps(plain(config), indent=2, default=str)
        parts.append(
            f"<details><summary>Configuration</summary><pre>{_escape(text)}</pre></details>"
        )
    parts.append("</main>\n</body>\n</html>\n")
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
