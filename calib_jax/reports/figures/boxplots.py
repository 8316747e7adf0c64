"""Box plots of the sorted probabilities: how sure of the first option, the second, and so on."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.metrics import rank_quantiles
from calib_jax.reports.figures.canvas import Figure, Patch, drawn, new_figure
from calib_jax.reports.figures.style import (
    COLOURS,
    GREY,
    INK,
    PAPER,
    add_title,
    place,
    plain_axes,
)

# More groups of boxes than this make no figure that can be read, nor more ranks.
MAX_GROUPS, MAX_RANKS = 12, 5
# (index of the colour in drawing.COLOURS, name) of each rank.
RANKS = ((4, "most probable option"), (3, "2nd"), (1, "3rd"), (0, "4th"), (2, "5th"))


def quantiles_of(scores: Scores) -> list[list[float]]:
    """[K][5]: the 5, 25, 50, 75 and 95 % quantiles of the k-th largest probability of a question.

    See `calib_jax.metrics.rank_quantiles`; ranks that no question has are left out.
    """
    return _known(np.asarray(rank_quantiles(scores.probs, scores.mask)).tolist())


def _known(ranks: Sequence[Sequence[float | None]]) -> list[list[float]]:
    """The ranks whose quantiles are numbers: NaN is null in a file."""
    known = ([q for q in r if q is not None and q == q] for r in ranks)
    return [k for k, r in zip(known, ranks, strict=True) if len(k) == len(r)]


def of_log(log: Sequence[Mapping[str, Any]]) -> dict[str, list[list[float]]]:
    """Epoch -> [K][5] of the training set, from the log's E-steps that hold them."""
    return {
        f"epoch {line['epoch']}": _known(line["sorted_confidences"])
        for line in log
        if line.get("kind") == "estep" and _known(line.get("sorted_confidences") or ())
    }


def thinned(groups: Mapping[str, Any], limit: int = MAX_GROUPS) -> dict[str, Any]:
    """At most `limit` of the groups, evenly spread, the first and the last among them."""
    if len(groups) <= limit:
        return dict(groups)
    chosen = np.unique(np.linspace(0, len(groups) - 1, limit).round().astype(int))
    return {name: groups[name] for name in (list(groups)[i] for i in chosen)}


def is_wide(groups: Mapping[str, Sequence[Sequence[float]]]) -> bool:
    """Whether the figure is wider than a panel of the page."""
    ranks = min(MAX_RANKS, max(len(g) for g in groups.values()))
    return min(len(groups), MAX_GROUPS) * ranks > 12


@drawn
def draw(
    groups: Mapping[str, Sequence[Sequence[float]]], title: str | None = None, legend: bool = True
) -> Figure:
    """Boxes (25 to 75 %) with medians and whiskers (5 to 95 %), one group per epoch or state.

    Args:
      groups: name -> [K][5] quantiles; at most `MAX_GROUPS` are drawn (`thinned`), and the first
        `MAX_RANKS` of the K ranks.
      title: above the figure.
      legend: whether to name the ranks above the axes.
    """
    groups = thinned(groups)
    ranks = min(MAX_RANKS, max(len(g) for g in groups.values()))
    width = max(3.6, 0.8 + 0.26 * len(groups) * ranks)
    rows = 1 if width > 5 else 2
    top = 0.1 + (0.2 * rows + 0.1 if legend else 0) + (0.35 if title else 0)
    figure = new_figure(width, 2.55 + top)
    ax = place(figure, 0.55, 0.42, width - 0.65, 2.1)
    step = 0.8 / ranks
    for rank in range(ranks):
        here = [(i, g[rank]) for i, g in enumerate(groups.values()) if rank < len(g)]
        keys = ("whislo", "q1", "med", "q3", "whishi")
        colour = COLOURS[RANKS[rank][0]]
        ax.bxp(
            [dict(zip(keys, quantiles, strict=True)) for _, quantiles in here],
            positions=[i + (rank - (ranks - 1) / 2) * step for i, _ in here],
            widths=0.82 * step,
            showfliers=False,
            patch_artist=True,
            manage_ticks=False,
            boxprops={"facecolor": colour, "edgecolor": PAPER, "linewidth": 0.6},
            medianprops={"color": INK, "linewidth": 1.6, "solid_capstyle": "butt"},
            whiskerprops={"color": GREY, "linewidth": 1},
            capprops={"color": GREY, "linewidth": 1},
        )
    ax.set(xlim=(-0.55, len(groups) - 0.45), ylim=(0, 1))
    ax.set_xticks(range(len(groups)), groups)
    ax.set_yticks(np.arange(0, 1.01, 0.2))
    plain_axes(ax, grid="y")
    ax.tick_params(axis="x", length=0)
    ax.set_ylabel("probability", fontsize=10, color=INK, labelpad=3)
    if legend:
        figure.legend(
            [Patch(facecolor=COLOURS[i]) for i, _ in RANKS[:ranks]],
            [n for _, n in RANKS[:ranks]],
            ncols=ranks if rows == 1 else 3,
            fontsize=8.8,
            frameon=False,
            loc="upper left",
            bbox_to_anchor=(0.5 / width, 1 - (0.43 if title else 0.08) / (2.55 + top)),
            handlelength=1.1,
            columnspacing=1.0,
            labelcolor=INK,
            borderaxespad=0,
        )
    if title:
        add_title(figure, title, 0.55)
    return figure
