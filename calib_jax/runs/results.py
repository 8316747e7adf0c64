"""What every job that measures writes: predictions, figures, tables, the report, summary.json."""

import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.config import split_list
from calib_jax.errors import UserError
from calib_jax.questions.chat import ChatSettings
from calib_jax.reports import content, overview, read_metrics, summary, tables_export
from calib_jax.reports.figures.files import write_figures
from calib_jax.reports.page import html

States = dict[str, dict[str, Scores]]


def check_folds(config: ml_collections.ConfigDict, sizes: Mapping[str, int]) -> None:
    """Raises UserError when a split (name -> questions) is too small to be cross-fitted."""
    for name, size in sizes.items():
        if split_list(config.posthoc.methods) and size < config.posthoc.folds:
            raise UserError(
                f"config.posthoc.folds is {config.posthoc.folds}, but {name} has {size} "
                "question(s). Ask for fewer folds, or for no config.posthoc.methods."
            )


def grouped(splits: Mapping[str, Scores], groups: Mapping[str, Mapping[str, str]]) -> dict:
    """Splits with their groups of subjects after them ("mmlu_stem"), pooled over the questions.

    Args:
      splits: split -> scores.
      groups: split -> subject -> group, for those that have any.
    """
    result = {}
    for split, scores in splits.items():
        result[split] = scores
        of = groups.get(split, {})
        for group in dict.fromkeys(of.values()):
            rows = np.flatnonzero([of.get(subject) == group for subject in scores.subjects])
            if len(rows):
                result[f"{split}_{group}"] = scores.take(rows)
    return result


def write_results(
    workdir: Path,
    config: ml_collections.ConfigDict,
    states: States,
    domains: Mapping[str, str],
    head: Mapping[str, Any],
    tail: Mapping[str, Any],
    started: float,
    title: str,
    by_method: bool = False,
) -> dict[str, Any]:
    """Writes figures, tables, the report and, last of all, ``summary.json``; returns the summary.

    Args:
      workdir: the run's folder.
      config: of the run.
      states: state -> split -> scores.
      domains: split -> "in", "out" or "".
      head, tail: what the summary holds before and after the measurements.
      started: ``time.monotonic()`` at the job's start.
      title: of the figures.
      by_method: the states are ways to read one model's confidence, which the summary holds as
        "measured" -> split -> state.
    """
    options = {"num_bins": config.em.num_bins, "edges": config.em.edges}
    resampling = {"seed": config.seed, "num_resamples": config.report.num_resamples}
    rows = {
        state: {
            name: summary.measure(scores, domains[name], **options, **resampling)
            for name, scores in splits.items()
        }
        for state, splits in states.items()
    }
    result: dict[str, Any] = {**head, **(content.nested(rows) if by_method else rows)}
    if config.prompt.chat or (config.job == "align" and config.align.chat):
        settings = ChatSettings.read(config.prompt.template_arguments, config.prompt.date)
        result["prompt"] = {"chat": config.prompt.chat, **settings.as_json()}
    if "before" in states and "after" in states:
        result["change"] = {
            name: summary.change(states["before"][name], after, **options, **resampling)
            for name, after in states["after"].items()
            if name in states["before"]
        }
    if methods := split_list(config.posthoc.methods):
        from calib_jax.reports import calibrated

        result["posthoc"] = calibrated.measure(
            methods, states, domains, folds=config.posthoc.folds, **options, **resampling
        )
    result |= {
        **tail,
        "wall_time_s": round(time.monotonic() - started, 1),
        "peak_memory_gib": round(summary.peak_memory_gib(), 2),
        "peak_device_memory_gib": summary.peak_device_memory_gib(),
        "versions": summary.versions(),
    }
    metrics_file = workdir / "metrics.jsonl"
    log = read_metrics(metrics_file) if metrics_file.exists() else ()
    write_figures(workdir, rows, states, log, **options, title=title)
    tables_export.write(workdir / "tables", result)
    overview.write(workdir / "tables", result)
    html.write(
        workdir / "report.html",
        result,
        states,
        log=log,
        config=config.to_dict(),
        command=shlex.join(["python", "-m", "calib_jax.main", *sys.argv[1:]]),
        **options,
    )
    summary.write(workdir / "summary.json", result)
    return result
