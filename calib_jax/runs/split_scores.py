"""Splits scored before and after, kept in files, and the run of a method finished with them."""

import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections

from calib_jax.atomic import atomic_path
from calib_jax.confidence.asked import Split
from calib_jax.confidence.scores import Scores
from calib_jax.reports import Progress, catalogue, measure, predictions
from calib_jax.runs import results
from calib_jax.runs.run import Run, agreed, settle
from calib_jax.runs.run_setting import Setting


def measure_splits(
    evals: Mapping[str, Split],
    folder: Path,
    state: str,
    score: Callable[[Split, Callable], Scores],
    check: Callable[[], None],
    states: bool = False,
) -> dict[str, Scores]:
    """Scores every split, or reads what an interrupted run of this folder has scored.

    Args:
      evals: name -> split.
      folder: ``predictions`` of the run.
      state: "before", "after" or the model's name: the first part of the files' names.
      score: (split, on_batch) -> scores.
      check: called after every batch; raises to stop.
      states: whether the scores hold hidden states, which are kept beside them.

    Returns:
      Scores by split on process 0; other processes of a pod, which write nothing, may get fewer.
    """
    settle()
    scores = {}
    for name, split in evals.items():
        path = folder / f"{state}-{name}.parquet"
        if agreed(path.exists()):
            if jax.process_index() == 0:
                scores[name] = predictions.read(path, states=states)
            continue
        with Progress(len(split), f"{state}: {name}") as bar:

            def on_batch(count: int, bar: Progress = bar) -> None:
                bar.update(count)
                check()

            scores[name] = score(split, on_batch)
        if jax.process_index() == 0:
            predictions.write(path, scores[name])
    return scores


def take_scores(source: Path, folder: Path, state: str, names: Iterable[str]) -> None:
    """Copies another run's scores of the splits ``names`` that this run does not have yet."""
    for name in names:
        path = folder / f"{state}-{name}.parquet"
        if jax.process_index() == 0 and not path.exists():
            with atomic_path(path) as temporary:
                shutil.copyfile(source / path.name, temporary)


def figures(scores: Scores, config: ml_collections.ConfigDict) -> dict[str, float]:
    """The metrics that the log holds of an E-step or a held-out split."""
    return measure.values_of(scores, config.em.num_bins, config.em.edges, catalogue.LOG)


def finish(
    run: Run,
    setting: Setting,
    states: results.States,
    extra: Mapping[str, Any],
    quietly: bool = False,
) -> None:
    """Measures the evaluation splits and finishes the run of a method."""
    config = run.config
    name = config.model.name.removeprefix("offline:")
    after = f", before and after {config.method.upper().replace('_', ' ')}"
    own = {
        "method": config.method,
        "model": config.model.name,
        "fingerprint": setting.model.fingerprint,
        "data": setting.data,
        **extra,
    }
    title = name + (after if "after" in states else "")
    results.finish(run, states, setting.domains, own, title=title, quietly=quietly)
