"""Methods and epochs in the plane of accuracy and conf-ECE."""

import functools
from collections.abc import Mapping
from typing import Any

from calib_jax.reports import tables
from calib_jax.reports.regimes import figures
from calib_jax.reports.regimes.plane import Point, boundary, of_dict, paths
from calib_jax.reports.tables import Cell, Column, Row, Table, as_csv
from calib_jax.reports.views import Block, Facts, Picture, Section, View, note, said
from calib_jax.reports.words import interval, number, plural

CAPTION = (
    "By chance: the conf-ECE that a perfectly calibrated model of the same confidences exceeds in "
    "one sample of 20; bold: an error that it explains. The empirical boundary is the largest "
    "accuracy among the bold ones: a lower bound on what calibrated models reach, not the critical "
    "accuracy of Xiao et al. 2025, which takes the target generative model."
)
_EXACT = (
    "Accuracy and conf-ECE are expectations over the target's answers, without a sample's noise; "
    "what chance explains is said of {n} with one answer each."
)
_RECALIBRATED = (
    "Question by question: the mean distance between the confidence and the probability that the "
    "target gives to the predicted option. After the replacement of each confidence by its bin's "
    "accuracy, conf-ECE is 0 at the same accuracy whatever the regime: that a model cannot be "
    "calibrated is meant relative to the target generative model."
)

_LOGGED = (
    "Epochs are those of the runs' logs: the training questions before each epoch, and the "
    "questions of config.data.validation after each. The log holds no limit of chance, so their "
    "marks are open, and they set no boundary."
)
_TRADE_OFF = (
    "The last epoch of every fine-tuning; a line joins the values of λ at one learning rate. Where "
    "it falls to the left, calibration costs accuracy; where it falls to the right, the term keeps "
    "the network from learning its questions by heart, and both gain."
)


def points_of(summary: Mapping[str, Any]) -> list[Point]:
    """Every point, in order."""
    return [of_dict(found) for found in summary["points"]]


def tradeoff(summary: Mapping[str, Any]) -> dict[str, list[Point]]:
    """The last epoch of every λ, joined over λ: a panel per learning rate, a path per seed."""
    found: dict[str, list[Point]] = {}
    for those in paths(points_of(summary)).values():
        rate, _, seed = those[-1].mark.partition(", ")
        named = Point(**{**vars(those[-1]), "path": seed or rate, "epoch": None})
        found.setdefault(rate, []).append(named)
    return found


def panels(summary: Mapping[str, Any]) -> dict[str, list[Point]]:
    """What the figure shows: a panel per learning rate, or per set of questions."""
    found: dict[str, list[Point]] = {}
    for point in points_of(summary):
        if not summary.get("target"):
            found.setdefault(point.questions, []).append(point)
            continue
        rate, _, seed = point.mark.partition(", ")
        short = f"{point.method}, {seed}" if seed else point.method
        named = Point(**{**vars(point), "path": short})
        found.setdefault(rate, []).append(named)
    return found


def table(summary: Mapping[str, Any]) -> Table:
    """Per path the most accurate epoch, the most accurate that chance explains, and the last."""
    columns = [Column("path", text=True), Column("point", text=True), Column("epoch")]
    columns += [Column("accuracy", direction=1), Column("conf-ECE", direction=-1)]
    columns += [Column("by chance")]
    rows = []
    if summary.get("target"):
        rows.append(_row(of_dict(summary["target"]), "target generative model", ""))
    for those in paths(points_of(summary)).values():
        if those[0].stage:
            rows += [_row(point, point.path, point.stage) for point in those]
            continue
        best = max(those, key=lambda point: point.accuracy)
        sure = boundary(those, those[0].questions)
        chosen: dict[int, list[str]] = {}
        named = (
            ("most accurate", best),
            ("most accurate within chance", sure),
            ("last", those[-1]),
        )
        for name, point in named:
            if point is not None:
                chosen.setdefault(those.index(point), []).append(name)
        for i, names in sorted(chosen.items()):
            about = ", ".join(names) if len(those) > 1 else ""
            rows.append(_row(those[i], those[i].path, about))
    rows.sort(key=lambda row: row.section)  # a stable sort: paths stay in order
    return Table("regimes", tuple(columns), tuple(rows))


def _row(point: Point, name: str, about: str) -> Row:
    verdict = "best" if point.within else ""
    ends = point.accuracy_ci
    known = ends is not None and ends[0] != ends[1]
    return Row(
        (
            Cell(name),
            Cell(about),
            Cell("" if point.epoch is None else str(point.epoch)),
            Cell(number(point.accuracy), interval(ends) if known else ""),
            Cell(number(point.conf_ece), verdict=verdict),
            Cell(number(point.chance)),
        ),
        section="" if point.questions == "the population" else point.questions,
    )


def ends(summary: Mapping[str, Any]) -> Table:
    """The last epochs, and the same with every confidence replaced by its bin's accuracy."""
    columns = [Column("path", text=True), Column("accuracy", direction=1)]
    for group in ("as fine-tuned", "recalibrated by bins"):
        columns += [
            Column("conf-ECE", group, direction=-1),
            Column("question by question", group, direction=-1),
        ]
    rows = []
    for path, found in summary["ends"].items():
        cells = [Cell(path), Cell(number(found["last"]["accuracy"]))]
        for state in ("last", "recalibrated"):
            cells += [Cell(number(found[state][key])) for key in ("conf_ece", "question_error")]
        rows.append(Row(tuple(cells)))
    return Table("ends", tuple(columns), tuple(rows), notes=(_RECALIBRATED,))


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """The proposition and over-fine-tuning, where the target is known; boundaries; advice."""
    found = _of_world(summary) if summary.get("target") else []
    found += [_of_boundary(q, edge) for q, edge in summary["boundaries"].items()]
    return [*found, *summary["advice"], *summary.get("left_out", ())]


def _of_world(summary: Mapping[str, Any]) -> list[str]:
    target, points = of_dict(summary["target"]), points_of(summary)
    seen, limit = summary["target_seen"], summary["target"]["chance"]
    within = "within" if seen <= limit else "more than"
    found = [
        "The target generative model is calibrated: it answers with accuracy "
        f"{number(target.accuracy)} and conf-ECE {number(target.conf_ece)}; "
        f"{plural(target.n, 'question')} show {number(seen)} of it, {within} what chance "
        f"explains, {number(limit)}",
    ]
    courses = paths([point for point in points if point.method == "SFT"])
    worst = max(courses.values(), key=lambda those: those[-1].conf_ece)
    best = max(worst, key=lambda point: point.accuracy)
    if best is not worst[-1]:
        found.append(
            f"Over-fine-tuning: {worst[0].path}, is most accurate after epoch {best.epoch} "
            f"(accuracy {number(best.accuracy)}, conf-ECE {number(best.conf_ece)}); after epoch "
            f"{worst[-1].epoch} it has {number(worst[-1].accuracy)} and "
            f"{number(worst[-1].conf_ece)}"
        )
    return found


def _of_boundary(questions: str, edge: Mapping[str, Any] | None) -> str:
    if edge is None:
        return f"Empirical boundary on {questions}: none, for chance explains no point's error"
    return (
        f"Empirical boundary on {questions}: {number(edge['accuracy'])}, the largest accuracy with "
        f"an error that chance explains ({of_dict(edge).label})"
    )


def console(summary: Mapping[str, Any]) -> list[Block]:
    """Sentences, tables, and what they mean."""
    return [*said(sentences(summary)), *_tables(summary), *map(note, _notes(summary))]


def _tables(summary: Mapping[str, Any]) -> list[Table]:
    return [table(summary), ends(summary)] if summary.get("target") else [table(summary)]


def _notes(summary: Mapping[str, Any]) -> list[str]:
    if not summary.get("target"):
        return [CAPTION, _LOGGED]
    count = plural(summary["world"]["sample_size"], "question")
    return [_EXACT.format(n=count), CAPTION]


def as_lines(summary: Mapping[str, Any]) -> str:
    """A line per point as CSV."""
    heads = (
        "path", "method", "questions", "seed", "stage", "epoch", "n", "accuracy", "conf_ece",
        "chance", "within",
    )  # fmt: skip  # names, several on a line
    lines = [[getattr(point, key) for key in heads] for point in points_of(summary)]
    return as_csv(heads, lines)


def view(summary: Mapping[str, Any]) -> View:
    """The plane and the tables; of a known world also the trade-off, and what the world is."""
    world = summary.get("target")
    target = of_dict(world) if world else None
    at = (target.accuracy, target.conf_ece) if target else None
    texts, notes, points = sentences(summary), _notes(summary), points_of(summary)
    title = "Accuracy and calibration error" + (" of ever more fine-tuning" if world else "")
    draw = functools.partial(figures.draw, panels(summary), title, at)
    drawn = {"figures/plane": draw}
    label = " ".join(f"{text}." for text in texts)
    sections = [Section("Plane", [Picture(draw, "plane", label, wide=True), note(figures.NOTE)])]
    if target:
        last = max(point.epoch or 0 for point in points)
        drawn["figures/tradeoff"] = over = functools.partial(
            figures.draw,
            tradeoff(summary),
            f"λ as a trade-off, after {plural(last, 'epoch')}",
            at,
            {target.questions: boundary(points, target.questions)},
        )
        pictured = Picture(over, "tradeoff", _TRADE_OFF, wide=True)
        sections.append(Section("Trade-off", [pictured, note(_TRADE_OFF)]))
    sections.append(Section("Results", [*_tables(summary), *map(note, notes)]))
    if world:
        sections.append(Section("World", [Facts(summary["world"])]))
    about = "a world whose target generative model is known" if world else "finished runs"
    return View(
        title="Regimes of accuracy and calibration",
        kicker=f"regimes · {about}",
        said=texts,
        console=console(summary),
        sections=sections,
        files={
            **tables.files("tables/regimes", _tables(summary), " ".join(notes)),
            "tables/regimes.csv": as_lines(summary),
        },
        figures=drawn,
    )
