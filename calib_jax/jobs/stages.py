"""The job ``stages``: alignment step by step, and calibration after every step.

SFT, DPO and fine-tuning for calibration as runs of their own, each going on from the adapter of
the one before; or models that went through the stages elsewhere.
Source: Xiao et al. 2025 (arXiv 2505.01997), Figure 1.
"""

import dataclasses
import difflib
import functools
import gc
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import ml_collections

from calib_jax.config import base, split_list
from calib_jax.errors import UserError
from calib_jax.jobs import align, aligning, export, finetune, measuring, probing, restoring, results
from calib_jax.jobs.lifecycle_series import LABEL
from calib_jax.jobs.measuring import say
from calib_jax.jobs.probing import PAIRS, Answers
from calib_jax.jobs.run import agreed, check_workdir, claim
from calib_jax.jobs.study import Side
from calib_jax.presets import METHODS, set_method
from calib_jax.reports import summary
from calib_jax.reports.alignment import measure
from calib_jax.reports.atomic import atomic_path, write_text
from calib_jax.reports.figures.bins import bins_of
from calib_jax.reports.figures.drawing import png, svg
from calib_jax.reports.figures.reliability import Panel
from calib_jax.reports.stages import figures, page, tables
from calib_jax.training.interrupt import StopRequest

# Stages that are runs of the job "align"; the others are methods of the job "finetune".
ALIGN = ("sft", "dpo")
STAGES = (*ALIGN, *(name for name in METHODS if name not in ALIGN))
# A stage's run measures itself on so many questions and pairs, for its log and page alone.
OWN_SIZE = 32


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step of the chain.

    Attributes:
      label: unique, in tables and figures.
      name: what is done, one of ``STAGES``.
      folder: of its run.
      config: of its run.
    """

    label: str
    name: str
    folder: Path
    config: ml_collections.ConfigDict

    @property
    def adapter(self) -> Path:
        """Where what it has trained is exported to."""
        return self.folder / "adapter"


def run(config: ml_collections.ConfigDict, workdir: Path, stop: StopRequest) -> None:
    """Trains and measures stage after stage, then writes figure, tables, report and summary.

    A stage's run is ``<i>-<name>``, what the model then says ``models/<label>``; what stands there
    is kept, so a job that was stopped goes on where it was.

    Raises:
      UserError: bad input.
      Stopped: SIGTERM; the same command continues.
      FloatingPointError: a loss that is not finite.
    """
    started = time.monotonic()

    # --- What is cheap to find wrong comes first --------------------------------------------------
    results.check_options(config)
    measuring.check_batches(config)
    measuring.check_least(config, 0, ("data", "eval_size"), ("align", "eval_size"))
    chain: list[Stage] = []
    sides: dict[str, Side] = {}
    if split_list(config.stages.models):
        sides = restoring.parse_labelled(config.stages.models, "config.stages.models")
        restoring.check(list(sides.values()))
        if split_list(config.stages.settings):
            raise UserError(
                "config.stages.settings is of stages that are trained, and config.stages.models "
                "names models that were. Leave out one of the two."
            )
    else:
        chain = chain_of(config, workdir)
        model = config.model
        sides[_start_label(config, chain)] = Side(
            model.name, model.name, model.revision, model.adapter
        )
        restoring.check(list(sides.values()))
    material = probing.load_material(
        config, tasks=config.data.eval, pairs=(config.align.eval, config.align.eval_size)
    )
    if not material.tasks:
        raise UserError("config.data.eval names no questions; there would be nothing to measure.")
    for stage in chain:
        check_workdir(stage.folder, stage.config)
        _check_sources(stage)

    # --- Stage after stage ------------------------------------------------------------------------
    found: dict[str, Answers] = {}
    begin = functools.partial(claim, workdir, config)

    def ask(label: str, side: Side) -> None:
        folder = workdir / "models" / label
        found[label] = probing.ask(config, label, side, material, folder, begin, stop)
        stop.check()

    for label, side in sides.items():
        say(f"{label}: {side.text}")
        ask(label, side)
    for number, stage in enumerate(chain, 1):
        say(f"\n{stage.label}: stage {number} of {len(chain)}, {stage.folder}")
        train(stage, stop)
        name, revision = config.model.name, config.model.revision
        ask(stage.label, Side(f"{name}+{stage.adapter}", name, revision, str(stage.adapter)))
    if jax.process_index() == 0:
        about = {label: {"model": side.text} for label, side in sides.items()}
        about |= {stage.label: _about(stage) for stage in chain}
        result = write_results(workdir, config, material.data, about, found, started)
        tables.show_summary(result)
        say(f"\nReport: {workdir / 'report.html'}    Figures: {workdir / 'summary.json'}")


def chain_of(config: ml_collections.ConfigDict, workdir: Path) -> list[Stage]:
    """The stages of ``config.stages.chain``, each with the config of its run.

    Raises:
      UserError: no stage, one that there is not, full fine-tuning, or settings that cannot be.
    """
    names = split_list(config.stages.chain)
    if not names:
        raise UserError(f"config.stages.chain names no stage; there is {', '.join(STAGES)}.")
    for name in names:
        _check_known(name, "config.stages.chain")
    settings = _settings(config, names)
    chain: list[Stage] = []
    adapter = config.model.adapter
    for i, name in enumerate(names, 1):
        times = names[: i - 1].count(name)
        label = name + (f"-{times + 1}" if times else "")
        stage = Stage(label, name, workdir / f"{i}-{name}", _config_of(config, name, adapter))
        for field, text in settings.get(name, {}).items():
            _set(stage.config, field, text, name)
        if stage.config.train.method != "lora":
            raise UserError(
                f"{name}: config.train.method is {stage.config.train.method!r}, and a stage hands "
                "its adapter to the next one. Set --config.train.method=lora."
            )
        chain.append(stage)
        adapter = str(stage.adapter)
    return chain


def _config_of(
    config: ml_collections.ConfigDict, name: str, adapter: str
) -> ml_collections.ConfigDict:
    """The config of one stage's run, its own settings still to be made."""
    derived = config.copy_and_resolve_references()
    derived.model.adapter = adapter
    # A longer chain has the same runs.
    derived.stages.update(base().stages)
    for section in (derived.data, derived.align):
        section.eval_size = min(section.eval_size or OWN_SIZE, OWN_SIZE)
    if name in ALIGN:
        derived.job = "align"
        derived.method = derived.align.method = name
    else:
        derived.job = "finetune"
        set_method(derived, name)
        # What a quantised base loses would be a question of its own.
        derived.model.measure_quantization = False
    return derived


def _check_known(name: str, field: str) -> None:
    if name not in STAGES:
        near = difflib.get_close_matches(name, STAGES, 1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{field} names {name!r}; there is {', '.join(STAGES)}.{guess}")


def _settings(config: ml_collections.ConfigDict, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """stage -> field -> text of ``config.stages.settings``."""
    found: dict[str, dict[str, str]] = {}
    for entry in split_list(config.stages.settings):
        head, equals, text = entry.partition("=")
        name, colon, field = (part.strip() for part in head.partition(":"))
        if not (equals and colon and name and field):
            raise UserError(
                f"config.stages.settings: {entry!r} is not understood; write stage:field=value, "
                "such as dpo:train.learning_rate=1e-4, several separated by commas."
            )
        _check_known(name, "config.stages.settings")
        if name not in names:
            raise UserError(
                f"config.stages.settings: {entry!r} is of a stage that config.stages.chain "
                f"({config.stages.chain}) has not."
            )
        found.setdefault(name, {})[field] = text.strip()
    return found


def _set(config: ml_collections.ConfigDict, field: str, text: str, stage: str) -> None:
    """Sets a field, such as "train.epochs", from text.

    Raises:
      UserError: there is no such field, or the text is no value of it.
    """
    where = f"config.stages.settings, {stage}"
    section, _, key = field.rpartition(".")
    flat = _flat(config)
    if field not in flat:
        near = difflib.get_close_matches(field, flat, 1)
        guess = f" Did you mean {near[0]!r}?" if near else ""
        raise UserError(f"{where}: there is no field {field!r}.{guess}")
    if field.split(".")[0] in ("job", "model", "stages"):
        raise UserError(f"{where}: {field} is the chain's own, the same for every stage.")
    node = config
    for part in filter(None, section.split(".")):
        node = node[part]
    kind = type(flat[field])
    try:
        if kind is bool:
            value = {"true": True, "false": False}[text.lower()]
        elif kind in (int, float, str):
            value = kind(text)
        else:
            raise ValueError(f"it is a {kind.__name__}")
    except (KeyError, ValueError):
        raise UserError(
            f"{where}: {field}={text} is no value of this field; expected a {kind.__name__} such "
            f"as {flat[field]!r}."
        ) from None
    node[key] = value


def _flat(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, ml_collections.ConfigDict):
            found |= _flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _start_label(config: ml_collections.ConfigDict, chain: Sequence[Stage]) -> str:
    """What the model before the first stage is called."""
    label = config.stages.start
    if not LABEL.fullmatch(label) or label.lower() in [stage.label for stage in chain]:
        raise UserError(
            f"config.stages.start is {label!r}; expected a name of letters, digits, '_', '.', '+' "
            "and '-' that is no stage's."
        )
    return label


def _check_sources(stage: Stage) -> None:
    """Raises UserError for training data that cannot be read, before any stage is trained."""
    if agreed((stage.folder / "summary.json").exists()):
        return
    if stage.config.job == "align":
        aligning.check_options(stage.config)
        aligning.load_examples(stage.config, set())
    else:
        measuring.load_questions(stage.config)


def train(stage: Stage, stop: StopRequest) -> None:
    """Trains a stage and exports its adapter, unless that has been done.

    Raises:
      UserError, Stopped, FloatingPointError: as the stage's own job.
    """
    check_workdir(stage.folder, stage.config)
    if not agreed((stage.folder / "summary.json").exists()):
        job = align if stage.config.job == "align" else finetune
        job.run(stage.config, stage.folder, stop)
        gc.collect()  # a run's state hangs together in circles
    stop.check()
    asked = base()
    asked.job = "export"
    asked.seed = stage.config.seed
    asked.mesh.shape = stage.config.mesh.shape
    asked.export.run, asked.export.format = str(stage.folder), "adapter"
    export.run(asked, stage.adapter, stop)


def _about(stage: Stage) -> dict[str, Any]:
    """What a stage was, for ``summary.json``."""
    found = summary.read(stage.folder / "summary.json")
    train_fields = ("learning_rate", "epochs", "batch_size")
    about = {
        "run": str(stage.folder),
        "job": stage.config.job,
        **{key: stage.config.train[key] for key in train_fields},
        "wall_time_s": found.get("wall_time_s"),
    }
    if stage.name == "dpo":
        about["beta"] = stage.config.align.beta
    return about


def write_results(
    workdir: Path,
    config: ml_collections.ConfigDict,
    data: Mapping[str, Any],
    about: Mapping[str, Mapping[str, Any]],
    found: Mapping[str, Answers],
    started: float,
) -> dict[str, Any]:
    """Writes figure, tables, the report and, last of all, ``summary.json``; returns the summary.

    The summary holds "letters" (stage -> split -> ROW), "pairs" (stage -> ROW) and "change"
    (stage -> split or "pairs" -> differences from the stage before).

    Raises:
      UserError: the models were not asked the same pairs: tokenizers that differ leave out others.
    """
    bins = {"num_bins": config.em.num_bins, "edges": config.em.edges}
    resampling = {"seed": config.seed, "num_resamples": config.report.num_resamples}
    labels = list(found)
    for before, after in zip(labels, labels[1:], strict=False):
        one, other = found[before].pairs, found[after].pairs
        if one is not None and not measure.same_pairs(one, other):
            raise UserError(
                f"{before} and {after} were not asked the same preference pairs: {len(one)} and "
                f"{len(other)} of them fit config.align.max_length in their tokens. Raise it, so "
                "that none is left out."
            )
    letters = {
        label: {
            split: summary.measure(scores, "", **bins, **resampling)
            for split, scores in answers.letters.items()
        }
        for label, answers in found.items()
    }
    change: dict[str, dict[str, Any]] = {}
    for before, after in zip(labels, labels[1:], strict=False):
        one, other = found[before], found[after]
        change[after] = {
            split: summary.change(scores, other.letters[split], **bins, **resampling)
            for split, scores in one.letters.items()
        }
        if one.pairs is not None:
            change[after][PAIRS] = measure.change_pairs(one.pairs, other.pairs, **resampling)
    result: dict[str, Any] = {
        "job": "stages",
        "method": config.method,
        "stages": {label: {**about[label], **found[label].about} for label in labels},
        "letters": letters,
        PAIRS: {
            label: measure.measure_pairs(answers.pairs, **resampling)
            for label, answers in found.items()
            if answers.pairs is not None
        },
        "change": change,
        "data": dict(data),
        "wall_time_s": round(time.monotonic() - started, 1),
        "peak_memory_gib": round(summary.peak_memory_gib(), 2),
        "peak_device_memory_gib": summary.peak_device_memory_gib(),
        "versions": summary.versions(),
    }
    panels = {
        split: {
            label: Panel(
                letters[label][split],
                bins_of(answers.letters[split], **bins),
                answers.letters[split].confidences,
            )
            for label, answers in found.items()
        }
        for split in letters[labels[0]]
    }
    figure = figures.draw(panels, result[PAIRS])
    for kind, image in (("png", png(figure, dpi=150)), ("svg", svg(figure))):
        with atomic_path(workdir / "figures" / f"stages.{kind}") as temporary:
            temporary.write_bytes(image)
    tables.write(workdir / "tables", result)
    command = shlex.join(["python", "-m", "calib_jax.main", *sys.argv[1:]])
    shown = page.render(result, panels, config.to_dict(), command)
    write_text(workdir / "report.html", shown)
    summary.write(workdir / "summary.json", result)
    return result
