"""The job ``evaluate``: measure a model's calibration, change nothing."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections

from calib_jax.confidence.scores import Scores
from calib_jax.config import check_config, split_list
from calib_jax.models.model import Model
from calib_jax.runs import base_model, quantization, results, score
from calib_jax.runs.probe import Asked, TaskProbe
from calib_jax.runs.run import Run
from calib_jax.runs.tasks import LoadedTask, load_tasks, task_probes


def main(run: Run, quietly: bool = False) -> None:
    """Scores every task by every reading and writes predictions, figures, report and summary.

    Args:
      run: within its folder.
      quietly: whether nothing of the result is printed.

    Raises:
      UserError: bad input; nothing is written then.
      Stopped: SIGTERM; the same command continues.
    """
    config = run.config

    # --- Questions, then model, then tokens: what is cheap to find wrong comes first --------------
    check_config(config)
    methods, tasks = split_list(config.confidence.methods), load_tasks(config)
    results.check_folds(config, {loaded.name: len(loaded.questions) for loaded in tasks})
    compared = base_model.measures_quantization(config)
    model = base_model.load(config, "" if compared else config.model.quantize)
    probes = task_probes(config, tasks, states=results.reads_states(config))
    asked = {probe.name: probe.asked(model) for probe in probes}
    run.claim()

    # --- Scores -----------------------------------------------------------------------------------
    # The shift that quantisation causes is read by letters, where those are read at all.
    shifted = "choice" if "choice" in methods else methods[0]
    unquantized: dict[str, Scores] = {}
    if compared:
        plain = task_probes(config, tasks, [shifted], state="unquantized")
        unquantized = {name: s[shifted] for name, s in _ask(run, model, plain, "").items()}
        # Freed first: both at once would take the memory that quantisation is to save.
        model = model.without_params()
        model = base_model.load(config, config.model.quantize)
    scores = _ask(run, model, probes, config.model.quantize, asked)
    if jax.process_index() != 0:
        return

    # --- Results ----------------------------------------------------------------------------------
    quantized = {name: by_method[shifted] for name, by_method in scores.items()}
    groups = {loaded.name: loaded.task.groups for loaded in tasks if loaded.task}
    columns = ("measured",) if len(methods) == 1 else methods
    states = {
        column: results.grouped({name: s[method] for name, s in scores.items()}, groups)
        for column, method in zip(columns, methods, strict=True)
    }
    own = {
        "method": config.method,
        "model": config.model.name,
        "fingerprint": model.fingerprint,
        "data": _data_report(config, tasks, asked),
        **quantization.shift(config, unquantized, quantized),
    }
    domains = dict.fromkeys(states[columns[0]], "")
    title = config.model.name.removeprefix("offline:")
    several = len(methods) > 1
    results.finish(run, states, domains, own, title=title, by_reading=several, quietly=quietly)


def _ask(
    run: Run,
    model: Model,
    probes: Sequence[TaskProbe],
    quantize: str,
    asked: Mapping[str, Asked] | None = None,
) -> dict[str, dict[str, Scores]]:
    """Task -> method -> scores, on process 0; {} on others."""
    asked = asked or {probe.name: probe.asked(model) for probe in probes}
    found = score.ask(
        run.config, model, probes, asked, run.workdir, run.stop.check,
        label=probes[0].state, quantize=quantize,
    )  # fmt: skip  # what is asked, then how
    return {probe.name: found[probe.file] for probe in probes} if found else {}


def _data_report(
    config: ml_collections.ConfigDict, tasks: Sequence[LoadedTask], asked: Mapping[str, Asked]
) -> dict[str, Any]:
    """What was done to questions and prompts, for ``summary.json``."""
    report: dict[str, Any] = {
        "seed": config.seed,
        "shuffled": list(split_list(config.data.shuffle_tasks)) or config.data.shuffle_options,
        "shots": config.data.shots,
    }
    for loaded in tasks:
        for key, value in loaded.data.items():
            report.setdefault(key, {})[loaded.name] = value
        for key, value in asked[loaded.name].source.counts.items():
            report.setdefault("reading", {}).setdefault(loaded.name, {})[key] = value
    harness = {t.name: t.task.harness for t in tasks if t.task and t.task.harness}
    return report | ({"templates_of": harness} if harness else {})
