"""What every method's config file offers: its loss, and presets of model, questions and size."""

import dataclasses
from collections.abc import Callable

import ml_collections

from calib_jax.config import base
from calib_jax.errors import UserError
from calib_jax.training.terms import parse_weights


@dataclasses.dataclass(frozen=True)
class Method:
    """What makes a method of fine-tuning.

    Attributes:
      label: what tables call it.
      sft: as ``config.train.sft``.
      calibrated: whether λ · ECE is added.
      smoothed: whether the SFT term's labels are smoothed.
      objective: as ``config.train.objective``.
      terms: as ``config.train.terms``.
      refresh: as ``config.em.refresh``; "" for the config's own.
    """

    label: str
    sft: str
    calibrated: bool = False
    smoothed: bool = False
    objective: str = "paper"
    terms: str = ""
    refresh: str = ""


# Xiao et al. 2025: Algorithm 1 with either SFT term, its ablations, label smoothing, and what the
# authors' code minimises in place of Algorithm 1; then other authors' losses (docs/objectives.md).
METHODS = {
    "cft": Method("CFT", "sft1", calibrated=True),
    "rcft": Method("RCFT", "sft2", calibrated=True),
    "sft": Method("SFT only", "sft1"),
    "sft2": Method("SFT2 only", "sft2"),
    "ece_only": Method("ECE only", "none", calibrated=True),
    "label_smoothing": Method("Label smooth", "sft1", smoothed=True),
    "released": Method("Released objective", "sft1", objective="released", refresh="once"),
    "brier": Method("Brier", "none", terms="brier=1"),
    "focal": Method("Focal", "none", terms="focal=1"),
    "flsd53": Method("Focal, FLSD-53", "none", terms="flsd53=1"),
    "catto": Method("CATTO", "sft1", terms="catto=1"),
    "self_distilled": Method("Self-distilled SFT", "sft1", terms="distil=1", refresh="once"),
    "calibration_tuning": Method("Calibration-tuning", "none", terms="nll=1"),
    "conftuner": Method("ConfTuner", "none", terms="tokenised_brier=1"),
}
# ε of label smoothing; the paper does not state its own.
SMOOTHING = 0.1


def get(name: str, method: str = "") -> ml_collections.ConfigDict:
    """The base config with a preset applied.

    Args:
      name: what follows the colon in ``--config=configs/cft.py:tulu3_8b``; "" for the default.
      method: a key of ``METHODS`` to set as well; "" for none.

    Raises:
      UserError: no such preset.
    """
    if name not in _PRESETS:
        raise UserError(
            f"no preset {name!r}; choose from: {', '.join(filter(None, _PRESETS))}, or none for "
            "the offline default."
        )
    config = base()
    _PRESETS[name](config)
    if method:
        set_method(config, method)
    return config


def set_method(config: ml_collections.ConfigDict, name: str) -> None:
    """Makes ``config`` one of the method ``name``.

    λ, ε and α stay as they are where the method has them (ε = 0 becomes ``SMOOTHING``); λ and ε are
    0 and α is its default where it does not. Further terms have the method's own weights. The
    released objective brings its bins, [a, b). Both it and self-distillation take what the E-step
    finds of the model as it begins.
    """
    method, train = METHODS[name], config.train
    config.method = name
    train.sft, train.objective, train.terms = method.sft, method.objective, method.terms
    if not method.calibrated:
        train.ece_weight = 0.0
    train.label_smoothing = (train.label_smoothing or SMOOTHING) if method.smoothed else 0.0
    if method.refresh:
        config.em.refresh = method.refresh
    if method.objective == "released":
        config.em.edges = "left"
    else:
        train.alpha = base().train.alpha


def check_method(config: ml_collections.ConfigDict) -> None:
    """Raises UserError where a config's losses are no longer those of its method.

    Args:
      config: one that ``set_method`` has made, with further settings.
    """
    name, train = config.method, config.train
    method = METHODS[name]
    for key, is_so, needed in (
        ("sft", train.sft == method.sft, repr(method.sft)),
        ("objective", train.objective == method.objective, repr(method.objective)),
        ("ece_weight", (train.ece_weight > 0) == method.calibrated,
         "a number above 0, or it would learn no calibration" if method.calibrated
         else "0: it has no term λ · ECE"),
        ("label_smoothing", (train.label_smoothing > 0) == method.smoothed,
         "a number above 0" if method.smoothed else "0: its labels are not smoothed"),
        ("terms", _weighed(train.terms) == _weighed(method.terms),
         f"weights of the terms in {method.terms!r}" if method.terms
         else "'': it has no further terms"),
    ):  # fmt: skip  # a table: field, condition and remedy
        if not is_so:
            raise UserError(
                f"{name}: config.train.{key} is {train[key]!r}; {name} needs {needed}. The methods "
                f"are {', '.join(METHODS)}."
            )


def _weighed(text: str) -> set[str]:
    """The further terms that have a part in the loss."""
    return {name for name, weight in parse_weights(text).items() if weight}


# Of the stages before calibration.
ALIGNED = ("debug", "tulu3_8b")


def aligned(name: str, method: str) -> ml_collections.ConfigDict:
    """The base config of the job "align" with what its methods have in common at a preset.

    Args:
      name: one of ``ALIGNED``; "" for the offline default.
      method: as ``config.align.method``.

    Raises:
      UserError: no such preset.
    """
    if name and name not in ALIGNED:
        raise UserError(f"no preset {name!r}; choose from: {', '.join(ALIGNED)}, or none.")
    config = base()
    config.job = "align"
    config.align.method = method
    config.data.train = ""
    config.train.method = "lora"
    config.train.remat = False
    config.checkpoint.every_steps = 25
    if name == "debug":
        config.data.eval_size = 16
        config.align.train_size = 16
        config.align.eval_size = 16
        config.train.batch_size = 8
        config.batch.max_buckets = 2
        config.report.num_resamples = 100
    elif name == "tulu3_8b":
        config.data.eval = (
            "mmlu=hf:cais/mmlu:all:test,openbookqa=hf:allenai/openbookqa:main:test,"
            "arc_challenge=hf:allenai/ai2_arc:ARC-Challenge:test"
        )
        config.data.eval_size = 1000
        config.prompt.max_length = 2048
        config.align.train_size = 0
        config.align.max_length = 2048
        config.train.lora.rank = 128
        config.train.lora.alpha = 64.0
        config.train.batch_size = 128
        config.train.remat = True
        config.batch.token_budget = 65536
        config.mesh.shape = (1, 4, -1)
    return config


def _laptop(config: ml_collections.ConfigDict) -> None:
    """SmolLM2-135M-Instruct with LoRA: what fits 2 cores and 5 GiB."""
    config.train.method = "lora"
    config.train.learning_rate = 5e-4
    # Two halves of 8 questions fit the memory without recomputing layers, which is faster.
    config.train.remat = False
    config.train.microbatches = 2
    config.checkpoint.every_steps = 25


def _demo(config: ml_collections.ConfigDict) -> None:
    """A task that the model can learn in minutes, offline: is a review positive or negative?"""
    _laptop(config)
    config.data.train = "offline:sst2/validation_train"
    config.data.eval = "offline:sst2/validation_test"
    # "A" stays negative and "B" positive: with classes that change their letters the model would
    # have to learn to read the options as well, and stays at chance.
    config.data.shuffle_options = False
    config.train.epochs = 3
    # SFT alone becomes sure of itself in these 177 steps; in 90, of 16 questions, it does not.
    config.train.batch_size = 8
    config.train.microbatches = 1


def _openbookqa(config: ml_collections.ConfigDict) -> None:
    """Questions that the model answers at chance, before and after: only confidence is learnt."""
    _laptop(config)
    config.data.train = "offline:openbookqa/train"
    config.data.validation = "offline:openbookqa/validation"
    config.data.train_size = 1024
    config.data.eval_size = 500
    config.data.validation_size = 200


def _debug(config: ml_collections.ConfigDict) -> None:
    """The default in seconds: few questions, two steps."""
    _demo(config)
    config.data.train_size = 16
    config.data.eval_size = 16
    config.train.epochs = 1
    config.train.batch_size = 8
    config.batch.token_budget = 512
    config.batch.max_buckets = 2
    config.checkpoint.every_steps = 1
    config.report.num_resamples = 100


def _paper(model: str) -> Callable[[ml_collections.ConfigDict], None]:
    """The paper's setting for one of its 7-8B models: LoRA on 3,000 questions, 5 epochs."""

    def apply(config: ml_collections.ConfigDict) -> None:
        config.model.name = model
        config.data.train = (
            # MMLU's own questions, 1,816 of them. Its "auxiliary_train" is ARC, OpenBookQA, RACE
            # and others: with it ARC-Challenge would not be out-of-domain.
            "hf:cais/mmlu:all:validation,hf:cais/mmlu:all:dev,hf:openlifescienceai/medmcqa:train,"
            "hf:allenai/openbookqa:main:train"
        )
        config.data.eval = (
            "mmlu=hf:cais/mmlu:all:test,medmcqa=hf:openlifescienceai/medmcqa:validation,"
            "openbookqa=hf:allenai/openbookqa:main:test,"
            "arc_challenge=hf:allenai/ai2_arc:ARC-Challenge:test"
        )
        config.data.train_size = 3000
        config.data.eval_size = 1000
        config.prompt.max_length = 2048
        config.batch.token_budget = 65536
        config.train.method = "lora"
        config.train.lora.rank = 128
        config.train.lora.alpha = 64.0
        config.train.lora.dropout = 0.05
        # The paper states 5e-4; the authors' script submits 5e-6.
        config.train.learning_rate = 5e-4
        config.train.epochs = 5
        # Two questions on each of two GPUs. The mesh splits a batch data × fsdp ways, and 4 is the
        # most that this batch allows; further chips go to the tensor axis.
        config.train.batch_size = 4
        config.mesh.shape = (1, 4, -1)

    return apply


_PRESETS: dict[str, Callable[[ml_collections.ConfigDict], None]] = {
    "": _demo,
    "openbookqa": _openbookqa,
    "debug": _debug,
    "tulu3_8b": _paper("allenai/Llama-3.1-Tulu-3-8B-DPO"),
    "olmo2_7b": _paper("allenai/OLMo-2-1124-7B-DPO"),
    "vicuna_7b": _paper("lmsys/vicuna-7b-v1.5"),
    # The paper does not name its Mistral checkpoint; this is a DPO-aligned Mistral-7B.
    "mistral_7b": _paper("princeton-nlp/Mistral-7B-Base-SFT-DPO"),
}
