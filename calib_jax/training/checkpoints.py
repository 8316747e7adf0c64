"""Checkpoints with Orbax: saved in the background, complete or absent, restored on any mesh."""

import contextlib
import logging
import os
import re
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from calib_jax import provenance
from calib_jax.errors import UserError, UserNotice
from calib_jax.training import manifest

for _name in ("absl", "asyncio"):  # every phase of every save, every error that is raised as well
    logging.getLogger(_name).setLevel(logging.CRITICAL)

_TEMPORARY = ".orbax-checkpoint-tmp"


class Checkpoints:
    """The checkpoints of one run.

    Each holds ``state`` (trainable parameters, optimiser state, step), ``e_step`` (the epoch's
    bins and targets) and ``position`` (epoch, step within it, fingerprint of the base model: plain
    JSON). Orbax writes into a temporary folder and renames it, so a killed save leaves nothing.

    A manifest of checksums is part of every checkpoint, and the newest one is held against its own
    before anything else: a damaged one is set aside (``<step>.corrupt``) with a notice, and the one
    before it is the newest then. Process 0 decides for all.

    Args:
      folder: of the checkpoints.
      keep: how many of the newest stay; None for all.
      fingerprint: of the base model; a checkpoint of another one is refused.
      read_only: nothing is made, renamed or deleted.
      step: with read_only, the checkpoint that is read; None for the newest.

    Raises:
      UserError: read_only, and the checkpoint that is to be read is damaged.
    """

    def __init__(
        self,
        folder: Path,
        *,
        keep: int | None,
        fingerprint: str,
        read_only: bool = False,
        step: int | None = None,
    ):
        self._fingerprint = fingerprint
        self._folder = folder.resolve()
        self._saving: int | None = None
        self._step = step
        self._which = "the newest checkpoint" if step is None else "the checkpoint"
        self._check_newest(read_only)
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                enable_async_checkpointing=True,
                create=not read_only,
                read_only=read_only,
                # A shared disk need not look the same to all at once.
                single_host_load_and_broadcast=jax.process_count() > 1,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._write_manifest),
            ),
        )

    def _check_newest(self, read_only: bool) -> None:
        """Sets damaged checkpoints aside until the newest is good; removes what kills left."""
        refused = None
        if jax.process_index() == 0 and self._folder.is_dir():
            for path in [] if read_only else self._folder.glob(f"*{_TEMPORARY}*"):
                shutil.rmtree(path, ignore_errors=True)
            steps = [path for path in self._folder.iterdir() if path.name.isdigit()]
            if self._step is not None:
                steps = [self._folder / str(self._step)]
            for path in sorted(steps, key=lambda path: int(path.name), reverse=True):
                if (fault := manifest.fault(path)) is None:
                    break
                if read_only:
                    refused = f"{path}: {self._which} is damaged ({fault})"
                    break
                aside = path.with_name(f"{path.name}.corrupt")
                while aside.exists():
                    aside = aside.with_name(f"{aside.name}.corrupt")
                path.rename(aside)
                warnings.warn(
                    f"{path}: the checkpoint is damaged ({fault}). It is set aside as "
                    f"{aside.name}, and the one before it is the newest now.",
                    UserNotice,
                    stacklevel=1,
                )
        if jax.process_count() > 1:  # the others wait here, whatever process 0 has to do
            told = np.array(refused is not None)
            if multihost_utils.broadcast_one_to_all(told) and refused is None:
                refused = f"{self._folder}: {self._which} is damaged"
        if refused and self._step is not None:
            raise UserError(f"{refused}. It cannot be mended; choose another.")
        if refused:
            raise UserError(
                f"{refused}. To train it again from the checkpoint before, delete the run's "
                "summary.json and start its command."
            )

    def latest_step(self) -> int | None:
        """The newest checkpoint's number, or that of the one that is read; None where none is."""
        step = self._manager.latest_step() if self._step is None else self._step
        return None if step is None else int(step)  # Orbax broadcasts it as an int32

    def save(self, step: int, state: Any, e_step: Any, position: dict) -> None:
        """Starts saving; the arrays are copied before this returns, so they may be donated.

        Raises:
          UserError: this save or the one before it failed, for example on a full disk.
        """
        if self.latest_step() == step:
            return
        with self._explained():
            self._manager.wait_until_finished()  # the one before, under its own name
            self._saving = step
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    e_step=ocp.args.StandardSave(e_step),
                    position=ocp.args.JsonSave({**position, "fingerprint": self._fingerprint}),
                ),
            )

    def _write_manifest(self) -> None:
        """Called by Orbax in process 0 when every process's files are there, before the rename."""
        (folder,) = self._folder.glob(f"{self._saving}{_TEMPORARY}*")
        manifest.write(folder)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """A failed save as one message; what there is of it is removed, to give the space back."""
        try:
            yield
        except (OSError, ValueError) as error:
            # TensorStore's errors are ValueErrors with the system's number in their text.
            number = re.search(r"os_error_code='(\d+)'", str(error))
            if not number and not isinstance(error, OSError):
                raise
            told = getattr(error, "strerror", None) or str(error)
            reason = os.strerror(int(number[1])) if number else told
            if jax.process_index() == 0:
                for path in self._folder.glob(f"*{_TEMPORARY}*"):
                    shutil.rmtree(path, ignore_errors=True)
            raise UserError(
                f"{self._folder / str(self._saving)}: the checkpoint could not be saved: {reason}. "
                "The ones before it are as they were; once this is mended, the same command goes "
                "on from there."
            ) from None

    def restore(self, state: Any, e_step: Any) -> tuple[Any, Any, dict]:
        """The newest checkpoint, laid out like the arrays (or abstract arrays) given.

        Raises:
          UserError: it belongs to another base model, or it cannot be read.
        """
        restored, position = self._restore(
            state=ocp.args.StandardRestore(state), e_step=ocp.args.StandardRestore(e_step)
        )
        return restored.state, restored.e_step, position

    def restore_trainable(self, trainable: Any) -> Any:
        """The trained parameters of a checkpoint alone: no optimiser's moments are read.

        Args:
          trainable: abstract arrays with the shardings wanted.

        Raises:
          UserError: it belongs to another base model, it cannot be read, or it holds other arrays.
        """
        wanted = {"trainable": trainable}
        layouts = ocp.checkpoint_utils.construct_restore_args(wanted)
        restored, _ = self._restore(
            state=ocp.args.PyTreeRestore(wanted, restore_args=layouts, partial_restore=True)
        )
        found = restored.state["trainable"]
        # Where the checkpoint has no such array, Orbax hands back what was asked for.
        if missing := [
            jax.tree_util.keystr(path)
            for path, leaf in jax.tree_util.tree_leaves_with_path(found)
            if not isinstance(leaf, jax.Array)
        ]:
            raise UserError(
                f"{self._folder}: {self._which} holds no {missing[0]}; it was trained with other "
                "settings (config.train.method, config.train.lora)."
            )
        return found

    def _restore(self, **items: Any) -> tuple[Any, dict]:
        """The items of the newest checkpoint, and its position; the base is checked first."""
        step = self.latest_step()
        if step is None:
            raise UserError(
                f"{self._folder}: there is no checkpoint that could be read. Choose another "
                "--workdir to start anew."
            )
        for path in sorted((self._folder / str(step)).rglob("*")):
            if path.is_file():
                provenance.reads(path)
        try:
            position = self._manager.restore(
                step, args=ocp.args.Composite(position=ocp.args.JsonRestore())
            ).position
            if position["fingerprint"] != self._fingerprint:
                raise UserError(
                    f"{self._folder}: the checkpoint was made from another base model (fingerprint "
                    f"{position['fingerprint']}, this one has {self._fingerprint}). Choose another "
                    "--workdir, or restore the model that was there."
                )
            return self._manager.restore(step, args=ocp.args.Composite(**items)), position
        except UserError:
            raise
        except (KeyError, OSError, ValueError) as error:  # whole, by its checksums
            raise UserError(
                f"{self._folder / str(step)}: the checkpoint cannot be read ({error}). Delete this "
                "folder to continue from an earlier checkpoint or from the start."
            ) from None

    def reached_preemption(self, step: int) -> bool:
        """Whether the pod's coordination service announced a preemption (multi-host only)."""
        return jax.process_count() > 1 and self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Returns when everything that was started is on disk.

        Raises:
          UserError: a save failed, for example on a full disk.
        """
        with self._explained():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """As ``wait``; nothing can be saved afterwards."""
        self.wait()
        self._manager.close()


# Folders of a run: the newest checkpoints, and among them what every epoch has trained.
NEWEST, EPOCHS = "checkpoints", "checkpoints/epochs"


def kept_epochs(
    config: ml_collections.ConfigDict, workdir: Path, fingerprint: str
) -> Checkpoints | None:
    """Where a run keeps what each of its epochs has trained; None where it does not.

    Their ``state`` is the trainable parameters alone, and their step the epoch, from 1.
    """
    if not config.checkpoint.keep_epochs:
        return None
    return Checkpoints(workdir / EPOCHS, keep=None, fingerprint=fingerprint)
