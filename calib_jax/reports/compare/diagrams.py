"""Reliability diagrams of several methods, in the manner of Figure 5 of Xiao et al. (2025).

For each domain one figure of confidences, and one of the probabilities of all letters pooled (the
class-wise view); a small diagram per method.
"""

import dataclasses
from collections.abc import Mapping

from calib_jax.confidence.scores import Scores
from calib_jax.reports.compare.comparison import Comparison
from calib_jax.reports.compare.parts import pooled
from calib_jax.reports.compare.sentences import WHERE
from calib_jax.reports.figures import panels
from calib_jax.reports.figures.bins import bins_of, class_bins_of
from calib_jax.reports.figures.canvas import Figure
from calib_jax.reports.figures.files import write
from calib_jax.reports.figures.reliability import Panel

__all__ = ["LEGEND", "draw_all", "write"]
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
        seed = f"{where}, seed {comparison.seeds[0]}"
        whole, letters = {}, {}
        for method, by_split in scores.items():
            one = pooled({split: by_split[split] for split in names})
            label, found = comparison.labels[method], comparison.rows[method][domain]
            first = {key: found[key].per_seed[0] for key in ("conf_ece", "cw_ece", "accuracy")}
            whole[label] = Panel(first, bins_of(one, num_bins, edges))
            letters[label] = Panel(first, class_bins_of(one, num_bins, edges)[-1])
        figures[f"reliability_{domain}"] = panels.draw(
            panels.wrapped(whole), panels.SMALL, f"Confidence, {seed}"
        )
        figures[f"classwise_{domain}"] = panels.draw(
            panels.wrapped(letters),
            dataclasses.replace(panels.SMALL, lines=(("cw_ece",),)),
            f"All letters, {seed}",
            "probability of the letter",
            "share that is the answer",
        )
    return figures
