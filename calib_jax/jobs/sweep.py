"""The job ``sweep``: λ and M varied, and the accuracy-ECE frontier that they make.

Source: Xiao et al. 2025: the regimes in the plane of accuracy and ECE; λ and M of Algorithm 1.
"""

import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections

from calib_jax import presets
from calib_jax.errors import UserError
from calib_jax.jobs.compare import MethodScores, model_label
from calib_jax.reports import summary
from calib_jax.reports.compare import diagrams, frontier, measure, page, tables, wording
from calib_jax.reports.compare.comparison import BEFORE, Comparison, as_dict
from calib_jax.reports.compare.frontier import Point
from calib_jax.runs import results
from calib_jax.runs.measuring import say
from calib_jax.runs.run import Run
from calib_jax.runs.subruns import Before, Subruns, numbers


def points_of(config: ml_collections.ConfigDict) -> dict[str, Point]:
    """The settings of the sweep by the name of their runs: every λ with every M.

    λ = 0 has no use for bins and stands once.

    Raises:
      UserError: a value that cannot be, or one twice, or λ = 0 where nothing else is learnt.
    """
    weights = numbers("sweep.ece_weight", config.sweep.ece_weight, float)
    bins = numbers("sweep.num_bins", config.sweep.num_bins, int, least=1)
    if config.train.sft == "none" and 0 in weights:
        raise UserError(
            "config.sweep.ece_weight holds 0, and config.train.sft is 'none': there would be no "
            "loss. Leave 0 out."
        )
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
    config, workdir, stop = run.config, run.workdir, run.stop
    started = time.monotonic()
    results.check_options(config)
    points = points_of(config)
    seeds = numbers("sweep.seeds", config.sweep.seeds)

    # --- Every run, or what is left of them -------------------------------------------------------
    subruns = Subruns(config, workdir, stop)
    scores: MethodScores = {name: {} for name in (BEFORE, *points)}
    before: dict[int, Before] = {}
    for seed in seeds:
        before[seed] = subruns.before(seed)
        scores[BEFORE][seed] = dict(before[seed].scores)
        for name, point in points.items():
            derived = subruns.settings(seed)
            derived.train.ece_weight = point.weight
            if point.bins is not None:
                derived.em.num_bins = point.bins
            scores[name][seed] = subruns.train(f"{name}-seed{seed}", derived, before[seed])
    if jax.process_index() != 0:
        return

    # --- Results ----------------------------------------------------------------------------------
    first = before[seeds[0]]
    comparison = measure.compare(
        scores,
        first.domains,
        model=model_label(config),
        labels={BEFORE: "before", **{name: point.label for name, point in points.items()}},
        reference=BEFORE,
        num_bins=config.em.num_bins,
        edges=config.em.edges,
        seed=config.seed,
        num_resamples=config.report.num_resamples,
    )
    on_frontier = {
        domain: [comparison.labels[name] for name in frontier.frontier_of(comparison, domain)]
        for domain in ("in", "out")
        if domain in comparison.parts
    }
    result = {
        "job": config.job,
        "method": config.method,
        "model": config.model.name,
        "fingerprint": first.summary.get("fingerprint"),
        "said": [
            f"Pareto frontier {wording.WHERE[domain]}, in increasing accuracy: {'; '.join(names)}"
            for domain, names in on_frontier.items()
        ]
        + [f"Errors are measured with {config.em.num_bins} bins, whatever M was trained with"],
        "points": {
            name: {"ece_weight": p.weight, "num_bins": p.bins} for name, p in points.items()
        },
        "frontier": on_frontier,
        "runs": {
            f"{name}-seed{seed}": str(workdir / f"{name}-seed{seed}")
            for seed in seeds
            for name in (BEFORE, *points)
        },
        "comparisons": [as_dict(comparison)],
        "data": first.summary.get("data"),
        "wall_time_s": round(time.monotonic() - started, 1),
        "peak_memory_gib": round(summary.peak_memory_gib(), 2),
        "peak_device_memory_gib": summary.peak_device_memory_gib(),
        "versions": summary.versions(),
    }
    write_results(workdir, config, result, comparison, points)
    tables.show_summary(result)
    say(f"\nReport: {workdir / 'report.html'}    Numbers: {workdir / 'summary.json'}")


def write_results(
    workdir: Path,
    config: ml_collections.ConfigDict,
    result: Mapping[str, Any],
    comparison: Comparison,
    points: Mapping[str, Point],
) -> None:
    """Writes tables, figures, the page and, last of all, ``summary.json``."""
    known = presets.METHODS.get(config.method)
    method = known.label if known else config.method
    title = f"{comparison.model}, {method}: accuracy and calibration by λ and M"
    tables.write(workdir / "tables", [comparison], name="sweep")
    figures = {}
    for metric, name in (("conf_ece", "conf-ECE"), ("cw_ece", "cw-ECE")):
        drawn = frontier.draw(comparison, points, BEFORE, title, metric, name)
        figures[f"frontier_{metric}"] = (
            drawn,
            f"Accuracy against {name} of every setting, a panel per domain. "
            + ". ".join(result["said"][:-1]),
        )
    diagrams.write(workdir / "figures", {name: figure for name, (figure, _) in figures.items()})
    page.write(
        workdir / "report.html",
        f"λ and M of {method}",
        result["said"],
        result,
        [comparison],
        figures,
        frontier.LEGEND,
        config=config.to_dict(),
        command=shlex.join(["python", "-m", "calib_jax.main", *sys.argv[1:]]),
    )
    summary.write(workdir / "summary.json", result)
