"""The job ``study``: base and aligned models in pairs, on every task, read in every way.

Source: Oh and Hwang 2024, Does Alignment Tuning Really Break LLMs' Internal Confidence?
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections

from calib_jax.config import check_config
from calib_jax.errors import UserError
from calib_jax.jobs import evaluate
from calib_jax.reports.result import Contrast, Measured, Result
from calib_jax.reports.study import authors_csv, changes, unlabelled
from calib_jax.reports.study.changes import Cell
from calib_jax.reports.views import study as study_view
from calib_jax.runs import evaluated, subjects
from calib_jax.runs.pairs import Pair, model_folders, parse_pairs, subjects_of
from calib_jax.runs.run import Run, say
from calib_jax.runs.subjects import Subject
from calib_jax.runs.tasks import TaskScores, load_tasks, low_mass
from calib_jax.training.interrupt import StopRequest


def main(run: Run) -> None:
    """Measures every model once, then writes changes, ratios, ranks, tables, figures and a page.

    Raises:
      UserError: bad input; nothing is written then. Or finished runs that were measured on
        different questions.
      Stopped: SIGTERM; the same command continues.
    """
    # --- What is cheap to find wrong comes first --------------------------------------------------
    config = run.config
    check_config(config)
    pairs = parse_pairs(config.study.pairs)
    published, files = authors_csv.read_all(config.study.published)
    models = subjects_of(pairs)
    not_used = evaluated.check_settings(config, models)
    if own := [model for model in models if model.run is None]:
        check_config(_config_of(config, own[0]))
        for model in own:
            subjects.check_files(model)
        load_tasks(config)
    run.claim()

    # --- Every model once -------------------------------------------------------------------------
    folders = model_folders(models, run.workdir / "models")
    for model in models:
        if model.run is None:
            say(f"\n{model.text}: {folders[model.key]}")
            _evaluate(config, model, folders[model.key], run.stop)
        run.stop.check()
    if jax.process_index() != 0:
        return

    # --- Changes ----------------------------------------------------------------------------------
    scores = {model.key: evaluated.read_scores(folders[model.key]) for model in models}
    cells = measure_pairs(config, pairs, scores, run.stop)
    facts = {
        "method": config.method,
        "compared": _compared(pairs, scores),
        "not_used": not_used,
        "low_mass": low_mass({model.text: scores[model.key] for model in models}),
        "questions": {model.text: _sizes(scores[model.key]) for model in models},
        "models": {model.text: str(folders[model.key]) for model in models},
        "pairs": changes.as_dict(cells),
        "unlabelled": measure_unlabelled(config, pairs, scores, run.stop),
        "published": changes.as_dict(published),
        "published_files": files,
    }
    run.finish(Result(facts, *rows_of(pairs, cells)), study_view.view)


def _config_of(config: ml_collections.ConfigDict, subject: Subject) -> ml_collections.ConfigDict:
    """The config with which the job ``evaluate`` measures one model of this study."""
    derived = subjects.config_of(config, subject)
    derived.job = derived.method = "evaluate"
    # A study with further pairs measures the same.
    derived.study.pairs = derived.study.published = ""
    return derived


def _evaluate(
    config: ml_collections.ConfigDict, subject: Subject, folder: Path, stop: StopRequest
) -> None:
    """Measures one model in a run of its own, of the job ``evaluate``; a finished one is kept."""
    with Run(_config_of(config, subject), folder, stop) as inner:
        if not inner.finished:
            evaluate.main(inner, quietly=True)


def measure_pairs(
    config: ml_collections.ConfigDict,
    pairs: Sequence[Pair],
    scores: Mapping[tuple, TaskScores],
    stop: StopRequest,
) -> changes.Cells:
    """pair -> task -> method -> cell, with ranks.

    Raises:
      UserError: the two models of a pair were not asked the same questions.
    """
    options = _options(config)
    cells: dict[str, dict[str, dict[str, Cell]]] = {}
    for pair in pairs:
        base, aligned = scores[pair.base.key], scores[pair.aligned.key]
        for _, task, method, one in changes.each({pair.name: base}):
            other = aligned.get(task, {}).get(method)
            what = "not measured" if other is None else changes.difference(one, other)
            if what or other is None:
                raise UserError(
                    f"pair {pair.name!r}, task {task}, method {method}: {pair.base.text} and "
                    f"{pair.aligned.text} were not asked the same: {what}."
                )
            by_task = cells.setdefault(pair.name, {})
            by_task.setdefault(task, {})[method] = changes.measure(one, other, **options)
            stop.check()
    return changes.ranked(cells)


def measure_unlabelled(
    config: ml_collections.ConfigDict,
    pairs: Sequence[Pair],
    scores: Mapping[tuple, TaskScores],
    stop: StopRequest,
) -> dict[str, Any]:
    """pair -> task -> method -> what its base repairs of the aligned model without labels.

    Args:
      scores: of models that ``measure_pairs`` found to have been asked the same.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        base, aligned = scores[pair.base.key], scores[pair.aligned.key]
        for _, task, method, one in changes.each({pair.name: base}):
            rows = unlabelled.measure(one, aligned[task][method], **_options(config))
            found.setdefault(pair.name, {}).setdefault(task, {})[method] = rows
            stop.check()
    return found


def _options(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Bins, then the bootstrap."""
    return {
        "num_bins": config.em.num_bins,
        "edges": config.em.edges,
        "seed": config.seed,
        "num_resamples": config.report.num_resamples,
    }


def rows_of(
    pairs: Sequence[Pair], cells: changes.Cells
) -> tuple[tuple[Measured, ...], tuple[Contrast, ...]]:
    """Every model's figures once, and every pair's differences."""
    models = {pair.name: (pair.base, pair.aligned) for pair in pairs}
    names = {model.key: model.text for model in subjects_of(pairs)}
    measured: dict[tuple[str, str, str], Measured] = {}
    contrasts = []
    for pair, task, method, cell in changes.each(cells):
        base, aligned = (names[model.key] for model in models[pair])
        differences: dict[str, Any] = {}
        for metric, change in cell.changes.items():
            differences |= {metric: change.change, f"{metric}_ci": change.change_ci}
        contrasts.append(Contrast(base, aligned, task, differences, method))
        for subject, model in ((base, "pt"), (aligned, "it")):
            values = {metric: getattr(change, model) for metric, change in cell.changes.items()}
            one = Measured(subject, task, {"n": cell.n, **values}, method)
            measured[subject, task, method] = one
    return tuple(measured.values()), tuple(contrasts)


def _compared(pairs: Sequence[Pair], scores: Mapping[tuple, TaskScores]) -> dict[str, Any]:
    """What the page says first: the pairs, and the questions of every task."""
    if not pairs:
        return {}
    first = scores[pairs[0].base.key]
    return {
        "pairs": {pair.name: f"{pair.base.text} → {pair.aligned.text}" for pair in pairs},
        "questions": _sizes(first),
        "methods": list(next(iter(first.values()))),
    }


def _sizes(scores: TaskScores) -> dict[str, int]:
    """Task -> how many questions of it were measured."""
    return {task: len(next(iter(by_method.values()))) for task, by_method in scores.items()}
