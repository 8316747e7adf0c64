"""One reliability diagram in the manner of Xiao et al. (2025); `panels` lays out several.

Bars: accuracy per bin of confidence, darker where more questions lie; hatched: the gap to the mean
confidence; beneath: the histogram of confidences.
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.reports.figures.bins import Bins, bins_of
from calib_jax.reports.figures.canvas import Axes, Figure, PowerNorm, drawn, new_figure
from calib_jax.reports.figures.style import (
    CONFIDENCE,
    DASHES,
    DIAGONAL,
    GREY,
    INK,
    PAPER,
    POPULATION,
    SHADES,
    place,
    plain_axes,
)
from calib_jax.reports.words import interval, number

# Hatches of the gap.
OVER, UNDER = "////", "..."
# What the two lines between which a calibrated model's bin would end are called.
CONSISTENCY = "calibrated model, by chance (95%)"
# What stands above a diagram: the keys of each line.
LINES = (("conf_ece",), ("accuracy", "mean_confidence"))
_LABELS = {
    "conf_ece": "conf-ECE",
    "cw_ece": "cw-ECE",
    "accuracy": "accuracy",
    "mean_confidence": "mean conf.",
}


@dataclasses.dataclass(frozen=True)
class Panel:
    """What one diagram shows.

    Attributes:
      row: figures as in a ROW of summary.json; "accuracy" and "mean_confidence" are drawn over the
        histogram, and those of `LINES` that it holds stand above the diagram.
      bins: its bins.
      confidences: [N], for the histogram beneath; None: there is no histogram.
    """

    row: Mapping[str, Any]
    bins: Bins
    confidences: np.ndarray | None = None


def panel_of(
    row: Mapping[str, Any], scores: Scores, num_bins: int = 10, edges: str = "right"
) -> Panel:
    """What the diagram of some scores shows, beside their figures."""
    return Panel(row, bins_of(scores, num_bins, edges), np.asarray(scores.confidences))


def panels_of(
    states: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, Scores]],
    num_bins: int = 10,
    edges: str = "right",
) -> dict[tuple[str, str], Panel]:
    """(state, split) -> what its diagram shows; see `evaluation.draw` for the arguments."""
    return {
        (state, split): panel_of(row, scores[state][split], num_bins, edges)
        for state, rows in states.items()
        for split, row in rows.items()
    }


def about(row: Mapping[str, Any], lines: Sequence[Sequence[str]] = LINES) -> str:
    """The figures of a row in lines, the conf-ECE with its interval; those it lacks are left out.

    >>> about({"conf_ece": 0.2, "conf_ece_ci": [0.1, 0.3], "accuracy": 0.5})
    'conf-ECE 0.200 [0.100, 0.300]\\naccuracy 0.500'
    """

    def said(key: str) -> str:
        ends = interval(row.get(f"{key}_ci")) if key == "conf_ece" else ""
        return f"{_LABELS[key]} {number(row[key])} {ends}".rstrip()

    texts = ["   ".join(said(key) for key in line if key in row) for line in lines]
    return "\n".join(filter(None, texts))


def shade_norm(all_bins: Iterable[Bins]) -> PowerNorm:
    """One scale of shades for several diagrams, up to the fullest bin of any."""
    top = max((float(b.counts.max() / max(b.counts.sum(), 1)) for b in all_bins), default=1.0)
    # The square root keeps sparse bins apart beside one that holds nearly everything.
    return PowerNorm(0.5, vmin=0, vmax=top or 1.0)


def draw_bars(ax: Axes, bins: Bins, norm: PowerNorm, size: float = 9, tick: float = 0.2) -> None:
    """Draws bars, gaps, intervals and diagonal of one diagram; nothing where a bin is empty.

    Args:
      ax: the axes; limits, aspect and ticks are set here, without labels along x.
      bins: counts, accuracy and mean confidence of M bins.
      norm: maps a bin's share of the questions to a shade.
      size: of the ticks' labels, in points.
      tick: distance of the ticks.
    """
    shares = bins.counts / max(bins.counts.sum(), 1)
    filled = np.flatnonzero(bins.counts)
    for m in filled:
        left, width = bins.edges[m], bins.edges[m + 1] - bins.edges[m]
        accuracy, confidence = float(bins.accuracy[m]), float(bins.confidence[m])
        ax.bar(
            left,
            accuracy,
            width,
            align="edge",
            color=SHADES(norm(shares[m])),
            edgecolor=PAPER,
            linewidth=0.9,
            zorder=2,
            label="accuracy",
        )
        over = confidence > accuracy
        low, gap = min(accuracy, confidence), abs(confidence - accuracy)
        if not over:  # the gap lies within the bar: dots must be seen on the darkest, too
            ax.bar(left, gap, width, low, align="edge", color=PAPER, alpha=0.45, zorder=2.5)
        ax.bar(
            left,
            gap,
            width,
            low,
            align="edge",
            facecolor="none",
            edgecolor=GREY if over else INK,
            hatch=OVER if over else UNDER,
            linewidth=0.7,
            zorder=3,
            label="over-confident" if over else "under-confident",
        )
    if len(filled):
        left, right = bins.edges[filled], bins.edges[filled + 1]
        inset = 0.08 * (right - left)
        for end in bins.consistency:
            for colour, width, label in ((PAPER, 3.0, ""), (CONFIDENCE, 1.6, CONSISTENCY)):
                ax.hlines(
                    end[filled],
                    left + inset,
                    right - inset,
                    color=colour,
                    linewidth=width,
                    zorder=4.5,
                    label=label,
                )
        below, above = (end[filled] for end in bins.interval)
        middle = (bins.edges[filled] + bins.edges[filled + 1]) / 2
        # Pale beneath dark: seen on the darkest bar as on white.
        for colour, width in ((PAPER, 3.2), (INK, 1.2)):
            ax.vlines(middle, below, above, color=colour, linewidth=width, zorder=5)
        ax.plot(
            np.repeat(middle, 2),
            np.stack([below, above], axis=1).ravel(),
            linestyle="none",
            marker="_",
            markersize=5,
            color=INK,
            markeredgewidth=1.2,
            zorder=5,
            clip_on=False,
            label="95% interval",
        )
    ax.plot([0, 1], [0, 1], **DIAGONAL, zorder=4)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ticks = np.arange(0, 1.01, tick)
    ax.set_xticks(ticks, [])
    ax.set_yticks(ticks, [f"{y:g}" for y in ticks])
    plain_axes(ax, size, box=True)


def draw_strip(ax: Axes, panel: Panel, size: float = 9) -> None:
    """The histogram of confidences, with accuracy and mean confidence as vertical lines."""
    confidences = panel.confidences
    assert confidences is not None  # asked for where there is a histogram
    weights = np.full(len(confidences), 1 / max(len(confidences), 1))
    ax.hist(
        confidences,
        bins=np.linspace(0, 1, 41).tolist(),
        weights=weights,
        color=POPULATION,
        histtype="stepfilled",
    )
    ax.axvline(panel.row["accuracy"], color=INK, linewidth=1.8)
    ax.axvline(panel.row["mean_confidence"], color=CONFIDENCE, linewidth=1.8, linestyle=DASHES)
    ax.set(xlim=(0, 1), yticks=[])
    ax.margins(y=0.12)
    plain_axes(ax, size, grid="")
    ax.spines["left"].set_visible(False)


def label_x(ax: Axes, tick: float = 0.2, text: str = "") -> None:
    """Names the ticks along x, and the axis."""
    ticks = np.arange(0, 1.01, tick)
    ax.set_xticks(ticks, [f"{x:g}" for x in ticks])
    ax.set_xlabel(text, fontsize=10, color=INK, labelpad=3)


@drawn
def draw_panel(panel: Panel, norm: PowerNorm) -> Figure:
    """One diagram alone, for the page, where text stands around it; small without a histogram."""
    if panel.confidences is None:
        figure = new_figure(2.3, 2.3)
        ax = place(figure, 0.36, 0.3, 1.86, 1.86)
        draw_bars(ax, panel.bins, norm, size=10, tick=0.5)
        label_x(ax, tick=0.5)
        return figure
    figure = new_figure(3.8, 4.3)
    ax = place(figure, 0.62, 1.16, 3.0, 3.0)
    draw_bars(ax, panel.bins, norm)
    ax.set_ylabel("accuracy", fontsize=10, color=INK, labelpad=3)
    strip = place(figure, 0.62, 0.48, 3.0, 0.58)
    draw_strip(strip, panel)
    label_x(strip, text="confidence")
    return figure


def file_name(split: str) -> str:
    """`split` with everything but letters, digits, ".", "_" and "-" replaced by "_"."""
    return re.sub(r"[^\w.-]", "_", split)
