"""The tables of the stages: figures after each, and what each has changed."""

import csv
import io
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import rich.console

from calib_jax.reports import content, table, verdicts
from calib_jax.reports.alignment import tables as alignment_tables
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
    ("mean_ratio_normalised", "  per token", 0),
    ("preference_rate", "preference rate", 0),
    ("mean_excess", "  ratio less rate", 0),
    ("mean_excess_normalised", "  per token", 0),
    ("share_above_rate", "  ratio above rate", 0),
    ("accuracy", "preference accuracy", +1),
    ("mean_margin", "mean margin, nats", 0),
)
CAPTION = (
    "Brackets: 95% bootstrap intervals over questions or pairs (shares: Wilson's); those of "
    "calibration errors allow for their bias, and hold 0 where chance alone would explain the "
    "error. By chance: the conf-ECE that a perfectly calibrated model exceeds in one sample of 20. "
    "Policy ratio: pi(chosen) / (pi(chosen) + pi(rejected)); beyond the preference rate it is "
    "preference collapse; per token: that of the tokens' geometric mean probabilities, since of "
    "long answers nearly every ratio is 0 or 1. A change is from the stage before, paired."
)


def parts_of(summary: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """split or set of pairs -> stage -> ROW."""
    parts: dict[str, dict[str, Mapping[str, Any]]] = {}
    for stage, splits in summary["letters"].items():
        for split, row in splits.items():
            parts.setdefault(split, {})[stage] = row
    return parts | {name: dict(rows) for name, rows in summary["pairs"].items()}


def sections(summary: Mapping[str, Any]) -> list[Section]:
    """Per split, and of the pairs: a table of every stage, and one of what it has changed."""
    found = []
    for part, rows in parts_of(summary).items():
        figures, unit = (PAIRS, "pairs") if part in summary["pairs"] else (LETTERS, "questions")
        header, lines = alignment_tables.columns(rows, figures)
        if part not in summary["pairs"]:
            tops = (
                Cell(f"{content.share(row['top_letter_share'], 1)} {row['top_letter']}")
                for row in rows.values()
            )
            named = any(row.get("classes") for row in rows.values())
            top = content.TOP_CLASS if named else content.TOP_LETTER
            lines = (*lines, content.Row(top, 0, tuple(tops)))
        first = next(iter(rows.values()))
        # An older run's summary knows of no pools.
        splits = summary.get("drawn", {}).get(part, {}).get("splits", [part])
        name = part if len(splits) == 1 else f"{part}: {' + '.join(splits)}"
        about = [content.DOMAINS.get(first.get("domain"), ""), f"{first['n']:,} {unit}"]
        if len(splits) > 1:
            del about[0]
        title = f"{name} ({', '.join(filter(None, about))})"
        moved = {s: by_part[part] for s, by_part in summary["change"].items() if part in by_part}
        found.append(Section(part, title, header, lines, ()))
        found += alignment_tables.changes(part, "changed by each stage", moved, figures, "by ")
    return found


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """ "conf-ECE on arc: 0.410 (start) → 0.050 (sft, significantly lower: by [...]) → ..."."""
    said = []
    for part, rows in parts_of(summary).items():
        pairs = part in summary["pairs"]
        # An older run's summary knows of no pools, and names every split.
        if not pairs and part not in summary.get("drawn", summary["letters"][list(rows)[0]]):
            continue
        key, name = ("mean_ratio", "policy ratio of") if pairs else ("conf_ece", "conf-ECE on")
        moved = {stage: by_part.get(part, {}) for stage, by_part in summary["change"].items()}
        changes = {stage: verdicts.of_change(row.get(f"{key}_ci")) for stage, row in moved.items()}
        last = "" if pairs else verdicts.of_chance(rows[list(rows)[-1]])
        values = {stage: row[key] for stage, row in rows.items()}
        said.append(
            verdicts.course(f"{name} {part.replace('_', ' ')}", values, changes, after=last)
        )
    return said


def show_summary(summary: Mapping[str, Any], console: rich.console.Console | None = None) -> None:
    """Prints the figures of a summary.json of the job stages, and what the stages have changed."""
    table.say(sentences(summary), console)
    for section in sections(summary):
        table.show_sections([section], "", console)
    table.standard_console(console).print(CAPTION, style="dim", markup=False)


def as_csv(summary: Mapping[str, Any]) -> str:
    """A line per part, stage and figure: value, change from the stage before, their intervals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ["low", "high", "change", "change_low", "change_high"]
    writer.writerow(["part", "stage", "figure", "value", *names])
    for part, rows in parts_of(summary).items():
        for stage, row in rows.items():
            change = summary["change"].get(stage, {}).get(part, {})
            for key, _, _ in PAIRS if part in summary["pairs"] else LETTERS:
                if key in row:
                    ends = row.get(f"{key}_ci") or [None, None]
                    far = change.get(f"{key}_ci") or [None, None]
                    line = [part, stage, key, row[key], *ends, change.get(key), *far]
                    writer.writerow(["" if value is None else value for value in line])
    return text.getvalue()


def write(folder: str | os.PathLike, summary: Mapping[str, Any]) -> None:
    """Writes stages.md and stages.csv."""
    folder = pathlib.Path(folder)
    parts = [table.markdown_sections([s], "").rstrip() for s in sections(summary)]
    write_text(folder / "stages.md", "\n\n".join([*parts, CAPTION]) + "\n")
    write_text(folder / "stages.csv", as_csv(summary))
