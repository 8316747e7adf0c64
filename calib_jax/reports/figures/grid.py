"""All reliability diagrams of an evaluation in one figure: a row per task, a column per method."""

from collections.abc import Mapping
from typing import Any

from calib_jax.confidence.scores import Scores
from calib_jax.reports import content
from calib_jax.reports.figures.canvas import Figure, drawn, new_figure
from calib_jax.reports.figures.drawing import GREY, INK, add_title, place
from calib_jax.reports.figures.reliability import draw_bars, panels_of, shade_norm

# Inches: a diagram's side, and what each takes with its labels.
_SIDE, _WIDTH, _HEIGHT = 1.75, 2.15, 2.4
_LEFT, _TOP, _BOTTOM = 0.6, 0.62, 0.45
# Diagrams beside one another where there is one column only.
_ACROSS = 4


@drawn
def draw(
    states: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, Scores]],
    num_bins: int = 10,
    edges: str = "right",
    title: str | None = None,
) -> Figure:
    """Small diagrams: splits down, states across; of one state, four splits a line.

    Arguments as in ``reliability.draw``.
    """
    splits, names = content.ordered_splits(states), list(states)
    panels = panels_of(states, scores, num_bins, edges)
    norm = shade_norm(panel.bins for panel in panels.values())
    if len(names) == 1:
        across = min(_ACROSS, len(splits))
        places = {(names[0], s): divmod(i, across) for i, s in enumerate(splits)}
    else:
        across = len(names)
        places = {(n, s): (i, j) for i, s in enumerate(splits) for j, n in enumerate(names)}
    rows = 1 + max(row for row, _ in places.values())
    width = _LEFT + across * _WIDTH
    height = _TOP + rows * _HEIGHT + _BOTTOM
    figure = new_figure(width, height)
    add_title(figure, title or "Reliability", _LEFT)
    for (state, split), (i, j) in places.items():
        if (state, split) not in panels:
            continue
        panel = panels[state, split]
        bottom = height - _TOP - (i + 1) * _HEIGHT + 0.2
        ax = place(figure, _LEFT + j * _WIDTH, bottom, _SIDE, _SIDE)
        draw_bars(ax, panel.bins, norm, size=7.5, tick=0.5)
        heading = split if len(names) == 1 else f"{split}\n{state}"
        ax.set_title(heading, fontsize=8.8, color=INK, pad=4, loc="left", linespacing=1.15)
        row = panel.row
        ax.text(
            0.03, 0.97,
            f"ECE {content.number(row['conf_ece'])}\nacc. {content.number(row['accuracy'])}",
            transform=ax.transAxes, va="top", fontsize=7.5, color=INK, zorder=6,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1.2},
        )  # fmt: skip
        ticks = [0, 0.5, 1]
        last = all(other != (i + 1, j) for other in places.values())
        ax.set_xticks(ticks, ["0", "0.5", "1"] if last else [])
        ax.set_yticks(ticks, ["0", "0.5", "1"] if j == 0 else [])
    for text, x, y, turn in (
        ("confidence", (_LEFT + width) / 2 / width, 0.12 / height, 0),
        ("accuracy", 0.12 / width, 0.5, 90),
    ):
        figure.text(x, y, text, fontsize=9, color=GREY, rotation=turn, ha="center", va="center")
    return figure
