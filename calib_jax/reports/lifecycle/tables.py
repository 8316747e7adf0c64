"""A row per part and model: on the console, as Markdown and as CSV; and facts by relation."""

import csv
import io
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import rich.box
import rich.console
import rich.measure
import rich.table
import rich.text

from calib_jax.reports import content, table, verdicts
from calib_jax.reports.atomic import write_text

# (key in ROW, label, which way is better, whether it has an interval)
COLUMNS = (
    ("accuracy", "accuracy", +1, True),
    ("conf_ece", "conf-ECE", -1, True),
    ("conf_ece_null_q95", "by chance", 0, False),
    ("mean_confidence", "mean conf.", 0, True),
    ("overconfidence", "over-conf.", 0, False),
    ("nll", "NLL", -1, True),
)
NOTE = (
    "Text and facts: top-1 probability over the whole vocabulary, right where its token is the "
    "next one; <task>_vocabulary: likewise after a question, right where it is the right letter; "
    "tasks: the letters' probabilities, renormalised. Brackets: 95% intervals; where a "
    "document gives several positions, by resampling documents. By chance: the conf-ECE that a "
    "perfectly calibrated model exceeds in one sample of 20. NLL: of the token that follows, in "
    "nats (of tasks: of the right letter)."
)
_WIDTH = 120
# (key of what was left out, why), before and after a tokenizer has seen it
_SKIPPED = (
    ("skipped_empty", "empty"),
    ("skipped_no_template", "without a template of the relation"),
    ("skipped_no_sentence", "without a sentence of their own"),
    ("skipped_no_mask", "whose sentences hold no [MASK]"),
    ("skipped_pronouns", "pronouns"),
    ("skipped_other_text", "whose span does not hold their name"),
    ("skipped_same_start", "that begin where a longer one does"),
    ("skipped_no_text_before", "without text before the object"),
    ("skipped_too_short", "too short"),
    ("skipped_inside_token", "whose span begins inside a token"),
)


def rows_of(summary: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """label -> part -> ROW of a summary of this job, in the series' order."""
    return {label: summary[label] for label in summary["models"]}


def parts_of(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Every part of any model, in order."""
    return list(dict.fromkeys(part for by_part in rows.values() for part in by_part))


def low_mass(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A sentence where the letters of a task hold little of a model's probability."""
    named = {f"{label}, {part}": row for label, some in rows.items() for part, row in some.items()}
    return content.low_mass(named)


def cell(row: Mapping[str, Any], key: str, ranged: bool) -> str:
    """ "0.123 [0.100, 0.200]"."""
    bounds = content.interval(row.get(f"{key}_ci")) if ranged else ""
    return f"{content.number(row.get(key), signed=key == 'overconfidence')} {bounds}".strip()


def skipped_lines(summary: Mapping[str, Any]) -> list[str]:
    """ "Text: documents skipped: 3 empty; 2 to 5 too short", a line per part that skipped any.

    A range is of the models, whose tokenizers may differ.
    """
    rows = rows_of(summary)
    lines = []
    for part in parts_of(rows):
        source = summary["data"].get(part, {})
        counts = [by_part[part].get("counts", {}) for by_part in rows.values() if part in by_part]
        reasons = []
        for key, why in _SKIPPED:
            numbers = [source[key]] if key in source else [count.get(key, 0) for count in counts]
            least, most = min(numbers), max(numbers)
            if most:
                number = f"{most:,}" if least == most else f"{least:,} to {most:,}"
                reasons.append(f"{number} {why}")
        if reasons:
            what = "Text: documents" if part == "text" else part.capitalize()
            lines.append(f"{what} skipped: {'; '.join(reasons)}.")
    return lines


# The figures whose intervals the console shows, as many of them as there is room for.
_RANGED = (("accuracy", "conf_ece"), ("conf_ece",), ())


def _drawn(rows: Mapping[str, Any], part: str, ranged: tuple[str, ...]) -> rich.table.Table:
    drawn = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    drawn.add_column("", no_wrap=True)
    drawn.add_column("n", justify="right", no_wrap=True)
    for _, label, _, _ in COLUMNS:
        drawn.add_column(rich.text.Text(label), justify="right", no_wrap=True)
    for label, by_part in rows.items():
        if part in by_part:
            row = by_part[part]
            cells = [cell(row, key, key in ranged) for key, _, _, _ in COLUMNS]
            drawn.add_row(rich.text.Text(label), f"{row['n']:,}", *cells)
    return drawn


def sentences(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Per part its first and last model: conf-ECE, chance, and whether their intervals meet."""
    said = []
    for part in parts_of(rows):
        here = {label: by_part[part] for label, by_part in rows.items() if part in by_part}
        ends = {label: here[label] for label in dict.fromkeys([list(here)[0], list(here)[-1]])}
        last = list(ends.values())[-1]
        text = verdicts.course(
            f"conf-ECE on {part}", {label: row["conf_ece"] for label, row in ends.items()}, {},
            after=verdicts.of_chance(last, "answers"),
        )  # fmt: skip
        bounds = [row.get("conf_ece_ci") for row in ends.values()]
        if len(ends) > 1 and all(b and None not in b for b in bounds):
            (low, high), (other_low, other_high) = bounds
            meet = low <= other_high and other_low <= high
            text += f"; their 95% intervals {'overlap' if meet else 'do not overlap'}"
        said.append(text)
    return said


def show_summary(summary: Mapping[str, Any], console: rich.console.Console | None = None) -> None:
    """Prints a table per part; intervals are left out where the console is narrow."""
    console = table.standard_console(console, _WIDTH)
    rows = rows_of(summary)
    unbounded = console.options.update(max_width=10_000)
    for ranged in _RANGED:
        shown = {part: _drawn(rows, part, ranged) for part in parts_of(rows)}
        needed = (rich.measure.Measurement.get(console, unbounded, t) for t in shown.values())
        if max(n.maximum for n in needed) <= console.width:
            break
    table.say(sentences(rows), console)
    for part, drawn in shown.items():
        console.print()
        console.print(rich.text.Text(part, style="bold"))
        console.print(drawn)
    console.print()
    for line in (*skipped_lines(summary), *low_mass(rows)):
        console.print(rich.text.Text(line))
    console.print(rich.text.Text(NOTE, style="dim"))


def as_markdown(summary: Mapping[str, Any]) -> str:
    """One Markdown table, and its note beneath."""
    rows = rows_of(summary)
    names = [content.Row(label, direction, ()).arrow for _, label, direction, _ in COLUMNS]
    lines = ["| part | model | n | " + " | ".join(names) + " |"]
    lines.append("|---|---|---:|" + "---:|" * len(names))
    for part in parts_of(rows):
        for label, by_part in rows.items():
            if part in by_part:
                row = by_part[part]
                cells = [table.escape(part), table.escape(label), f"{row['n']:,}"]
                cells += [cell(row, key, ranged) for key, _, _, ranged in COLUMNS]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", NOTE]) + "\n"


def _csv(header: list[str], lines: list[list[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for line in lines:
        writer.writerow(["" if value is None or value != value else value for value in line])
    return text.getvalue()


def as_csv(summary: Mapping[str, Any]) -> str:
    """part, model, its place on the axis, n, documents, and every figure with its ends."""
    rows = rows_of(summary)
    header = ["part", "model", "place", "n", "documents"]
    for key, _, _, ranged in COLUMNS:
        header += [key, *([f"{key}_low", f"{key}_high"] if ranged else [])]
    lines = []
    for part in parts_of(rows):
        for label, by_part in rows.items():
            if part not in by_part:
                continue
            row = by_part[part]
            place = summary["models"][label].get("place")
            line = [part, label, place, row["n"], row.get("documents")]
            for key, _, _, ranged in COLUMNS:
                line.append(row.get(key))
                line += (row.get(f"{key}_ci") or [None, None]) if ranged else []
            lines.append(line)
    return _csv(header, lines)


def groups_csv(summary: Mapping[str, Any], part: str) -> str:
    """A part's figures by relation or subject: a row per model and group; "" without groups."""
    keys = ("n", "accuracy", "mean_confidence", "conf_ece", "conf_ece_null_q95")
    lines = [
        [label, group["group"], *(group.get(key) for key in keys)]
        for label, by_part in rows_of(summary).items()
        for group in by_part.get(part, {}).get("groups", ())
    ]
    return _csv(["model", "group", *keys], lines) if lines else ""


def write(folder: str | os.PathLike, summary: Mapping[str, Any]) -> None:
    """Writes lifecycle.{csv,md}, and <part>_by_group.csv where a part has groups."""
    folder = pathlib.Path(folder)
    write_text(folder / "lifecycle.csv", as_csv(summary))
    write_text(folder / "lifecycle.md", as_markdown(summary))
    for part in parts_of(rows_of(summary)):
        if text := groups_csv(summary, part):
            write_text(folder / f"{part}_by_group.csv", text)
