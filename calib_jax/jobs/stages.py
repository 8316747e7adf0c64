"""The job ``stages``: alignment step by step, and calibration after every step.

SFT, DPO and fine-tuning for calibration as runs of their own, each going on from the adapter of
the one before; or models that went through the stages elsewhere.
Source: Xiao et al. 2025 (arXiv 2505.01997), Figure 1.
"""

import dataclasses
import functools
import gc
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections

from calib_jax.config import base, split_list
from calib_jax.errors import UserError
from calib_jax.jobs import align, export, finetune
from calib_jax.jobs.study import Side
from calib_jax.questions import pipeline, sources
from calib_jax.questions.domains import Origins, decide
from calib_jax.questions.preferences import draw
from calib_jax.questions.record import normalised
from calib_jax.reports import summary
from calib_jax.reports.alignment import measure
from calib_jax.reports.atomic import atomic_path, write_text
from calib_jax.reports.compare.measure import pooled
from calib_jax.reports.figures.bins import bins_of
from calib_jax.reports.figures.canvas import png, svg
from calib_jax.reports.figures.reliability import Panel
from calib_jax.reports.stages import figures, page, tables
from calib_jax.runs import aligning, measuring, probing, restoring, results
from calib_jax.runs.measuring import say
from calib_jax.runs.probing import PAIRS, Answers
from calib_jax.runs.run import Run, check_workdir, claim
from calib_jax.runs.stages_chain import Stage, chain_of, start_label
from calib_jax.training.interrupt import StopRequest

# Besides the held-out pairs ("pairs"): those that DPO has learnt from.
TRAINED = "pairs_trained"


def main(run: Run) -> None:
    """Trains and measures stage after stage, then writes figure, tables, report and summary.

    A stage's run is ``<i>-<name>``, what the model then says ``models/<label>``; what stands there
    is kept, so a job that was stopped goes on where it was.

    Raises:
      UserError: bad input.
      Stopped: SIGTERM; the same command continues.
      FloatingPointError: a loss that is not finite.
    """
    config, workdir, stop = run.config, run.workdir, run.stop
    started = time.monotonic()

    # --- What is cheap to find wrong comes first --------------------------------------------------
    results.check_options(config)
    measuring.check_batches(config)
    measuring.check_least(config, 0, ("data", "eval_size"), ("align", "eval_size"))
    chain: list[Stage] = []
    sides: dict[str, Side] = {}
    if split_list(config.stages.models):
        sides = restoring.parse_labelled(config.stages.models, "config.stages.models")
        for label, side in sides.items():
            restoring.check(side, f"config.stages.models, {label}")
        if split_list(config.stages.settings):
            raise UserError(
                "config.stages.settings is of stages that are trained, and config.stages.models "
                "names models that were. Leave out one of the two."
            )
    else:
        chain = chain_of(config, workdir)
        model = config.model
        start = start_label(config, chain)
        sides[start] = Side(model.name, model.name, model.revision, model.adapter)
        restoring.check(sides[start], "config.model")
    material = probing.load_material(
        config, tasks=config.data.eval, pairs=(config.align.eval, config.align.eval_size)
    )
    if not material.tasks:
        raise UserError("config.data.eval names no questions; there would be nothing to measure.")
    # What any stage has learnt from is in-domain.
    train_specs = split_list(config.data.train) if not chain else ()
    reading = config.seed, config.data.answer_base
    known = pipeline.training_origins(train_specs, *reading)
    for stage in chain:
        check_workdir(stage.folder, stage.config)
        learnt, origins = _load_examples(stage)
        known |= origins
        if stage.name == "dpo" and TRAINED not in material.pairs:
            # On pairs that were learnt collapse is seen first.
            some = draw(learnt, config.align.eval_size, config.seed)
            material = dataclasses.replace(material, pairs={**material.pairs, TRAINED: some})
    specs = split_list(config.data.eval)
    names = [task.name for task in material.tasks]
    whole = {n: sources.load(spec, *reading) for n, spec in zip(names, specs, strict=True)}
    decided = decide(
        known,
        pipeline.origins(specs, whole),
        split_list(config.data.in_domain),
        split_list(config.data.out_of_domain),
    )
    domains = {name: row["domain"] for name, row in decided.items()}
    material = dataclasses.replace(material, data={**material.data, "domains": decided})

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
        result = write_results(workdir, config, material.data, about, found, domains, started)
        tables.show_summary(result)
        say(f"\nReport: {workdir / 'report.html'}    Numbers: {workdir / 'summary.json'}")


def _load_examples(stage: Stage) -> tuple[list, Origins]:
    """What a stage of alignment learns from, as its run will take it; [] of the other stages.

    And what is known of the content of all that any stage learns from.

    Raises:
      UserError: settings that cannot be, or training data that cannot be read: found before any
        stage is trained.
    """
    config = stage.config
    if config.job != "align":
        measuring.check_finetuning(config)
        measuring.load_questions(config)
        train = split_list(config.data.train)
        return [], pipeline.training_origins(train, config.seed, config.data.answer_base)
    aligning.check_options(config)
    specs = split_list(config.data.eval)
    asked = {
        normalised(q.asked)
        for spec in specs
        for q in sources.load(spec, config.seed, config.data.answer_base)
    }
    source = aligning.load_source(config)
    learnt = aligning.load_examples(config, asked, source)[0]
    return learnt, Origins(source.data_sets, frozenset(item.text for item in source.items))


def train(stage: Stage, stop: StopRequest) -> None:
    """Trains a stage and exports its adapter, unless that has been done.

    Raises:
      UserError, Stopped, FloatingPointError: as the stage's own job.
    """
    with Run(stage.config, stage.folder, stop) as run:
        if not run.finished:
            job = align if stage.config.job == "align" else finetune
            job.main(run)
            gc.collect()  # a run's state hangs together in circles
    stop.check()
    asked = base()
    asked.job = "export"
    asked.seed = stage.config.seed
    asked.mesh.shape = stage.config.mesh.shape
    asked.export.run, asked.export.format = str(stage.folder), "adapter"
    export.main(Run(asked, stage.adapter, stop))


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
    domains: Mapping[str, str],
    started: float,
) -> dict[str, Any]:
    """Writes figure, tables, the report and, last of all, ``summary.json``; returns the summary.

    The summary holds "letters" (stage -> split -> ROW, pooled splits first), "pairs" (set -> stage
    -> ROW), "change" (stage -> split or set -> differences from the stage before) and "drawn", what
    the figure shows (name -> its domain and splits).

    Args:
      domains: split -> "in", "out" or "".

    Raises:
      UserError: the models were not asked the same pairs: tokenizers that differ leave out others.
    """
    bins = {"num_bins": config.em.num_bins, "edges": config.em.edges}
    resampling = {"seed": config.seed, "num_resamples": config.report.num_resamples}
    labels = list(found)
    for before, after in zip(labels, labels[1:], strict=False):
        for name, one in found[before].pairs.items():
            other = found[after].pairs[name]
            if not measure.same_pairs(one, other):
                raise UserError(
                    f"{before} and {after} were not asked the same preference pairs: {len(one)} "
                    f"and {len(other)} of them fit config.align.max_length in their tokens. Raise "
                    "it, so that none is left out."
                )
    drawn = figures.parts(domains)
    pools = {name: part["splits"] for name, part in drawn.items() if len(part["splits"]) > 1}
    scored = {
        label: {
            **{name: pooled({s: answers.letters[s] for s in of}) for name, of in pools.items()},
            **answers.letters,
        }
        for label, answers in found.items()
    }
    of_parts = {**domains, **{name: part["domain"] for name, part in drawn.items()}}
    letters = {
        label: {
            split: summary.measure(scores, of_parts[split], **bins, **resampling)
            for split, scores in by_split.items()
        }
        for label, by_split in scored.items()
    }
    change: dict[str, dict[str, Any]] = {}
    for before, after in zip(labels, labels[1:], strict=False):
        one, other = found[before], found[after]
        change[after] = {
            split: summary.change(scores, scored[after][split], **bins, **resampling)
            for split, scores in scored[before].items()
        }
        for name, scores in one.pairs.items():
            moved = measure.change_pairs(scores, other.pairs[name], **resampling)
            change[after][name] = moved
    result: dict[str, Any] = {
        "job": "stages",
        "method": config.method,
        "stages": {label: {**about[label], **found[label].about} for label in labels},
        "letters": letters,
        "drawn": drawn,
        PAIRS: {
            name: {
                label: measure.measure_pairs(answers.pairs[name], **resampling)
                for label, answers in found.items()
            }
            for name in found[labels[0]].pairs
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
                bins_of(by_split[split], **bins),
                by_split[split].confidences,
            )
            for label, by_split in scored.items()
        }
        for split in drawn
    }
    figure = figures.draw(panels, result[PAIRS], figures.headings(drawn))
    for kind, image in (("png", png(figure, dpi=150)), ("svg", svg(figure))):
        with atomic_path(workdir / "figures" / f"stages.{kind}") as temporary:
            temporary.write_bytes(image)
    tables.write(workdir / "tables", result)
    command = shlex.join(["python", "-m", "calib_jax.main", *sys.argv[1:]])
    shown = page.render(result, panels, config.to_dict(), command)
    write_text(workdir / "report.html", shown)
    summary.write(workdir / "summary.json", result)
    return result
