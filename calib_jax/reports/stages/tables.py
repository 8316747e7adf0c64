"""The tables of the stages: figures after each, and what each has changed."""

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
LETTERS = (
    ("conf_ece", "conf-ECE", -1),
    ("conf_ece_null_q95", "  by chance (95%)", 0),
    ("cw_ece", "cw-ECE", -1),
    ("accuracy", "accuracy", +1),
    ("mean_confidence", "mean confidence", 0),
    ("overconfidence", "  less accuracy", 0),
    ("nll", "NLL", -1),
    ("brier", "Brier", -1),
    ("share_above_090", "share of c > 0.9", 0),
    ("top_letter_share", "share of the top letter", 0),
)
PAIRS = (
    ("mean_ratio", "policy ratio", 0),
    ("preference_rate", "preference rate", 0),
    ("mean_excess", "  ratio less rate", 0),
    ("share_above_rate", "  ratio above rate", 0),
    ("accuracy", "preference accuracy", +1),
    ("mean_margin", "mean margin, nats", 0),
)
PAIRS_PART = "pairs"
CAPTION = (
    "Brackets: 95% bootstrap intervals over questions or pairs (shares: Wilson's); those of "
    "calibration errors allow for their bias, and hold 0 where chance alone would explain the "
    "error. By chance: the conf-ECE that a perfectly calibrated model exceeds in one sample of 20. "
    "Policy ratio: pi(chosen) / (pi(chosen) + pi(rejected)); beyond the preference rate it is "
    "preference collapse. A change is from the stage before, paired."
)


def parts_of(summary: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """split or "pairs" -> stage -> ROW."""
    parts: dict[str, dict[str, Mapping[str, Any]]] = {}
    for stage, splits in summary["letters"].items():
        for split, row in splits.items():
            parts.setdefault(split, {})[stage] = row
    if summary.get(PAIRS_PART):
        parts[PAIRS_PART] = dict(summary[PAIRS_PART])
    return parts


def sections(summary: Mapping[str, Any]) -> list[Section]:
    """A section per split and one for the pairs: the stages as columns, then their changes."""
    found = []
    for part, rows in parts_of(summary).items():
        figures, unit = (PAIRS, "pairs") if part == PAIRS_PART else (LETTERS, "questions")
        changes = {
            stage: by_part[part] for stage, by_part in summary["change"].items() if part in by_part
        }
        header = (*rows, *(f"by {stage}" for stage in changes))
        lines = []
        for key, label, direction in figures:
            if not any(key in row for row in rows.values()):
                continue
            cells = [
                Cell(content.number(row.get(key)), content.interval(row.get(f"{key}_ci")))
                for row in rows.values()
            ]
            cells += [_change(change, key, direction) for change in changes.values()]
            lines.append(content.Row(label, direction, tuple(cells)))
        if part != PAIRS_PART:
            tops = [Cell(_top_letter(row)) for row in rows.values()]
            tops += [Cell("")] * len(changes)
            lines.append(content.Row(content.TOP_LETTER, 0, tuple(tops)))
        n = next(iter(rows.values()))["n"]
        found.append(Section(part, f"{part} ({n:,} {unit})", header, tuple(lines), ()))
    return found


def _change(change: Mapping[str, Any], key: str, direction: int) -> Cell:
    if key not in change:
        return Cell("")
    ends = change[f"{key}_ci"]
    return Cell(
        content.number(change[key], signed=True),
        content.interval(ends, signed=True),
        content.verdict(change[key], ends, direction),
    )


def _top_letter(row: Mapping[str, Any]) -> str:
    return f"{content.share(row['top_letter_share'], 1)} {row['top_letter']}"


def show_summary(summary: Mapping[str, Any], console: rich.console.Console | None = None) -> None:
    """Prints the figures of a summary.json of the job stages, and what the stages have changed."""
    for section in sections(summary):
        count = len(parts_of(summary)[section.split])
        after, changed = _split(section, count)
        table.show_sections([after], "", console)
        if changed.header:
            table.show_sections([changed], "", console)
    table.standard_console(console).print(CAPTION, style="dim", markup=False)


def _split(section: Section, count: int) -> tuple[Section, Section]:
    """The columns of the stages and those of their changes as two tables."""
    rows = [row for row in section.rows if any(str(cell) for cell in row.cells[count:])]
    after = Section(
        section.split,
        section.title,
        section.header[:count],
        tuple(content.Row(r.label, r.direction, r.cells[:count]) for r in section.rows),
        section.notes,
    )
    changed = Section(
        section.split,
        f"{section.split}: changed by each stage",
        section.header[count:],
        tuple(content.Row(r.label, r.direction, r.cells[count:]) for r in rows),
        (),
    )
    return after, changed


def split_sections(summary: Mapping[str, Any]) -> list[Section]:
    """The sections with figures and changes in tables of their own."""
    found: list[Section] = []
    for section in sections(summary):
        after, changed = _split(section, len(parts_of(summary)[section.split]))
        found += [after, *([changed] if changed.header else [])]
    return found


def as_csv(summary: Mapping[str, Any]) -> str:
    """A line per part, stage and figure: value, change from the stage before, their intervals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["low", "high", "change", "change_low", "change_high"]
    writer.writerow(["part", "stage", "figure", "value", *names])
    for part, rows in parts_of(summary).items():
        for stage, row in rows.items():
            change = summary["change"].get(stage, {}).get(part, {})
            for key, _, _ in PAIRS if part == PAIRS_PART else LETTERS:
                if key in row:
                    ends = row.get(f"{key}_ci") or [None, None]
                    far = change.get(f"{key}_ci") or [None, None]
                    line = [part, stage, key, row[key], *ends, change.get(key), *far]
                    writer.writerow(["" if value is None else value for value in line])
    return text.getvalue()


def write(folder: str | os.PathLike, summary: Mapping[str, Any]) -> None:
    """Writes stages.md and stages.csv."""
    folder = pathlib.Path(folder)
    parts = [table.markdown_sections([s], "").rstrip() for s in split_sections(summary)]
    write_text(folder / "stages.md", "\n\n".join([*parts, CAPTION]) + "\n")
    write_text(folder / "stages.csv", as_csv(summary))
