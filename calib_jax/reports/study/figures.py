"""The paper's Figures 1 and 2: what alignment changes by model, task, metric and method."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from calib_jax.reports.figures.canvas import Axes, Figure, Line2D, MaxNLocator, drawn, new_figure
from calib_jax.reports.figures.style import (
    COLOURS,
    CONFIDENCE,
    FAINT,
    GREY,
    INK,
    MARKERS,
    PAPER,
    RIGHT,
    add_title,
    place,
    plain_axes,
)
from calib_jax.reports.study.changes import METRICS, Cells, Change, column, methods_of, tasks_of
from calib_jax.reports.study.sentences import falls, sce_of

# Up to so many cells a line of Figure 1's left side is a pair on a task; beyond, see `figure1`.
_LINES = 30
# The paper names its decreases by this method.
FIGURE_1 = "continuation_sum"
# Axes of ratios beyond ten times so many percent are linear up to it and logarithmic beyond.
_LINEAR = 10.0
_TWO = ((CONFIDENCE, "o"), (RIGHT, "D"))  # ECE, SCE
_ROW, _TOP, _BOTTOM = 0.24, 0.62, 0.62
_LETTER = 0.072
_LEGEND = {"fontsize": 9, "frameon": False, "labelcolor": INK, "borderaxespad": 0}


@drawn
def figure1(cells: Cells) -> Figure:
    """Left: changes of ECE and SCE by model and task; right: change ratios by method.

    The left side is read by `reading_of` the cells. Of at most `_LINES` cells a line there is one
    pair on one task, with both metrics. Of more there are two panels, one for each metric, with a
    line for each task and a mark for each pair (or the other way round, where there are more pairs
    than tasks), so that every cell can be told.
    """
    methods, method = methods_of(cells), reading_of(cells)
    two = ("conf_ece", sce_of(cells))
    every = {metric: column(cells, method, metric) for metric in two}
    keys = list(every["conf_ece"])
    crowded = len(keys) > _LINES
    # Of pairs and tasks the fewer are marks: there are more places than marks to be told apart.
    pairs, tasks = (list(dict.fromkeys(names)) for names in zip(*keys, strict=True))
    of_pairs = len(pairs) > len(tasks)
    of_line = _lines(cells, keys)
    lines, marks = list(of_line), list[str]()
    if crowded:
        lines, marks = (pairs, tasks) if of_pairs else (tasks, pairs)
    room = max(0.9, _LETTER * max(map(len, lines)) + 0.15)
    right = _LETTER * max(map(len, methods)) + 0.25
    each = _ROW * max(1.0, 0.19 * len(marks))
    height = max(each * len(lines), _ROW * max(3 * len(methods), 6))
    side, count = (2.9, 2) if crowded else (3.6, 1)
    left = count * (side + 0.3)
    # A row of the legend takes as many names as there is room for above the left side.
    names = max(map(len, marks), default=1)
    columns = max(1, int((room + left) / (0.075 * names + 0.35)))
    top = 0.75 + 0.22 * math.ceil(len(marks) / columns) if crowded else _TOP
    width = room + left + right + 3.6 + 1.1
    figure = new_figure(width, top + height + _BOTTOM)

    if crowded:
        for j, metric in enumerate(two):
            ax = place(figure, room + j * (side + 0.3), _BOTTOM, side, height)
            values = {key: change.change for key, change in every[metric].items()}
            _crowd(ax, values, lines, marks, of_pairs)
            _rows_axis(ax, lines if j == 0 else [""] * len(lines))
            ends = [0.0, *values.values()]
            pad = 0.06 * (max(ends) - min(ends)) or 0.01
            ax.set_xlim(min(ends) - pad, max(ends) + pad)
            _head(ax, f"{METRICS[metric].brief}, {method}")
            _foot(ax, "change, aligned - base")
    else:
        ax = place(figure, room, _BOTTOM, side, height)
        for i, key in enumerate(of_line.values()):
            for metric, (colour, marker), shift in zip(two, _TWO, (-0.17, 0.17), strict=True):
                if key in every[metric]:
                    _dot(ax, every[metric][key], i + shift, colour, marker)
        _rows_axis(ax, lines)
        _foot(ax, f"change, aligned - base ({method})")

    _ratios(place(figure, room + left + right, _BOTTOM, 3.6, height), cells, methods, two)
    handles = [Line2D([], [], color=c, marker=m, linestyle="", markersize=6) for c, m in _TWO]
    figure.legend(
        [*handles, Line2D([], [], color=INK, linewidth=2)],
        [*(METRICS[m].brief for m in two), "median (right)"],
        ncols=3,
        loc="upper right",
        bbox_to_anchor=(1 - 0.9 / width, 1 - 0.06 / figure.get_size_inches()[1]),
        **_LEGEND,
    )
    if crowded:
        _legend_of_marks(figure, marks, columns, 0.4)
    add_title(figure, "Change by model and task; change ratio by method", 0.1)
    return figure


@drawn
def figure2(cells: Cells) -> Figure:
    """A panel per metric and method: the change ratio of every pair on every task."""
    methods, tasks, pairs = methods_of(cells), tasks_of(cells), list(cells)
    rows = ("conf_ece", sce_of(cells))
    room = _LETTER * max(map(len, tasks)) + 0.2
    side, gap = 2.9, 0.3
    height = max(1.2, _ROW * 1.15 * len(tasks))
    top = 0.5 + 0.22 * math.ceil(len(pairs) / 4)
    each = height + 0.75
    figure = new_figure(room + len(methods) * (side + gap) + 0.1, top + len(rows) * each + 0.1)
    for i, metric in enumerate(rows):
        for j, method in enumerate(methods):
            found = column(cells, method, metric)
            ratios = {k: 100 * c.ratio for k, c in found.items() if not math.isnan(c.ratio)}
            bottom = 0.1 + (len(rows) - 1 - i) * each + 0.4
            ax = place(figure, room + j * (side + gap), bottom, side, height)
            _crowd(ax, ratios, tasks, pairs)
            _rows_axis(ax, tasks if j == 0 else [""] * len(tasks))
            _ratio_axis(ax, list(ratios.values()))
            fallen, total = falls(cells, method, metric)
            _head(ax, f"{METRICS[metric].brief}, {method}: {fallen}/{total} fall")
    _legend_of_marks(figure, pairs, min(4, len(pairs)), 0.38)
    add_title(figure, "Change ratio by alignment, (aligned - base) / base", 0.1)
    return figure


def reading_of(cells: Cells) -> str:
    """The method of Figure 1's left side."""
    methods = methods_of(cells)
    return FIGURE_1 if FIGURE_1 in methods else methods[0]


def _lines(cells: Cells, keys: Sequence[tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """Name -> (pair, task) of a line each."""
    ordered = sorted(keys, key=lambda key: list(cells).index(key[0]))
    return {task if len(cells) == 1 else f"{pair}: {task}": (pair, task) for pair, task in ordered}


def _crowd(
    ax: Axes,
    values: Mapping[tuple[str, str], float],
    lines: Sequence[str],
    marks: Sequence[str],
    of_pairs: bool = False,
) -> None:
    """A mark per (pair, task), beside the others of its line.

    `of_pairs`: whether the lines are pairs, and the marks tasks.
    """
    for p, mark in enumerate(marks):
        shift = 0.0 if len(marks) == 1 else 0.56 * (p / (len(marks) - 1) - 0.5)
        points = [
            (value, lines.index(line) + shift)
            for key, value in values.items()
            for line, own in [key if of_pairs else key[::-1]]
            if own == mark
        ]
        if points:
            ax.plot(*zip(*points, strict=True), **_style(p))


def _ratios(ax: Axes, cells: Cells, methods: Sequence[str], two: Sequence[str]) -> None:
    """The change ratios of all cells, a line per method, their median and how many fall."""
    values = []
    for i, name in enumerate(methods):
        for metric, (colour, marker), shift in zip(two, _TWO, (-0.18, 0.18), strict=True):
            ratios = [c.ratio for c in column(cells, name, metric).values()]
            ratios = [100 * r for r in ratios if not math.isnan(r)]
            values += ratios
            if not ratios:
                continue
            spread = 0.11 * np.sin(np.arange(len(ratios)) * 2.4)  # apart, the same every time
            ax.plot(
                ratios,
                i + shift + spread,
                marker,
                color=colour,
                markersize=4.5,
                alpha=0.75,
                markeredgecolor=PAPER,
                markeredgewidth=0.4,
            )
            middle = float(np.median(ratios))
            ax.plot([middle] * 2, [i + shift - 0.16, i + shift + 0.16], color=INK, linewidth=2)
            fallen, total = falls(cells, name, metric)
            ax.annotate(
                f"{fallen}/{total} fall",
                (1.015, i + shift),
                fontsize=8,
                color=GREY,
                va="center",
                xycoords=("axes fraction", "data"),
                annotation_clip=False,
            )
    _rows_axis(ax, methods)
    _ratio_axis(ax, values)
    _foot(ax, "change ratio, (aligned - base) / base")


def _dot(ax: Axes, change: Change, y: float, colour: str, marker: str) -> None:
    """A change with its interval."""
    if change.change_ci is not None:
        ax.plot(change.change_ci, [y, y], color=colour, linewidth=1.4, alpha=0.8)
    ax.plot(
        change.change,
        y,
        marker,
        color=colour,
        markersize=5.5,
        markeredgecolor=PAPER,
        markeredgewidth=0.4,
    )


def _rows_axis(ax: Axes, names: Sequence[str]) -> None:
    """Lines of names from the top, and a line at no change."""
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_yticks(range(len(names)), names)
    plain_axes(ax, grid="x")
    ax.tick_params(axis="y", length=0)
    for i in range(1, len(names)):
        ax.axhline(i - 0.5, color=FAINT, linewidth=0.6, zorder=0)
    ax.axvline(0, color=INK, linewidth=0.9, zorder=1)


def _ratio_axis(ax: Axes, values: Sequence[float]) -> None:
    """Percent along x: linear near 0, logarithmic where a ratio goes far beyond."""
    known = [v for v in values if math.isfinite(v)] or [0.0]
    low, high = min(0.0, *known), max(0.0, *known)
    largest = max(-low, high)
    if largest <= 10 * _LINEAR:
        pad = 0.06 * (high - low) or 1
        ax.set_xlim(low - pad, high + pad)
        ax.xaxis.set_major_formatter(lambda v, _: f"{v:+g}%" if v else "0")
        ax.xaxis.set_major_locator(MaxNLocator(5))
        return
    ax.set_xscale("symlog", linthresh=_LINEAR, linscale=0.7)
    ax.set_xlim(low * 1.6 - 3, high * 1.6 + 3)
    ticks = [0.0, *(s * 10.0**e for s in (-1, 1) for e in range(1, 6))]
    shown = sorted(t for t in ticks if low * 1.6 - 3 <= t <= high * 1.6 + 3)
    ax.set_xticks(shown, [f"{t:+,.0f}%" if t else "0" for t in shown])
    ax.minorticks_off()


def _head(ax: Axes, text: str) -> None:
    ax.set_title(text, fontsize=9.5, color=INK, loc="left", pad=5)


def _foot(ax: Axes, text: str) -> None:
    ax.set_xlabel(text, fontsize=10, color=INK)


def _legend_of_marks(figure: Figure, names: Sequence[str], columns: int, below: float) -> None:
    """Names the marks of `_crowd`, so many inches below the figure's upper edge."""
    width, height = figure.get_size_inches()
    figure.legend(
        [Line2D([], [], **_style(p)) for p in range(len(names))],
        names,
        ncols=columns,
        loc="upper left",
        bbox_to_anchor=(0.1 / width, 1 - below / height),
        handletextpad=0.3,
        columnspacing=1.2,
        **_LEGEND,
    )


def _style(p: int) -> dict:
    """The p-th pair's mark: the second half-dozen takes other marks for the same colours."""
    turn = p // len(COLOURS)
    return {
        "marker": MARKERS[(p + 2 * turn) % len(MARKERS)],
        "color": COLOURS[p % len(COLOURS)],
        "linestyle": "",
        "markersize": 5.5,
        "markeredgecolor": INK if turn else PAPER,
        "markeredgewidth": 0.8 if turn else 0.4,
    }
