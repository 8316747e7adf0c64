"""The job ``sweep``: λ and M compared, and the accuracy-ECE frontier that they make.

Source: Xiao et al. 2025: the regimes in the plane of accuracy and ECE; λ and M of Algorithm 1.
"""

from typing import Any

import jax
import ml_collections

from calib_jax import presets
from calib_jax.config import check_config
from calib_jax.grammar import numbers
from calib_jax.jobs import finetune
from calib_jax.jobs.compare import MethodScores, compare, finish
from calib_jax.reports.compare import frontier
from calib_jax.reports.compare.comparison import BEFORE, DOMAINS
from calib_jax.reports.compare.frontier import Point
from calib_jax.reports.views import comparison as views
from calib_jax.reports.words import DOMAINS as WHERE
from calib_jax.runs.run import Run
from calib_jax.runs.subruns import Subruns


def points_of(config: ml_collections.ConfigDict) -> dict[str, Point]:
    """The settings of the sweep by the name of their runs: every λ with every M.

    λ = 0 has no use for bins, and appears once.
    """
    weights = numbers(config.sweep.ece_weight, "config.sweep.ece_weight", float)
    bins = numbers(config.sweep.num_bins, "config.sweep.num_bins", least=1)
    points = {}
    for weight in weights:
        for m in bins if weight else [None]:
            name = f"lambda{weight:g}" + ("" if m is None else f"-bins{m}")
            points[name] = Point(weight, m)
    return points


def main(run: Run) -> None:
    """Trains with every λ and M, then writes the table, the frontier and the page.

    Raises:
      UserError: bad input.
      Stopped: SIGTERM; the same command continues.
      FloatingPointError: a loss that is not finite.
    """
    config = run.config
    check_config(config)
    points = points_of(config)
    seeds = numbers(config.sweep.seeds, "config.sweep.seeds")
    subruns = Subruns(run, finetune.main)

    def configs(seed: int) -> dict[str, ml_collections.ConfigDict]:
        found = {name: subruns.settings(seed) for name in points}
        for name, derived in found.items():
            derived.train.ece_weight = points[name].weight
            derived.em.num_bins = points[name].bins or config.em.num_bins
        return found

    scores: MethodScores = {name: {} for name in (BEFORE, *points)}
    first: Any = None
    for seed, before, found in subruns.series(seeds, configs):
        first = first or before
        for name, by_split in {BEFORE: before.scores, **found}.items():
            scores[name][seed] = dict(by_split)
    if jax.process_index() != 0:
        return

    labels = {BEFORE: "before", **{name: point.label for name, point in points.items()}}
    compared = compare(config, scores, first, labels=labels, reference=BEFORE)
    on_frontier = {
        domain: [labels[name] for name in frontier.frontier_of(compared, domain)]
        for domain in DOMAINS
        if domain in compared.parts
    }
    own = {
        "said": [
            f"Pareto frontier {WHERE[domain]}, in increasing accuracy: {'; '.join(names)}"
            for domain, names in on_frontier.items()
        ]
        + [f"Errors are measured with {config.em.num_bins} bins, whatever M was trained with"],
        "points": {
            name: {"ece_weight": p.weight, "num_bins": p.bins} for name, p in points.items()
        },
        "frontier": on_frontier,
    }
    known = presets.METHODS.get(config.method)
    method = known.label if known else config.method
    finish(subruns, first, [compared], own, lambda summary: views.sweep(summary, method))
