"""The job ``report``: a full report from any predictions file; no model is loaded."""

from collections.abc import Mapping

import jax
import ml_collections

from calib_jax.confidence.scores import Scores
from calib_jax.config import check_config, split_list
from calib_jax.errors import UserError
from calib_jax.questions.tasks import get_task, task_names
from calib_jax.reports import predictions
from calib_jax.reports.ingest import files
from calib_jax.reports.ingest.places import Reading
from calib_jax.runs import results
from calib_jax.runs.run import Run, claim


def main(run: Run) -> None:
    """Reads the files, says what was read as what, and writes what ``evaluate`` writes.

    Raises:
      UserError: bad input; nothing is written then.
    """
    config, workdir, stop = run.config, run.workdir, run.stop
    check_config(config)
    reading = Reading(
        answer_base=config.report.answer_base,
        clusters=config.report.clusters,
        columns=config.report.columns,
        method=config.report.method,
        ordered=config.report.ordered,
        ragged=config.report.ragged,
        sum_tolerance=config.report.sum_tolerance,
    )
    found = files.load(config.report.predictions, reading)
    states = {
        state: results.grouped(splits, {name: _groups(name, s) for name, s in splits.items()})
        for state, splits in found.states.items()
    }
    domains = _domains(config, states)
    if jax.process_index() != 0:
        return
    for path, facts in found.about.items():
        print(f"{path}:", flush=True)
        for name, value in facts.items():
            if name != "sha256" and value not in ([], None):
                shown = ", ".join(map(str, value)) if isinstance(value, list) else value
                print(f"  {name.replace('_', ' ')}: {shown}", flush=True)
    stop.check()
    results.check_calibrators(config, found.states)
    for splits in states.values():
        results.check_folds(config, {name: scores.num_units for name, scores in splits.items()})

    claim(workdir, config)
    for state, splits in found.states.items():
        for split, scores in splits.items():
            predictions.write(workdir / "predictions" / f"{state}-{split}.parquet", scores)
    own = {"method": config.method, "model": config.report.title, "data": found.about}
    results.finish(run, states, domains, own, title=config.report.title)


def _groups(split: str, scores: Scores) -> Mapping[str, str]:
    """Subject -> group of a task that comes with us and has groups (mmlu), else {}."""
    known = split in task_names() and set(scores.tasks) == {split}
    return get_task(split).groups if known else {}


def _domains(config: ml_collections.ConfigDict, states: results.States) -> dict[str, str]:
    """Split -> "in" or "out" as the config says, and "" where it does not."""
    splits = dict.fromkeys(split for by_split in states.values() for split in by_split)
    domains = dict.fromkeys(splits, "")
    for key, domain in (("in_domain", "in"), ("out_of_domain", "out")):
        for name in split_list(config.report[key]):
            if name not in splits:
                raise UserError(
                    f"config.report.{key} names {name!r}; the splits are {', '.join(splits)}"
                )
            if domains[name]:
                raise UserError(f"config.report: {name!r} cannot be in-domain and out-of-domain")
            domains[name] = domain
    return domains
