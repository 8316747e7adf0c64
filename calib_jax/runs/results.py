"""What every job that measures writes: predictions, figures, tables, the report, summary.json."""

from collections.abc import Mapping
from typing import Any

import ml_collections
import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.config import split_list
from calib_jax.errors import UserError
from calib_jax.questions.chat import ChatSettings
from calib_jax.reports import best, measure, read_metrics
from calib_jax.reports.result import Contrast, Result, of_states
from calib_jax.reports.states import by_reading as by_reading_keys
from calib_jax.reports.states import named
from calib_jax.reports.views.methods import POST_HOC
from calib_jax.reports.views.registry import view_of
from calib_jax.runs.run import Run

States = dict[str, dict[str, Scores]]


def check_folds(config: ml_collections.ConfigDict, sizes: Mapping[str, int]) -> None:
    """Raises UserError when a split is too small to be cross-fitted: name -> its questions, or its
    clusters where questions share them."""
    for name, size in sizes.items():
        if split_list(config.posthoc.methods) and size < config.posthoc.folds:
            if size == 1:
                raise UserError(
                    f"{name} has a single question, those of one cluster counted as one, so there "
                    "is nothing to cross-fit on. Name smaller clusters (config.report.clusters, or "
                    "none), give more questions, or ask for no config.posthoc.methods."
                )
            raise UserError(
                f"config.posthoc.folds is {config.posthoc.folds}, but {name} has {size} "
                "question(s), those of one cluster counted as one. Ask for fewer folds, or for no "
                "config.posthoc.methods."
            )


def reads_states(config: ml_collections.ConfigDict) -> bool:
    """Whether a calibrator of the config reads hidden states."""
    if not (methods := split_list(config.posthoc.methods)):
        return False
    from calib_jax import posthoc

    return posthoc.reads_states(methods)


def check_calibrators(config: ml_collections.ConfigDict, states: States) -> None:
    """Raises UserError for what free answers do not have: calibrators, and an order of options."""
    free = [name for splits in states.values() for name, s in splits.items() if s.is_free]
    if free and split_list(config.posthoc.methods):
        raise UserError(
            f"config.posthoc.methods is {config.posthoc.methods!r}, and {free[0]} holds free "
            "answers, each with one confidence and no options to share it. Leave the field out."
        )
    if free and config.report.ordered:
        raise UserError(
            f"config.report.ordered is set, and {free[0]} holds free answers, which have no "
            "options to be in an order. Leave the field out."
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
            rows = np.flatnonzero([of.get(subject or "") == group for subject in scores.subjects])
            if len(rows):
                result[f"{split}_{group}"] = scores.take(rows)
    return result


def finish(
    run: Run,
    states: States,
    domains: Mapping[str, str],
    own: Mapping[str, Any],
    *,
    title: str,
    by_reading: bool = False,
    quietly: bool = False,
) -> dict[str, Any]:
    """Measures splits and finishes the run with tables, figures and a page of them.

    Args:
      run: within its folder.
      states: state -> split -> scores.
      domains: split -> "in", "out" or "".
      own: further keys of the summary.
      title: of the reliability diagrams.
      by_reading: the states are ways to read one model's confidence.
      quietly: whether nothing is printed.

    Returns:
      The summary.
    """
    config = run.config
    bins = {"num_bins": config.em.num_bins, "edges": config.em.edges}
    resampling = {"seed": config.seed, "num_resamples": config.report.num_resamples}
    options = {**bins, **resampling, "ordered": config.report.ordered}
    rows = {
        state: {name: measure.measure(s, domains[name], **options) for name, s in splits.items()}
        for state, splits in states.items()
    }
    found = dict(by_reading_keys(rows) if by_reading else named(rows))
    if config.prompt.chat or (config.job == "align" and config.align.chat):
        settings = ChatSettings.read(config.prompt.template_arguments, config.prompt.date)
        found["prompt"] = {"chat": config.prompt.chat, **settings.as_json()}
    changes: dict[str, Any] = {}
    if "before" in states and "after" in states:
        changes = found["change"] = {
            name: measure.change(states["before"][name], after, **options)
            for name, after in states["after"].items()
            if name in states["before"]
        }
    measured, calibrations = of_states(rows), {}
    if methods := split_list(config.posthoc.methods):
        from calib_jax.reports import calibrated

        folds, count = config.posthoc.folds, config.posthoc.pseudo_count
        fitted = calibrated.measure(
            methods, states, domains, folds=folds, pseudo_count=count, **options
        )
        for name, calibrator in fitted.files.items():
            calibrator.save(run.workdir / name)
        found["posthoc"] = fitted.figures
        measured += of_states(fitted.figures)
        calibrations = {f"{name}{POST_HOC}": splits for name, splits in fitted.scores.items()}
    found["best"] = best.sets(states, calibrations, **bins, **resampling)
    contrasts = (Contrast("before", "after", name, change) for name, change in changes.items())
    file = run.workdir / "metrics.jsonl"
    log = read_metrics(file) if file.exists() else ()
    return run.finish(
        Result({**found, **own}, measured, tuple(contrasts)),
        lambda summary: view_of(run.config.job)(summary, states, log=log, title=title, **bins),
        quietly,
    )
