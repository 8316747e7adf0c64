"""A model to be measured: as the user names one, or as a finished training run left it."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections

from calib_jax.config import split_list
from calib_jax.errors import UserError
from calib_jax.models import model as models
from calib_jax.models import peft
from calib_jax.models.model import Model
from calib_jax.parallel import mesh as meshes
from calib_jax.runs import measuring, trained
from calib_jax.runs.lifecycle_series import LABEL
from calib_jax.runs.pairs import Side, check_models, parse_side
from calib_jax.runs.run import as_json

SPELLING = "label=model[@revision][+adapter] or label=run:<folder>[@<epoch>], separated by commas"


def parse_labelled(text: str, field: str, taken: Sequence[str] = ()) -> dict[str, Side]:
    """The models of a field such as ``config.alignment.models``, by label, in order.

    Args:
      text: see ``SPELLING``.
      field: what messages call it.
      taken: labels that are not to be had.

    Raises:
      UserError: an entry that is not understood, a label that is taken or stands twice.
    """
    sides: dict[str, Side] = {}
    for entry in split_list(text):
        label, equals, rest = (part.strip() for part in entry.partition("="))
        if not equals or not rest or not LABEL.fullmatch(label):
            raise UserError(
                f"{field}: {entry!r} is not understood; write {SPELLING}. A label has letters, "
                "digits, '_', '.', '+' and '-'."
            )
        # Folders: what differs in capitals alone is one on some systems.
        if label.lower() in [name.lower() for name in (*sides, *taken)]:
            raise UserError(f"{field}: the label {label!r} stands twice, or is taken.")
        sides[label] = _with_epoch(parse_side(rest))
    return sides


def _with_epoch(side: Side) -> Side:
    """A run's folder and the epoch behind it taken apart; a folder may have such a name itself."""
    if side.run is None or side.run.exists():
        return side
    folder, _, epoch = str(side.run).rpartition("@")
    if not folder or not epoch.isdecimal() or not int(epoch):
        return side
    return dataclasses.replace(side, run=Path(folder), epoch=int(epoch))


def check(side: Side, where: str) -> None:
    """Raises UserError for a model, adapter or run on this machine that cannot be read.

    Args:
      where: what the message calls the place that names it: a field, and a label in it.
    """
    with trained.blamed_on(where):
        check_models([side])
        if side.run is not None:
            trained.read_run(side.run, side.epoch)


def base_of(side: Side) -> tuple[str, str]:
    """Name and revision of the checkpoint whose tokenizer and dimensions a model has."""
    if side.run is None:
        return side.name, side.revision
    setting = trained.read_run(side.run).config.model
    return setting.name, setting.revision


def load(config: ml_collections.ConfigDict, side: Side) -> Model:
    """A model on the config's mesh, in its dtype and attention.

    What a run has trained is restored from its checkpoint; its base and quantisation are the run's.

    Raises:
      UserError: it cannot be read.
    """
    derived = config.copy_and_resolve_references()
    derived.job = "evaluate"  # nothing trains: no float32 copy
    if side.run is None:
        derived.model.name, derived.model.revision = side.name, side.revision
        derived.model.adapter = side.adapter
        return measuring.load(derived, config.model.quantize)
    run = trained.read_run(side.run, side.epoch)
    setting = run.config.model
    derived.model.name, derived.model.revision = setting.name, setting.revision
    derived.model.adapter = setting.adapter
    with run.same_base():
        model = measuring.load(derived, setting.quantize)
    full = run.config.train.method == "full"
    adapter = None
    if setting.adapter:
        adapter = peft.read_adapter(setting.adapter, model.config)
    checkpoint = models.open_checkpoint(setting.name, setting.revision or None)
    lora = trained.lora_of(run, adapter, checkpoint)
    mesh = model.mesh or meshes.default_mesh()
    abstract = trained.abstract_trained(model.config, mesh, None if full else lora)
    if full:
        model = model.without_params()  # freed first: what was trained takes their place
    checkpoints = run.checkpoints(model.fingerprint)
    try:
        state = checkpoints.restore_trainable(abstract)
        epoch = "epoch " if side.epoch else ""
        mark = f"{as_json(run.config)}{epoch}{checkpoints.latest_step()}"
    finally:
        checkpoints.close()
    fingerprint = f"{model.fingerprint}+run:{hashlib.sha256(mark.encode()).hexdigest()[:16]}"
    if not full:
        return dataclasses.replace(model, lora=lora, adapters=state, fingerprint=fingerprint)
    # As the run computed: float32 parameters are brought to the computation's dtype.
    cast = jax.jit(lambda tree: jax.tree.map(lambda x: x.astype(model.dtype), tree))
    params = state if model.dtype == jnp.float32 else cast(state)
    return dataclasses.replace(
        model, params=params, lora=None, adapters=None, fingerprint=fingerprint
    )
