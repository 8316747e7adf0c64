"""What the effect of fields depends on, each said once: the table's entries name these."""

import ml_collections

from calib_jax.config.field import (
    ASKS,
    FINETUNES,
    LETTERS,
    READS,
    RUNS_A_MODEL,
    SCORES,
    TRAINS,
    Need,
)
from calib_jax.grammar import split_list

_ONE_RUN = ("finetune", "plan")
_OWN_CHAT = ("align", "stages", "alignment")  # config.align.chat is theirs


def _reads(config: ml_collections.ConfigDict, kind: str) -> bool:
    return any(name.startswith(kind) for name in split_list(config.confidence.methods))


def _names_nothing(config: ml_collections.ConfigDict) -> bool:
    """Whether a lifecycle has nothing to measure, which is an error of its own."""
    lifecycle = config.lifecycle
    return not (lifecycle.text or lifecycle.facts or split_list(lifecycle.tasks))


LORA = Need(
    ("finetune", "compare", "sweep", "align", "plan"),
    lambda c: c.train.method == "lora",
    "under --config.train.method=lora",
)
FRESH_ADAPTER = Need(
    TRAINS,
    lambda c: not c.model.adapter,
    "without config.model.adapter: an adapter that is trained on keeps its own",
)
SFT2 = Need((*_ONE_RUN, "sweep"), lambda c: c.train.sft == "sft2", "under --config.train.sft=sft2")
RELEASED = Need(
    _ONE_RUN,
    lambda c: c.train.objective == "released",
    "under --config.train.objective=released",
)
CALIBRATES = Need(
    _ONE_RUN, lambda c: c.train.ece_weight > 0, "where config.train.ece_weight is above 0"
)
SMOOTHS = Need(
    (*_ONE_RUN, "sweep"),
    lambda c: c.train.label_smoothing > 0,
    "where config.train.label_smoothing is above 0",
)
BY_STEPS = Need(FINETUNES, lambda c: c.em.refresh == "steps", "under --config.em.refresh=steps")
STOPS_EARLY = Need(
    FINETUNES,
    lambda c: c.train.early_stopping > 0,
    "where config.train.early_stopping is above 0",
)
VALIDATES = Need(
    FINETUNES,
    lambda c: split_list(c.data.validation),
    "where config.data.validation names a split",
)
SHUFFLES = Need(
    LETTERS, lambda c: c.data.shuffle_options, "where config.data.shuffle_options is True"
)
PLAIN = Need(
    (*SCORES, "export"),
    lambda c: not c.prompt.chat,
    "without config.prompt.chat: nothing stands before a letter in a chat",
)
CHAT = Need(
    (*RUNS_A_MODEL, "export"),
    lambda c: c.prompt.chat or (c.align.chat and c.job in _OWN_CHAT),
    "under --config.prompt.chat=True (or align.chat, of pairs)",
)
NO_RUN = Need(
    ("export",),
    lambda c: not c.export.run,
    "without config.export.run: a run's prompt is its own",
)
READS_LETTERS = Need(
    READS,
    lambda c: _reads(c, "choice"),
    "where config.confidence.methods reads letters (choice)",
)
READS_TEXTS = Need(
    ASKS,
    lambda c: _reads(c, "continuation"),
    "where config.confidence.methods reads options' texts (continuation_sum, ...)",
)
QUANTIZED = Need(
    ("finetune", "evaluate", "study"),
    lambda c: c.model.quantize,
    "where config.model.quantize is set",
)
DRAWS = Need(
    ("generate",),
    lambda c: c.generate.temperature > 0,
    "where config.generate.temperature is above 0",
)
DPO = Need(("align",), lambda c: c.align.method == "dpo", "under --config.align.method=dpo")
# Where neither pairs nor text are named, that is an error of its own.
HAS_PAIRS = Need(
    ("alignment",),
    lambda c: c.alignment.pairs or not c.alignment.text,
    "where config.alignment.pairs names pairs",
)
HAS_TEXT = Need(
    ("alignment",),
    lambda c: c.alignment.text or not c.alignment.pairs,
    "where config.alignment.text names running text",
)
TASKS = Need(
    ("lifecycle",),
    lambda c: split_list(c.lifecycle.tasks) or _names_nothing(c),
    "where config.lifecycle.tasks names tasks",
)
TEXT = Need(
    ("lifecycle",),
    lambda c: c.lifecycle.text or _names_nothing(c),
    "where config.lifecycle.text names running text",
)
TEXT_OR_FACTS = Need(
    ("lifecycle",),
    lambda c: c.lifecycle.text or c.lifecycle.facts or _names_nothing(c),
    "where config.lifecycle.text or config.lifecycle.facts is set",
)
FACTS = Need(
    ("lifecycle",),
    lambda c: c.lifecycle.facts or _names_nothing(c),
    "where config.lifecycle.facts names facts",
)
ONE_MODEL = Need(
    ("lifecycle",),
    lambda c: not split_list(c.lifecycle.models),
    "without config.lifecycle.models, which names the models itself",
)
SEVERAL_MODELS = Need(
    ("lifecycle",),
    lambda c: split_list(c.lifecycle.models),
    "where config.lifecycle.models names several models",
)
TRAINS_STAGES = Need(
    ("stages",),
    lambda c: not split_list(c.stages.models),
    "without config.stages.models, which names models that were trained already",
)
CALIBRATORS = Need(
    ("finetune", "align", "evaluate", "report"),
    lambda c: split_list(c.posthoc.methods),
    "where config.posthoc.methods names calibrators",
)
CROSS_FITS = Need(
    ("compare",),
    lambda c: c.compare.calibration == "cross",
    "under --config.compare.calibration=cross",
)
