"""The tables of what alignment is kept: on the console, as Markdown and as CSV."""

import csv
import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import rich.console

from calib_jax.reports import content, table, verdicts
from calib_jax.reports.atomic import write_text
from calib_jax.reports.content import Cell, Section

# (key in ROW, label, which way is better)
PAIRS = (
    ("accuracy", "preference accuracy", +1),
    ("accuracy_normalised", "  per token", +1),
    ("mean_margin", "mean margin, nats", 0),
    ("mean_margin_normalised", "  per token", 0),
    ("mean_reward_margin", "mean reward margin", 0),
    ("reward_accuracy", "  share above 0", 0),
    ("mean_confidence", "mean confidence", 0),
    ("mean_ratio", "policy ratio", 0),
    ("mean_ratio_normalised", "  per token", 0),
    ("preference_rate", "preference rate", 0),
    ("mean_excess", "  ratio less rate", 0),
    ("mean_excess_normalised", "  per token", 0),
    ("share_above_rate", "  ratio above rate", 0),
    ("chosen_log_prob", "log-prob. of the chosen", 0),
    ("rejected_log_prob", "log-prob. of the rejected", 0),
)
TEXT = (
    ("perplexity", "perplexity per token", -1),
    ("nll", "NLL per token", -1),
    ("nll_per_word", "NLL per word", -1),
    ("nll_per_byte", "NLL per byte", -1),
)
CAPTION = (
    "Brackets: 95% bootstrap intervals over pairs (shares: Wilson's) or documents; changes are "
    "paired over the same ones."
)
_PAIR_NOTES = (
    "accuracy: the chosen answer has the higher log-probability, summed over its tokens or their "
    "mean; a tie is none",
    "policy ratio: pi(chosen) / (pi(chosen) + pi(rejected)); beyond the preference rate it is "
    "preference collapse. Of long answers nearly every ratio is 0 or 1; per token: that of the "
    "tokens' geometric mean probabilities",
)
BEFORE = "before"


def sections(summary: Mapping[str, Any]) -> list[Section]:
    """Tables of pairs and of text: every model, and its change from the first one.

    The change is a column where there is one, else a table of its own.
    """
    found = []
    for part, figures, unit in (("pairs", PAIRS, "pairs"), ("text", TEXT, "documents")):
        rows = summary.get(part)
        if not rows:
            continue
        title = f"{part} ({rows[BEFORE]['n']:,} {unit})"
        header, lines = columns(rows, figures)
        moved = summary["change"].get(part, {})
        if len(moved) == 1:
            ((label, row),) = moved.items()
            header = (*header, f"{label} - {BEFORE}")
            keys = [key for key, _, _ in figures if any(key in one for one in rows.values())]
            lines = tuple(
                content.Row(
                    line.label, line.direction, (*line.cells, _change(row, key, line.direction))
                )
                for key, line in zip(keys, lines, strict=True)
            )
            moved = {}
        found.append(Section(part, title, header, lines, _notes(summary, part)))
        found += changes(part, f"change from {BEFORE}", moved, figures)
    return found


def columns(
    rows: Mapping[str, Any], figures: Sequence[tuple[str, str, int]]
) -> tuple[tuple[str, ...], tuple[content.Row, ...]]:
    """Header and lines: the figures (key, label, direction) of every ROW, by its name."""
    lines = []
    for key, label, direction in figures:
        if any(key in row for row in rows.values()):
            cells = (
                Cell(content.number(row[key]), content.interval(row.get(f"{key}_ci")))
                if key in row
                else Cell("")
                for row in rows.values()
            )
            lines.append(content.Row(label, direction, tuple(cells)))
    return tuple(rows), tuple(lines)


def changes(
    part: str,
    what: str,
    rows: Mapping[str, Any],
    figures: Sequence[tuple[str, str, int]],
    head: str = "",
) -> list[Section]:
    """A table of paired differences; none where there are none."""
    known = [entry for entry in figures if any(_moved(entry[0]) in row for row in rows.values())]
    lines = (
        content.Row(label, way, tuple(_change(row, key, way) for row in rows.values()))
        for key, label, way in known
    )
    header = tuple(head + name for name in rows)
    return [Section(part, f"{part}: {what}", header, tuple(lines), ())] if rows else []


def _moved(key: str) -> str:
    """What a change calls a figure: that of the perplexity is a factor."""
    return "perplexity_ratio" if key == "perplexity" else key


def _change(change: Mapping[str, Any], key: str, direction: int) -> Cell:
    key = _moved(key)
    if key not in change:
        return Cell("")
    value, ends = change[key], change[f"{key}_ci"]
    if key == "perplexity_ratio":
        away = [None if end is None else end - 1 for end in ends]
        verdict = content.verdict(value - 1, away, direction)
        return Cell(f"× {content.number(value)}", content.interval(ends), verdict)
    return Cell(
        content.number(value, signed=True),
        content.interval(ends, signed=True),
        content.verdict(value, ends, direction),
    )


def _notes(summary: Mapping[str, Any], part: str) -> tuple[str, ...]:
    if part == "text":
        window = summary["data"]["text"]["window"]
        return (
            f"windows of {window} tokens, every token predicted once, after at least "
            f"{window // 2} others where its text has so many",
        )
    beta = summary["beta"]
    rewards = any("mean_reward_margin" in row for row in summary["pairs"].values())
    reward = f"reward margin: DPO's beta [...] against the model before, beta = {beta:g}"
    return (*_PAIR_NOTES, *([reward] if rewards else []))


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """ "preference accuracy: 0.610 (before); 0.600 (cft, no significant change: ...)"."""
    said = []
    for part, key, name in (
        ("pairs", "accuracy", "preference accuracy"),
        ("text", "perplexity", "perplexity"),
    ):
        rows = summary.get(part)
        if not rows:
            continue
        factor = key == "perplexity"
        changes = {
            label: verdicts.of_change(
                row.get(f"{_moved(key)}_ci"), 1.0 if factor else 0.0, signed=not factor
            )
            for label, row in summary["change"].get(part, {}).items()
        }
        values = {label: row[key] for label, row in rows.items()}
        said.append(verdicts.course(name, values, changes, "; "))
    return said


def show_summary(summary: Mapping[str, Any], console: rich.console.Console | None = None) -> None:
    """Prints the tables of a summary.json of the job alignment."""
    table.say(sentences(summary), console)
    table.show_sections(sections(summary), CAPTION, console)


def as_csv(summary: Mapping[str, Any]) -> str:
    """part, model, figure, value, its interval, its change from the first model and its interval.

    The change of the perplexity is a factor.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["low", "high", "change", "change_low", "change_high"]
    writer.writerow(["part", "model", "figure", "value", *names])
    for part, figures in (("pairs", PAIRS), ("text", TEXT)):
        for label, row in (summary.get(part) or {}).items():
            change = summary["change"].get(part, {}).get(label, {})
            for key, _, _ in figures:
                if key in row:
                    moved = _moved(key)
                    ends = row.get(f"{key}_ci") or [None, None]
                    far = change.get(f"{moved}_ci") or [None, None]
                    line = [part, label, key, row[key], *ends, change.get(moved), *far]
                    writer.writerow(["" if value is None else value for value in line])
    return text.getvalue()


def write(folder: str | os.PathLike, summary: Mapping[str, Any]) -> None:
    """Writes alignment.md and alignment.csv."""
    folder = pathlib.Path(folder)
    write_text(folder / "alignment.md", table.markdown_sections(sections(summary), CAPTION))
    write_text(folder / "alignment.csv", as_csv(summary))
