"""What the job ``compare`` compares: its methods, and the settings that each of them has."""

from collections.abc import Mapping, Sequence

import ml_collections

from calib_jax import grammar, posthoc, presets
from calib_jax.config import base, check_config
from calib_jax.errors import UserError
from calib_jax.models.lora import check_lora
from calib_jax.models.model import open_checkpoint
from calib_jax.parallel.mesh import batch_shards
from calib_jax.reports import calibrated
from calib_jax.runs import measuring, settings
from calib_jax.runs.trained import blamed_on
from calib_jax.training.loop import check_shards, lora_settings

BEFORE = "dpo"
# What the table calls them; the rest by their name.
_LABELS = {
    "temperature": "Temp. scale, fitted",
    "fixed_temperature": "Temp. scale, T = 1.5",
    "label_smoothing": "Label smooth",
    "cft": "CFT",
    "rcft": "RCFT",
    "sft": "SFT only",
    "sft2": "SFT2 only",
    "ece_only": "ECE only",
    "released": "Released objective",
    "histogram": "Histogram binning",
    "isotonic": "Isotonic regression",
    "vector": "Vector scaling",
    "matrix": "Matrix scaling",
    "dirichlet": "Dirichlet scaling",
}
_FIELD = "config.compare.settings"
# Sections whose fields a method cannot have for itself.
_SHARED = dict.fromkeys(
    (key for key in base() if key not in ("train", "em")),
    "is the same for every method; those of train.* and em.* may differ",
)


def known_methods() -> list[str]:
    """Every method that ``config.compare.methods`` may name."""
    fitted = [name for name in posthoc.METHODS if name not in calibrated.NEEDS_MORE]
    return [BEFORE, *presets.METHODS, *fitted]


def label(config: ml_collections.ConfigDict, name: str) -> str:
    """What the table calls a method."""
    if name == BEFORE:
        return f"{config.compare.base}, as it is"
    return _LABELS.get(name) or name.replace("_", " ").capitalize()


def own_settings(config: ml_collections.ConfigDict, methods: Sequence[str]) -> dict[str, dict]:
    """Method -> field -> text of ``config.compare.settings``.

    Raises:
      UserError: an entry that is not understood, or of a method that is not compared or trained.
    """
    where = f"config.compare.methods ({config.compare.methods})"
    own = grammar.settings(
        config.compare.settings, _FIELD, "method", methods, known_methods(), where
    )
    for name in own:
        if name not in presets.METHODS:
            raise UserError(f"{_FIELD} has settings for {name}, which trains nothing.")
    return own


def with_method(
    config: ml_collections.ConfigDict, name: str, own: Mapping[str, str]
) -> ml_collections.ConfigDict:
    """A run's config with its method and that method's own settings.

    Args:
      config: from ``Subruns.settings``; it is changed.
      name: a key of ``presets.METHODS``.
      own: field -> text.

    Raises:
      UserError: a setting that cannot be, or that would make another method of it.
    """
    presets.set_method(config, name)
    settings.apply(config, own, f"{_FIELD}, {name}", _SHARED)
    presets.check_method(config)
    return config


def check(
    config: ml_collections.ConfigDict,
    trained: Mapping[str, ml_collections.ConfigDict],
    own: Mapping[str, Mapping[str, str]],
) -> None:
    """Raises UserError for methods or settings of theirs that cannot be, before any is trained.

    Args:
      config: of the whole.
      trained: method -> the config of its runs, but for the seed.
      own: of ``own_settings``.
    """
    if not own:
        return
    shards = batch_shards(measuring.make_mesh(config.mesh.shape))
    for name in own:
        derived = trained[name]
        with blamed_on(f"{_FIELD}, {name}"):
            check_config(derived)
            check_shards(derived.train, shards)
            if derived.train.method == "lora" and not config.model.adapter:
                model = open_checkpoint(config.model.name, config.model.revision or None)
                check_lora(model.config, lora_settings(derived.train, None))
            if derived.train.early_stopping:
                measuring.load_questions(derived)


def loss(train: ml_collections.ConfigDict) -> str:
    """What a run minimises, in signs."""
    terms = {"sft1": "SFT1", "sft2": "SFT2", "none": ""}[train.sft]
    if train.sft == "sft2" and train.sft2_reduction == "mean":
        terms += " (mean over tokens)"
    if train.label_smoothing:
        terms += f" with ε = {train.label_smoothing:g} over the {train.smooth_over}"
    if train.objective == "released":
        return f"(1 − α) · {terms} + α · 10⁻³ · CAL, α = {train.alpha:g}"
    by = {"squared": "", "kl": " by KL", "cross_entropy": " by cross-entropy"}[train.divergence]
    weight = f"{train.ece_weight:g} · ECE{by}" if train.ece_weight else ""
    return " + ".join(filter(None, (terms, weight)))


def describe(config: ml_collections.ConfigDict, name: str) -> str:
    """What a method that trains nothing does, in a few words."""
    if name == BEFORE:
        return "the model as it is"
    if name == "fixed_temperature":
        return "post hoc; fitted on nothing, the published baseline"
    if config.compare.calibration == "train":
        return "post hoc; fitted on the training questions, as the model answers them before"
    return f"post hoc; cross-fitted on each evaluation split in {config.posthoc.folds} folds"


def settings_rows(
    config: ml_collections.ConfigDict,
    methods: Sequence[str],
    trained: Mapping[str, ml_collections.ConfigDict],
    own: Mapping[str, Mapping[str, str]],
) -> dict[str, dict[str, str]]:
    """Method -> what its settings were, for ``Comparison.settings``.

    Args:
      config, trained, own: as of ``check``.
      methods: of ``config.compare.methods``.
    """
    rows: dict[str, dict[str, str]] = {}
    for name in methods:
        if name not in trained:
            rows[name] = {"method": describe(config, name)}
            continue
        train = trained[name].train
        rows[name] = {
            "method": loss(train),
            "λ": f"{train.ece_weight:g}" if presets.METHODS[name].calibrated else "",
            "learning rate": f"{train.learning_rate:g}",
            "epochs": str(train.epochs),
            "its own": ", ".join(f"{key}={text}" for key, text in own.get(name, {}).items()),
        }
    return rows
