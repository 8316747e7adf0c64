"""The paper's Figures 1 and 2: what alignment changes by model, task, metric and method."""

import math
import os
import pathlib
from collections.abc import Iterator, Sequence

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

# Lines of the left panel: a pair on a task each, or beyond so many a pair each with dots for tasks.
_LINES = 30
# Axes of ratios beyond ten times so many percent are linear up to it and logarithmic beyond.
_LINEAR = 10.0
_TWO = ((CONFIDENCE, "o"), (RIGHT, "D"))  # ECE, SCE
_ROW, _TOP, _BOTTOM = 0.24, 0.62, 0.62
_LETTER = 0.072
# What the metrics are called where room is scarce.
_SHORT = {"conf_ece": "ECE", "cw_ece": "SCE", "sce_ovr": "SCE (ovr)"}


def draw_all(cells: Cells) -> Iterator[tuple[str, Figure]]:
    """Yields (name, figure): figure1, with the method "choice" where it is there, and figure2."""
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

    Args:
      cells: the changes.
      method: of the left panel; None: "choice", or the first where that was not measured.
    """
    methods = methods_of(cells)
    method = method or ("choice" if "choice" in methods else methods[0])
    two = ("conf_ece", sce_of(cells))
    every = [column(cells, method, metric) for metric in two]
    lines = _left_lines(cells, list(every[0]))
    room = max(0.9, _LETTER * max(map(len, [name for name, _ in lines])) + 0.15)
    right = _LETTER * max(map(len, methods)) + 0.25
    rows = max(len(lines), 3 * len(methods), 6)
    height = _ROW * rows
    width = room + 3.6 + 0.3 + right + 3.6 + 1.1
    figure = new_figure(width, _TOP + height + _BOTTOM)

    ax = place(figure, room, _BOTTOM, 3.6, height)
    for i, (_, keys) in enumerate(lines):
        for found, (colour, marker), shift in zip(every, _TWO, (-0.17, 0.17), strict=True):
            for key in keys:
                if key in found:
                    _dot(ax, found[key], i + shift, colour, marker, len(keys) == 1)
    _rows_axis(ax, [name for name, _ in lines])
    ax.set_xlabel(f"change, aligned - base ({method})", fontsize=10, color=INK)

    ax = place(figure, room + 3.9 + right, _BOTTOM, 3.6, height)
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
    names = [_SHORT[m] for m in two]
    figure.legend(
        [Line2D([], [], color=c, marker=m, linestyle="", markersize=6) for c, m in _TWO]
        + [Line2D([], [], color=INK, linewidth=2)],
        [*names, "median (right)"],
        ncols=3, fontsize=9, frameon=False, loc="upper right", labelcolor=INK,
        bbox_to_anchor=(1 - 0.9 / width, 1 - 0.06 / figure.get_size_inches()[1]), borderaxespad=0,
    )  # fmt: skip
    add_title(figure, "Change by model and task; change ratio by method", 0.1)
    return figure


def _left_lines(
    cells: Cells, keys: Sequence[tuple[str, str]]
) -> list[tuple[str, list[tuple[str, str]]]]:
    """(name, keys) of each line of the left panel."""
    if len(keys) <= _LINES:
        ordered = sorted(keys, key=lambda key: list(cells).index(key[0]))
        alone = len(cells) == 1
        return [(task if alone else f"{pair}: {task}", [(pair, task)]) for pair, task in ordered]
    return [(pair, [key for key in keys if key[0] == pair]) for pair in cells]


def _dot(ax: Axes, change: Change, y: float, colour: str, marker: str, whiskers: bool) -> None:
    """A change, with its interval where a line is one cell's."""
    if whiskers and change.interval is not None:
        ax.plot(change.interval, [y, y], color=colour, linewidth=1.4, alpha=0.8)
    ax.plot(
        change.change, y, marker, color=colour, markersize=5.5 if whiskers else 4.5,
        alpha=1 if whiskers else 0.75, markeredgecolor=PAPER, markeredgewidth=0.4,
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
