"""What the effect of fields depends on, each said once: the entries of the table name these."""

from typing import Any

import ml_collections

from calib_jax.config.field import (
    ASKS,
    CHATS,
    FINETUNES,
    LETTERS,
    PROMPTS,
    READS,
    TRAINS,
    Need,
    find,
)
from calib_jax.grammar import split_list


def _value(config: ml_collections.ConfigDict, path: str) -> Any:
    for key in path.split("."):
        config = config[key]
    return split_list(config) if isinstance(config, str) else config


def _under(path: str, value: str, *jobs: str) -> Need:
    """A field must have this value."""
    return Need(jobs, lambda c: _value(c, path) == (value,), f"under --config.{path}={value}")


def _above_0(path: str, *jobs: str) -> Need:
    """A number must be above 0."""
    return Need(jobs, lambda c: _value(c, path) > 0, f"where config.{path} is above 0")


def _where(path: str, *jobs: str) -> Need:
    """A field must be set: text that is not blank, or True."""
    return Need(jobs, lambda c: _value(c, path), f"where config.{path} is set")


def _without(path: str, why: str, *jobs: str) -> Need:
    """A field must not be set."""
    return Need(jobs, lambda c: not _value(c, path), f"without config.{path}: {why}")


def _reads(kind: str, what: str, *jobs: str) -> Need:
    """A method of reading confidence must be asked for."""
    return Need(
        jobs,
        lambda c: any(name.startswith(kind) for name in split_list(c.confidence.methods)),
        f"where config.confidence.methods reads {what}",
    )


LORA = _under("train.method", "lora", "finetune", "compare", "sweep", "align", "plan")
FRESH_ADAPTER = _without("model.adapter", "an adapter that is trained on keeps its own", *TRAINS)
SFT2 = _under("train.sft", "sft2", "finetune", "plan", "sweep")
RELEASED = _under("train.objective", "released", "finetune", "plan")
CALIBRATES = _above_0("train.ece_weight", "finetune", "plan")
READS_BINS = Need(
    ("finetune", "plan"),
    lambda c: find("calib_jax.training.terms:reads_bins")(c.train),
    "where config.train.ece_weight is above 0, or another term reads the bins",
)
READS_E_STEP = Need(
    ("finetune", "plan"),
    lambda c: find("calib_jax.training.terms:reads_e_step")(c.train),
    "where config.train.ece_weight is above 0, or another term reads the E-step",
)
SMOOTHS = _above_0("train.label_smoothing", "finetune", "plan", "sweep")
BY_STEPS = _under("em.refresh", "steps", *FINETUNES)
STOPS_EARLY = _above_0("train.early_stopping", *FINETUNES)
VALIDATES = _where("data.validation", *FINETUNES)
SHUFFLES = _where("data.shuffle_options", *LETTERS)
PLAIN = _without("prompt.chat", "nothing stands before a letter in a chat", *PROMPTS, "export")
CHAT = Need(
    (*CHATS, "export"),
    lambda c: c.prompt.chat or (c.align.chat and c.job in ("align", "stages", "alignment")),
    "under --config.prompt.chat=True (or config.align.chat, of pairs)",
)
NO_RUN = _without("export.run", "a run's prompt is its own", "export")
READS_LETTERS = _reads("choice", "letters (choice)", *READS)
READS_TEXTS = _reads("continuation", "options' texts (continuation_sum, ...)", *ASKS)
_ON_TEXTS = ("finetune", "compare", "sweep")
TRAINS_ON_LETTERS = _under("train.reading", "choice", *_ON_TEXTS)
TRAINS_ON_TEXTS = Need(
    _ON_TEXTS,
    lambda c: c.train.reading != "choice",
    "where config.train.reading reads options' texts (continuation_sum, ...)",
)
QUANTIZED = _where("model.quantize", "finetune", "evaluate", "study")
DRAWS = _above_0("generate.temperature", "generate")
DPO = _under("align.method", "dpo", "align")
SYNTHETIC = _without("regimes.runs", "its points are those of finished runs", "regimes")
HAS_PAIRS = _where("alignment.pairs", "alignment")
HAS_TEXT = _where("alignment.text", "alignment")
TASKS = _where("lifecycle.tasks", "lifecycle")
TEXT = _where("lifecycle.text", "lifecycle")
TEXT_OR_FACTS = Need(
    ("lifecycle",),
    lambda c: c.lifecycle.text or c.lifecycle.facts,
    "where config.lifecycle.text or config.lifecycle.facts is set",
)
FACTS = _where("lifecycle.facts", "lifecycle")
ONE_MODEL = _without("lifecycle.models", "it names the models itself", "lifecycle")
SEVERAL_MODELS = _where("lifecycle.models", "lifecycle")
TRAINS_STAGES = _without("stages.models", "its models were trained already", "stages")
CALIBRATORS = _where("posthoc.methods", "finetune", "align", "evaluate", "report")
CROSS_FITS = _under("compare.calibration", "cross", "compare")
COUNTS_A_PRIOR = Need(
    ("finetune", "align", "evaluate", "report", "compare"),
    lambda c: (
        {"histogram", "isotonic"}
        & set(split_list((c.compare if c.job == "compare" else c.posthoc).methods))
    ),
    "where the methods hold histogram or isotonic",
)
