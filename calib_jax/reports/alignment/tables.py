"""The tables of what alignment is kept: on the console, as Markdown and as CSV."""

import csv
import io
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import rich.console

from calib_jax.reports import content, table
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
    ("mean_ratio", "policy ratio", 0),
    ("preference_rate", "preference rate", 0),
    ("mean_excess", "  ratio less rate", 0),
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
    "preference collapse",
)
BEFORE = "before"


def sections(summary: Mapping[str, Any]) -> list[Section]:
    """A section for pairs and one for text: every model, and its change from the first one."""
    found = []
    for part, figures, unit in (("pairs", PAIRS, "pairs"), ("text", TEXT, "documents")):
        rows = summary.get(part)
        if not rows:
            continue
        changes = summary["change"].get(part, {})
        first = rows[BEFORE]
        header = []
        for label in rows:
            header += [label, *([f"{label} - {BEFORE}"] if label in changes else [])]
        lines = [
            content.Row(label, direction, _cells(rows, changes, key, direction))
            for key, label, direction in figures
            if any(key in row for row in rows.values())
        ]
        title = f"{part} ({first['n']:,} {unit})"
        found.append(Section(part, title, tuple(header), tuple(lines), _notes(summary, part)))
    return found


def _cells(
    rows: Mapping[str, Any], changes: Mapping[str, Any], key: str, direction: int
) -> tuple[Cell, ...]:
    cells = []
    for label, row in rows.items():
        known = key in row
        bounds = content.interval(row.get(f"{key}_ci")) if known else ""
        cells.append(Cell(content.number(row[key]) if known else "", bounds))
        if label not in changes:
            continue
        change = changes[label]
        if key == "perplexity":
            ratio, ends = change["perplexity_ratio"], change["perplexity_ratio_ci"]
            away = [None if end is None else end - 1 for end in ends]
            text = f"× {content.number(ratio)}"
            cells.append(Cell(text, content.interval(ends), content.verdict(0, away, direction)))
        elif key in change:
            ends = change[f"{key}_ci"]
            cells.append(
                Cell(
                    content.number(change[key], signed=True),
                    content.interval(ends, signed=True),
                    content.verdict(change[key], ends, direction),
                )
            )
        else:
            cells.append(Cell(""))
    return tuple(cells)


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


def show_summary(summary: Mapping[str, Any], console: rich.console.Console | None = None) -> None:
    """Prints the tables of a summary.json of the job alignment."""
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
                    moved = "perplexity_ratio" if key == "perplexity" else key
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
