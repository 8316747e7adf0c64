"""The one grid of reliability diagrams: rows of panels with one scale of shades and one legend.

A single diagram, splits by states, methods, stages and series of models are all laid out here. A
diagram is square, and what surrounds it has fixed room, so nothing can overlap.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

from calib_jax.reports.figures import reliability
from calib_jax.reports.figures.canvas import (
    Axes,
    Figure,
    Line2D,
    Patch,
    PowerNorm,
    ScalarMappable,
    drawn,
    new_figure,
)
from calib_jax.reports.figures.reliability import Panel
from calib_jax.reports.figures.style import (
    CONFIDENCE,
    DASHES,
    DIAGONAL,
    FAINT,
    GREY,
    INK,
    PAPER,
    SHADES,
    add_title,
    fit,
    place,
)


@dataclasses.dataclass(frozen=True)
class Size:
    """How large the panels of a grid are.

    Attributes:
      side, gap: inches, of a diagram and between two columns.
      strip: inches of the histogram beneath each diagram; 0: none, and then no legend either.
      title, text, ticks: points, of what stands above a diagram and beside its axes.
      tick: distance of the ticks.
      lines: the keys of the figures above a diagram, line by line.
    """

    side: float
    gap: float
    strip: float
    title: float
    text: float
    ticks: float
    tick: float = 0.2
    lines: Sequence[Sequence[str]] = reliability.LINES


LARGE = Size(
    3.5, 0.4, 0.62, 11.5, 8.8, 9, lines=(("conf_ece", "cw_ece"), ("accuracy", "mean_confidence"))
)
MEDIUM = Size(2.6, 0.35, 0.5, 11, 8.2, 8)
SMALL = Size(2.0, 0.3, 0, 9.5, 7.8, 8, tick=0.5)


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of the grid.

    Attributes:
      panels: title -> what the diagram shows; None leaves its place empty.
      heading, note: at the left and the right above the row, over a line.
      beside: a title and what draws into axes at the row's end.
    """

    panels: Mapping[str, Panel | None]
    heading: str = ""
    note: str = ""
    beside: tuple[str, Callable[[Axes], None]] | None = None


# Inches.
EDGE, _LEFT, _RIGHT, _TITLE, _HEADING = 0.2, 0.72, 0.25, 0.38, 0.36
_STRIP_GAP, _LABELS, _ROW_GAP, _LEGEND = 0.1, 0.5, 0.3, 0.75
_BESIDE_GAP, _BESIDE = 0.6, 2.75
# A legend, or a title, needs so much.
_LEAST, _LEAST_SMALL = 8.4, 6.5


def wrapped(panels: Mapping[str, Panel], most: int = 4) -> list[Row]:
    """The panels in as few rows of at most `most` as hold them, evenly filled."""
    rows = math.ceil(len(panels) / most)
    across = math.ceil(len(panels) / rows)
    items = list(panels.items())
    return [Row(dict(items[i : i + across])) for i in range(0, len(items), across)]


@drawn
def draw(
    rows: Sequence[Row],
    size: Size = MEDIUM,
    title: str = "",
    x: str = "confidence",
    y: str = "accuracy",
    unit: str = "questions",
    least: float = 0.0,
    below: float = 0.0,
) -> Figure:
    """Draws the grid.

    Args:
      rows: at least one, with at least one panel that is not None.
      size: of the panels.
      title: above everything.
      x, y: names of the axes.
      unit: what the legend calls what is counted in the bins.
      least: inches, the least width of the figure.
      below: inches left free beneath the legend, for whatever else belongs to the figure.

    Returns:
      A figure that belongs to no window and no global state.
    """
    every = [panel for row in rows for panel in row.panels.values() if panel is not None]
    norm = reliability.shade_norm(panel.bins for panel in every)
    lines = max(
        reliability.about(panel.row, size.lines).count("\n") + 1 if panel.row else 0
        for panel in every
    )
    pad = 6 + 1.45 * size.text * lines
    above = (pad + 1.3 * size.title) / 72 + 0.06
    beneath = _ROW_GAP + (_STRIP_GAP + size.strip + 0.1 if size.strip else 0)
    pitch = size.side + size.gap
    wide = max(len(row.panels) for row in rows) * pitch - size.gap
    beside = any(row.beside for row in rows)
    inside = wide + (_BESIDE_GAP + _BESIDE if beside else 0)
    width = max(_LEFT + inside + _RIGHT, least, _LEAST if size.strip else _LEAST_SMALL)
    first = _LEFT + (width - _LEFT - inside - _RIGHT) / 2  # few stand in the middle
    heights = [(_HEADING if row.heading else 0) + above + size.side + beneath for row in rows]
    # The lowest row needs room for the names of its axes.
    foot = below + (_LEGEND if size.strip else 0) + _LABELS - _ROW_GAP + 0.06
    height = 0.1 + (_TITLE if title else 0) + sum(heights) + foot
    figure = new_figure(width, height)
    top = height - 0.1
    if title:
        add_title(figure, title, EDGE, size=14)
        top -= _TITLE
    for i, row in enumerate(rows):
        bottom = top - heights[i] + beneath
        if row.heading:
            heading(figure, top, row.heading, row.note)
        shown = [(j, name, p) for j, (name, p) in enumerate(row.panels.items()) if p is not None]
        for j, name, panel in shown:
            left = first + j * pitch
            ax = place(figure, left, bottom, size.side, size.side)
            reliability.draw_bars(ax, panel.bins, norm, size.ticks, size.tick)
            text = reliability.about(panel.row, size.lines)
            fit(ax.set_title(name, fontsize=size.title, color=INK, pad=pad), pitch - 0.05)
            ax.annotate(
                text,
                (0.5, 1),
                (0, 4),
                xycoords="axes fraction",
                textcoords="offset points",
                ha="center",
                va="bottom",
                fontsize=size.text,
                color=INK,
                linespacing=1.3,
            )
            if j == shown[0][0]:
                ax.set_ylabel(y, fontsize=10, color=INK, labelpad=3)
            else:
                ax.tick_params(labelleft=False)
            last = not any(j in _places(lower) for lower in rows[i + 1 :])
            if size.strip:
                ax = place(figure, left, bottom - _STRIP_GAP - size.strip, size.side, size.strip)
                reliability.draw_strip(ax, panel, size.ticks)
            if size.strip or last:
                reliability.label_x(ax, size.tick, x if last else "")
        if row.beside:
            name, draw_beside = row.beside
            ax = place(figure, first + wide + _BESIDE_GAP, bottom, _BESIDE, size.side)
            ax.set_title(name, fontsize=size.title, color=INK, pad=6)
            draw_beside(ax)
        top -= heights[i]
    if size.strip:
        _legend(figure, norm, unit, below + 0.1)
    return figure


def _places(row: Row) -> list[int]:
    """The columns in which a row has a panel."""
    return [j for j, panel in enumerate(row.panels.values()) if panel is not None]


def heading(figure: Figure, top: float, text: str, note: str = "") -> None:
    """A bold line and a grey note at its end, over a rule; `top` in inches from the bottom."""
    width, height = figure.get_size_inches()
    line = figure.text(
        EDGE / width, (top - 0.05) / height, text, fontsize=12, weight="bold", va="top", color=INK
    )
    fit(line, width - 2 * EDGE - (0.1 * len(note) if note else 0))
    figure.text(
        1 - EDGE / width, (top - 0.07) / height, note, fontsize=10, va="top", ha="right", color=GREY
    )
    ends, rule = [EDGE / width, 1 - EDGE / width], [(top - 0.3) / height] * 2
    figure.add_artist(Line2D(ends, rule, color=FAINT, linewidth=1))


def _legend(figure: Figure, norm: PowerNorm, unit: str, bottom: float) -> None:
    """One legend and the scale of shades for the whole figure, so many inches from its bottom."""
    width, height = figure.get_size_inches()
    entries = {
        "accuracy in the bin": Patch(facecolor=SHADES(0.55), edgecolor=PAPER),
        "gap: over-confident": Patch(facecolor="none", edgecolor=GREY, hatch=reliability.OVER),
        "gap: under-confident": Patch(facecolor="none", edgecolor=INK, hatch=reliability.UNDER),
        "95% interval (Wilson)": Line2D(
            [], [], color=INK, marker="|", markersize=9, linestyle="none"
        ),
        reliability.CONSISTENCY: Line2D([], [], color=CONFIDENCE, linewidth=1.6),
        "perfect calibration": Line2D([], [], **DIAGONAL),
        "accuracy overall": Line2D([], [], color=INK, linewidth=1.8),
        "mean confidence": Line2D([], [], color=CONFIDENCE, linewidth=1.8, linestyle=DASHES),
    }
    figure.legend(
        list(entries.values()),
        list(entries),
        ncols=3,
        fontsize=8.8,
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(EDGE / width, bottom / height),
        borderaxespad=0,
        handlelength=2.0,
        columnspacing=1.4,
        labelcolor=INK,
    )
    bar = place(figure, width - EDGE - 1.85, bottom + 0.2, 1.62, 0.13)
    scale = figure.colorbar(ScalarMappable(norm, SHADES), cax=bar, orientation="horizontal")
    scale.outline.set_visible(False)
    full = float(norm.vmax or 1)
    ticks = [0, full / 4, full]
    scale.set_ticks(ticks, labels=[f"{100 * t:.0f}%" for t in ticks])
    scale.ax.minorticks_off()
    scale.ax.tick_params(labelsize=8, length=2, color=GREY, labelcolor=INK, pad=2)
    scale.ax.set_title(f"{unit} in the bin", fontsize=8.8, color=INK, pad=3)
