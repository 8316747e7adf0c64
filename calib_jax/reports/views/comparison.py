"""Methods, or one method's settings, beside each other: Table 2's layout and what belongs with it.

Source of the layout: Xiao et al. 2025, Table 2: rows model × method; conf-ECE, cw-ECE and accuracy,
each in-domain (ID) and out-of-domain (OOD).
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from calib_jax.confidence.scores import Scores
from calib_jax.reports import best, catalogue, tables
from calib_jax.reports.catalogue import Metric
from calib_jax.reports.compare import diagrams, frontier, sentences
from calib_jax.reports.compare.comparison import (
    BEFORE,
    CHANCE,
    DOMAINS,
    Comparison,
    from_dict,
)
from calib_jax.reports.compare.frontier import Point
from calib_jax.reports.remarks import uniform
from calib_jax.reports.tables import Cell, Column, Row, Table, as_csv
from calib_jax.reports.views import (
    Block,
    Bullets,
    Facts,
    Picture,
    Section,
    Text,
    View,
    note,
    thresholds,
)
from calib_jax.reports.views import said as said_of
from calib_jax.reports.words import UNKNOWN, interval, number, plural

SAME = "="
# Comparison, method, metric, part -> what the table holds.
CellOf = Callable[[Comparison, str, Metric, str], Cell]


def comparisons_of(summary: Mapping[str, Any]) -> list[Comparison]:
    """This run's comparison, then those of other runs that are shown in the same tables."""
    return [from_dict(found) for found in summary["comparisons"]]


# --- Tables ---------------------------------------------------------------------------------------


def _value(comparison: Comparison, method: str, metric: Metric, part: str) -> Cell:
    if metric.key == CHANCE:
        return Cell(number(comparison.chance.get(method, {}).get(part), digits=4))
    estimate = comparison.estimate(method, part, metric.key)
    if estimate is None:
        return Cell(UNKNOWN)
    if metric.key == "accuracy" and method in comparison.unchanged:
        return Cell(SAME)
    spread = "" if math.isnan(estimate.deviation) else f"± {estimate.deviation:.4f}"
    text, mark = number(estimate.value, metric.signed, 4), "best" if estimate.best else ""
    return Cell(text, interval(estimate.interval, metric.signed), spread, verdict=mark)


def _difference(comparison: Comparison, method: str, metric: Metric, part: str) -> Cell:
    estimate = comparison.estimate(method, part, metric.key)
    if estimate is None or (versus := estimate.versus) is None:
        return Cell(UNKNOWN)
    p, seeds = versus.p_value, len(comparison.seeds)
    said = ["" if math.isnan(p) else f"p {_p_text(p)}"]
    said += [] if versus.adjusted_p is None else [f"adj. {_p_text(versus.adjusted_p)}"]
    said += [f"{versus.seeds}/{seeds}"] if seeds > 1 else []
    text, sure = number(versus.difference, True, 4), "best" if versus.significant else ""
    beneath = "; ".join(filter(None, said))
    return Cell(text, interval(versus.interval, signed=True), note=beneath, verdict=sure)


def _p_text(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _table(
    name: str,
    comparisons: Sequence[Comparison],
    place: str,
    cell: CellOf,
    notes: Sequence[str],
    parts: Sequence[str] = (),
) -> Table:
    """A section per model, a row per method; for each metric of a place a column per part."""
    parts = parts or [domain for domain in DOMAINS if any(domain in c.parts for c in comparisons)]
    across = [(metric, part) for metric in catalogue.at(place) for part in parts]
    rows = (
        Row((Cell(label), *(cell(c, method, *where) for where in across)), section=c.model)
        for c in comparisons
        for method, label in c.labels.items()
    )
    columns = (
        Column(DOMAINS.get(part, part), metric.brief, metric.direction) for metric, part in across
    )
    heads = (Column("method", text=True), *columns)
    return Table(name, heads, tuple(rows), notes=tuple(notes), stacked=True)


def main_table(comparisons: Sequence[Comparison], name: str = "table2") -> Table:
    """Table 2's layout with intervals, the best in bold."""
    return _table(name, comparisons, catalogue.METHODS, _value, notes_of(comparisons))


def extended(comparisons: Sequence[Comparison]) -> Table:
    """conf-ECE beside what tells a good one from a guesser's: chance, NLL, Brier, accuracy."""
    said = (
        "By chance: the conf-ECE that a perfectly calibrated model of these confidences exceeds in "
        "one sample of 20."
    )
    notes = [*notes_of(comparisons), said]
    return _table("extended", comparisons, catalogue.SCORES, _value, notes)


def versus(comparisons: Sequence[Comparison]) -> Table:
    """Every method less the reference."""
    names = dict.fromkeys(c.labels.get(c.reference, c.reference) for c in comparisons)
    notes = [
        f"Difference to {', '.join(names)}, on the same questions. Brackets: 95% bootstrap "
        "intervals over questions (of accuracy: score intervals, from the questions that flip), "
        "the trained models as they are; p: two-sided, of no difference; adj.: the same for all "
        "differences of a model in this table at once (step-down max-t). Bold: adj. is at most "
        "0.05, so that one table in twenty has a bold difference where there is none."
    ]
    if any(len(c.seeds) > 1 for c in comparisons):
        notes.append("2/3: the difference has this sign in 2 of 3 seeds.")
    notes += remarks(comparisons)
    return _table("versus", comparisons, catalogue.VERSUS, _difference, notes)


def splits(comparison: Comparison) -> Table | None:
    """Table 2's metrics on every split of a domain that has several; None where none has."""
    parts = [key for key in comparison.parts if key not in DOMAINS]
    if not parts:
        return None
    notes = notes_of([comparison])
    return _table("splits", [comparison], catalogue.METHODS, _value, notes, parts)


def settings(comparisons: Sequence[Comparison]) -> Table | None:
    """What each method was; None where no comparison says so."""
    keys = dict.fromkeys(key for c in comparisons for row in c.settings.values() for key in row)
    if not keys:
        return None
    rows = (
        Row(
            (Cell(label), *(Cell(c.settings.get(name, {}).get(k) or UNKNOWN) for k in keys)),
            section=c.model,
        )
        for c in comparisons
        for name, label in c.labels.items()
    )
    said = (
        "ECE: the calibration term. Its own: the settings that this method alone has; the run's "
        "configuration holds those that all methods share."
    )
    columns = (Column(key, text=True) for key in ("", *keys))
    return Table("settings", tuple(columns), tuple(rows), notes=(said,))


def above(summary: Mapping[str, Any]) -> Table | None:
    """What acting above a confidence keeps and gets wrong; None where the summary has none of it.

    Of the first seed, the in-domain splits pooled.
    """
    if not (states := summary.get("act_above")):
        return None
    (table,) = thresholds.tables(states)
    seeds = comparisons_of(summary)[0].seeds
    about = (f"Seed {seeds[0]}.",) if len(seeds) > 1 else ()
    return dataclasses.replace(table, name="thresholds", notes=(*about, *table.notes))


def notes_of(comparisons: Sequence[Comparison]) -> list[str]:
    """What the parts are, and what figures, brackets, bold and signs mean."""
    said = []
    for domain, short in DOMAINS.items():
        names = dict.fromkeys(
            f"{' + '.join(part.splits)}, {plural(part.questions, 'question')}"
            + (" a seed" if len(c.seeds) > 1 else "")
            + (f" in {plural(part.clusters, 'cluster')}" if part.clusters else "")
            for c in comparisons
            if (part := c.parts.get(domain)) is not None
        )
        if names:
            pooled = ", pooled" if any("+" in name for name in names) else ""
            said.append(f"{short}: {'; '.join(names)}{pooled}.")
    counts = sorted({len(c.seeds) for c in comparisons})
    spread = "One seed: nothing is known of the spread over seeds."
    if counts[-1] > 1:
        many = " or ".join(map(str, counts))
        spread = (
            f"Figures: mean ± standard deviation over {many} seeds (questions, order of options, "
            "training)."
        )
    clustered = any(part.clusters for c in comparisons for part in c.parts.values())
    meaning = (
        f"Brackets: 95% bootstrap intervals over {'clusters' if clustered else 'questions'}, the "
        f"trained models as they are. {best.NOTE}"
    )
    if len(comparisons) > 1:
        meaning += " Each model's methods are compared among themselves."
    if any(c.unchanged for c in comparisons):
        meaning += f" {SAME}: as the model before; these calibrators change no prediction."
    return [" ".join(said), spread, meaning, *remarks(comparisons)]


def remarks(comparisons: Sequence[Comparison]) -> list[str]:
    """Sentences: what a uniform guesser gets, and what must be known of a method's fit."""
    said = []
    for c in comparisons:
        of = f"{c.model}: " if len(comparisons) > 1 else ""
        said += [f"{DOMAINS[d]}: {uniform(c.guesser[d])}." for d in DOMAINS if d in c.guesser]
        said += [f"{of}{text}." for text in c.remarks]
    return list(dict.fromkeys(said))  # models are asked the same questions


_RESULTS = (
    "model", "method", "part", "splits", "questions", "metric", "seed", "value", "sd", "low",
    "high", "best", "best_p", "reference", "difference", "difference_low", "difference_high",
    "p_value", "adjusted_p",
)  # fmt: skip  # the header of results.csv


def results_csv(comparisons: Sequence[Comparison]) -> str:
    """Every figure as plain numbers: a line per model, method, part, metric and seed.

    The seed "mean" has the interval, the deviation over seeds and the difference to the reference.
    """
    lines: list[list[Any]] = []
    for c in comparisons:
        for method, by_part in c.rows.items():
            for key, found in by_part.items():
                part = c.parts[key]
                where = [c.model, method, key, "+".join(part.splits), part.questions]
                for metric, e in found.items():
                    ends = e.interval or ("", "")
                    line = [*where, metric, "mean", e.value, e.deviation, *ends, int(e.best)]
                    line.append(e.best_p)
                    if (v := e.versus) is not None:
                        line += [c.reference, v.difference, *(v.interval or ("", ""))]
                        line += [v.p_value, v.adjusted_p]
                    lines.append(line)
                    for seed, value in zip(c.seeds, e.per_seed, strict=True):
                        lines.append([*where, metric, seed, value])
    return as_csv(_RESULTS, (line + [""] * (len(_RESULTS) - len(line)) for line in lines))


# --- Console, files, page -------------------------------------------------------------------------


def console(summary: Mapping[str, Any]) -> list[Block]:
    """How sure and how often right, Table 2, what it says, and the settings of each method."""
    comparisons = comparisons_of(summary)
    first = said_of(sentences.plain(comparisons[0]))
    said = [Text(f"{sentence}.") for sentence in summary.get("said", ())]
    own = settings(comparisons)
    return [*first, main_table(comparisons), *said, *([own] if own else [])]


def view(
    summary: Mapping[str, Any],
    scores: Mapping[str, Mapping[str, Scores]],
    num_bins: int,
    edges: str,
) -> View:
    """Methods compared, with reliability diagrams in the manner of the paper's Figure 5.

    Args:
      summary: the run's summary.
      scores: method -> split -> scores, of the first seed.
      num_bins, edges: of the bins.
    """
    comparison = comparisons_of(summary)[0]
    pictures = []
    for name, figure in diagrams.draw_all(comparison, scores, num_bins, edges).items():
        about = f"Reliability diagrams, {name.replace('_', ', ')}: a panel per method."
        pictures.append(Picture(figure, name, about, wide=True))
    headline = sentences.headline(comparison)
    return _view(summary, "Methods compared", headline, pictures, diagrams.LEGEND, "table2")


def sweep(summary: Mapping[str, Any], method: str) -> View:
    """One method by λ and M, with the frontier of accuracy and calibration.

    Args:
      summary: the run's summary.
      method: what it is called.
    """
    comparison = comparisons_of(summary)[0]
    points = {
        name: Point(point["ece_weight"], point["num_bins"])
        for name, point in summary["points"].items()
    }
    title = f"{comparison.model}, {method}: accuracy and calibration by λ and M"
    said = ". ".join(summary["said"][:-1])
    pictures = []
    for key in ("conf_ece", "cw_ece"):
        label = catalogue.get(key).label
        figure = frontier.draw(comparison, points, BEFORE, title, key, label)
        about = f"Accuracy against {label} of every setting, a panel per domain. {said}"
        pictures.append(Picture(figure, f"frontier_{key}", about, wide=True))
    heading = f"λ and M of {method}"
    return _view(summary, heading, summary["said"], pictures, frontier.LEGEND, "sweep")


def _view(
    summary: Mapping[str, Any],
    title: str,
    headline: Sequence[str],
    pictures: Sequence[Picture],
    legend: str,
    name: str,
) -> View:
    comparisons = comparisons_of(summary)
    first = comparisons[0]
    sections = {
        "Result": main_table(comparisons, name),
        "Against the reference": versus(comparisons),
        "Acting above a confidence": above(summary),
        "Accuracy, confidence and scores": extended(comparisons),
        "Every split": splits(first),
        "Settings": settings(comparisons),
    }
    shown = {heading: [table] for heading, table in sections.items() if table is not None}
    rest = [text for text in summary["said"] if text not in headline]
    drawn: list[Block] = [*pictures, note(legend)] if pictures else []
    known = {key: summary[key] for key in ("methods", "fitted", "runs") if summary.get(key)}
    blocks: dict[str, Sequence[Block]] = {
        "Result": shown.pop("Result"),
        "What it says": [Bullets(rest)] if rest else [],
        "Figures": drawn,
        **shown,
        "Runs": [Facts(known)],
        "Data": [Facts(summary["data"])] if summary.get("data") else [],
    }
    files = {"tables/results.csv": results_csv(comparisons)}
    if summary.get("act_above"):
        files["tables/thresholds.csv"] = thresholds.as_text(summary["act_above"])
    for table in filter(None, sections.values()):
        files |= tables.files(f"tables/{table.name}", [table])
    return View(
        title,
        f"{first.model} · {plural(len(first.seeds), 'seed')} · {plural(len(first.labels), 'row')}",
        headline,
        console(summary),
        [Section(heading, content) for heading, content in blocks.items() if content],
        files=files,
        figures={f"figures/{picture.name}": picture.figure for picture in pictures},
    )
