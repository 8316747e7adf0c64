"""The job ``stages``: alignment step by step, and calibration after every step.

SFT, DPO and fine-tuning for calibration as runs of their own, each continuing from the adapter of
the one before; or models that went through the stages elsewhere.
Source: Xiao et al. 2025 (arXiv 2505.01997), Figure 1.
"""

import gc
import itertools
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections

from calib_jax.confidence.scores import Scores
from calib_jax.config import base, check_config, split_list
from calib_jax.jobs import align, export, finetune
from calib_jax.questions import pipeline, sources
from calib_jax.questions.domains import Origins, decide
from calib_jax.questions.preferences import draw
from calib_jax.questions.record import normalised
from calib_jax.reports import measure, result
from calib_jax.reports.compare.parts import pooled
from calib_jax.reports.figures.bins import bins_of
from calib_jax.reports.figures.reliability import Panel
from calib_jax.reports.pairs import measure as of_pairs
from calib_jax.reports.result import Contrast, Result
from calib_jax.reports.stages import figures
from calib_jax.reports.views import stages
from calib_jax.runs import preference_setting, run_setting, score, subjects
from calib_jax.runs.material import PAIRS, Material
from calib_jax.runs.run import Run, check_workdir, say
from calib_jax.runs.score import Said
from calib_jax.runs.stages_chain import Stage, chain_of, start_label
from calib_jax.runs.subjects import Subject
from calib_jax.training.interrupt import StopRequest

# Besides the held-out pairs ("pairs"): those that DPO has learnt from.
TRAINED = "pairs_trained"
MEASURED = "measured-"  # what the files of letters begin with


def main(run: Run) -> None:
    """Trains and measures stage after stage, then writes figure, tables, report and summary.

    A stage's run is ``<i>-<name>``, what the model then says ``models/<label>``; what they hold is
    kept, so a job that was stopped continues where it was.

    Raises:
      UserError: bad input.
      Stopped: SIGTERM; the same command continues.
      FloatingPointError: a loss that is not finite.
    """
    config, workdir, stop = run.config, run.workdir, run.stop

    # --- What is cheap to find wrong comes first --------------------------------------------------
    check_config(config)
    chain: list[Stage] = []
    models: dict[str, Subject] = {}
    if split_list(config.stages.models):
        models = subjects.parse_labelled(config.stages.models, "config.stages.models")
        for label, subject in models.items():
            subjects.check(subject, f"config.stages.models, {label}")
    else:
        chain = chain_of(config, workdir)
        start = start_label(config, chain)
        models[start] = subjects.of_config(config)
        subjects.check(models[start], "config.model")
    material = Material(config, data={"seed": config.seed})
    tasks = material.add_tasks(config.data.eval, "config.data.eval")
    material.add_pairs(config.align.eval, config.align.eval_size)
    # What any stage has learnt from is in-domain.
    train_specs = split_list(config.data.train) if not chain else ()
    reading = config.seed, config.data.answer_base
    known = pipeline.training_origins(train_specs, *reading)
    for stage in chain:
        check_workdir(stage.folder, stage.config)
        learnt, origins = _load_examples(stage)
        known |= origins
        if stage.name == "dpo" and TRAINED not in [probe.name for probe in material.probes]:
            # On pairs that were learnt collapse is seen first.
            drawn: list[Any] = draw(learnt, config.align.eval_size, config.seed)
            material.add_set(TRAINED, drawn)
    specs = split_list(config.data.eval)
    names = [task.name for task in tasks]
    whole = {n: sources.load(spec, *reading) for n, spec in zip(names, specs, strict=True)}
    decided = decide(
        known,
        pipeline.origins(specs, whole),
        split_list(config.data.in_domain),
        split_list(config.data.out_of_domain),
    )
    domains = {name: row["domain"] for name, row in decided.items()}
    material.data["domains"] = decided

    # --- Stage after stage ------------------------------------------------------------------------
    found: dict[str, Said] = {}

    def ask(label: str, subject: Subject) -> None:
        folder = workdir / "models" / label
        found[label] = score.ask_subject(
            config, label, subject, material.probes, folder, run.claim, stop.check
        )
        stop.check()

    for label, subject in models.items():
        say(f"{label}: {subject.text}")
        ask(label, subject)
    for number, stage in enumerate(chain, 1):
        say(f"\n{stage.label}: stage {number} of {len(chain)}, {stage.folder}")
        train(stage, stop)
        name, revision = config.model.name, config.model.revision
        adapter = str(stage.adapter)
        ask(stage.label, Subject(f"{name}+{adapter}", name, revision, adapter))
    if jax.process_index() == 0:
        about = {label: {"model": subject.text} for label, subject in models.items()}
        about |= {stage.label: _about(stage) for stage in chain}
        outcome, panels = measured(config, material.data, about, found, domains)
        run.finish(outcome, lambda summary: stages.view(summary, panels))


def _load_examples(stage: Stage) -> tuple[list, Origins]:
    """What a stage of alignment learns from, as its run will take it; [] of the other stages.

    And what is known of the content of all that any stage learns from.

    Raises:
      UserError: settings that are not valid, or training data that cannot be read: found before any
        stage is trained.
    """
    config = stage.config
    check_config(config)
    if config.job != "align":
        run_setting.load_questions(config)
        train = split_list(config.data.train)
        return [], pipeline.training_origins(train, config.seed, config.data.answer_base)
    specs = split_list(config.data.eval)
    asked = {
        normalised(q.asked)
        for spec in specs
        for q in sources.load(spec, config.seed, config.data.answer_base)
    }
    source = preference_setting.load_source(config)
    learnt = preference_setting.load_examples(config, asked, source)[0]
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
    found = result.read(stage.folder / "summary.json")
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


def _letters(said: Said) -> dict[str, Scores]:
    """Split -> scores by its one reading."""
    return {
        name.removeprefix(MEASURED): next(iter(by_method.values()))
        for name, by_method in said.files.items()
        if name.startswith(MEASURED)
    }


def measured(
    config: ml_collections.ConfigDict,
    data: Mapping[str, Any],
    about: Mapping[str, Mapping[str, Any]],
    found: Mapping[str, Said],
    domains: Mapping[str, str],
) -> tuple[Result, dict[str, dict[str, Panel]]]:
    """Figures of questions and pairs after every stage, and their changes from the stage before.

    The summary holds "letters" (stage -> split -> ROW, pooled splits first), "pairs" (set -> stage
    -> ROW), "change" (stage -> split or set -> differences from the stage before) and "drawn", what
    the figure shows (name -> its domain and splits).

    Args:
      domains: split -> "in", "out" or "".

    Returns:
      The result, and drawn split -> stage -> what its reliability diagram shows.

    Raises:
      UserError: the models were not asked the same pairs: tokenizers that differ leave out others.
    """
    bins = {"num_bins": config.em.num_bins, "edges": config.em.edges}
    resampling = {"seed": config.seed, "num_resamples": config.report.num_resamples}
    labels = list(found)
    pairs = {
        name: {label: said.files[name] for label, said in found.items()}
        for name in found[labels[0]].files
        if not name.startswith(MEASURED)
    }
    read = {label: _letters(said) for label, said in found.items()}
    for by_stage in pairs.values():
        of_pairs.check_same_pairs(by_stage)
    drawn = figures.parts(domains)
    pools = {name: part["splits"] for name, part in drawn.items() if len(part["splits"]) > 1}
    scored = {
        label: {
            **{name: pooled({s: by_split[s] for s in of}) for name, of in pools.items()},
            **by_split,
        }
        for label, by_split in read.items()
    }
    of_parts = {**domains, **{name: part["domain"] for name, part in drawn.items()}}
    letters = {
        label: {
            split: measure.measure(scores, of_parts[split], **bins, **resampling)
            for split, scores in by_split.items()
        }
        for label, by_split in scored.items()
    }
    change: dict[str, dict[str, Any]] = {}
    contrasts: list[Contrast] = []
    for before, after in itertools.pairwise(labels):
        change[after] = {
            split: measure.change(scores, scored[after][split], **bins, **resampling)
            for split, scores in scored[before].items()
        } | {
            name: of_pairs.change_pairs(by_stage[before], by_stage[after], **resampling)
            for name, by_stage in pairs.items()
        }
        contrasts += [Contrast(before, after, *moved) for moved in change[after].items()]
    of_sets = {
        name: {s: of_pairs.measure_pairs(scores, **resampling) for s, scores in by_stage.items()}
        for name, by_stage in pairs.items()
    }
    own = {
        "method": config.method,
        "stages": {label: {**about[label], **found[label].about} for label in labels},
        "letters": letters,
        "drawn": drawn,
        PAIRS: of_sets,
        "change": change,
        "data": dict(data),
    }
    states = {
        label: letters[label] | {name: by_stage[label] for name, by_stage in of_sets.items()}
        for label in labels
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
    return Result(own, result.of_states(states), tuple(contrasts)), panels
