"""Methods as tables: Table 2's layout and what belongs beside it, in Markdown and LaTeX.

Source of the layout: Xiao et al. 2025, Table 2: rows model × method; conf-ECE, cw-ECE and accuracy,
each in-domain (ID) and out-of-domain (OOD).
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import rich.box
import rich.console
import rich.table
import rich.text

from calib_jax.reports.atomic import write_text
from calib_jax.reports.compare import results_csv
from calib_jax.reports.compare.comparison import DOMAINS, METRICS, Comparison, Estimate, from_dict
from calib_jax.reports.content import uniform
from calib_jax.reports.table import escape, standard_console
from calib_jax.reports.tables_export import latex_escape

TABLE2 = ("conf_ece", "cw_ece", "accuracy")
SIDE_BY_SIDE = ("accuracy", "mean_confidence", "conf_ece", "nll", "brier", "auroc")
VERSUS = (*TABLE2, "nll", "brier")
MISSING, SAME = "–", "="


@dataclasses.dataclass(frozen=True)
class Cell:
    """A figure, its spread, what stands small beneath it, and whether it is bold."""

    text: str
    small: str = ""
    bold: bool = False
    spread: str = ""


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
      groups: (label, its columns' labels) from the left.
      rows: (model, method, cells); all of a model stand together.
      caption: what the figures, brackets and signs mean.
    """

    groups: tuple[tuple[str, tuple[str, ...]], ...]
    rows: tuple[tuple[str, str, tuple[Cell, ...]], ...]
    caption: str

    @property
    def models(self) -> list[str]:
        """Every model, in order."""
        return list(dict.fromkeys(model for model, _, _ in self.rows))


def number(value: float, signed: bool = False) -> str:
    """Four decimals, as the paper prints them.

    >>> number(0.05), number(float("inf")), number(float("nan")), number(-0.00001, True)
    ('0.0500', '∞', '–', '+0.0000')
    """
    if math.isnan(value):
        return MISSING
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    value = round(value, 4) + 0.0
    return f"{value:+.4f}" if signed else f"{value:.4f}"


def bounds(ends: Sequence[float] | None, signed: bool = False) -> str:
    """An interval in three decimals, "" for none."""
    if ends is None:
        return ""
    signs = "+" if signed else ""
    low, high = (round(end, 3) + 0.0 for end in ends)
    return f"[{low:{signs}.3f}, {high:{signs}.3f}]"


def _value_cell(comparison: Comparison, method: str, metric: str, estimate: Estimate) -> Cell:
    if metric == "accuracy" and method in comparison.unchanged:
        return Cell(SAME)
    deviation = estimate.deviation
    spread = "" if math.isnan(deviation) else f"± {deviation:.4f}"
    return Cell(number(estimate.value), bounds(estimate.interval), estimate.best, spread)


def _versus_cell(comparison: Comparison, method: str, metric: str, estimate: Estimate) -> Cell:
    versus = estimate.versus
    if versus is None:
        return Cell(MISSING)
    small = ""
    if not math.isnan(versus.p_value):
        small = "p < 0.001" if versus.p_value < 0.001 else f"p = {versus.p_value:.3f}"
    if len(comparison.seeds) > 1:
        small += f"; {versus.seeds}/{len(comparison.seeds)}"
    return Cell(
        number(versus.difference, signed=True),
        small.removeprefix("; "),
        versus.significant,
        bounds(versus.interval, signed=True),
    )


def _grid(
    comparisons: Sequence[Comparison],
    metrics: Sequence[str],
    parts: Sequence[str],
    cell: Callable[[Comparison, str, str, Estimate], Cell],
    caption: str,
) -> Grid:
    groups = tuple((METRICS[m][0], tuple(DOMAINS.get(p, p) for p in parts)) for m in metrics)
    rows = []
    for comparison in comparisons:
        for method, label in comparison.labels.items():
            found = comparison.rows.get(method, {})
            cells = [
                Cell(MISSING)
                if (estimate := found.get(part, {}).get(metric)) is None
                else cell(comparison, method, metric, estimate)
                for metric in metrics
                for part in parts
            ]
            rows.append((comparison.model, label, tuple(cells)))
    return Grid(groups, tuple(rows), caption)


def _domains(comparisons: Sequence[Comparison]) -> list[str]:
    return [d for d in DOMAINS if any(d in c.parts for c in comparisons)]


def table2(comparisons: Sequence[Comparison], metrics: Sequence[str] = TABLE2) -> Grid:
    """Table 2's layout with intervals, the best in bold."""
    return _grid(
        comparisons, metrics, _domains(comparisons), _value_cell, caption(comparisons, metrics)
    )


def extended(comparisons: Sequence[Comparison]) -> Grid:
    """conf-ECE beside what tells a good one from a guesser's: accuracy, NLL, Brier, chance."""
    grid = table2(comparisons, SIDE_BY_SIDE)
    parts = _domains(comparisons)
    chance = [
        tuple(Cell(number(c.chance.get(m, {}).get(p, math.nan))) for p in parts)
        for c in comparisons
        for m in c.labels
    ]
    rows = tuple(
        (model, label, (*cells, *more))
        for (model, label, cells), more in zip(grid.rows, chance, strict=True)
    )
    label = "conf-ECE by chance"
    said = (
        f"{grid.caption} By chance: the conf-ECE that a perfectly calibrated model of these "
        "confidences exceeds in one sample of 20."
    )
    return Grid((*grid.groups, (label, tuple(DOMAINS[p] for p in parts))), rows, said)


def versus(comparisons: Sequence[Comparison]) -> Grid:
    """Every method minus the reference."""
    names = dict.fromkeys(c.labels.get(c.reference, c.reference) for c in comparisons)
    seeds = any(len(c.seeds) > 1 for c in comparisons)
    text = (
        f"Difference to {', '.join(names)}, on the same questions. Brackets: 95% bootstrap "
        "intervals over questions, the trained models as they are; p: two-sided, of no difference. "
        + ("2/3: the difference has this sign in 2 of 3 seeds. " if seeds else "")
        + " ".join(["Bold: the interval lies on one side of 0.", *remarks(comparisons)])
    )
    return _grid(comparisons, VERSUS, _domains(comparisons), _versus_cell, text)


def splits(comparison: Comparison) -> Grid | None:
    """Table 2's metrics on every split of a domain that has several; None where none has."""
    parts = [key for key in comparison.parts if key not in DOMAINS]
    if not parts:
        return None
    return _grid([comparison], TABLE2, parts, _value_cell, caption([comparison], TABLE2))


def settings(comparisons: Sequence[Comparison]) -> Grid | None:
    """What each method was; None where no comparison says so."""
    columns = dict.fromkeys(key for c in comparisons for row in c.settings.values() for key in row)
    if not columns:
        return None
    rows = tuple(
        (c.model, label, tuple(Cell(c.settings.get(name, {}).get(k) or MISSING) for k in columns))
        for c in comparisons
        for name, label in c.labels.items()
    )
    said = (
        "ECE: the calibration term. Its own: what this method has otherwise than the rest; what "
        "all have alike is in the run's configuration."
    )
    return Grid((("", tuple(columns)),), rows, said)


def caption(comparisons: Sequence[Comparison], metrics: Sequence[str] = TABLE2) -> str:
    """What the parts are, and what figures, brackets, bold and signs mean."""
    said = []
    for domain, short in DOMAINS.items():
        names = dict.fromkeys(
            f"{' + '.join(part.splits)}, {part.questions:,} questions"
            + (" a seed" if len(c.seeds) > 1 else "")
            for c in comparisons
            if (part := c.parts.get(domain)) is not None
        )
        if names:
            pooled = ", pooled" if any("+" in name for name in names) else ""
            said.append(f"{short}: {'; '.join(names)}{pooled}.")
    counts = sorted({len(c.seeds) for c in comparisons})
    if counts[-1] > 1:
        many = " or ".join(map(str, counts))
        said.append(
            f"Figures: mean ± standard deviation over {many} seeds (questions, order of options, "
            "training)."
        )
    else:
        said.append("One seed: nothing is known of the spread over seeds.")
    said.append(
        "Brackets: 95% bootstrap intervals over questions, the trained models as they are. Bold: "
        "the best of a model's column, and what is not significantly worse than it (the interval "
        "of the difference on the same questions holds 0)."
    )
    if "accuracy" in metrics and any(c.unchanged for c in comparisons):
        said.append(f"{SAME}: as the model before; a temperature changes no prediction.")
    return " ".join([*said, *remarks(comparisons)])


def remarks(comparisons: Sequence[Comparison]) -> list[str]:
    """Sentences: what a uniform guesser gets, and what is to be known of a method's fit."""
    said = []
    for c in comparisons:
        of = f"{c.model}: " if len(comparisons) > 1 else ""
        guessed = [(DOMAINS[d], uniform(c.guesser[d])) for d in DOMAINS if d in c.guesser]
        said += [f"{short}: {text}." for short, text in guessed]
        said += [f"{of}{text}." for text in c.remarks]
    return list(dict.fromkeys(said))  # models are asked the same questions


# --- Ways out -------------------------------------------------------------------------------------


def markdown(grid: Grid) -> str:
    """The table as Markdown, its caption beneath."""
    names = [f"{label} {part}".strip() for label, parts in grid.groups for part in parts]
    lines = ["| | " + " | ".join(map(escape, names)) + " |", "|---|" + "---:|" * len(names)]
    for model in grid.models:
        lines.append(f"| *{escape(model)}* |" + " |" * len(names))
        for of, label, cells in grid.rows:
            if of == model:
                lines.append(f"| {escape(label)} | " + " | ".join(map(_md, cells)) + " |")
    return "\n".join([*lines, "", escape(grid.caption)]) + "\n"


def _md(cell: Cell) -> str:
    text = f"**{escape(cell.text)}**" if cell.bold else escape(cell.text)
    text = " ".join(filter(None, (text, cell.spread)))
    return f"{text}<br>{escape(cell.small)}" if cell.small else text


def latex(grid: Grid, label: str = "") -> str:
    r"""The table as a LaTeX ``table`` (package booktabs); ``label`` for ``\ref``."""
    columns = sum(len(parts) for _, parts in grid.groups)
    heads, rules, at = [], [], 2
    for name, parts in grid.groups:
        heads.append(rf"\multicolumn{{{len(parts)}}}{{c}}{{{_tex(name)}}}")
        rules.append(rf"\cmidrule(lr){{{at}-{at + len(parts) - 1}}}")
        at += len(parts)
    lines = [
        r"% Needs \usepackage{booktabs}; \small or \resizebox where the page is narrow.",
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{l{'r' * columns}}}",
        r"\toprule",
        " & " + " & ".join(heads) + r" \\",
        " ".join(rules),
        "method & " + " & ".join(_tex(part) for _, ps in grid.groups for part in ps) + r" \\",
    ]
    for model in grid.models:
        lines += [
            r"\midrule",
            rf"\multicolumn{{{columns + 1}}}{{l}}{{\textit{{{_tex(model)}}}}} \\",
        ]
        for of, name, cells in grid.rows:
            if of != model:
                continue
            lines.append(f"{_tex(name)} & " + " & ".join(map(_tex_cell, cells)) + r" \\")
            if any(c.small for c in cells):
                small = [rf"{{\scriptsize {_tex(c.small)}}}" if c.small else "" for c in cells]
                lines.append(" & " + " & ".join(small) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{_tex(grid.caption)}}}"]
    if label:
        lines.append(rf"\label{{{label}}}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _tex_cell(cell: Cell) -> str:
    text = rf"\textbf{{{_tex(cell.text)}}}" if cell.bold else _tex(cell.text)
    return rf"{text} {{\scriptsize {_tex(cell.spread)}}}" if cell.spread else text


def _tex(text: str) -> str:
    # A bracket after a line's end would be read as its argument.
    text = latex_escape(text).replace("[", "{[}").replace("]", "{]}")
    for sign, code in (
        ("±", r"$\pm$"), ("–", "--"), ("∞", r"$\infty$"), ("λ", r"$\lambda$"), ("→", r"$\to$"),
        ("ε", r"$\varepsilon$"), ("*", "$^{*}$"), ("α", r"$\alpha$"), ("·", r"$\cdot$"),
        ("−", "$-$"), ("⁻³", "$^{-3}$"),
    ):  # fmt: skip
        text = text.replace(sign, code)
    return text


def write(
    folder: str | os.PathLike, comparisons: Sequence[Comparison], name: str = "table2"
) -> None:
    """Writes <name>, extended, versus, splits (of the first), settings as .md and .tex, and
    results.csv.
    """
    folder = pathlib.Path(folder)
    grids = {
        name: table2(comparisons),
        "extended": extended(comparisons),
        "versus": versus(comparisons),
        "splits": splits(comparisons[0]),
        "settings": settings(comparisons),
    }
    for stem, grid in grids.items():
        if grid is not None:
            write_text(folder / f"{stem}.md", markdown(grid))
            write_text(folder / f"{stem}.tex", latex(grid, f"tab:{stem}"))
    write_text(folder / "results.csv", results_csv.text(comparisons))


def show(grid: Grid, console: rich.console.Console | None = None) -> None:
    """Prints a table without its intervals."""
    console = standard_console(console)
    shown = rich.table.Table(box=rich.box.SIMPLE_HEAD, padding=(0, 1), show_edge=False)
    shown.add_column("", no_wrap=True)
    for label, parts in grid.groups:
        for part in parts:
            shown.add_column(rich.text.Text(f"{label}\n{part}".strip()), justify="right")
    for model in grid.models:
        shown.add_row(rich.text.Text(model, style="dim"))
        for of, label, cells in grid.rows:
            if of == model:
                shown.add_row(rich.text.Text(label), *map(_console, cells))
    console.print(shown)
    console.print(rich.text.Text(grid.caption, style="dim"))


def _console(cell: Cell) -> rich.text.Text:
    text = rich.text.Text(cell.text, style="bold" if cell.bold else "")
    return text.append(f"\n{cell.spread}", style="dim") if cell.spread else text


def show_summary(summary: Mapping[str, Any], console: rich.console.Console | None = None) -> None:
    """Prints the table of a summary of the jobs ``compare`` and ``sweep``, and what it says."""
    comparisons = [from_dict(found) for found in summary["comparisons"]]
    console = standard_console(console)
    show(table2(comparisons), console)
    if (own := settings(comparisons)) is not None:
        show(own, console)
    for sentence in summary.get("said", ()):
        console.print(rich.text.Text(f"{sentence}."))
