"""Finished training runs, as other jobs take what they have trained: by their folders."""

import contextlib
import dataclasses
import difflib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from calib_jax.config import base
from calib_jax.errors import UserError
from calib_jax.models import model as models
from calib_jax.models import peft
from calib_jax.models.lora import LoraConfig, check_lora, lora_shapes
from calib_jax.models.table import Tree, build_tree, stacked_shape
from calib_jax.parallel.shards import lora_sharding, row_sharding
from calib_jax.provenance import Inputs, listening, reads
from calib_jax.reports import model_card, result
from calib_jax.training.checkpoints import EPOCHS, NEWEST, Checkpoints
from calib_jax.training.loop import lora_settings

TRAINING_JOBS = ("finetune", "align")
# Jobs whose folders hold folders of such runs.
SERIES = ("stages", "compare", "sweep")
# The method of the runs of a series that hold the scores before training alone.
BEFORE = "before"


@dataclasses.dataclass(frozen=True)
class TrainedRun:
    """A finished fine-tuning run.

    Attributes:
      folder: its workdir.
      config: its config.
      summary: its result.
      epoch: whose model is taken, from 1; 0 for the one that the run ended with.
    """

    folder: Path
    config: ml_collections.ConfigDict
    summary: dict[str, Any]
    epoch: int = 0

    @contextlib.contextmanager
    def same_base(self) -> Iterator[None]:
        """Within it, reading a base or an adapter that has changed since raises UserError."""
        with listening(Inputs(self.folder / "inputs.json")):
            yield

    def checkpoints(self, fingerprint: str) -> Checkpoints:
        """What holds the model that is taken, to be read.

        Args:
          fingerprint: of the base as it lies on the disk; another one than the run's is refused
            when the checkpoint is read.

        Raises:
          UserError: the checkpoint is damaged.
        """
        folder, step = (EPOCHS, self.epoch) if self.epoch else (NEWEST, None)
        return Checkpoints(
            self.folder / folder, keep=None, fingerprint=fingerprint, read_only=True, step=step
        )


def read_run(folder: Path, epoch: int = 0) -> TrainedRun:
    """The finished training run (of the job "finetune" or "align") that a folder holds.

    Args:
      folder: its workdir.
      epoch: as in ``TrainedRun``.

    Raises:
      UserError: no run's folder (the message offers one whose name is like it), one of another
        job (those that can be taken from it), a run that is not finished, or an epoch that it has
        not kept (those that it has).
    """
    path = folder / "config.json"
    if not folder.exists() and folder.parent.is_dir():
        names = [place.name for place in folder.parent.iterdir() if place.is_dir()]
        if near := difflib.get_close_matches(folder.name, names, 1):
            raise UserError(f"{folder}: no such run. Did you mean {folder.parent / near[0]}?")
    if not path.exists():
        raise UserError(
            f"{path}: no such file, so this is no run's folder. Name the --workdir of a finished "
            "run of the job finetune or align."
        )
    reads(path)
    config = base()
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if not {"job", "model", "train"} <= set(raw):
            raise ValueError("job, model or train is missing")
        _fill(config, raw)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: not the config of a run of this version ({error}).") from None
    if config.job not in TRAINING_JOBS:
        raise UserError(f"{folder}: the run's job is {config.job!r}, {_instead(folder, config)}")
    if not (folder / "summary.json").exists():
        raise UserError(
            f"{folder}: the run is not finished (no summary.json). Start its command again first, "
            "which continues it."
        )
    if epoch:
        _check_epoch(folder, config, epoch)
    elif not _steps(folder / NEWEST):
        if config.method == BEFORE:
            raise UserError(
                f"{folder} holds what the model says before training. Name the model itself: "
                f"{_model(config)}."
            )
        raise UserError(
            f"{folder / NEWEST}: no checkpoint, so what was trained is lost. Train again."
        )
    return TrainedRun(folder, config, result.read(folder / "summary.json"), epoch)


def _steps(folder: Path) -> list[int]:
    """The numbers of the checkpoints in a folder, in order."""
    return sorted(int(path.name) for path in folder.glob("[0-9]*") if path.name.isdigit())


def _check_epoch(folder: Path, config: ml_collections.ConfigDict, epoch: int) -> None:
    """Raises UserError for an epoch whose model is not there."""
    kept = _steps(folder / EPOCHS)
    if epoch in kept:
        return
    what = f"{folder}: there is no model of epoch {epoch}"
    if kept:
        raise UserError(f"{what}; the run has kept those of epochs {', '.join(map(str, kept))}.")
    if config.checkpoint.keep_epochs:
        raise UserError(f"{what}, nor of any other; {folder / EPOCHS} is gone. Train again.")
    raise UserError(
        f"{what}; the run has kept its end alone. Leave the epoch out, or train again with "
        "--config.checkpoint.keep_epochs=True and another --workdir."
    )


def earlier_runs(adapter: str) -> tuple[model_card.Stage, ...]:
    """The runs that an adapter came from, first to last: each lies in the folder of its run.

    An adapter that lies elsewhere, or came from elsewhere, has none that are known.
    """
    found: list[model_card.Stage] = []
    while adapter:
        place = Path(adapter).expanduser()
        # Where the job stages writes it, and where the job export does.
        found_by_name = re.fullmatch(r"adapter(-epoch\d+)?", place.name)
        folders = (place.parent, place.parent.parent) if found_by_name else ()
        folder = next((f for f in folders if (f / "summary.json").exists()), None)
        if folder is None or str(folder) in [stage.folder for stage in found]:
            break
        try:
            run = read_run(folder)
        except UserError:
            break
        config = run.config.to_dict()
        found.insert(0, model_card.Stage(str(folder), config, run.summary))
        adapter = config["model"]["adapter"]
    return tuple(found)


@contextlib.contextmanager
def blamed_on(field: str) -> Iterator[None]:
    """Within it a UserError says which field of the config is wrong."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{field}: {error}") from None


def _instead(folder: Path, config: ml_collections.ConfigDict) -> str:
    """Why a folder of a job that trains nothing itself cannot be taken, and what can."""
    if config.job in SERIES:
        inside = sorted(
            place.parent
            for place in folder.glob("*/config.json")
            if _steps(place.parent / NEWEST) and (place.parent / "summary.json").exists()
        )
        if not inside:
            return (
                "which keeps its runs in folders of their own, and none of them is finished. "
                "Start its command again, which continues it."
            )
        return (
            "which keeps its runs in folders of their own. Name one of them: "
            f"{', '.join(map(str, inside))}."
        )
    if config.job != "evaluate":
        return "which trains nothing. Name a run of the job finetune or align."
    return f"which trains nothing. Name its model instead: {_model(config)}."


def _model(config: ml_collections.ConfigDict) -> str:
    """A config's model, in words."""
    model = config.model
    revision = f" at the revision {model.revision}" if model.revision else ""
    return f"{model.name}{revision}" + (f" with the adapter {model.adapter}" * bool(model.adapter))


def _fill(node: ml_collections.ConfigDict, raw: Mapping[str, Any]) -> None:
    """Sets the fields that a run's config.json states; those of a newer version keep defaults."""
    for key, value in raw.items():
        if key not in node:
            raise KeyError(f"there is no field {key!r}")
        if isinstance(node[key], ml_collections.ConfigDict):
            _fill(node[key], value)
        else:
            node[key] = tuple(value) if isinstance(value, list) else value


def lora_of(
    run: TrainedRun, adapter: peft.Adapter | None, checkpoint: models.Checkpoint
) -> LoraConfig | None:
    """The settings of the adapters that a run has trained; None where it trained all parameters."""
    if run.config.train.method == "full":
        return None
    lora = lora_settings(run.config.train, adapter.lora if adapter else None)
    check_lora(checkpoint.config, lora)
    return lora


def abstract_trained(config: Any, mesh: jax.sharding.Mesh, lora: LoraConfig | None) -> Tree:
    """The trained parameters of a run, as float32 arrays to be restored."""
    if lora is None:
        layout = row_sharding(mesh)
        return build_tree(
            config,
            lambda row: jax.ShapeDtypeStruct(
                stacked_shape(config, row), jnp.float32, sharding=layout(row)
            ),
        )
    return jax.tree.map(
        lambda layout, shape: jax.ShapeDtypeStruct(shape[0], jnp.float32, sharding=layout),
        lora_sharding(mesh, config, lora),
        lora_shapes(config, lora),
        is_leaf=lambda x: isinstance(x, jax.sharding.Sharding),
    )
