"""The job ``export``: a run's model, or any model, as a Hugging Face folder or a PEFT adapter."""

import contextlib
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from calib_jax.api import make_mesh
from calib_jax.config import check_config
from calib_jax.errors import UserError, UserNotice
from calib_jax.models import export, peft
from calib_jax.models import model as models
from calib_jax.models.families import FAMILIES
from calib_jax.models.lora import LoraConfig
from calib_jax.models.table import Row, parameter_table
from calib_jax.models.weights import stored_dtype
from calib_jax.parallel.shards import check_mesh, place_lora, row_sharding
from calib_jax.reports import Progress, model_card, reproduction
from calib_jax.runs import prompt_file
from calib_jax.runs.base_model import loading_bar
from calib_jax.runs.costs import versions
from calib_jax.runs.run import LOCK, Run, agreed, as_json, locked, say
from calib_jax.runs.trained import (
    TrainedRun,
    abstract_trained,
    blamed_on,
    earlier_runs,
    read_run,
)
from calib_jax.runs.trained import lora_of as run_lora_of


def main(run: Run) -> None:
    """Writes the export to ``workdir``, whole or not at all.

    Raises:
      UserError: bad input, or a destination that holds something else.
      Stopped: SIGTERM; nothing is left behind.
    """
    config, workdir, stop = run.config, run.workdir, run.stop
    # --- What is asked for -----------------------------------------------------------------------
    check_config(config)
    asked = config.export
    check_destination(workdir)
    trained = None
    if asked.run:
        with blamed_on("config.export.run"):
            trained = read_run(Path(asked.run), asked.epoch)
    setting = trained.config if trained else config
    adapter = None
    with trained.same_base() if trained else contextlib.nullcontext():
        checkpoint = models.open_checkpoint(setting.model.name, setting.model.revision or None)
        if setting.model.adapter:
            adapter = peft.read_adapter(setting.model.adapter, checkpoint.config)
    if not adapter:
        models.check_no_adapter_beside(checkpoint.path)
    elif warning := peft.other_base(adapter, checkpoint.name):
        warnings.warn(warning, UserNotice, stacklevel=1)
    lora: Any = lora_of(trained, adapter, checkpoint, asked.format)
    fingerprint = checkpoint.fingerprint
    if adapter:
        fingerprint = peft.joint_fingerprint(fingerprint, adapter)
    checkpoints: Any = trained.checkpoints(fingerprint) if trained else None
    step: Any = checkpoints.latest_step() if checkpoints else None
    if asked.epoch:
        step = f"epoch {step}"
    made_of = (
        setting
        if trained
        else ml_collections.ConfigDict({key: setting[key] for key in ("model", "prompt")})
    )
    identity = _identity(asked, made_of, fingerprint, step)
    if _done(workdir, identity):
        say(f"{workdir} holds this export already.")
        return

    # --- The weights -----------------------------------------------------------------------------
    mesh = make_mesh(config.mesh.shape)
    check_mesh(checkpoint.config, mesh)
    full = trained is not None and trained.config.train.method == "full"
    params: Any = None
    adapters: Any = None
    if adapter and not trained:
        adapters = place_lora(adapter.tree, mesh, checkpoint.config, lora)
    if trained:
        abstract = abstract_trained(checkpoint.config, mesh, None if full else lora)
        state = checkpoints.restore_trainable(abstract)
        checkpoints.close()
        params, adapters = (state, None) if full else (None, state)
    if asked.format == "merged" and not full:
        say(f"Loading {checkpoint.name}")
        with loading_bar() as on_bytes:
            params = models.load(
                checkpoint,
                param_dtype="stored",
                shardings=row_sharding(mesh),
                mesh=mesh,
                on_bytes=on_bytes,
            ).params

    def dtype_of(row: Row) -> Any:
        if asked.dtype == "stored":
            return stored_dtype(checkpoint.source, checkpoint.config, row)
        return jnp.dtype(asked.dtype)

    if asked.format == "adapter":
        dtype = jnp.dtype("float32" if asked.dtype == "stored" else asked.dtype)
    else:
        dtype = jnp.dtype(dtype_of(parameter_table(checkpoint.config)[0]))

    # --- The files -------------------------------------------------------------------------------
    base = base_name(setting.model.name)
    facts = model_card.Facts(
        name=base,
        revision=setting.model.revision,
        on_hub=not setting.model.name.startswith("offline:")
        and not Path(setting.model.name).expanduser().exists(),
        fingerprint=fingerprint,
        adapter=setting.model.adapter,
        architecture=FAMILIES[checkpoint.config.family].architecture,
        format=asked.format,
        dtype=str(dtype),
        identity=identity,
        lora=lora,
        config=trained.config.to_dict() if trained else None,
        summary=trained.summary if trained else None,
        versions=versions(),
        earlier=earlier_runs(setting.model.adapter) if trained else (),
        loadable=loadable(checkpoint),
        prompt=prompt_of(setting, checkpoint, trained),
        epoch=asked.epoch,
    )
    with whole_folder(workdir) as folder:
        if asked.format == "adapter":
            peft.write_adapter(
                folder,
                adapters,
                lora,
                checkpoint.config,
                base=base,
                revision=setting.model.revision,
                dtype=dtype,
            )
        else:
            count = sum(
                checkpoint.config.num_layers if row.stacked else 1
                for row in parameter_table(checkpoint.config)
            )
            with Progress(count, "export", unit="tensors") as bar:

                def on_tensor() -> None:
                    bar.update(1)
                    stop.check()

                export.write_checkpoint(
                    folder,
                    params,
                    checkpoint.config,
                    dtype_of,
                    adapters=adapters,
                    lora=lora,
                    max_shard_bytes=asked.max_shard_bytes,
                    on_tensor=on_tensor,
                )
            if jax.process_index() == 0:
                write_companions(folder, checkpoint, dtype)
        if jax.process_index() == 0:
            (folder / "README.md").write_text(model_card.text(facts), encoding="utf-8")
            if facts.prompt is not None:
                export.write_json(folder / reproduction.FILE, facts.prompt)
    if jax.process_index() == 0:
        size = sum(path.stat().st_size for path in workdir.iterdir())
        say(
            f"Wrote {workdir}: {asked.format}, {size / 1e6:,.1f} MB. README.md says how to load it."
        )


def check_destination(workdir: Path) -> None:
    """Raises UserError where no folder of that name can be made: before minutes are spent."""
    place = workdir.resolve()
    while not place.exists():
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise UserError(
            f"--workdir {workdir}: nothing can be written in {place}. Choose another folder."
        )


def base_name(name: str) -> str:
    """A base as others find it from wherever they are: a path on this machine is whole."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.exists() else name


def loadable(checkpoint: models.Checkpoint) -> bool:
    """Whether transformers reads the base's files as they are."""
    kinds = "*.safetensors", "*.bin"
    return checkpoint.path.is_dir() and any(any(checkpoint.path.glob(kind)) for kind in kinds)


def prompt_of(
    setting: ml_collections.ConfigDict, checkpoint: models.Checkpoint, trained: TrainedRun | None
) -> dict[str, Any] | None:
    """What prompt.json holds; None, and a line that says why, where it cannot be told."""
    try:
        return prompt_file.describe(setting, checkpoint, trained.summary if trained else None)
    except UserError as error:
        say(f"No {reproduction.FILE} is written: {error}")
        return None


def write_companions(folder: Path, checkpoint: models.Checkpoint, dtype: jnp.dtype) -> None:
    """What stands beside the weights: config.json, the tokenizer's files, generation settings."""
    stated = str(dtype), FAMILIES[checkpoint.config.family].architecture
    raw, tokenizer = checkpoint.raw_config, checkpoint.tokenizer
    if tokenizer is None:
        say(f"{checkpoint.name} has no tokenizer, so none is written.")
    if checkpoint.path.is_dir():
        content = export.hf_config(raw, *stated)
        export.copy_files(checkpoint.path, folder)
    else:
        content = export.gguf_config(raw, *stated, checkpoint.config, tokenizer)
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)
    export.write_json(folder / "config.json", content)


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside ``path``, which takes its name when the block succeeds.

    What a killed export left is removed by the next one. Processes other than 0 write nothing.
    """
    path = path.resolve()  # "." and links to a folder have no name of their own
    temporary = path.with_name(f".{path.name}.partial")
    if jax.process_index() != 0:
        yield temporary
        return
    temporary.mkdir(parents=True, exist_ok=True)
    lock = contextlib.ExitStack()
    lock.enter_context(locked(temporary))  # before anything in it is touched
    try:
        for left in temporary.iterdir():
            if left.is_dir():
                shutil.rmtree(left)
            elif left.name != LOCK:
                left.unlink()
        yield temporary
        (temporary / LOCK).unlink()
        # The data must be on the disk before the name is, or a power cut leaves empty files.
        for place in (*temporary.iterdir(), temporary):
            handle = os.open(place, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        lock.close()


def lora_of(
    trained: TrainedRun | None,
    adapter: peft.Adapter | None,
    checkpoint: models.Checkpoint,
    wanted: str,
) -> LoraConfig | None:
    """The settings of the adapters that are exported or merged; None where there are none."""
    found = adapter.lora if adapter else None
    if trained:
        found = run_lora_of(trained, adapter, checkpoint)
    if trained and wanted == "adapter" and not found:
        raise UserError(
            f"{trained.folder}: the run trained all parameters (train.method 'full'), so there is "
            "no adapter. Export with --config.export.format=merged."
        )
    return found


def _identity(
    asked: ml_collections.ConfigDict,
    setting: ml_collections.ConfigDict,
    fingerprint: str,
    step: int | str | None,
) -> str:
    """A hash of what is exported and how; the model card carries it."""
    how = {key: asked[key] for key in ("format", "dtype", "max_shard_bytes")}
    content = json.dumps([how, as_json(setting), fingerprint, step])
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def _done(workdir: Path, identity: str) -> bool:
    """Whether the destination holds this very export; UserError when it holds anything else."""
    full = workdir.exists() and (not workdir.is_dir() or any(workdir.iterdir()))
    if not agreed(full):
        return False
    card = workdir / "README.md"
    if agreed(card.is_file() and model_card.identity_line(identity) in card.read_text("utf-8")):
        return True
    raise UserError(
        f"{workdir} is not empty and does not hold this export. Choose another --workdir, or "
        "delete it."
    )
