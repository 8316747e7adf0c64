"""Reliability diagrams in the manner of Xiao et al. (2025), before and after side by side.

Bars: accuracy per bin of confidence, darker where more questions lie; hatched: the gap to the mean
confidence; beneath: the histogram of confidences; at the right: the letters chosen.
"""

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.reports import content
from calib_jax.reports.atomic import atomic_path
from calib_jax.reports.figures.bins import Bins, bins_of
from calib_jax.reports.figures.canvas import (
    Axes,
    Figure,
    Line2D,
    Patch,
    PowerNorm,
    ScalarMappable,
    drawn,
    new_figure,
    png,
)
from calib_jax.reports.figures.drawing import (
    CONFIDENCE,
    DASHES,
    DIAGONAL,
    FAINT,
    GREY,
    INK,
    PAPER,
    POPULATION,
    SHADES,
    place,
    plain_axes,
)
from calib_jax.reports.figures.letters import draw_letters

_OVER, _UNDER = "////", "..."

# Inches. A diagram is square; what surrounds it has fixed room, so nothing can overlap.
_SIDE, _STRIP, _STRIP_GAP = 3.5, 0.62, 0.10
_LEFT, _GAP, _RIGHT, _LETTERS = 0.78, 0.62, 0.25, 2.75
_TITLE, _HEADER, _BELOW, _LEGEND, _TOP = 0.36, 0.32, 0.62, 0.82, 0.16
_FIGURES_ABOVE, _SCALE = 0.46, 1.62


@dataclasses.dataclass(frozen=True)
class Panel:
    """What one diagram shows: the ROW of summary.json, its bins and the confidences [N]."""

    row: Mapping[str, Any]
    bins: Bins
    confidences: np.ndarray


def panels_of(
    states: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, Scores]],
    num_bins: int = 10,
    edges: str = "right",
) -> dict[tuple[str, str], Panel]:
    """(state, split) -> what its diagram shows; see `draw` for the arguments."""
    return {
        (state, split): Panel(
            row,
            bins_of(scores[state][split], num_bins, edges),
            np.asarray(scores[state][split].confidences),
        )
        for state, rows in states.items()
        for split, row in rows.items()
    }


def shade_norm(all_bins: Iterable[Bins]) -> PowerNorm:
    """One scale of shades for several diagrams, up to the fullest bin of any."""
    top = max((float(b.counts.max() / max(b.counts.sum(), 1)) for b in all_bins), default=1.0)
    # The square root keeps sparse bins apart beside one that holds nearly everything.
    return PowerNorm(0.5, vmin=0, vmax=top or 1.0)


def draw_bars(ax: Axes, bins: Bins, norm: PowerNorm, size: float = 9, tick: float = 0.2) -> None:
    """Draws bars, gaps, intervals and diagonal of one diagram; nothing where a bin is empty.

    Args:
      ax: the axes; limits and aspect are set here.
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
            left, accuracy, width, align="edge", color=SHADES(norm(shares[m])),
            edgecolor=PAPER, linewidth=0.9, zorder=2, label="accuracy",
        )  # fmt: skip
        over = confidence > accuracy
        low, gap = min(accuracy, confidence), abs(confidence - accuracy)
        if not over:  # the gap lies within the bar: dots must be seen on the darkest, too
            ax.bar(left, gap, width, low, align="edge", color=PAPER, alpha=0.45, zorder=2.5)
        ax.bar(
            left, gap, width, low, align="edge", facecolor="none",
            edgecolor=GREY if over else INK, hatch=_OVER if over else _UNDER,
            linewidth=0.7, zorder=3, label="over-confident" if over else "under-confident",
        )  # fmt: skip
    if len(filled):
        low, high = (end[filled] for end in bins.interval)
        middle = (bins.edges[filled] + bins.edges[filled + 1]) / 2
        # Pale beneath dark: seen on the darkest bar as on white.
        for colour, width in ((PAPER, 3.2), (INK, 1.2)):
            ax.vlines(middle, low, high, color=colour, linewidth=width, zorder=5)
        ax.plot(
            np.repeat(middle, 2), np.stack([low, high], axis=1).ravel(), linestyle="none",
            marker="_", markersize=5, color=INK, markeredgewidth=1.2, zorder=5,
            clip_on=False, label="95% interval",
        )  # fmt: skip
    ax.plot([0, 1], [0, 1], **DIAGONAL, zorder=4)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ticks = np.arange(0, 1.01, tick)
    ax.set_xticks(ticks, [])
    ax.set_yticks(ticks)
    plain_axes(ax, size, box=True)


def _box_is_free(bins: Bins) -> bool:
    """Whether no bar reaches into the top left corner, where the figures stand."""
    tops = np.fmax(np.maximum(bins.accuracy, bins.confidence), bins.interval[1])
    under = (bins.counts > 0) & (bins.edges[:-1] < 0.66)
    return not (tops[under] > 0.77).any()


def _draw_figures(ax: Axes, row: Mapping[str, Any], boxed: bool) -> None:
    """The main figures, in a box in the top left corner or in two lines above the diagram."""
    ece = f"{content.number(row['conf_ece'])} {content.interval(row.get('conf_ece_ci'))}".rstrip()
    cw_ece, accuracy, confidence = (
        content.number(row[key]) for key in ("cw_ece", "accuracy", "mean_confidence")
    )
    if boxed:
        # The fixed-width font aligns the figures.
        text = (
            f"conf-ECE   {ece}\ncw-ECE     {cw_ece}\naccuracy   {accuracy}\nmean conf. {confidence}"
        )
        ax.text(
            0.025, 0.975, text, transform=ax.transAxes, va="top", ha="left", fontsize=8.2,
            family="DejaVu Sans Mono", color=INK, linespacing=1.35, zorder=6,
            bbox={"facecolor": PAPER, "edgecolor": FAINT, "alpha": 0.92,
                  "boxstyle": "round,pad=0.4"},
        )  # fmt: skip
    else:
        ax.text(
            0.5, 1.025, f"conf-ECE {ece}   cw-ECE {cw_ece}\n"
            f"accuracy {accuracy}   mean confidence {confidence}",
            transform=ax.transAxes, va="bottom", ha="center", fontsize=8.8, color=INK,
            linespacing=1.4,
        )  # fmt: skip


def draw_strip(ax: Axes, panel: Panel) -> None:
    """The histogram of confidences, with accuracy and mean confidence as vertical lines."""
    weights = np.full(len(panel.confidences), 1 / max(len(panel.confidences), 1))
    ax.hist(panel.confidences, bins=np.linspace(0, 1, 41), weights=weights, color=POPULATION,
            histtype="stepfilled")  # fmt: skip
    ax.axvline(panel.row["accuracy"], color=INK, linewidth=1.8)
    ax.axvline(panel.row["mean_confidence"], color=CONFIDENCE, linewidth=1.8, linestyle=DASHES)
    ax.set(xlim=(0, 1), yticks=[])
    ax.margins(y=0.12)
    ax.set_xticks(np.arange(0, 1.01, 0.2))
    plain_axes(ax, grid="")
    ax.spines["left"].set_visible(False)
    ax.set_xlabel("confidence", fontsize=10, color=INK, labelpad=3)


def draw_legend(
    figure: Figure, norm: PowerNorm, width: float, height: float, what: str = "questions"
) -> None:
    """One legend and the scale of shades for the whole figure, along its bottom."""
    blue = SHADES(0.55)
    handles = [
        Patch(facecolor=blue, edgecolor=PAPER),
        Patch(facecolor="none", edgecolor=GREY, hatch=_OVER),
        Patch(facecolor="none", edgecolor=INK, hatch=_UNDER),
        Line2D([], [], color=INK, marker="|", markersize=9, linestyle="none"),
        Line2D([], [], **DIAGONAL),
        Line2D([], [], color=INK, linewidth=1.8),
        Line2D([], [], color=CONFIDENCE, linewidth=1.8, linestyle=DASHES),
    ]
    labels = [
        "accuracy in the bin", "gap: over-confident", "gap: under-confident",
        "95% interval (Wilson)", "perfect calibration", "accuracy overall", "mean confidence",
    ]  # fmt: skip
    figure.legend(
        handles, labels, ncols=3, fontsize=8.8, frameon=False, loc="lower left",
        bbox_to_anchor=(_LEFT / width - 0.1 / width, 0.10 / height), borderaxespad=0,
        handlelength=2.0, columnspacing=1.4, labelcolor=INK,
    )  # fmt: skip
    bar = figure.add_axes(
        ((width - _RIGHT - _SCALE - 0.2) / width, 0.30 / height, _SCALE / width, 0.13 / height)
    )
    scale = figure.colorbar(ScalarMappable(norm, SHADES), cax=bar, orientation="horizontal")
    scale.outline.set_visible(False)
    ticks = [0, norm.vmax / 4, norm.vmax]
    scale.set_ticks(ticks, labels=[f"{100 * t:.0f}%" for t in ticks])
    scale.ax.minorticks_off()
    scale.ax.tick_params(labelsize=8, length=2, color=GREY, labelcolor=INK, pad=2)
    scale.ax.set_title(f"{what} in the bin", fontsize=8.8, color=INK, pad=3)


@drawn
def draw(
    states: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, Scores]],
    num_bins: int = 10,
    edges: str = "right",
    letters: bool = True,
    title: str | None = None,
) -> Figure:
    """Draws the diagrams: one row per split (in-domain first), one column per state.

    Args:
      states: state ("before", "after") -> split -> ROW of summary.json.
      scores: state -> split -> scores, for the bins and the histogram.
      num_bins: M bins of equal width.
      edges: "right" for (a, b], "left" for [a, b).
      letters: whether to add the letters' histogram as a last column; splits whose options are
        classes have none.
      title: a line above everything.

    Returns:
      A figure that belongs to no window and no global state.
    """
    splits = content.ordered_splits(states)
    panels = panels_of(states, scores, num_bins, edges)
    lettered = {split for (_, split), p in panels.items() if not p.row.get("classes")}
    letters = letters and bool(lettered)
    norm = shade_norm(p.bins for p in panels.values())

    # In the corner of every diagram or of none.
    boxed = all(_box_is_free(p.bins) for p in panels.values())
    header = _HEADER + (0 if boxed else _FIGURES_ABOVE)
    column = _SIDE + _GAP
    width = _LEFT + len(states) * column - _GAP + _RIGHT
    width += (_GAP + 0.05 + _LETTERS) if letters else 0
    width = max(width, _LEFT + 5.75 + _SCALE + _RIGHT)
    block = _TITLE + header + _SIDE + _STRIP_GAP + _STRIP + _BELOW
    height = _TOP + (0.45 if title else 0) + len(splits) * block + _LEGEND
    figure = new_figure(width, height)

    y = height - _TOP
    if title:
        figure.text(
            _LEFT / width, (y - 0.1) / height, title, fontsize=15, weight="bold", va="top",
            color=INK,
        )  # fmt: skip
        y -= 0.45
    for split in splits:
        here = {s: panels[s, split] for s in states if (s, split) in panels}
        first = next(iter(here.values())).row
        about = [content.DOMAINS.get(first.get("domain"), ""), f"{first['n']:,} questions"]
        figure.text(
            _LEFT / width, (y - 0.05) / height, split, fontsize=12.5, weight="bold", va="top",
            color=INK,
        )  # fmt: skip
        figure.text(
            (width - _RIGHT) / width, (y - 0.08) / height, " · ".join(filter(None, about)),
            fontsize=10, va="top", ha="right", color=GREY,
        )  # fmt: skip
        figure.add_artist(
            Line2D(
                [_LEFT / width, 1 - _RIGHT / width],
                [(y - 0.32) / height] * 2,
                color=FAINT,
                linewidth=1,
            )  # fmt: skip
        )
        bottom = y - _TITLE - header - _SIDE
        strip_bottom = bottom - _STRIP_GAP - _STRIP
        for i, state in enumerate(states):
            if state not in here:
                continue
            left = _LEFT + i * column
            ax = place(figure, left, bottom, _SIDE, _SIDE)
            ax.set_title(state, fontsize=11.5, color=INK, pad=6 if boxed else 36)
            draw_bars(ax, here[state].bins, norm)
            _draw_figures(ax, here[state].row, boxed)
            if i == 0:
                ax.set_ylabel("accuracy", fontsize=10, color=INK)
            strip = place(figure, left, strip_bottom, _SIDE, _STRIP)
            draw_strip(strip, here[state])
        if letters and split in lettered:
            left = _LEFT + len(states) * column + 0.05
            ax = place(figure, left, bottom, _LETTERS, _SIDE)
            ax.set_title("letters chosen", fontsize=11.5, color=INK, pad=6)
            draw_letters(ax, {state: panel.row for state, panel in here.items()})
        y -= block
    draw_legend(figure, norm, width, height)
    return figure


@drawn
def draw_panel(panel: Panel, norm: PowerNorm) -> Figure:
    """One diagram with its histogram alone, for the page, where text stands around it."""
    figure = new_figure(3.6, 4.3)
    ax = place(figure, 0.5, 1.16, 3.0, 3.0)
    draw_bars(ax, panel.bins, norm)
    ax.set_ylabel("accuracy", fontsize=10, color=INK, labelpad=3)
    draw_strip(place(figure, 0.5, 0.48, 3.0, 0.58), panel)
    return figure


def file_name(split: str) -> str:
    """`split` with everything but letters, digits, ".", "_" and "-" replaced by "_"."""
    return re.sub(r"[^\w.-]", "_", split)


def write(
    folder: str | os.PathLike,
    states: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, Scores]],
    num_bins: int = 10,
    edges: str = "right",
    title: str | None = None,
    draw_all: Callable[..., Figure] = draw,
) -> dict[str, pathlib.Path]:
    """Writes reliability.png (all splits, by ``draw_all``) and reliability_<split>.png, atomically.

    Returns:
      "" -> the figure of all splits; split -> its own.
    """
    folder = pathlib.Path(folder)
    written = {}
    for split in ["", *content.ordered_splits(states)]:
        chosen = {
            state: {s: row for s, row in rows.items() if not split or s == split}
            for state, rows in states.items()
        }
        drawn = draw if split else draw_all
        figure = drawn(chosen, scores, num_bins, edges, title=title)
        name = f"_{file_name(split)}" if split else ""
        written[split] = folder / f"reliability{name}.png"
        with atomic_path(written[split]) as temporary:
            temporary.write_bytes(png(figure))
    return written
