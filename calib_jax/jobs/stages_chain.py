"""The chain of the job ``stages``: its steps, and the config of each one's run."""

import dataclasses
import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ml_collections

from calib_jax.config import base, split_list
from calib_jax.errors import UserError
from calib_jax.jobs.lifecycle_series import LABEL
from calib_jax.presets import METHODS, set_method

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
            f"{where}: {field}={text} is no value of this field; expected one such as "
            f"{flat[field]!r}."
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


def start_label(config: ml_collections.ConfigDict, chain: Sequence[Stage]) -> str:
    """What the model before the first stage is called."""
    label = config.stages.start
    if not LABEL.fullmatch(label) or label.lower() in [stage.label for stage in chain]:
        raise UserError(
            f"config.stages.start is {label!r}; expected a name of letters, digits, '_', '.', '+' "
            "and '-' that is no stage's."
        )
    return label
