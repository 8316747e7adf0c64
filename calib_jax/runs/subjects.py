"""Subjects: the models that are measured, as the user names them, found, checked and loaded."""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_collections

from calib_jax.errors import UserError
from calib_jax.grammar import cut, labelled
from calib_jax.models import model as models
from calib_jax.models import peft
from calib_jax.models.model import Model, open_checkpoint
from calib_jax.parallel import mesh as meshes
from calib_jax.runs import base_model, trained
from calib_jax.runs.run import as_json

RUN, OFFLINE = "run:", "offline:"
SPELLING = "label=model[@revision][+adapter] or label=run:<folder>[@<epoch>], separated by commas"


@dataclasses.dataclass(frozen=True)
class Subject:
    """A model to be measured, or one that a finished run has measured or trained.

    Attributes:
      text: as the config states it.
      name: what ``model.name`` takes; "" for a finished run.
      revision, adapter: as in the config of a model.
      run: the folder of a finished run, or None.
      epoch: of a training run, whose model is taken, from 1; 0 for the one that it ended with.
    """

    text: str
    name: str = ""
    revision: str = ""
    adapter: str = ""
    run: Path | None = None
    epoch: int = 0

    @property
    def key(self) -> tuple:
        """The same for two spellings of one model in one place."""
        parts = (self.name, self.adapter, str(self.run) if self.run else "")
        real = (str(_path(p).resolve()) if p and _path(p).exists() else p for p in parts)
        return (*real, self.revision, self.epoch)


def _path(text: str) -> Path:
    return Path(text).expanduser()


def parse(text: str) -> Subject:
    """One model: ``model``, ``model@revision``, ``model+adapter``, ``run:<folder>[@<epoch>]``.

    What exists is a path as it is written, and the longest beginning that exists is the model: a
    folder's name may hold "+" and "@". A hub id holds neither.

    >>> found = parse("owner/model@v1+runs/cft/export/adapter")
    >>> found.name, found.revision, found.adapter
    ('owner/model', 'v1', 'runs/cft/export/adapter')
    """
    text = text.strip()
    if text.startswith(RUN):
        return _run(text)
    if _path(text).exists():
        return Subject(text, text)
    name, adapter = _divided(text, "+")
    revision = ""
    if not _path(name).exists():
        name, revision = _divided(name, "@")
    return Subject(text, name.strip(), revision.strip(), adapter.strip())


def _divided(text: str, sign: str) -> tuple[str, str]:
    """The text before and after a sign: the last one before which a path exists, or the first."""
    for i in reversed([i for i, letter in enumerate(text) if letter == sign]):
        if _path(text[:i]).exists():
            return text[:i], text[i + 1 :]
    before, _, after = cut(text, sign)
    return before, after


def _run(text: str) -> Subject:
    """A run's folder and the epoch behind it; a folder may have such a name itself."""
    place = text.removeprefix(RUN)
    if not _path(place).exists():
        folder, _, epoch = cut(place, "@", last=True)
        if folder and epoch.isdecimal() and int(epoch):
            return Subject(text, run=_path(folder), epoch=int(epoch))
    return Subject(text, run=_path(place))


def of_config(config: ml_collections.ConfigDict) -> Subject:
    """``config.model``."""
    model = config.model
    text = model.name + (f"@{model.revision}" if model.revision else "")
    text += f"+{model.adapter}" if model.adapter else ""
    return Subject(text, model.name, model.revision, model.adapter)


def parse_labelled(text: str, field: str, taken: Sequence[str] = ()) -> dict[str, Subject]:
    """The models of a field such as ``config.alignment.models``, by label, in order.

    Args:
      text: see ``SPELLING``.
      field: what messages call it.
      taken: labels that are not free.

    Raises:
      UserError: an entry that is not understood, or a label that is taken or appears twice.
    """
    entries = labelled(text, field, SPELLING, taken)
    return {label: parse(model) for label, model in entries.items()}


def check(subject: Subject, where: str) -> None:
    """Raises UserError for a model, adapter or run on this machine that cannot be read.

    What must come from the hub is found missing in its turn.

    Args:
      subject: to be checked.
      where: what the message calls the place that names it: a field, and a label in it.
    """
    with trained.blamed_on(where):
        if subject.run is not None:
            trained.read_run(subject.run, subject.epoch)
        else:
            check_files(subject)


def check_files(subject: Subject) -> None:
    """Raises UserError for a model or adapter on this machine that cannot be read."""
    if subject.name.startswith(OFFLINE) or (subject.name and _path(subject.name).exists()):
        checkpoint = open_checkpoint(subject.name, subject.revision or None)
        if subject.adapter and _path(subject.adapter).exists():
            peft.read_adapter(subject.adapter, checkpoint.config)
    elif not _may_be_hub(subject.name):
        raise UserError(f"{subject.text}: no such file or folder, and not a hub id (owner/name).")


def _may_be_hub(name: str) -> bool:
    return not name.startswith((".", "/", "~")) and name.count("/") == 1


def base_of(subject: Subject) -> tuple[str, str | None]:
    """Name and revision of the checkpoint whose tokenizer and dimensions a model has."""
    if subject.run is None:
        return subject.name, subject.revision or None
    setting = trained.read_run(subject.run, subject.epoch).config.model
    return setting.name, setting.revision or None


def config_of(config: ml_collections.ConfigDict, subject: Subject) -> ml_collections.ConfigDict:
    """The config of a run with this subject, not a run's, as its ``model``."""
    derived = config.copy_and_resolve_references()
    derived.model.name, derived.model.revision = subject.name, subject.revision
    derived.model.adapter = subject.adapter
    return derived


def load(config: ml_collections.ConfigDict, subject: Subject) -> Model:
    """A model on the config's mesh, in its dtype and attention.

    What a run has trained is restored from its checkpoint; its base and quantisation are the run's.

    Raises:
      UserError: it cannot be read.
    """
    derived = config_of(config, subject)
    derived.job = "evaluate"  # nothing trains: no float32 copy
    if subject.run is None:
        return base_model.load(derived, config.model.quantize)
    run = trained.read_run(subject.run, subject.epoch)
    setting = run.config.model
    derived.model.name, derived.model.revision = setting.name, setting.revision
    derived.model.adapter = setting.adapter
    with run.same_base():
        model = base_model.load(derived, setting.quantize)
    full = run.config.train.method == "full"
    adapter = None
    if setting.adapter:
        adapter = peft.read_adapter(setting.adapter, model.config)
    checkpoint = models.open_checkpoint(setting.name, setting.revision or None)
    lora = trained.lora_of(run, adapter, checkpoint)
    mesh = model.mesh or meshes.default_mesh()
    abstract = trained.abstract_trained(model.config, mesh, lora)
    if full:
        model = model.without_params()  # freed first: what was trained takes their place
    checkpoints = run.checkpoints(model.fingerprint)
    try:
        state = checkpoints.restore_trainable(abstract)
        epoch = "epoch " if subject.epoch else ""
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
