"""The class-wise grid (Xiao et al. 2025, Figure 5): a diagram per option letter, and all pooled."""

import math

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.reports import content
from calib_jax.reports.figures.bins import Bins, class_bins_of
from calib_jax.reports.figures.canvas import Figure, PowerNorm, drawn, new_figure
from calib_jax.reports.figures.drawing import INK, add_title, place
from calib_jax.reports.figures.reliability import draw_bars, shade_norm

POOLED, POOLED_CLASSES = "all letters", "all classes"
# More letters than this make no grid that can be read.
MAX_LETTERS = 8


def panels_of(
    scores: Scores, num_bins: int = 10, edges: str = "right"
) -> tuple[dict[str, Bins], int]:
    """Letter -> its bins, then `POOLED` over every letter; and how many letters were left out.

    Where the options are classes their names stand in place of letters. Beyond `MAX_LETTERS` the
    letters that are most often the answer are kept.
    """
    *classes, pooled = class_bins_of(scores, num_bins, edges)
    right = np.bincount(np.asarray(scores.answers), minlength=len(classes))
    offered = [k for k, bins in enumerate(classes) if bins.counts.sum()]
    kept = sorted(sorted(offered, key=lambda k: -right[k])[:MAX_LETTERS])
    names = scores.classes or [content.option_name(k) for k in range(len(classes))]
    panels = {names[k]: classes[k] for k in kept}
    whole = POOLED_CLASSES if scores.classes else POOLED
    return {**panels, whole: pooled}, len(offered) - len(kept)


@drawn
def draw_panel(bins: Bins, norm: PowerNorm) -> Figure:
    """One small diagram alone, for the page."""
    figure = new_figure(2.3, 2.3)
    ax = place(figure, 0.36, 0.3, 1.86, 1.86)
    draw_bars(ax, bins, norm, size=10, tick=0.5)
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    ax.set_yticks([0, 0.5, 1], ["0", "0.5", "1"])
    return figure


@drawn
def draw(scores: Scores, title: str, num_bins: int = 10, edges: str = "right") -> Figure:
    """The grid of one split in one state.

    Args:
      scores: of the split.
      title: above the grid.
      num_bins: M bins of equal width.
      edges: "right" for (a, b], "left" for [a, b).
    """
    panels, left_out = panels_of(scores, num_bins, edges)
    norm = shade_norm(panels.values())
    columns = 3 if len(panels) > 4 else len(panels)
    rows = math.ceil(len(panels) / columns)
    width, height = 0.35 + 2.75 * columns, 0.75 + 2.85 * rows
    figure = new_figure(width, height)
    what = "class" if scores.classes else "letter"
    if left_out:
        plural = "classes" if scores.classes else "letters"
        title += f" (without the {left_out} {plural} that are least often right)"
    add_title(figure, title, 0.62)
    _draw_grid(figure, panels, norm, columns, height, what)
    return figure


def _draw_grid(
    figure: Figure,
    panels: dict[str, Bins],
    norm: PowerNorm,
    columns: int,
    height: float,
    what: str,
) -> None:
    for i, (letter, bins) in enumerate(panels.items()):
        row, column = divmod(i, columns)
        ax = place(figure, 0.62 + 2.75 * column, height - 2.9 - 2.85 * row - 0.05, 2.25, 2.25)
        draw_bars(ax, bins, norm)
        ax.set_xticks(np.arange(0, 1.01, 0.2), [f"{x:.1f}" for x in np.arange(0, 1.01, 0.2)])
        ax.set_title(content.cut(letter, content.MAX_NAME), fontsize=11, color=INK)
        if not column:
            ax.set_ylabel("option proportion", fontsize=9.5, color=INK)
        if i + columns >= len(panels):
            ax.set_xlabel(f"probability of the {what}", fontsize=9.5, color=INK)
