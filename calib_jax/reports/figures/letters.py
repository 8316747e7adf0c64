"""The letters chosen and the letters that were right, side by side."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from calib_jax.reports.figures.canvas import Axes, Figure, PercentFormatter, drawn, new_figure
from calib_jax.reports.figures.style import COLOURS, INK, place, plain_axes
from calib_jax.reports.words import option_name


def draw_letters(ax: Axes, rows: Mapping[str, Mapping[str, Any]], legend_columns: int = 3) -> None:
    """Share of the questions answered with each letter, per state, and the gold letters' share."""
    gold = np.asarray(next(iter(rows.values()))["answer_counts"], float)
    used = [gold, *(np.asarray(row["letter_counts"], float) for row in rows.values())]
    size = max(len(u) for u in used)
    padded = np.stack([np.pad(u, (0, size - len(u))) for u in used])
    letters = int(np.flatnonzero(padded.sum(axis=0)).max(initial=0)) + 1
    shares = padded[:, :letters] / np.maximum(padded.sum(axis=1, keepdims=True), 1)
    width = 0.78 / len(rows)
    places = np.arange(letters)
    for i in range(len(rows)):
        ax.bar(
            places - 0.39 + (i + 0.5) * width,
            shares[i + 1],
            width * 0.92,
            color=COLOURS[i % len(COLOURS)],
            zorder=2,
        )
    gold_lines = ax.hlines(
        shares[0], places - 0.43, places + 0.43, color=INK, linewidth=1.8, zorder=3
    )
    ax.set(xlim=(-0.6, letters - 0.4), ylim=(0, 1))
    ax.set_xticks(places, [option_name(int(i)) for i in places])
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    plain_axes(ax, grid="y")
    ax.tick_params(axis="x", length=0, labelsize=10)
    if legend_columns > 2 and max(map(len, rows)) > 12:  # names that three columns cannot hold
        legend_columns = 2
    # Beneath the axes: inside, a bar may stand anywhere.
    ax.legend(
        [*ax.containers, gold_lines],
        [*rows, "gold answers"],
        fontsize=8.8,
        frameon=False,
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.09),
        ncols=legend_columns,
        handlelength=1.2,
        columnspacing=1.2,
        borderaxespad=0,
        labelcolor=INK,
    )


@drawn
def draw(rows: Mapping[str, Mapping[str, Any]]) -> Figure:
    """The letters of one split alone, as high as a diagram; `rows` is state -> ROW."""
    figure = new_figure(3.6, 4.3)
    # The page's font may be wider than the one measured here: one name per line.
    draw_letters(place(figure, 0.5, 1.16, 3.0, 3.0), rows, legend_columns=1)
    return figure
