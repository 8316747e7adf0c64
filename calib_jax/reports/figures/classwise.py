"""The class-wise grid (Xiao et al. 2025, Figure 5): a diagram per option letter, and all pooled."""

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.reports.figures import panels, reliability
from calib_jax.reports.figures.bins import Bins, class_bins_of
from calib_jax.reports.figures.canvas import Figure, PowerNorm, drawn
from calib_jax.reports.figures.reliability import Panel
from calib_jax.reports.words import option_name

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
    names = scores.classes or [option_name(k) for k in range(len(classes))]
    panels = {names[k]: classes[k] for k in kept}
    whole = POOLED_CLASSES if scores.classes else POOLED
    return {**panels, whole: pooled}, len(offered) - len(kept)


def draw_panel(bins: Bins, norm: PowerNorm) -> Figure:
    """One small diagram alone, for the page."""
    return reliability.draw_panel(Panel({}, bins), norm)


@drawn
def draw(scores: Scores, title: str, num_bins: int = 10, edges: str = "right") -> Figure:
    """The grid of one split in one state.

    Args:
      scores: of the split.
      title: above the grid.
      num_bins: M bins of equal width.
      edges: "right" for (a, b], "left" for [a, b).
    """
    found, left_out = panels_of(scores, num_bins, edges)
    one, many = ("class", "classes") if scores.classes else ("letter", "letters")
    if left_out:
        title += f" (without the {left_out} {many} that are least often right)"
    shown = {name: Panel({}, bins) for name, bins in found.items()}
    return panels.draw(
        panels.wrapped(shown), panels.SMALL, title, f"probability of the {one}", "option proportion"
    )
