"""The tables of a run as CSV, Markdown and LaTeX, for a spreadsheet, a README or a paper.

`methods.*` is laid out as Table 2 of Xiao et al. 2025: a row per method, conf-ECE, cw-ECE and
accuracy on every split. `metrics.*` holds every figure with its interval.
"""

import csv
import io
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax.reports import content, table
from calib_jax.reports.atomic import write_text

States = Mapping[str, Mapping[str, Mapping[str, Any]]]

# Table 2's columns: (key in ROW, label, which way is better).
METHOD_METRICS = (("conf_ece", "conf-ECE", -1), ("cw_ece", "cw-ECE", -1), ("accuracy", "acc.", +1))
RULE = (
    "Bold: the best of a column, where its 95% interval overlaps no other method's; "
    "where none is bold, the intervals do not allow to say which is best."
)
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "\n": " ",
}


def latex_escape(text: str) -> str:
    r"""``text`` as LaTeX prints it verbatim.

    Example:
        >>> latex_escape("a_b 50%")
        'a\\_b 50\\%'
    """
    return "".join(_LATEX.get(c, c) for c in text)


def method_states(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Mapping[str, Any]]]:
    """The rows of the methods table: the measured states, then the calibrators, out of fold."""
    return {**content.columns(summary), **posthoc_states(summary)}


def posthoc_states(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Mapping[str, Any]]]:
    """The calibrators' rows under names that say what they are."""
    found = summary.get("posthoc") or {}
    return {f"{method} (post hoc)": splits for method, splits in found.items()}


def best(rows: Sequence[Mapping[str, Any] | None], key: str, direction: int) -> int | None:
    """Which row's figure is best beyond doubt: its interval overlaps no other's.

    Args:
      rows: ROWs; None where a method was not measured on the split.
      key: the metric.
      direction: -1 lower is better, +1 higher.

    Returns:
      The row's index; None where the intervals do not allow to say, or there is nothing to compare.
    """
    known = []
    for i, row in enumerate(rows):
        value = (row or {}).get(key)
        if value is None or not math.isfinite(value):
            continue
        low, high = (row or {}).get(f"{key}_ci") or (None, None)
        known.append((i, direction * value, low, high))
    if len(known) < 2:
        return None
    first = max(known, key=lambda item: item[1])
    for other in known:
        if other is first:
            continue
        if None in (*first[2:], *other[2:]):
            return None
        if not (first[3] < other[2] or other[3] < first[2]):
            return None
    return first[0]


def _grid(states: States) -> tuple[list[tuple[str, str]], list[list[tuple[str, bool]]]]:
    """Header cells (metric, split) and per state (text, whether it is bold)."""
    splits = content.ordered_splits(states)
    header, columns = [], []
    for key, label, direction in METHOD_METRICS:
        for split in splits:
            rows = [by_split.get(split) for by_split in states.values()]
            domain = next((row.get("domain") for row in rows if row), "")
            short = {"in": "ID", "out": "OOD"}.get(domain or "", "")
            header.append((label, f"{short}: {split}" if short else split))
            top = best(rows, key, direction)
            columns.append(
                [
                    ("–" if row is None else _four(row.get(key)), i == top)
                    for i, row in enumerate(rows)
                ]
            )
    return header, [list(cells) for cells in zip(*columns, strict=True)]


def _four(value: float | None) -> str:
    """Four decimals, as the paper prints them."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.4f}"


def methods_csv(states: States) -> str:
    """The methods table as CSV: one header line, plain numbers."""
    header, rows = _grid(states)
    lines = [["method", *(f"{metric} {split}" for metric, split in header)]]
    for name, cells in zip(states, rows, strict=True):
        lines.append([name, *("" if text == "–" else text for text, _ in cells)])
    return _csv(lines)


def methods_markdown(states: States) -> str:
    """The methods table as Markdown."""
    header, rows = _grid(states)
    names = [table.escape(f"{metric} {split}") for metric, split in header]
    lines = ["| method | " + " | ".join(names) + " |", "|---|" + "---:|" * len(header)]
    for name, cells in zip(states, rows, strict=True):
        texts = [f"**{text}**" if bold else text for text, bold in cells]
        lines.append(f"| {table.escape(name)} | " + " | ".join(texts) + " |")
    return "\n".join([*lines, "", RULE]) + "\n"


def methods_latex(states: States) -> str:
    """The methods table as a LaTeX ``table`` (package booktabs)."""
    header, rows = _grid(states)
    splits = len(header) // len(METHOD_METRICS)
    groups = " & ".join(
        rf"\multicolumn{{{splits}}}{{c}}{{{latex_escape(label)}}}" for _, label, _ in METHOD_METRICS
    )
    rules = " ".join(
        rf"\cmidrule(lr){{{2 + i * splits}-{1 + (i + 1) * splits}}}"
        for i in range(len(METHOD_METRICS))
    )
    lines = [
        r"% Needs \usepackage{booktabs}.",
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{l{'r' * len(header)}}}",
        r"\toprule",
        rf" & {groups} \\",
        rules,
        "method & " + " & ".join(latex_escape(split) for _, split in header) + r" \\",
        r"\midrule",
    ]
    for name, cells in zip(states, rows, strict=True):
        texts = [rf"\textbf{{{text}}}" if bold else text.replace("–", "--") for text, bold in cells]
        lines.append(f"{latex_escape(name)} & " + " & ".join(texts) + r" \\")
    lines += [
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{Calibration by method. {latex_escape(RULE)}}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def metrics_csv(states: States) -> str:
    """Every figure: a line per state, split and metric, with its interval where it has one."""
    lines: list[list[Any]] = [["state", "split", "domain", "n", "metric", "value", "low", "high"]]
    for state, splits in states.items():
        for split, row in splits.items():
            for key, value in row.items():
                if key == "n" or isinstance(value, bool):
                    continue
                if value is not None and not isinstance(value, (int, float)):
                    continue
                low, high = row.get(f"{key}_ci") or ("", "")
                figures = [value, low, high]
                lines.append(
                    [state, split, row.get("domain", ""), row.get("n", ""), key]
                    + ["" if v is None or v != v else v for v in figures]
                )
    return _csv(lines)


def metrics_latex(states: States, changes: Mapping[str, Any] | None = None) -> str:
    """The headline table as LaTeX, one ``table`` per split."""
    parts = [r"% Needs \usepackage{booktabs}."]
    for section in content.sections(states, changes):
        parts += [
            r"\begin{table}",
            r"\centering",
            rf"\begin{{tabular}}{{l{'r' * len(section.header)}}}",
            r"\toprule",
            " & " + " & ".join(map(latex_escape, section.header)) + r" \\",
            r"\midrule",
            *(
                f"{latex_escape(row.label)} & "
                + " & ".join(latex_escape(str(cell)).replace("[", "{[}") for cell in row.cells)
                + r" \\"
                for row in section.rows
            ),
            r"\bottomrule",
            r"\end{tabular}",
            rf"\caption{{{latex_escape(section.title)}. "
            rf"{latex_escape(content.caption(bool(changes)))}}}",
            r"\end{table}",
        ]
    return "\n".join(parts) + "\n"


def _csv(lines: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(lines)
    return text.getvalue()


def write(folder: str | os.PathLike, summary: Mapping[str, Any]) -> None:
    """Writes methods.{csv,md,tex} and metrics.{csv,md,tex} into ``folder``."""
    folder = pathlib.Path(folder)
    states, methods = content.columns(summary), method_states(summary)
    for name, text in {
        "methods.csv": methods_csv(methods),
        "methods.md": methods_markdown(methods),
        "methods.tex": methods_latex(methods),
        "metrics.csv": metrics_csv(methods),
        "metrics.md": table.markdown(summary),
        "metrics.tex": metrics_latex(states, summary.get("change")),
    }.items():
        write_text(folder / name, text)
