"""What the job ``compare`` compares: its methods, and the settings that each of them has."""

import warnings
from collections.abc import Mapping, Sequence

import ml_collections

from calib_jax import grammar, posthoc, presets
from calib_jax.config import base, check_config, split_list
from calib_jax.errors import UserError, UserNotice
from calib_jax.models.lora import check_lora
from calib_jax.models.model import open_checkpoint
from calib_jax.parallel.mesh import batch_shards
from calib_jax.reports import calibrated
from calib_jax.reports.compare.comparison import BEFORE, current_name
from calib_jax.runs import base_model, run_setting, settings
from calib_jax.runs.trained import blamed_on
from calib_jax.training import terms
from calib_jax.training.loop import check_shards, lora_settings

_FIELD = "config.compare.settings"
# Sections whose fields a method cannot have for itself.
_SHARED = dict.fromkeys(
    (key for key in base() if key not in ("train", "em")),
    "is the same for every method; those of train.* and em.* may differ",
)


# A trained method, and a post-hoc one that is fitted to what it says: "sft+temperature".
THEN = "+"


def fitted_methods() -> list[str]:
    """The post-hoc methods that scores and answers feed."""
    return [name for name in posthoc.METHODS if name not in calibrated.NEEDS_MORE]


def known_methods() -> list[str]:
    """Every method that ``config.compare.methods`` may name, alone."""
    return [BEFORE, *presets.METHODS, *fitted_methods()]


def parts(name: str) -> tuple[str, str]:
    """A method and what is fitted to its scores afterwards, "" for nothing.

    >>> parts("sft+temperature"), parts("cft")
    (('sft', 'temperature'), ('cft', ''))
    """
    first, _, then = name.partition(THEN)
    return first.strip(), then.strip()


def check_names(names: Sequence[str], where: str) -> None:
    """Raises UserError for a method that cannot be compared, is unknown, or appears twice.

    Args:
      names: of ``config.compare.methods``.
      where: what messages call that field.
    """
    for name in names:
        first, then = parts(name)
        for part in filter(None, (first, then)):
            if part in calibrated.NEEDS_MORE:
                needed = calibrated.NEEDS_MORE[part]
                raise UserError(f"{where} names {part!r}, which needs {needed}.")
        if THEN in name:
            if not (first and then) or THEN in then:
                raise UserError(
                    f"{where} names {name!r}; write a trained method and one post-hoc method, as "
                    "sft+temperature."
                )
            if first == BEFORE and then in fitted_methods():
                raise UserError(f"{where} names {name!r}, which is {then!r} alone: write that.")
            if then in presets.METHODS and first in fitted_methods():
                raise UserError(
                    f"{where} names {name!r}; write the trained method first: {then}{THEN}{first}."
                )
            grammar.check_known(first, where, list(presets.METHODS))
            # What is trained keeps no states.
            known = [other for other in fitted_methods() if not posthoc.reads_states([other])]
            grammar.check_known(then, where, known)
    plain = [name for name in names if THEN not in name]
    if plain or not names:
        grammar.names(",".join(plain), where, known_methods())
    for i, name in enumerate(names):
        if name in names[:i]:
            raise UserError(f"{where} names {name!r} twice; leave one out.")


def methods_of(config: ml_collections.ConfigDict) -> list[str]:
    """The methods of ``config.compare.methods``, in the table's order.

    An older name is accepted with a notice.
    """
    found = split_list(config.compare.methods)
    for name in found:
        if name != current_name(name):
            warnings.warn(
                f"config.compare.methods names {name!r}, which is now called "
                f"{current_name(name)!r}: the model as it is, on which nothing is trained.",
                UserNotice,
                stacklevel=1,
            )
    return [THEN.join(filter(None, parts(current_name(name)))) for name in found]


def trained_of(methods: Sequence[str]) -> list[str]:
    """The methods that are trained, each once: those that others are fitted to as well."""
    return list(dict.fromkeys(m for m in (parts(n)[0] for n in methods) if m in presets.METHODS))


def preserves_predictions(name: str) -> bool:
    """Whether a method leaves every prediction as it is in what it is fitted to."""
    return name in posthoc.METHODS and posthoc.METHODS[name].preserves_argmax


def label(config: ml_collections.ConfigDict, name: str) -> str:
    """What the table calls a method."""
    first, then = parts(name)
    if then:
        return f"{label(config, first)}, then {label(config, then)}"
    if name == BEFORE:
        return f"{config.compare.base}, as it is"
    return (presets.METHODS.get(name) or posthoc.METHODS[name]).label


def own_settings(config: ml_collections.ConfigDict, methods: Sequence[str]) -> dict[str, dict]:
    """Method -> field -> text of ``config.compare.settings``.

    Raises:
      UserError: an entry that is not understood, or of a method that is not compared or trained.
    """
    where = f"config.compare.methods ({config.compare.methods})"
    own = grammar.settings(
        config.compare.settings,
        _FIELD,
        "method",
        [*methods, *trained_of(methods)],
        known_methods(),
        where,
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
      UserError: a setting that is not valid, or that would make another method of it.
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
    """Raises UserError for methods or settings of theirs that are not valid, before any is trained.

    Args:
      config: of the whole.
      trained: method -> the config of its runs, but for the seed.
      own: of ``own_settings``.
    """
    if not own:
        return
    shards = batch_shards(base_model.make_mesh(config.mesh.shape))
    for name in own:
        derived = trained[name]
        with blamed_on(f"{_FIELD}, {name}"):
            check_config(derived)
            check_shards(derived.train, shards)
            if derived.train.method == "lora" and not config.model.adapter:
                model = open_checkpoint(config.model.name, config.model.revision or None)
                check_lora(model.config, lora_settings(derived.train, None))
            if derived.train.early_stopping:
                run_setting.load_questions(derived)


def describe(config: ml_collections.ConfigDict, name: str) -> str:
    """What a method that trains nothing does, in a few words."""
    if name == BEFORE:
        return "the model as it is"
    first, then = parts(name)
    if then:
        return (
            f"{label(config, first)}, and {label(config, then)} cross-fitted to it on each "
            f"evaluation split in {config.posthoc.folds} folds"
        )
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
            "method": terms.formula(train),
            "λ": f"{train.ece_weight:g}" if presets.METHODS[name].calibrated else "",
            "learning rate": f"{train.learning_rate:g}",
            "epochs": str(train.epochs),
            "its own": ", ".join(f"{key}={text}" for key, text in own.get(name, {}).items()),
        }
    return rows
