"""The page's figures of measured splits, as blocks: reliability, classes, confidences, risk."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from calib_jax.confidence.scores import Scores
from calib_jax.reports import catalogue, remarks
from calib_jax.reports.figures import (
    boxplots,
    classwise,
    curves,
    histograms,
    letters,
    reliability,
    training_log,
)
from calib_jax.reports.figures.style import css_colour
from calib_jax.reports.states import States, ordered_splits
from calib_jax.reports.views import Block, Heading, Legend, Panels, Picture, note, splits
from calib_jax.reports.words import interval, number, share

AllScores = Mapping[str, Mapping[str, Scores]]
# What a page can hold and a reader can take in; the page says where it left something out.
MAX_SPLITS, MAX_STATES = 6, 4
# Reliability diagrams are what an evaluation of many tasks is looked at for.
MAX_DIAGRAM_SPLITS = 24
# The marks of every reliability diagram.
MARKS = (
    ("fill", "var(--f-shade4)", "accuracy in the bin"),
    ("over", "", "gap: over-confident"),
    ("under", "", "gap: under-confident"),
    ("whisker", "", "95% interval (Wilson)"),
    ("line", "var(--f-vermilion)", reliability.CONSISTENCY),
    ("dashed", "var(--f-ink)", "perfect calibration"),
    ("line", "var(--f-ink)", "beneath: accuracy overall"),
    ("dashed", "var(--f-vermilion)", "beneath: mean confidence"),
)


def chosen(states: States, most: int = MAX_SPLITS) -> tuple[dict[str, Any], list[Block]]:
    """The states and splits that get figures, and a note for each limit that was met."""
    names = ordered_splits(states)
    kept_splits, kept_states = names[:most], list(states)[:MAX_STATES]
    notes: list[Block] = [
        note(f"Figures: the first {kept} of {of} {what}; the table of results holds all.")
        for kept, of, what in (
            (len(kept_splits), len(names), "splits"),
            (len(kept_states), len(states), "columns"),
        )
        if kept < of
    ]
    found = {
        state: {split: states[state][split] for split in kept_splits if split in states[state]}
        for state in kept_states
    }
    return {state: rows for state, rows in found.items() if rows}, notes


def figures_of(row: Mapping[str, Any]) -> str:
    """ "conf-ECE 0.123 [0.1, 0.2] · acc. 0.5 · mean conf. 0.6"."""
    parts = []
    for key in ("conf_ece", "accuracy", "mean_confidence"):
        ends = interval(row.get("conf_ece_ci")) if key == "conf_ece" else ""
        label = catalogue.get(key).brief
        parts.append(" ".join(filter(None, (label, number(row.get(key)), ends))))
    return " · ".join(parts)


def _by_split(states: States, scores: AllScores) -> dict[str, dict[str, Scores]]:
    return {
        split: {state: scores[state][split] for state, rows in states.items() if split in rows}
        for split in ordered_splits(states)
    }


def _course(states: States, split: str, key: str, name: str) -> str:
    """ "smooth ECE 0.4 → 0.1"; "" where no state has it."""
    values = [rows[split].get(key) for rows in states.values() if split in rows]
    known = any(value is not None for value in values)
    return f"{name} {' → '.join(map(number, values))}" if known else ""


def diagrams(states: States, scores: AllScores, num_bins: int, edges: str) -> list[Block]:
    """Reliability diagrams with the letters beside them, a row per split."""
    panels = reliability.panels_of(states, scores, num_bins, edges)
    norm = reliability.shade_norm(panel.bins for panel in panels.values())
    scale = ("scale", "", f"share of the questions: 0 to {100 * (norm.vmax or 1):.0f}%")
    blocks: list[Block] = [Legend((*MARKS[:6], scale, *MARKS[6:]))]
    for i, split in enumerate(ordered_splits(states)):
        rows = splits.here(states, split)
        pictures = [
            Picture(
                partial(reliability.draw_panel, panels[state, split], norm),
                f"reliability-{i}-{j}",
                f"Reliability diagram of {split}, {state}: {figures_of(row)}",
                state,
                figures_of(row),
            )
            for j, (state, row) in enumerate(rows.items())
        ]
        said = "; ".join(
            f"{state} {share(row['top_letter_share'], 1)} {row['top_letter']}"
            for state, row in rows.items()
            if row.get("top_letter")
        )
        if remarks.has_letters(rows.values()):
            label = f"Letters chosen on {split}: {said}"
            drawn = partial(letters.draw, rows)
            title, text = "letters chosen", f"most-chosen: {said}"
            pictures.append(Picture(drawn, f"letters-{i}", label, title, text))
        blocks += [Heading(split), Panels(pictures)]
    text = (
        f"{num_bins} bins, closed on the {edges}. Height of a bar: accuracy of the questions "
        "whose confidence falls into the bin; hatched: the gap to their mean confidence. Between "
        "the two orange lines the bar of a calibrated model would end in 95% of cases. "
        "Beneath: the histogram of confidences."
    )
    return [*blocks, note(text)]


def _lines(states: States) -> Legend:
    """Of curves, solid and dashed in turn as `curves` draws them."""
    kinds = ("line", "dashed")
    return Legend([(kinds[i % 2], css_colour(i), name) for i, name in enumerate(states)])


def reliability_curves(states: States, scores: AllScores) -> list[Block]:
    """Reliability curves without bins, a row per split."""
    colour = css_colour(curves.COLOURS.index(curves.CURVE))
    pale = "color-mix(in srgb, {} {}, transparent)"
    blocks: list[Block] = [
        Legend(
            [
                ("line", colour, "accuracy at a confidence (isotonic fit)"),
                ("fill", pale.format(colour, "25%"), f"{curves.BAND} of the true accuracy"),
                ("fill", pale.format("var(--f-crowd)", "40%"), curves.CONSISTENCY),
                ("dashed", "var(--f-ink)", "perfect calibration"),
            ]
        )
    ]
    for i, split in enumerate(ordered_splits(states)):
        pictures = [
            Picture(
                partial(curves.curve_panel, scores[state][split]),
                f"curve-{i}-{j}",
                f"Reliability curve of {split}, {state}, with the confidence band of its accuracy "
                f"and the band of a calibrated model: {figures_of(row)}",
                state,
                f"smooth ECE {number(row.get('smooth_ece'))}",
            )
            for j, (state, row) in enumerate(splits.here(states, split).items())
        ]
        blocks += [Heading(split), Panels(pictures)]
    text = (
        "Accuracy as a function of confidence without bins (CORP): the non-decreasing curve under "
        "which the right and wrong answers are most likely. Blue: the values of the true "
        "accuracy at a confidence that the answers do not rule out; it holds the true one in 95% "
        "of cases or more. Grey: where the curve of a calibrated model with these confidences "
        "would lie in 95% of cases; a curve that leaves it speaks against calibration there, one "
        "that stays inside is no proof of it. Both bands hold at each confidence, not along the "
        "whole curve; they take questions to be independent, and accuracy not to fall as "
        "confidence rises. Drawn over the middle "
        "99% of the confidences. Beneath: their histogram."
    )
    return [*blocks, note(text)]


def class_grid(states: States, scores: AllScores, num_bins: int, edges: str) -> list[Block]:
    """A small diagram per letter, or class, and one of all, for every split and state."""
    blocks: list[Block] = []
    dropped, kinds = 0, set()
    for i, (split, by_state) in enumerate(_by_split(states, scores).items()):
        for j, (state, one) in enumerate(by_state.items()):
            if one.is_free:
                continue
            panels, left_out = classwise.panels_of(one, num_bins, edges)
            dropped = max(dropped, left_out)
            kinds.add("class" if one.classes else "letter")
            norm = reliability.shade_norm(panels.values())
            pictures = [
                Picture(
                    partial(classwise.draw_panel, bins, norm),
                    f"class-{i}-{j}-{k}",
                    f"Reliability of {name} on {split}, {state}: probability against how often "
                    "it is the answer.",
                    name,
                )
                for k, (name, bins) in enumerate(panels.items())
            ]
            value = number(states[state][split].get("cw_ece"))
            blocks += [Heading(f"{split}, {state}: cw-ECE {value}"), Panels(pictures, small=True)]
    if not blocks:
        return []
    each, many = " or ".join(sorted(kinds)), "classes" if kinds == {"class"} else "letters"
    text = (
        f"Across: the probability given to the {each}; up: how often it is the answer among "
        "those questions. Shades are scaled within a row of diagrams."
    )
    blocks.append(note(text))
    if dropped:
        text = (
            f"Shown: the {classwise.MAX_LETTERS} {many} that are most often the answer; {dropped} "
            f"more are in the diagram of all {many}."
        )
        blocks.append(note(text))
    return blocks


def confidences(states: States, scores: AllScores, log: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Histograms by correctness, and box plots of the sorted probabilities."""
    blocks: list[Block] = [
        Legend(
            [
                ("fill", "var(--f-blue)", "answered right (upwards)"),
                ("fill", "var(--f-vermilion)", "answered wrong (downwards)"),
            ]
        )
    ]
    by_split = _by_split(states, scores)
    for i, (split, by_state) in enumerate(by_split.items()):
        pictures = []
        for j, (state, one) in enumerate(by_state.items()):
            wrong = one.predictions != one.answers
            sure = int((wrong & (one.confidences > 0.9)).sum())
            text = f"{sure:,} of {int(wrong.sum()):,} wrong answers with confidence above 0.9"
            label = f"Histogram of confidences on {split}, {state}: {text}."
            drawn = partial(histograms.draw_panel, one)
            pictures.append(Picture(drawn, f"histogram-{i}-{j}", label, state, text))
        blocks += [Heading(split), Panels(pictures)]
    blocks += [note("Each histogram has its own scale."), Heading("Sorted probabilities")]
    return [*blocks, *_boxes(by_split, boxplots.of_log(log))]


def _boxes(by_split: Mapping[str, Mapping[str, Scores]], epochs: Mapping[str, Any]) -> list[Block]:
    steps = f"{len(epochs)} E-step{'s' if len(epochs) > 1 else ''}"
    groups = {f"training set, {steps}": epochs} if epochs else {}
    groups |= {
        split: {state: boxplots.quantiles_of(one) for state, one in by_state.items()}
        for split, by_state in by_split.items()
    }
    ranks = max(len(g) for boxes in groups.values() for g in boxes.values())
    named = boxplots.RANKS[: min(ranks, boxplots.MAX_RANKS)]
    pictures = [
        Picture(
            partial(boxplots.draw, boxes, legend=False),
            f"boxes-{i}",
            f"Box plots of the sorted probabilities, {name}: {', '.join(boxes)}.",
            name,
            wide=boxplots.is_wide(boxes),
        )
        for i, (name, boxes) in enumerate(groups.items())
    ]
    text = (
        "Probabilities of a question's options from the largest to the smallest: box 25 to 75%, "
        "line the median, whiskers 5 to 95%. A collapsed model has its first box near 1."
    )
    if ranks > boxplots.MAX_RANKS:
        text += f" The first {boxplots.MAX_RANKS} of {ranks} options."
    if len(epochs) > boxplots.MAX_GROUPS:
        text += f" {boxplots.MAX_GROUPS} of {len(epochs)} E-steps, evenly spread."
    return [
        Legend([("fill", css_colour(index), name) for index, name in named]),
        *(picture for picture in pictures if picture.wide),
        Panels([picture for picture in pictures if not picture.wide]),
        note(text),
    ]


def risk_coverage(states: States, scores: AllScores) -> list[Block]:
    """Risk-coverage curves, a panel per split."""
    pictures = [
        Picture(
            partial(curves.risk_panel, one),
            f"risk-{i}",
            f"Risk-coverage curves of {split}: the share of wrong answers among the most "
            "confident questions.",
            split,
            _course(states, split, "aurc", "AURC"),
        )
        for i, (split, one) in enumerate(_by_split(states, scores).items())
    ]
    text = (
        "Answering only the most confident share of the questions, how many answers are wrong? "
        "A curve that rises steadily ranks well: confidence tells right from wrong."
    )
    return [_lines(states), Panels(pictures), note(text)]


def course_of_training(log: Sequence[Mapping[str, Any]]) -> list[Block]:
    """Curves over the optimiser's steps and a row per measurement."""
    blocks: list[Block] = []
    if training_log.has_curves(log):
        label = "Curves over the optimiser's steps: conf-ECE, accuracy and the training loss."
        text = (
            "Every E-step measures the training set, every evaluation held-out questions. A "
            "training set that keeps improving while held-out questions get worse overfits."
        )
        drawn = partial(training_log.draw, log)
        blocks += [Picture(drawn, "training", label, wide=True), note(text)]
    header, rows = training_log.table(log)
    if rows:
        blocks.append(splits.measurements(header, rows, training_log.MAX_ROWS))
    return blocks


def files(
    states: States,
    scores: AllScores,
    log: Sequence[Mapping[str, Any]],
    num_bins: int,
    edges: str,
) -> dict[str, Any]:
    """Path in figures/ -> what draws it: as many splits and states as the page shows."""
    states, _ = chosen(states)
    found: dict[str, Any] = {}

    def add(path: str, function: Any, *arguments: Any, **options: Any) -> None:
        found[f"figures/{path}"] = partial(function, *arguments, **options)

    for split in ordered_splits(states):
        safe = reliability.file_name(split)
        here = {state: scores[state][split] for state, by in states.items() if split in by}
        add(f"curve_{safe}", curves.draw_curves, here, f"{split}: reliability curves")
        for state, one in here.items():
            title = f"{split}, {state}: cw-ECE {number(states[state][split].get('cw_ece'))}"
            name = f"classwise_{safe}_{reliability.file_name(state)}"
            if not one.is_free:
                add(name, classwise.draw, one, title, num_bins, edges)
        add(f"histogram_{safe}", histograms.draw, here, f"{split}: confidences")
        add(f"risk_coverage_{safe}", curves.risk_panel, here, f"{split}: risk and coverage")
        boxes = {state: boxplots.quantiles_of(one) for state, one in here.items()}
        add(f"boxes_{safe}", boxplots.draw, boxes, f"{split}: sorted probabilities")
    if epochs := boxplots.of_log(log):
        add("boxes_training", boxplots.draw, epochs, "training set: sorted probabilities")
    if training_log.has_curves(log):
        add("training", training_log.draw, log)
    return found
