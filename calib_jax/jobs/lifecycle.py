"""The job ``lifecycle``: calibration in text, facts and tasks over a series of models.

The study of Zhu et al. 2023 (arXiv 2311.13240): scales, steps of pre-training, epochs of tuning.
"""

from collections.abc import Mapping
from typing import Any

import jax
import ml_collections

from calib_jax.confidence.next_token import NextTokens
from calib_jax.confidence.scores import Scores
from calib_jax.config import check_config
from calib_jax.reports import measure, result
from calib_jax.reports.lifecycle import figures
from calib_jax.reports.lifecycle import measure as of_tokens
from calib_jax.reports.result import Result
from calib_jax.reports.views import lifecycle
from calib_jax.runs import score, subjects
from calib_jax.runs.material import Material
from calib_jax.runs.probe import TaskProbe
from calib_jax.runs.run import Run, say
from calib_jax.runs.series import series

Read = NextTokens | Scores


def main(run: Run) -> None:
    """Measures one model after the other, then writes tables, figures, report and summary.

    A model's folder is ``models/<label>``; what it holds is kept, so a run that was stopped
    continues where it was.
    """
    config = run.config

    # --- What is cheap to find wrong comes first --------------------------------------------------
    check_config(config)
    entries = series(config)
    for entry in entries:
        subjects.check(entry.subject, f"config.lifecycle.models, {entry.label}")
    material = load_material(config)

    # --- Model by model ---------------------------------------------------------------------------
    read: dict[str, dict[str, Read]] = {}
    models: dict[str, Any] = {}
    for number, entry in enumerate(entries, 1):
        if len(entries) > 1:
            say(f"{entry.label}: model {number} of {len(entries)}")
        subject, folder = entry.subject, run.workdir / "models" / entry.label
        said = score.ask_subject(
            config, entry.label, subject, material.probes, folder, run.claim, run.stop.check
        )
        if jax.process_index() == 0:
            named = {"revision": subject.revision, "adapter": subject.adapter}
            place = {"place": entry.place, "setting": entry.setting}
            models[entry.label] = {**said.about, **named, **place}
            read[entry.label] = parts_of(material, said.files)
    if jax.process_index() == 0:
        bins = {"num_bins": config.em.num_bins, "edges": config.em.edges}
        rows = measured(config, read)
        panels = {
            name: {
                label: figures.panel(rows[label][name], by_part[name], **bins)
                for label, by_part in read.items()
            }
            for name in next(iter(read.values()))
        }
        own = {
            "method": config.method,
            "axis": config.lifecycle.axis,
            "models": models,
            **rows,
            "data": material.data,
        }
        run.finish(
            Result(own, result.of_states(rows)),
            lambda summary: lifecycle.view(summary, panels, **bins),
        )


def load_material(config: ml_collections.ConfigDict) -> Material:
    """Text, facts and tasks as ``config.lifecycle`` names them.

    Raises:
      UserError: a source is missing or not understood.
    """
    material = Material(config, data={"seed": config.seed})
    material.add_next_tokens()
    letters = config.confidence.methods.strip().startswith("choice")
    tasks = material.add_tasks(config.lifecycle.tasks, "config.lifecycle.tasks", letters)
    for task in tasks:
        material.data[task.name] = {"shots": config.data.shots, **task.data}
    return material


def parts_of(material: Material, files: Mapping[str, Any]) -> dict[str, Read]:
    """Part -> observations: of a task the scores by its one reading, then the vocabulary's."""
    found: dict[str, Read] = {}
    for probe in material.probes:
        for name in probe.files:
            if isinstance(probe, TaskProbe) and name == probe.file:
                (found[probe.name],) = files[name].values()
            else:
                found[name] = files[name]
    return found


def measured(
    config: ml_collections.ConfigDict, read: Mapping[str, Mapping[str, Read]]
) -> dict[str, dict[str, Any]]:
    """label -> part -> figures."""
    options = {
        "num_bins": config.em.num_bins,
        "edges": config.em.edges,
        "seed": config.seed,
        "num_resamples": config.report.num_resamples,
    }
    return {
        label: {
            name: measure.measure(one, "", **options)
            if isinstance(one, Scores)
            else of_tokens.measure(one, figures.unit(name), **options)
            for name, one in by_part.items()
        }
        for label, by_part in read.items()
    }
