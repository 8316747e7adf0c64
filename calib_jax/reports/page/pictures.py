"""The page's sections of figures: reliability, letters, confidences, risk, training."""

from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax.confidence.scores import Scores
from calib_jax.reports import content
from calib_jax.reports.figures import (
    boxplots,
    classwise,
    curves,
    histograms,
    letters,
    reliability,
    training_log,
)
from calib_jax.reports.page import layout
from calib_jax.reports.page.layout import States, escape, legend, note, swatch

AllScores = Mapping[str, Mapping[str, Scores]]


def _figures_of(row: Mapping[str, Any]) -> str:
    """ "conf-ECE 0.123 [0.1, 0.2], accuracy ..., mean confidence ..." of a ROW."""
    keys = (("conf_ece", "conf-ECE"), ("accuracy", "accuracy"), ("mean_confidence", "mean conf."))
    return " · ".join(
        f"{label} {content.number(row.get(key))} "
        f"{content.interval(row.get('conf_ece_ci')) if key == 'conf_ece' else ''}".strip()
        for key, label in keys
    )


def _by_split(states: States, scores: AllScores) -> dict[str, dict[str, Scores]]:
    """split -> state -> scores."""
    return {
        split: {state: scores[state][split] for state, rows in states.items() if split in rows}
        for split in content.ordered_splits(states)
    }


def diagrams(states: States, scores: AllScores, num_bins: int, edges: str) -> str:
    """Reliability diagrams with the letters beside them, a row per split."""
    panels = reliability.panels_of(states, scores, num_bins, edges)
    norm = reliability.shade_norm(panel.bins for panel in panels.values())
    parts = [
        legend(
            [
                (swatch("fill", "var(--f-shade4)"), "accuracy in the bin"),
                (swatch("over"), "gap: over-confident"),
                (swatch("under"), "gap: under-confident"),
                (swatch("whisker"), "95% interval (Wilson)"),
                (swatch("dashed", "var(--f-ink)"), "perfect calibration"),
                (swatch("scale"), f"share of the questions: 0 to {100 * norm.vmax:.0f}%"),
                (swatch("line", "var(--f-ink)"), "beneath: accuracy overall"),
                (swatch("dashed", "var(--f-vermilion)"), "beneath: mean confidence"),
            ]
        )
    ]
    for i, split in enumerate(content.ordered_splits(states)):
        here = {state: rows[split] for state, rows in states.items() if split in rows}
        figures = []
        for j, (state, row) in enumerate(here.items()):
            label = f"Reliability diagram of {split}, {state}: {_figures_of(row)}"
            drawn = reliability.draw_panel(panels[state, split], norm)
            figures.append(
                layout.figure(drawn, f"reliability-{i}-{j}", label, state, _figures_of(row))
            )
        said = "; ".join(
            f"{state} {content.share(row['top_letter_share'], 1)} {row['top_letter']}"
            for state, row in here.items()
            if row.get("top_letter")
        )
        if not any(row.get("classes") for row in here.values()):
            figures.append(
                layout.figure(
                    letters.draw(here), f"letters-{i}", f"Letters chosen on {split}: {said}",
                    "letters chosen", f"most-chosen: {said}",
                )
            )  # fmt: skip
        parts.append(f"<h3>{escape(split)}</h3>")
        parts.append(layout.panels(figures))
    parts.append(
        note(
            f"{num_bins} bins, closed on the {edges}. Height of a bar: accuracy of the questions "
            "whose confidence falls into the bin; hatched: the gap to their mean confidence. "
            "Beneath: the histogram of confidences."
        )
    )
    return "\n".join(parts)


def _lines(states: States) -> str:
    """Legend of curves, solid and dashed in turn as `curves` draws them."""
    names = list(states)
    return legend(
        [
            (swatch(("line", "dashed")[i % 2], layout.colour(i)), name)
            for i, name in enumerate(names)
        ]
    )


def smooth(states: States, scores: AllScores) -> str:
    """Smooth reliability curves, a panel per split."""
    figures = [
        layout.figure(
            curves.smooth_panel(here),
            f"smooth-{i}",
            f"Smooth reliability curves of {split}: accuracy as a function of confidence.",
            split,
            "smooth ECE "
            + " → ".join(content.number(states[s][split].get("smooth_ece")) for s in here)
            if any(states[s][split].get("smooth_ece") is not None for s in here)
            else "",
        )
        for i, (split, here) in enumerate(_by_split(states, scores).items())
    ]
    text = (
        "Accuracy as a function of confidence by kernel smoothing, at the bandwidth of the smooth "
        "ECE; the band holds 95% of the bootstrap's curves, point by point. No bins, so no edges "
        "to choose. Drawn over the middle 99% of the confidences. Beneath: their histograms, each "
        "scaled to its own height."
    )
    return "\n".join([_lines(states), layout.panels(figures), note(text)])


def class_grid(states: States, scores: AllScores, num_bins: int, edges: str) -> str:
    """A small diagram per letter, or class, and one of all, for every split and state."""
    parts, dropped, kinds = [], 0, set()
    for i, (split, here) in enumerate(_by_split(states, scores).items()):
        for j, (state, one) in enumerate(here.items()):
            panels, left_out = classwise.panels_of(one, num_bins, edges)
            dropped = max(dropped, left_out)
            kinds.add("class" if one.classes else "letter")
            norm = reliability.shade_norm(panels.values())
            figures = [
                layout.figure(
                    classwise.draw_panel(bins, norm),
                    f"class-{i}-{j}-{k}",
                    f"Reliability of {name} on {split}, {state}: probability against how often "
                    "it is the answer.",
                    name,
                )
                for k, (name, bins) in enumerate(panels.items())
            ]
            value = content.number(states[state][split].get("cw_ece"))
            parts.append(f"<h3>{escape(f'{split}, {state}: cw-ECE {value}')}</h3>")
            parts.append(layout.panels(figures, small=True))
    one, many = " or ".join(sorted(kinds)), "classes" if kinds == {"class"} else "letters"
    parts.append(
        note(
            f"Across: the probability given to the {one}; up: how often it is the answer among "
            "those questions. Shades are scaled within a row of diagrams."
        )
    )
    if dropped:
        parts.append(
            note(
                f"Shown: the {classwise.MAX_LETTERS} {many} that are most often the answer; "
                f"{dropped} more are in the diagram of all {many}."
            )
        )
    return "\n".join(parts)


def confidences(states: States, scores: AllScores, log: Sequence[Mapping[str, Any]]) -> str:
    """Histograms by correctness, and box plots of the sorted probabilities."""
    parts = [
        legend(
            [
                (swatch("fill", "var(--f-blue)"), "answered right (upwards)"),
                (swatch("fill", "var(--f-vermilion)"), "answered wrong (downwards)"),
            ]
        )
    ]
    by_split = _by_split(states, scores)
    for i, (split, here) in enumerate(by_split.items()):
        figures = []
        for j, (state, one) in enumerate(here.items()):
            wrong = one.predictions != one.answers
            sure = int((wrong & (one.confidences > 0.9)).sum())
            text = f"{sure:,} of {int(wrong.sum()):,} wrong answers with confidence above 0.9"
            label = f"Histogram of confidences on {split}, {state}: {text}."
            drawn = histograms.draw_panel(one)
            figures.append(layout.figure(drawn, f"histogram-{i}-{j}", label, state, text))
        parts += [f"<h3>{escape(split)}</h3>", layout.panels(figures)]

    epochs = boxplots.of_log(log)
    steps = f"{len(epochs)} E-step{'s' if len(epochs) > 1 else ''}"
    groups = {f"training set, {steps}": epochs} if epochs else {}
    groups |= {
        split: {state: boxplots.quantiles_of(one) for state, one in here.items()}
        for split, here in by_split.items()
    }
    parts.append(note("Each histogram has its own scale."))
    parts.append("<h3>Sorted probabilities</h3>")
    ranks = max(len(g) for boxes in groups.values() for g in boxes.values())
    parts.append(
        legend(
            [
                (swatch("fill", layout.colour(index)), name)
                for index, name in boxplots.RANKS[: min(ranks, boxplots.MAX_RANKS)]
            ]
        )
    )
    figures = [
        layout.figure(
            boxplots.draw(boxes, legend=False),
            f"boxes-{i}",
            f"Box plots of the sorted probabilities, {name}: {', '.join(boxes)}.",
            name,
            wide=boxplots.is_wide(boxes),
        )
        for i, (name, boxes) in enumerate(groups.items())
    ]
    wide = [f for f in figures if 'class="wide"' in f]
    parts += [*wide, layout.panels([f for f in figures if f not in wide])]
    text = (
        "Probabilities of a question's options from the largest to the smallest: box 25 to 75%, "
        "line the median, whiskers 5 to 95%. A collapsed model has its first box near 1."
    )
    if ranks > boxplots.MAX_RANKS:
        text += f" The first {boxplots.MAX_RANKS} of {ranks} options."
    if len(epochs) > boxplots.MAX_GROUPS:
        text += f" {boxplots.MAX_GROUPS} of {len(epochs)} E-steps, evenly spread."
    return "\n".join([*parts, note(text)])


def risk_coverage(states: States, scores: AllScores) -> str:
    """Risk-coverage curves, a panel per split."""
    figures = [
        layout.figure(
            curves.risk_panel(here),
            f"risk-{i}",
            f"Risk-coverage curves of {split}: the share of wrong answers among the most "
            "confident questions.",
            split,
            "AURC " + " → ".join(content.number(states[s][split].get("aurc")) for s in here)
            if any(states[s][split].get("aurc") is not None for s in here)
            else "",
        )
        for i, (split, here) in enumerate(_by_split(states, scores).items())
    ]
    text = (
        "Answering only the most confident share of the questions, how many answers are wrong? "
        "A curve that rises steadily ranks well: confidence tells right from wrong."
    )
    return "\n".join([_lines(states), layout.panels(figures), note(text)])


def course_of_training(log: Sequence[Mapping[str, Any]]) -> str:
    """Curves over the optimiser's steps and a row per measurement."""
    parts = []
    figure = training_log.draw(log)
    if figure is not None:
        label = "Curves over the optimiser's steps: conf-ECE, accuracy and the training loss."
        parts.append(layout.figure(figure, "training", label, wide=True))
        parts.append(
            note(
                "Every E-step measures the training set, every evaluation held-out questions. A "
                "training set that keeps improving while held-out questions get worse overfits."
            )
        )
    header, rows = training_log.table(log)
    shown = rows
    if len(rows) > training_log.MAX_ROWS:
        half = training_log.MAX_ROWS // 2
        shown = [*rows[:half], *rows[-half:]]
        parts.append(
            note(f"The first and last {half} of {len(rows):,} measurements; metrics.jsonl has all.")
        )
    if rows:
        head = "".join(
            f'<th scope="col"{" class=text" if name == "questions of" else ""}>{escape(name)}</th>'
            for name in header
        )
        body = [
            "<tr>"
            + "".join(
                f"<td{' class=text' if i == 2 else ''}>{escape(cell)}</td>"
                for i, cell in enumerate(row)
            )
            + "</tr>"
            for row in shown
        ]
        parts.append(layout.table(f"<tr>{head}</tr>", body, "Measurements", tall=len(shown) > 20))
    return "\n".join(parts)
