"""Reliability diagrams of several methods, in the manner of Figure 5 of Xiao et al. (2025).

For each domain one figure of confidences, and one of the probabilities of all letters pooled (the
class-wise view); a small diagram per method.
"""

import math
import os
import pathlib
from collections.abc import Mapping

from calib_jax.confidence.scores import Scores
from calib_jax.reports.atomic import atomic_path
from calib_jax.reports.compare.comparison import Comparison
from calib_jax.reports.compare.measure import pooled
from calib_jax.reports.compare.wording import WHERE
from calib_jax.reports.content import number
from calib_jax.reports.figures.bins import Bins, bins_of, class_bins_of
from calib_jax.reports.figures.canvas import Figure, drawn, new_figure, png, svg
from calib_jax.reports.figures.drawing import GREY, INK, PAPER, add_title, place
from calib_jax.reports.figures.reliability import draw_bars, shade_norm

# Inches: a diagram's side, and what each takes with its labels.
_SIDE, _WIDTH, _HEIGHT = 2.0, 2.3, 2.55
_LEFT, _TOP, _BOTTOM = 0.62, 0.5, 0.45
_ACROSS = 4
LEGEND = (
    "Bars: the share that is right in a bin, darker where more questions lie; hatched: the gap to "
    "the mean confidence, above the bar over-confident, within it under-confident; lines: 95% "
    "intervals (Wilson)."
)


def draw_all(
    comparison: Comparison,
    scores: Mapping[str, Mapping[str, Scores]],
    num_bins: int = 10,
    edges: str = "right",
) -> dict[str, Figure]:
    """Name -> figure, of one seed.

    Args:
      comparison: the methods; their labels and domains are taken.
      scores: method -> split -> scores, of the first seed.
      num_bins, edges: of the bins.
    """
    figures = {}
    for domain, where in WHERE.items():
        if domain not in comparison.parts:
            continue
        names = comparison.parts[domain].splits
        here = {name: pooled({s: by_split[s] for s in names}) for name, by_split in scores.items()}
        seed = f"{where}, seed {comparison.seeds[0]}"
        for name, title, x, key in (
            ("reliability", f"Confidence, {seed}", "confidence", "conf_ece"),
            ("classwise", f"All letters, {seed}", "probability of the letter", "cw_ece"),
        ):
            panels = {}
            for method, one in here.items():
                classwise = name == "classwise"
                bins = (class_bins_of(one, num_bins, edges)[-1] if classwise
                        else bins_of(one, num_bins, edges))  # fmt: skip
                found = comparison.rows[method][domain]
                texts = [f"{'cw-ECE' if classwise else 'ECE'} {number(found[key].per_seed[0])}"]
                if not classwise:
                    texts.append(f"acc. {number(found['accuracy'].per_seed[0])}")
                panels[comparison.labels[method]] = bins, "\n".join(texts)
            y = "accuracy" if name == "reliability" else "share that is the answer"
            figures[f"{name}_{domain}"] = draw(panels, title, x, y)
    return figures


@drawn
def draw(panels: Mapping[str, tuple[Bins, str]], title: str, x: str, y: str) -> Figure:
    """Small diagrams, at most four a line; panels: heading -> (bins, what the corner says)."""
    norm = shade_norm(bins for bins, _ in panels.values())
    rows = math.ceil(len(panels) / _ACROSS)
    across = math.ceil(len(panels) / rows)
    # The room of three, or the title would have none.
    width = _LEFT + max(across, 3) * _WIDTH
    height = _TOP + rows * _HEIGHT + _BOTTOM
    figure = new_figure(width, height)
    add_title(figure, title, _LEFT)
    for i, (heading, (bins, text)) in enumerate(panels.items()):
        row, column = divmod(i, across)
        bottom = height - _TOP - (row + 1) * _HEIGHT + 0.22
        ax = place(figure, _LEFT + column * _WIDTH, bottom, _SIDE, _SIDE)
        draw_bars(ax, bins, norm, size=8, tick=0.5)
        ax.set_title(heading, fontsize=9.5, color=INK, pad=4, loc="left")
        ax.text(
            0.03, 0.97, text, transform=ax.transAxes, va="top", fontsize=8, color=INK, zorder=6,
            bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 1.2},
        )  # fmt: skip
        ticks, names = [0, 0.5, 1], ["0", "0.5", "1"]
        ax.set_xticks(ticks, names if i + across >= len(panels) else [])
        ax.set_yticks(ticks, names if column == 0 else [])
    for text, left, bottom, turn in (
        (x, (_LEFT + across * _WIDTH / 2) / width, 0.14 / height, 0),
        (y, 0.14 / width, (_BOTTOM + rows * _HEIGHT / 2) / height, 90),
    ):
        figure.text(
            left, bottom, text, fontsize=9.5, color=GREY, rotation=turn, ha="center", va="center"
        )
    return figure


def write(folder: str | os.PathLike, figures: Mapping[str, Figure]) -> None:
    """Writes name -> figure as .png and .svg, each whole or not at all."""
    for name, figure in figures.items():
        for kind, image in (("png", png(figure, dpi=150)), ("svg", svg(figure))):
            with atomic_path(pathlib.Path(folder) / f"{name}.{kind}") as temporary:
                temporary.write_bytes(image)
