"""Figures of the job alignment: margins of preference pairs, changes of the loss on text."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from calib_jax.confidence.preference import PreferenceScores
from calib_jax.confidence.running_text import TextLosses
from calib_jax.reports.figures.canvas import Axes, Figure, drawn, extent, new_figure
from calib_jax.reports.figures.style import COLOURS, GREY, INK, add_title, place, plain_axes

# Of more models the figures show the first.
_MOST = 6


@drawn
def margins(pairs: Mapping[str, PreferenceScores]) -> Figure:
    """Share of the pairs whose margin is at most x, summed and per token."""
    chosen = dict(list(pairs.items())[:_MOST])
    figure = _two_panels("Margins of the chosen answer", chosen)
    for i, (name, attribute) in enumerate(
        (("log-probability, nats", "margins"), ("per token, nats", "normalised_margins"))
    ):
        ax = _panel(figure, i, f"margin, {name}", "share of the pairs with at most this margin")
        for j, scores in enumerate(chosen.values()):
            _steps(ax, getattr(scores, attribute), j)
        ax.axvline(0, color=INK, linewidth=0.9)
    return figure


@drawn
def drift(text: Mapping[str, TextLosses]) -> Figure:
    """Share of the documents whose loss per byte and per token has changed by at most x."""
    (_, before), *others = list(text.items())[:_MOST]
    figure = _two_panels("Change of the loss on text", text, skip=1)
    for i, (name, size) in enumerate((("per token", "tokens"), ("per byte", "bytes"))):
        ax = _panel(figure, i, f"change of the NLL {name}, nats", "share of the documents")
        for j, (_, losses) in enumerate(others, 1):
            first, last = (x.nll / getattr(x, size) for x in (before, losses))
            _steps(ax, last - first, j)
        ax.axvline(0, color=INK, linewidth=0.9)
    return figure


def _two_panels(title: str, labels: Mapping[str, Any], skip: int = 0) -> Figure:
    figure = new_figure(9.6, 3.8)
    add_title(figure, title, 0.6)
    right = 9.5
    names = list(labels)[skip:_MOST]
    # From the right, so that the names stand in their order.
    for j in range(len(names) - 1, -1, -1):
        line = figure.text(
            right / 9.6,
            1 - 0.14 / 3.8,
            names[j],
            color=COLOURS[(j + skip + 4) % 6],
            fontsize=10,
            weight="bold",
            ha="right",
            va="top",
        )
        right -= extent(line).width / figure.dpi + 0.18
    return figure


def _panel(figure: Figure, i: int, xlabel: str, ylabel: str) -> Axes:
    ax = place(figure, 0.65 + 4.75 * i, 0.6, 4.05, 2.7)
    ax.set_xlabel(xlabel, fontsize=10, color=INK)
    if i == 0:
        ax.set_ylabel(ylabel, fontsize=9, color=GREY)
    ax.set_ylim(0, 1)
    plain_axes(ax)
    return ax


def _steps(ax: Axes, values: np.ndarray, j: int) -> None:
    ordered = np.sort(values[np.isfinite(values)])
    share = np.arange(1, len(ordered) + 1) / len(ordered)
    ax.step(ordered, share, where="post", color=COLOURS[(j + 4) % 6], linewidth=1.6)
