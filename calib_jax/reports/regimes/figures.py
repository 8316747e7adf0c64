"""The plane of accuracy and conf-ECE as a picture, a panel per set of questions."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calib_jax.reports.compare.frontier import label_marks
from calib_jax.reports.figures.canvas import Axes, Figure, Line2D, Patch, drawn, new_figure
from calib_jax.reports.figures.style import (
    COLOURS,
    FAINT,
    GREY,
    INK,
    MARKERS,
    PAPER,
    POPULATION,
    add_legend,
    add_title,
    fit,
    legend_columns,
    place,
    plain_axes,
)
from calib_jax.reports.regimes.plane import Point, boundary, paths

_WIDTH, _HEIGHT, _GAP, _LEFT, _RIGHT, _BOTTOM, _LINE = 3.3, 3.0, 0.7, 0.7, 0.25, 0.6, 0.22
_TOP, _DOWN, _ACROSS, _ALONE = 0.95, 1.0, 3, 5.4
# The order of colours: those that lie apart in the wheel come first.
_ORDER = (5, 0, 4, 1, 2, 3)
NOTE = (
    "A filled mark: chance explains so large an error of so many questions. An open one: it does "
    "not, or that is not known. A line joins the epochs of one fine-tuning, or the stages of one "
    "chain, and ends in a large mark. Grey: errors up to the points' median limit of chance. "
    "Dotted: the empirical boundary, the largest accuracy of a filled mark."
)


@drawn
def draw(
    panels: Mapping[str, Sequence[Point]],
    title: str,
    target: tuple[float, float] | None = None,
    edges: Mapping[str, Point | None] | None = None,
) -> Figure:
    """Accuracy to the right and error upwards, so the lower right is best.

    Args:
      panels: what stands above a panel -> its points, all of the same questions. Panels of the same
        questions share their scales and the boundary.
      title: above the panels.
      target: accuracy and error of the target generative model, where it is known.
      edges: questions -> the boundary; None to take it from the points that are drawn.
    """
    points = [point for those in panels.values() for point in those]
    methods = list(dict.fromkeys(point.method for point in points))
    looks = {method: _look(i) for i, method in enumerate(methods)}
    handles: list[Any] = [Line2D([], [], **look, linestyle="-") for look in looks.values()]
    labels = list(methods)
    handles.append(Patch(facecolor=POPULATION, alpha=0.3))
    labels.append("explained by chance")
    handles.append(Line2D([], [], color=INK, linestyle=":", linewidth=1.3))
    labels.append("empirical boundary")
    if target:
        handles.append(Line2D([], [], **_TARGET))
        labels.append("target generative model")
    across = min(len(panels), _ACROSS)
    side = _WIDTH if across > 1 else _ALONE
    down = math.ceil(len(panels) / _ACROSS)
    width = _LEFT + across * (side + _GAP) - _GAP + _RIGHT
    lines = math.ceil(len(labels) / legend_columns(labels, width - _LEFT))
    columns = math.ceil(len(labels) / lines)
    top = _TOP + _LINE * (lines - 1)
    height = _BOTTOM + down * (_HEIGHT + _DOWN) - _DOWN + top
    figure = new_figure(width, height)
    for i, (about, those) in enumerate(panels.items()):
        left = _LEFT + i % _ACROSS * (side + _GAP)
        bottom = _BOTTOM + (down - 1 - i // _ACROSS) * (_HEIGHT + _DOWN)
        ax = place(figure, left, bottom, side, _HEIGHT)
        alike = [point for point in points if point.questions == those[0].questions]
        asked = those[0].questions
        edge = boundary(alike, asked) if edges is None else edges.get(asked)
        _panel(ax, those, alike, looks, target, edge)
        fit(ax.set_title(about, fontsize=10, color=INK, loc="left", pad=5), side)
        ax.set_xlabel("accuracy", fontsize=10, color=INK)
        ax.set_ylabel("conf-ECE", fontsize=10, color=INK)
    add_legend(figure, handles, labels, columns, _LEFT)
    add_title(figure, title, _LEFT)
    return figure


_TARGET: dict[str, Any] = {
    "linestyle": "", "marker": "*", "color": INK, "markersize": 13, "markeredgecolor": PAPER,
}  # fmt: skip  # a look


def _look(i: int) -> dict[str, Any]:
    return {"marker": MARKERS[i % len(MARKERS)], "color": COLOURS[_ORDER[i % len(_ORDER)]]}


def _panel(
    ax: Axes,
    points: Sequence[Point],
    alike: Sequence[Point],
    looks: Mapping[str, Mapping[str, Any]],
    target: tuple[float, float] | None,
    edge: Point | None,
) -> None:
    """One panel; ``alike`` holds the points of all panels of the same questions."""
    plain_axes(ax)
    ends, texts = [], []
    courses = paths(points).values()
    finals = [those[-1].method for those in courses]
    for those in courses:
        several = len({point.method for point in those}) > 1
        colour = GREY if several else looks[those[0].method]["color"]
        xs, ys = [p.accuracy for p in those], [p.conf_ece for p in those]
        ax.plot(xs, ys, color=colour, linewidth=1.1, alpha=0.55, zorder=2)
        for point in those:
            look, last = looks[point.method], several or point is those[-1]
            ax.plot(
                point.accuracy,
                point.conf_ece,
                linestyle="",
                marker=look["marker"],
                color=look["color"],
                markerfacecolor=look["color"] if point.within else PAPER,
                markersize=7.5 if last else 4,
                zorder=4 if last else 3,
            )
        if finals.count(those[-1].method) > 1:  # the legend tells the others
            ends.append((xs[-1], ys[-1]))
            texts.append((those[0].mark, colour))
    known = [p.chance for p in alike if p.chance is not None and math.isfinite(p.chance)]
    if known:
        ax.axhspan(0, float(np.median(known)), color=POPULATION, alpha=0.3, zorder=1, lw=0)
    if edge is not None:
        ax.axvline(edge.accuracy, color=INK, linestyle=":", linewidth=1.3, zorder=1.5)
    # Invisible, for the scales of panels that are to be compared.
    ax.plot([p.accuracy for p in alike], [p.conf_ece for p in alike], linestyle="", alpha=0)
    if target:
        ax.plot(*target, **_TARGET, zorder=5, clip_on=False)
    ax.margins(0.07)
    ax.set_ylim(bottom=0)
    ax.spines["bottom"].set_color(FAINT)
    ax.tick_params(color=GREY)
    label_marks(ax, ends, texts)
