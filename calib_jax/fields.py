"""Which job obeys which field of the config: what a job does not obey, it refuses to be given.

A setting that is recorded and has no effect is worse than an error: the numbers that stand beside
it are of another experiment. ``OBEYED`` lists every field once; ``NEEDS`` says what a field's
effect hangs on. ``check`` is called with what the user asked for, before any work.
"""

import functools
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

import ml_collections

from calib_jax.config import base, split_list
from calib_jax.errors import UserError
from calib_jax.training.terms import reads_bins

# --- Jobs -----------------------------------------------------------------------------------------
_SERIES = ("compare", "sweep", "stages")  # runs of "finetune", "align" that belong together
_FINETUNES = ("finetune", *_SERIES, "plan")  # "plan" takes the config of the run that it plans
_TRAINS = (*_FINETUNES, "align")
_ASKS = ("evaluate", "study", "lifecycle", "stages")  # tasks, by any reading
_LETTERS = (*_TRAINS, "evaluate", "study", "lifecycle")
_SCORES = (*_LETTERS, "alignment")
_RUNS_A_MODEL = (*_SCORES, "generate")
_ANY = (*_RUNS_A_MODEL, "report", "winrate", "export")

# field, or section.* for those of a section that have no line of their own -> jobs.
OBEYED: dict[str, tuple[str, ...]] = {
    "job": _ANY,
    "method": tuple(job for job in _ANY if job not in ("align", "export")),
    "seed": tuple(job for job in _ANY if job != "export"),
    "accept_other_code": tuple(job for job in _ANY if job != "export"),
    "model.name": (*(job for job in _RUNS_A_MODEL if job != "study"), "export"),
    "model.revision": (*(job for job in _RUNS_A_MODEL if job != "study"), "export"),
    "model.adapter": (*(job for job in _RUNS_A_MODEL if job != "study"), "export"),
    "model.quantize": _RUNS_A_MODEL,
    "model.dtype": _RUNS_A_MODEL,
    "model.attention": _RUNS_A_MODEL,
    "model.measure_quantization": ("finetune", "evaluate", "study"),
    "mesh.shape": (*_RUNS_A_MODEL, "export"),
    "data.train": _FINETUNES,
    "data.train_size": _FINETUNES,
    "data.validation": _FINETUNES,
    "data.validation_size": _FINETUNES,
    "data.eval": (*_TRAINS, "evaluate", "study"),
    "data.eval_size": _LETTERS,
    "data.answer_base": _SCORES,
    "data.in_domain": _TRAINS,
    "data.out_of_domain": _TRAINS,
    "data.shuffle_options": _LETTERS,
    "data.shuffle_tasks": _LETTERS,
    "data.shots": _ASKS,
    "prompt.template": (*_SCORES, "export"),
    "prompt.letter_prefix": (*_SCORES, "export"),
    "prompt.choice": (*_SCORES, "export"),  # as prompt.template
    "prompt.continuation": _ASKS,
    "prompt.chat": (*_RUNS_A_MODEL, "export"),
    "prompt.template_arguments": (*_RUNS_A_MODEL, "export"),
    "prompt.date": (*_RUNS_A_MODEL, "export"),
    "prompt.max_length": (*_LETTERS, "generate"),
    "confidence.methods": _ASKS,
    "batch.*": _SCORES,
    "em.num_bins": (*_LETTERS, "report"),
    "em.edges": (*_LETTERS, "report"),
    "em.*": _FINETUNES,
    "train.sft": ("finetune", "sweep", "plan"),
    "train.objective": ("finetune", "sweep", "plan"),
    "train.alpha": ("finetune", "compare", "stages", "plan"),
    "train.divergence": _FINETUNES,
    "train.ece_weight": ("finetune", "compare", "stages", "plan"),
    "train.terms": ("finetune", "sweep", "plan"),
    "train.sft2_reduction": _FINETUNES,
    "train.label_smoothing": _FINETUNES,
    "train.smooth_over": _FINETUNES,
    "train.early_stopping": _FINETUNES,
    "train.early_stopping_metric": _FINETUNES,
    "train.*": _TRAINS,
    "train.lora.*": _TRAINS,
    "align.method": ("align",),
    "align.train": ("align", "stages"),
    "align.eval": ("align", "stages"),
    "align.train_size": ("align", "stages"),
    "align.eval_size": ("align", "stages"),
    "align.chat": ("align", "stages", "alignment"),
    "align.beta": ("align", "stages", "alignment"),
    "align.label_smoothing": ("align", "stages"),
    "align.max_length": ("align", "stages", "alignment"),
    "stages.*": ("stages",),
    "compare.*": ("compare",),
    "sweep.*": ("sweep",),
    "alignment.*": ("alignment",),
    "generate.*": ("generate",),
    "winrate.*": ("winrate",),
    "plan.*": ("plan",),
    "checkpoint.*": _TRAINS,
    "report.num_resamples": (*_SCORES, "report", "winrate"),
    "report.writers": _TRAINS,
    "report.title": ("report", "compare", "sweep"),
    "report.*": ("report",),
    "study.*": ("study",),
    "lifecycle.*": ("lifecycle",),
    "export.*": ("export",),
    "posthoc.methods": ("finetune", "align", "evaluate", "report"),
    "posthoc.folds": ("finetune", "align", "evaluate", "report", "compare"),
}


class Need(NamedTuple):
    """What must be so for a field to have an effect.

    Attributes:
      fields: a field, or section.* for all of a section.
      jobs: in which it must be so.
      holds: config -> whether it is.
      text: how to make it so, after "it has an effect ".
    """

    fields: tuple[str, ...]
    jobs: tuple[str, ...]
    holds: Callable[[ml_collections.ConfigDict], Any]
    text: str


def _reads(config: ml_collections.ConfigDict, kind: str) -> bool:
    return any(name.startswith(kind) for name in split_list(config.confidence.methods))


def _names_nothing(config: ml_collections.ConfigDict) -> bool:
    """Whether a lifecycle has nothing to measure, which the job says itself."""
    lifecycle = config.lifecycle
    return not (lifecycle.text or lifecycle.facts or split_list(lifecycle.tasks))


_ONE_RUN = ("finetune", "plan")
_READ = ("evaluate", "study", "lifecycle")
NEEDS = (
    Need(("train.lora.*",), ("finetune", "compare", "sweep", "align", "plan"),
         lambda c: c.train.method == "lora", "under --config.train.method=lora"),
    Need(("train.lora.rank", "train.lora.alpha", "train.lora.targets"), _TRAINS,
         lambda c: not c.model.adapter,
         "without config.model.adapter: an adapter that is trained on keeps its own"),
    Need(("train.sft2_reduction",), (*_ONE_RUN, "sweep"),
         lambda c: c.train.sft == "sft2", "under --config.train.sft=sft2"),
    Need(("train.alpha",), _ONE_RUN, lambda c: c.train.objective == "released",
         "under --config.train.objective=released"),
    Need(("train.divergence",), _ONE_RUN, lambda c: c.train.ece_weight > 0,
         "where config.train.ece_weight is above 0"),
    Need(("data.shuffle_tasks",), _LETTERS, lambda c: c.data.shuffle_options,
         "where config.data.shuffle_options is True"),
    Need(("prompt.letter_prefix",), (*_SCORES, "export"), lambda c: not c.prompt.chat,
         "without config.prompt.chat: nothing stands before a letter in a chat"),
    Need(("prompt.template_arguments", "prompt.date"), (*_RUNS_A_MODEL, "export"),
         lambda c: c.prompt.chat or (c.align.chat and c.job in ("align", "stages", "alignment")),
         "under --config.prompt.chat=True (or align.chat, of pairs)"),
    Need(("prompt.template", "prompt.choice", "prompt.letter_prefix", "prompt.chat",
          "prompt.template_arguments", "prompt.date"), ("export",), lambda c: not c.export.run,
         "without config.export.run: a run's prompt is its own"),
    Need(("train.smooth_over",), (*_ONE_RUN, "sweep"),
         lambda c: c.train.label_smoothing > 0, "where config.train.label_smoothing is above 0"),
    Need(("em.binning", "em.shrinkage", "em.refresh", "em.refresh_steps"), _ONE_RUN,
         lambda c: reads_bins(c.train), "where config.train.ece_weight is above 0"),
    Need(("em.refresh_steps",), _FINETUNES,
         lambda c: c.em.refresh == "steps", "under --config.em.refresh=steps"),
    Need(("train.early_stopping_metric",), _FINETUNES,
         lambda c: c.train.early_stopping > 0, "where config.train.early_stopping is above 0"),
    Need(("data.validation_size",), _FINETUNES,
         lambda c: split_list(c.data.validation), "where config.data.validation names a split"),
    Need(("align.beta", "align.label_smoothing"), ("align",),
         lambda c: c.align.method == "dpo", "under --config.align.method=dpo"),
    # Where neither pairs nor text are named, the job says so itself.
    Need(("align.beta", "align.chat", "align.max_length"), ("alignment",),
         lambda c: c.alignment.pairs or not c.alignment.text,
         "where config.alignment.pairs names pairs"),
    Need(("model.measure_quantization",), ("finetune", "evaluate", "study"),
         lambda c: c.model.quantize, "where config.model.quantize is set"),
    Need(("generate.top_k", "generate.top_p"), ("generate",),
         lambda c: c.generate.temperature > 0, "where config.generate.temperature is above 0"),
    Need(("prompt.choice", "prompt.template", "prompt.letter_prefix"), _READ,
         lambda c: _reads(c, "choice"), "where config.confidence.methods reads letters (choice)"),
    Need(("prompt.continuation",), _ASKS, lambda c: _reads(c, "continuation"),
         "where config.confidence.methods reads options' texts (continuation_sum, ...)"),
    Need(("data.shots", "data.eval_size", "data.shuffle_options", "prompt.choice",
          "prompt.template", "prompt.continuation", "prompt.chat", "prompt.letter_prefix",
          "prompt.max_length", "confidence.methods"), ("lifecycle",),
         lambda c: split_list(c.lifecycle.tasks) or _names_nothing(c),
         "where config.lifecycle.tasks names tasks"),
    Need(("model.name",), ("lifecycle",), lambda c: not split_list(c.lifecycle.models),
         "without config.lifecycle.models, which names the models itself"),
    Need(("lifecycle.axis",), ("lifecycle",), lambda c: split_list(c.lifecycle.models),
         "where config.lifecycle.models names several models"),
    Need(("lifecycle.text_size", "lifecycle.positions"), ("lifecycle",),
         lambda c: c.lifecycle.text or _names_nothing(c),
         "where config.lifecycle.text names running text"),
    Need(("lifecycle.context_length",), ("lifecycle",),
         lambda c: c.lifecycle.text or c.lifecycle.facts or _names_nothing(c),
         "where config.lifecycle.text or config.lifecycle.facts is set"),
    Need(("lifecycle.facts_size", "lifecycle.patterns"), ("lifecycle",),
         lambda c: c.lifecycle.facts or _names_nothing(c),
         "where config.lifecycle.facts names facts"),
    Need(("alignment.pairs_size",), ("alignment",),
         lambda c: c.alignment.pairs or not c.alignment.text,
         "where config.alignment.pairs names pairs"),
    Need(("alignment.text_size", "alignment.window"), ("alignment",),
         lambda c: c.alignment.text or not c.alignment.pairs,
         "where config.alignment.text names running text"),
    Need(("model.name", "model.revision", "model.adapter", "stages.chain", "stages.start",
          "data.train", "data.train_size", "data.validation", "train.*", "train.lora.*",
          "align.train", "align.train_size", "align.beta", "align.label_smoothing",
          "checkpoint.*"), ("stages",), lambda c: not split_list(c.stages.models),
         "without config.stages.models, which names models that were trained already"),
    Need(("posthoc.folds",), ("finetune", "align", "evaluate", "report"),
         lambda c: split_list(c.posthoc.methods), "where config.posthoc.methods names calibrators"),
    Need(("posthoc.folds",), ("compare",),
         lambda c: c.compare.calibration == "cross", "under --config.compare.calibration=cross"),
)  # fmt: skip

# What to do instead, where a job does not obey a field that a user may well want there.
_INSTEAD = {
    ("train.ece_weight", "sweep"): "config.sweep.ece_weight lists the values",
    ("train.sft", "compare"): "every method of config.compare.methods has its own",
    ("train.sft", "stages"): "every stage of config.stages.chain has its own",
    ("train.terms", "compare"): "every method of config.compare.methods has its own",
    ("train.terms", "stages"): "every stage of config.stages.chain has its own",
    ("train.objective", "compare"): "config.compare.methods=released names the released one",
    ("train.objective", "stages"): "config.stages.chain=released names the released one",
    ("align.method", "stages"): "config.stages.chain names the stages",
    ("data.eval", "lifecycle"): "config.lifecycle.tasks names the tasks",
    ("data.eval", "alignment"): "config.alignment.pairs and config.alignment.text are measured",
    ("batch.token_budget", "generate"): "config.generate.batch_size sets the batch",
    ("model.name", "study"): "config.study.pairs names the models",
    ("model.revision", "study"): "write model@revision in config.study.pairs",
    ("model.adapter", "study"): "write model+adapter in config.study.pairs",
    ("model.dtype", "export"): "config.export.dtype sets the dtype",
    ("data.shots", "finetune"): "measure with examples by the job evaluate",
    ("data.shots", "compare"): "measure with examples by the job evaluate",
    ("confidence.methods", "finetune"): (
        "fine-tuning reads letters (choice); measure otherwise by the job evaluate, with "
        "config.model.adapter or an export of this run"
    ),
    ("posthoc.methods", "compare"): "config.compare.methods names calibrators too",
}


def paths(config: ml_collections.ConfigDict, prefix: str = "") -> dict[str, Any]:
    """Every field by its path ("train.lora.rank") with its value.

    ``plan.dimensions`` is one field, whatever a preset writes into it.
    """
    found: dict[str, Any] = {}
    for key, value in config.items():
        path = prefix + key
        if path == "plan.dimensions":
            found[path] = value.to_dict()
        elif isinstance(value, ml_collections.ConfigDict):
            found |= paths(value, f"{path}.")
        else:
            found[path] = value
    return found


@functools.cache
def _defaults() -> dict[str, Any]:
    return paths(base())


def jobs_of(path: str) -> tuple[str, ...]:
    """The jobs that obey a field.

    Raises:
      KeyError: no line of ``OBEYED`` is of this field.
    """
    if path in OBEYED:
        return OBEYED[path]
    return OBEYED[path.rpartition(".")[0] + ".*"]


def check(config: ml_collections.ConfigDict, asked: Collection[str], written: Collection[str]):
    """Refuses what the user set and the job does not obey.

    A value that is the default asks for nothing, and neither does an empty one where the job has no
    use for any.

    Args:
      config: of the run.
      asked: paths of the fields that the command line sets.
      written: paths of those that the config file sets for this job.

    Raises:
      UserError: names the fields and what to do.
    """
    job, values, defaults = config.job, paths(config), _defaults()
    asked = [_field(path) for path in asked]
    written = [_field(path) for path in written if path != "method"]  # what a file calls itself
    for path in dict.fromkeys([*asked, *written]):
        if path not in values or values[path] == defaults.get(path):
            continue
        if job not in jobs_of(path):
            if values[path] == "":
                continue
            others = [other for other in jobs_of(path) if other != "plan"]
            instead = _INSTEAD.get((path, job), "leave it out")
            raise UserError(
                f"config.{path} is {values[path]!r}, and has no effect in the job {job!r}: "
                f"{instead}. It is obeyed by: {', '.join(others)}."
            )
        if path not in asked:
            continue
        for need in NEEDS:
            if job in need.jobs and _is_of(path, need.fields) and not need.holds(config):
                raise UserError(
                    f"config.{path} is {values[path]!r}, and has no effect here: it has one only "
                    f"{need.text}. Leave it out, or change that."
                )


def _field(path: str) -> str:
    return "plan.dimensions" if path.startswith("plan.dimensions.") else path


def _is_of(path: str, fields: Collection[str]) -> bool:
    return path in fields or path.rpartition(".")[0] + ".*" in fields
