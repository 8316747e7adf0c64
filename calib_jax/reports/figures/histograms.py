"""Histograms of confidence, right answers upwards and wrong ones downwards."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.reports.figures.canvas import (
    Axes,
    Figure,
    FuncFormatter,
    MaxNLocator,
    drawn,
    new_figure,
)
from calib_jax.reports.figures.style import (
    GREY,
    INK,
    PAPER,
    RIGHT,
    WRONG,
    add_title,
    place,
    plain_axes,
)

_EDGES = np.linspace(0, 1, 21)


def shares(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """[20] each: the shares of all questions that were answered right and wrong, by confidence."""
    confidences = np.asarray(scores.confidences, np.float64)
    right = np.asarray(scores.predictions) == np.asarray(scores.answers)
    total = max(len(confidences), 1)
    found, lost = (np.histogram(confidences[w], _EDGES)[0] / total for w in (right, ~right))
    return found, lost


def draw_histogram(ax: Axes, scores: Scores) -> None:
    """Draws both histograms about a middle line, to their own scale.

    A model that is equally sure of everything has one bar; its scale would flatten the others.
    """
    right, wrong = shares(scores)
    top = max(float(right.max()), float(wrong.max()))
    width = np.diff(_EDGES)
    style: dict[str, Any] = {"align": "edge", "edgecolor": PAPER, "linewidth": 0.5, "zorder": 2}
    ax.bar(_EDGES[:-1], right, width, color=RIGHT, label="right", **style)
    ax.bar(_EDGES[:-1], -wrong, width, color=WRONG, label="wrong", **style)
    ax.axhline(0, color=GREY, linewidth=0.8, zorder=3)
    limit = 1.12 * top or 1.0
    ax.set(xlim=(0, 1), ylim=(-limit, limit))
    ax.set_xticks(np.arange(0, 1.01, 0.2))
    ax.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    digits = 0 if top > 0.03 else 1
    ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * abs(y):.{digits}f}%"))
    plain_axes(ax, grid="y")
    ax.set_xlabel("confidence", fontsize=10, color=INK, labelpad=3)


@drawn
def draw_panel(scores: Scores) -> Figure:
    """One histogram alone, for the page."""
    figure = new_figure(3.6, 2.7)
    draw_histogram(place(figure, 0.55, 0.48, 2.95, 2.1), scores)
    return figure


@drawn
def draw(scores: Mapping[str, Scores], title: str) -> Figure:
    """One split's histograms side by side; `scores` is state -> scores."""
    count = len(scores)
    figure = new_figure(0.35 + 3.55 * count, 3.6)
    for i, (state, one) in enumerate(scores.items()):
        ax = place(figure, 0.7 + 3.55 * i, 0.55, 2.95, 2.3)
        draw_histogram(ax, one)
        ax.set_title(state, fontsize=11, color=INK, loc="left")
        if not i:
            ax.set_ylabel("questions", fontsize=10, color=INK)
    add_title(figure, title, 0.7)
    figure.legend(
        handles=ax.containers[:2],
        ncols=2,
        fontsize=9,
        frameon=False,
        loc="upper right",
        bbox_to_anchor=(0.995, 0.905),
        labelcolor=INK,
        borderaxespad=0,
        handlelength=1.2,
    )
    return figure
