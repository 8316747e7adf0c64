"""The paper's Figures 1 and 2: what alignment changes by model, task, metric and method."""

import math
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from calib_jax.reports.atomic import atomic_path
from calib_jax.reports.figures.canvas import (
    Axes,
    Figure,
    Line2D,
    MaxNLocator,
    drawn,
    new_figure,
    png,
    svg,
)
from calib_jax.reports.figures.drawing import (
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
from calib_jax.reports.study.changes import (
    Cells,
    Change,
    column,
    methods_of,
    tasks_of,
)
from calib_jax.reports.study.wording import falls, sce_of

# Up to so many cells a line of Figure 1's left side is a pair on a task; beyond, see `figure1`.
_LINES = 30
# The paper names its decreases by this method.
FIGURE_1 = "continuation_sum"
# Axes of ratios beyond ten times so many percent are linear up to it and logarithmic beyond.
_LINEAR = 10.0
_TWO = ((CONFIDENCE, "o"), (RIGHT, "D"))  # ECE, SCE
_ROW, _TOP, _BOTTOM = 0.24, 0.62, 0.62
_LETTER = 0.072
# What the metrics are called where room is scarce.
_SHORT = {"conf_ece": "ECE", "cw_ece": "SCE", "sce_ovr": "SCE (ovr)"}


def draw_all(cells: Cells) -> Iterator[tuple[str, Figure]]:
    """Yields (name, figure): figure1, read by `FIGURE_1` where it was measured, and figure2."""
    yield "figure1", figure1(cells)
    yield "figure2", figure2(cells)


def write(folder: str | os.PathLike, cells: Cells) -> list[pathlib.Path]:
    """Writes figure1 and figure2 into `folder` as .png and .svg, each whole or not at all."""
    paths = []
    for name, figure in draw_all(cells):
        for kind, image in (("png", png(figure, dpi=150)), ("svg", svg(figure))):
            paths.append(pathlib.Path(folder) / f"{name}.{kind}")
            with atomic_path(paths[-1]) as temporary:
                temporary.write_bytes(image)
    return paths


@drawn
def figure1(cells: Cells, method: str | None = None) -> Figure:
    """Left: changes of ECE and SCE by model and task; right: change ratios by method.

    Of at most `_LINES` cells a line on the left is one pair on one task, with both metrics. Of more
    there are two panels, one for each metric, with a line for each task and a mark for each pair
    (or the other way round, where there are more pairs than tasks), so that every cell can be told.

    Args:
      cells: the changes.
      method: of the left side; None: `reading_of` the cells.
    """
    methods = methods_of(cells)
    method = method or reading_of(cells)
    two = ("conf_ece", sce_of(cells))
    every = {metric: column(cells, method, metric) for metric in two}
    keys = list(every["conf_ece"])
    crowded = len(keys) > _LINES
    # Of pairs and tasks the fewer are marks: there are more places than marks to be told apart.
    pairs, tasks = (list(dict.fromkeys(names)) for names in zip(*keys, strict=True))
    of_pairs = len(pairs) > len(tasks)
    lines, marks = _lines(cells, keys), []
    if crowded:
        lines, marks = (pairs, tasks) if of_pairs else (tasks, pairs)
    room = max(0.9, _LETTER * max(map(len, lines)) + 0.15)
    right = _LETTER * max(map(len, methods)) + 0.25
    each = _ROW * max(1.0, 0.19 * len(marks))
    height = max(each * len(lines), _ROW * max(3 * len(methods), 6))
    side, count = (2.9, 2) if crowded else (3.6, 1)
    left = count * (side + 0.3)
    # A row of the legend takes as many names as there is room for above the left side.
    names = max((len(name) for name in marks), default=1)
    columns = max(1, int((room + left) / (0.075 * names + 0.35)))
    top = 0.75 + 0.22 * math.ceil(len(marks) / columns) if crowded else _TOP
    width = room + left + right + 3.6 + 1.1
    figure = new_figure(width, top + height + _BOTTOM)

    if crowded:
        for j, metric in enumerate(two):
            ax = place(figure, room + j * (side + 0.3), _BOTTOM, side, height)
            _crowd(ax, every[metric], lines, marks, of_pairs)
            _rows_axis(ax, lines if j == 0 else [""] * len(lines))
            ax.set_title(f"{_SHORT[metric]}, {method}", fontsize=9.5, color=INK, loc="left", pad=5)
            ax.set_xlabel("change, aligned - base", fontsize=10, color=INK)
    else:
        ax = place(figure, room, _BOTTOM, side, height)
        for i, key in enumerate(lines.values()):
            for metric, (colour, marker), shift in zip(two, _TWO, (-0.17, 0.17), strict=True):
                if key in every[metric]:
                    _dot(ax, every[metric][key], i + shift, colour, marker)
        _rows_axis(ax, list(lines))
        ax.set_xlabel(f"change, aligned - base ({method})", fontsize=10, color=INK)

    _ratios(place(figure, room + left + right, _BOTTOM, 3.6, height), cells, methods, two)
    handles = [Line2D([], [], color=c, marker=m, linestyle="", markersize=6) for c, m in _TWO]
    figure.legend(
        [*handles, Line2D([], [], color=INK, linewidth=2)],
        [*(_SHORT[m] for m in two), "median (right)"],
        ncols=3, fontsize=9, frameon=False, loc="upper right", labelcolor=INK,
        bbox_to_anchor=(1 - 0.9 / width, 1 - 0.06 / figure.get_size_inches()[1]), borderaxespad=0,
    )  # fmt: skip
    if crowded:
        figure.legend(
            [Line2D([], [], **_style(p)) for p in range(len(marks))], marks, ncols=columns,
            fontsize=9, frameon=False, loc="upper left", labelcolor=INK,
            bbox_to_anchor=(0.1 / width, 1 - 0.4 / figure.get_size_inches()[1]), borderaxespad=0,
            handletextpad=0.3, columnspacing=1.2,
        )  # fmt: skip
    add_title(figure, "Change by model and task; change ratio by method", 0.1)
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
    found: Mapping[tuple[str, str], Change],
    lines: Sequence[str],
    marks: Sequence[str],
    of_pairs: bool,
) -> None:
    """The changes of one metric: a mark per cell, beside the others of its line.

    `of_pairs`: whether the lines are pairs, and the marks tasks.
    """
    for p, mark in enumerate(marks):
        points = []
        for (pair, task), change in found.items():
            line, own = (pair, task) if of_pairs else (task, pair)
            if own == mark:
                points.append((change.change, lines.index(line) + _shift(p, len(marks))))
        if points:
            ax.plot(*zip(*points, strict=True), **_style(p))
    values = [0.0, *(change.change for change in found.values())]
    pad = 0.06 * (max(values) - min(values)) or 0.01
    ax.set_xlim(min(values) - pad, max(values) + pad)


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
                ratios, i + shift + spread, marker, color=colour, markersize=4.5, alpha=0.75,
                markeredgecolor=PAPER, markeredgewidth=0.4,
            )  # fmt: skip
            middle = float(np.median(ratios))
            ax.plot([middle] * 2, [i + shift - 0.16, i + shift + 0.16], color=INK, linewidth=2)
            fallen, total = falls(cells, name, metric)
            ax.annotate(
                f"{fallen}/{total} fall", (1.015, i + shift), fontsize=8, color=GREY, va="center",
                xycoords=("axes fraction", "data"), annotation_clip=False,
            )  # fmt: skip
    _rows_axis(ax, methods)
    _ratio_axis(ax, values)
    ax.set_xlabel("change ratio, (aligned - base) / base", fontsize=10, color=INK)


def _dot(ax: Axes, change: Change, y: float, colour: str, marker: str) -> None:
    """A change with its interval."""
    if change.interval is not None:
        ax.plot(change.interval, [y, y], color=colour, linewidth=1.4, alpha=0.8)
    ax.plot(
        change.change, y, marker, color=colour, markersize=5.5,
        markeredgecolor=PAPER, markeredgewidth=0.4,
    )  # fmt: skip


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


@drawn
def figure2(cells: Cells) -> Figure:
    """A panel per metric and method: the change ratio of every pair on every task."""
    methods, tasks, pairs = methods_of(cells), tasks_of(cells), list(cells)
    rows = ("conf_ece", sce_of(cells))
    room = _LETTER * max(map(len, tasks)) + 0.2
    side, gap = 2.9, 0.3
    height = max(1.2, _ROW * 1.15 * len(tasks))
    legend_rows = math.ceil(len(pairs) / 4)
    top = 0.5 + 0.22 * legend_rows
    width = room + len(methods) * (side + gap) + 0.1
    each = height + 0.75
    figure = new_figure(width, top + len(rows) * each + 0.1)
    for i, metric in enumerate(rows):
        every = {m: column(cells, m, metric) for m in methods}
        for j, method in enumerate(methods):
            bottom = 0.1 + (len(rows) - 1 - i) * each + 0.4
            ax = place(figure, room + j * (side + gap), bottom, side, height)
            for p, pair in enumerate(pairs):
                points = [
                    (100 * change.ratio, tasks.index(task) + _shift(p, len(pairs)))
                    for (name, task), change in every[method].items()
                    if name == pair and not math.isnan(change.ratio)
                ]
                if points:
                    ax.plot(*zip(*points, strict=True), **_style(p))
            _rows_axis(ax, tasks if j == 0 else [""] * len(tasks))
            _ratio_axis(ax, [100 * c.ratio for c in every[method].values()])
            fallen, total = falls(cells, method, metric)
            ax.set_title(
                f"{_SHORT[metric]}, {method}: {fallen}/{total} fall", fontsize=9.5,
                color=INK, loc="left", pad=5,
            )  # fmt: skip
    figure.legend(
        [Line2D([], [], **_style(p)) for p in range(len(pairs))], pairs,
        ncols=min(4, len(pairs)), fontsize=9, frameon=False, loc="upper left", labelcolor=INK,
        bbox_to_anchor=(0.1 / width, 1 - 0.38 / figure.get_size_inches()[1]), borderaxespad=0,
        handletextpad=0.3, columnspacing=1.2,
    )  # fmt: skip
    add_title(figure, "Change ratio by alignment, (aligned - base) / base", 0.1)
    return figure


def _shift(p: int, count: int) -> float:
    """Where in its line a pair's mark stands."""
    return 0.0 if count == 1 else 0.56 * (p / (count - 1) - 0.5)


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
