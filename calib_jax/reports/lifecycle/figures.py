"""Figures of a series: reliability diagrams per model, and curves over scale, step or epoch."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calib_jax.confidence.next_token import NextTokens
from calib_jax.confidence.scores import Scores
from calib_jax.metrics import binary_bin_stats
from calib_jax.reports.figures import panels
from calib_jax.reports.figures.bins import bins_from, effective_of
from calib_jax.reports.figures.canvas import (
    Axes,
    Figure,
    NullLocator,
    drawn,
    extent,
    new_figure,
)
from calib_jax.reports.figures.reliability import Panel, panel_of
from calib_jax.reports.figures.style import (
    COLOURS,
    GREY,
    INK,
    draw_line,
    legend_columns,
    place,
    plain_axes,
    slant,
    top_of,
)

Rows = Mapping[str, Mapping[str, Mapping[str, Any]]]  # label -> part -> ROW
Models = Mapping[str, Mapping[str, Any]]  # label -> its place, its setting and more

# Of a long series the diagrams are of so many models, evenly spread; the tables hold all.
MAX_MODELS = 12
_AXES = {"scale": "parameters", "step": "training step", "epoch": "epoch of tuning"}
_COLOURS = (COLOURS[4], COLOURS[0], COLOURS[1], COLOURS[2], COLOURS[3], COLOURS[5])
# From one row of curves to the next.
_PITCH = 3.6
# The least distance of two labels on an axis of numbers, as a share of its length.
_TICK_GAP = 0.075


def panel(row: Mapping[str, Any], read: NextTokens | Scores, num_bins: int, edges: str) -> Panel:
    """What one reliability diagram shows, of next-token predictions as of questions."""
    if isinstance(read, Scores):
        return panel_of(row, read, num_bins, edges)
    stats = binary_bin_stats(read.confidences, read.correct, num_bins, edges)
    documents = np.unique(np.array(read.documents), return_inverse=True)[1]
    worth = effective_of(read.confidences, read.correct, documents, num_bins, edges)
    return Panel(row, bins_from(stats, num_bins, worth), read.confidences)


def spread(labels: Sequence[str], most: int = MAX_MODELS) -> list[str]:
    """At most so many of the labels, the first and the last among them."""
    chosen = np.unique(np.linspace(0, len(labels) - 1, min(most, len(labels))).round().astype(int))
    return [labels[i] for i in chosen]


def unit(part: str) -> str:
    """What a part's rows are."""
    return {"text": "positions", "facts": "facts"}.get(part, "questions")


def draw_reliability(part: str, shown: Mapping[str, Panel], title: str = "") -> Figure:
    """The diagrams of one part side by side, label -> what is shown, with one scale of shades."""
    n = next(iter(shown.values())).row["n"]
    title = title or f"{part}: reliability of {n:,} {unit(part)}"
    return panels.draw(panels.wrapped(shown), title=title, unit=unit(part))


def lines_of(models: Models, labels: Sequence[str]) -> dict[str, list[str]]:
    """Setting -> the labels that its line joins.

    One label that states no setting is where every line begins (the model before tuning); several
    are a line of their own, called "".
    """
    settings = {label: models[label].get("setting") or "" for label in labels}
    bare = [label for label in labels if not settings[label]]
    lines: dict[str, list[str]] = {}
    for label in labels:
        if settings[label]:
            lines.setdefault(settings[label], list(bare) if len(bare) == 1 else []).append(label)
    return lines if lines and len(bare) == 1 else ({"": bare} if bare else {}) | lines


@drawn
def draw_curves(rows: Rows, models: Models, axis: str) -> Figure | None:
    """conf-ECE and accuracy of every part over the axis, with 95 % intervals.

    A line is a part; of several settings (see `lines_of`) it is a setting, and every part has
    panels of its own.

    Args:
      rows: label -> part -> ROW, in order.
      models: label -> "place", where it lies on the axis, None where the axis is of names; and
        "setting".
      axis: its name.

    Returns:
      The figure; None for fewer than two models.
    """
    if len(rows) < 2:
        return None
    parts = list(dict.fromkeys(part for by_part in rows.values() for part in by_part))
    numbers = all(models[label]["place"] is not None for label in rows)
    xs = {
        label: float(models[label]["place"]) if numbers else float(i)
        for i, label in enumerate(rows)
    }
    settings = lines_of(models, list(rows))
    several = len(settings) > 1
    blocks: list[tuple[str, list[_Line]]] = [
        ("", [_Line(part, part, list(rows)) for part in parts])
    ]
    if several:
        blocks = [
            (f"{part}: ", [_Line(name or "(none)", part, at) for name, at in settings.items()])
            for part in parts
        ]
    # Beside the note there is room for a few short names; more of them stand beneath it.
    names = [line.name for line in blocks[0][1]]
    beneath = legend_columns(names, 3.7) < len(names)
    columns = legend_columns(names, 9 if beneath else 3.7)
    extra = 0.08 + 0.22 * math.ceil(len(names) / columns) if beneath else 0.0
    figure = new_figure(9.6, 4.3 + (len(blocks) - 1) * _PITCH + extra)
    for row, (heading, lines) in enumerate(blocks):
        bottom = 1.05 + (len(blocks) - 1 - row) * _PITCH
        for i, (key, title) in enumerate((("conf_ece", "conf-ECE"), ("accuracy", "accuracy"))):
            ax = place(figure, 0.6 + 4.75 * i, bottom, 4.05, 2.5)
            _draw_lines(ax, rows, lines, xs, key)
            ax.set_title(heading + title, fontsize=11.5, color=INK, loc="left")
            _draw_axis(ax, list(rows), xs, axis, numbers, several)
    height = _crop_below(figure)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        ncols=columns,
        fontsize=9.5,
        frameon=False,
        loc="upper left",
        bbox_to_anchor=(0.55 / 9.6, 1 - (0.4 if beneath else 0.1) / height),
        borderaxespad=0,
        labelcolor=INK,
    )
    figure.text(
        1 - 0.2 / 9.6,
        1 - 0.16 / height,
        "Bars: 95% intervals. Dotted: conf-ECE by chance (95%). Dashed: mean confidence.",
        fontsize=8.5,
        color=GREY,
        ha="right",
        va="top",
    )
    return figure


@dataclasses.dataclass(frozen=True)
class _Line:
    """What the legend calls it, the part, and the labels that it joins."""

    name: str
    part: str
    labels: Sequence[str]


def _draw_lines(
    ax: Axes, rows: Rows, lines: Sequence[_Line], xs: Mapping[str, float], key: str
) -> None:
    second, style = ("conf_ece_null_q95", ":") if key == "conf_ece" else ("mean_confidence", "--")
    for j, line in enumerate(lines):
        here = [label for label in line.labels if line.part in rows[label]]
        here.sort(key=xs.__getitem__)
        if not here:
            continue
        found = [rows[label][line.part] for label in here]
        x, aside = [xs[label] for label in here], 3 * (j - (len(lines) - 1) / 2)
        look = draw_line(ax, x, found, key, j, _COLOURS[j % 6], aside, label=line.name)
        ax.plot(x, [row[second] for row in found], linestyle=style, linewidth=1.1, **look)
    ax.set_ylim(0, min(1.0, 1.12 * top_of(ax)) or 1.0)


def _crop_below(figure: Figure, margin: float = 0.12) -> float:
    """Takes away what is empty below the axes and their labels; the height that is left."""
    width, height = figure.get_size_inches()
    lowest = min(extent(ax).y0 for ax in figure.axes) / figure.dpi
    cut = lowest - margin
    boxes = [ax.get_position().bounds for ax in figure.axes]
    figure.set_size_inches(width, height - cut)
    for ax, (left, bottom, wide, high) in zip(figure.axes, boxes, strict=True):
        scale = height / (height - cut)
        ax.set_position((left, (bottom - cut / height) * scale, wide, high * scale))
    return height - cut


def _draw_axis(
    ax: Axes,
    labels: Sequence[str],
    xs: Mapping[str, float],
    axis: str,
    numbers: bool,
    several: bool,
) -> None:
    plain_axes(ax)
    ax.set_xlabel(_AXES.get(axis, axis), fontsize=10, color=INK)
    places = np.array([xs[label] for label in labels])
    if numbers and axis == "scale":
        ax.set_xscale("log")
        ax.set_xlim(places.min() / 1.4, places.max() * 1.4)
    elif numbers and axis == "step":
        linear = _first_step(xs)
        ax.set_xscale("symlog", linthresh=linear)
        ax.set_xlim(-0.4 * linear, places.max() * 1.8 or 1.0)
    else:
        margin = 0.06 * (np.ptp(places) or 1.0)
        ax.set_xlim(places.min() - margin, places.max() + margin)
    ticks = list(labels)
    if numbers:
        # Every other label where they would touch; points keep their places.
        ends = ax.transScale.transform([(x, 0) for x in ax.get_xlim()])[:, 0]
        where = ax.transScale.transform([(x, 0) for x in places])[:, 0]
        where = (where - ends[0]) / (ends[1] - ends[0])
        ticks, last = [], -1.0
        for i in np.argsort(where, kind="stable"):
            if where[i] - last >= _TICK_GAP:
                ticks.append(labels[i])
                last = where[i]
    texts = [_tick(label, xs[label], axis, several) if numbers else label for label in ticks]
    ax.set_xticks([xs[label] for label in ticks], texts)
    ax.xaxis.set_minor_locator(NullLocator())
    longest = max(map(len, texts))
    # Level, a long one would also run over the figure's edge.
    if longest > 11 or longest * len(ticks) > 44:
        ax.tick_params(axis="x", labelsize=8)
        slant(ax)


def _first_step(xs: Mapping[str, float]) -> float:
    return min((x for x in xs.values() if x > 0), default=1.0)


def _tick(label: str, x: float, axis: str, several: bool) -> str:
    """The place's name: the label, or of several settings what their labels share."""
    if axis == "step":
        return f"{x / 1000:g}k" if x >= 1000 and math.isclose(x % 1000, 0) else f"{x:g}"
    if not several:
        return label
    if axis == "epoch":
        return f"{x:g}"
    unit, letter = next((u, s) for u, s in ((1e9, "b"), (1e6, "m"), (1e3, "k"), (1, "")) if x >= u)
    return f"{x / unit:g}{letter}"
