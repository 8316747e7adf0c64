"""The chain of the job ``stages``: its steps, and the config of each one's run."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import ml_collections

from calib_jax.config import base, split_list
from calib_jax.errors import UserError
from calib_jax.presets import METHODS, check_method, set_method
from calib_jax.runs import settings
from calib_jax.runs.lifecycle_series import LABEL

# Stages that are runs of the job "align"; the others are methods of the job "finetune".
ALIGN = ("sft", "dpo")
STAGES = (*ALIGN, *(name for name in METHODS if name not in ALIGN))
# Sections that stages.settings cannot set.
_REFUSED = dict.fromkeys(("job", "model", "stages"), "is the chain's own, the same for every stage")
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
        settings.check_known(name, "config.stages.chain", STAGES)
    field, where = "config.stages.settings", f"config.stages.chain ({config.stages.chain})"
    own = settings.parse(config.stages.settings, field, names, STAGES, "stage", where)
    chain: list[Stage] = []
    adapter = config.model.adapter
    for i, name in enumerate(names, 1):
        times = names[: i - 1].count(name)
        label = name + (f"-{times + 1}" if times else "")
        stage = Stage(label, name, workdir / f"{i}-{name}", _config_of(config, name, adapter))
        settings.apply(stage.config, own.get(name, {}), f"{field}, {name}", _REFUSED)
        if name not in ALIGN:
            check_method(stage.config)
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


def start_label(config: ml_collections.ConfigDict, chain: Sequence[Stage]) -> str:
    """What the model before the first stage is called."""
    label = config.stages.start
    if not LABEL.fullmatch(label) or label.lower() in [stage.label for stage in chain]:
        raise UserError(
            f"config.stages.start is {label!r}; expected a name of letters, digits, '_', '.', '+' "
            "and '-' that is no stage's."
        )
    return label
