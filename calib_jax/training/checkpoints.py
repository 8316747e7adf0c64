"""Checkpoints with Orbax: saved in the background, complete or absent, restored on any mesh."""

import logging
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from calib_jax.errors import UserError

logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax reports every phase of every save


class Checkpoints:
    """The checkpoints of one run.

    Each holds ``state`` (trainable parameters, optimiser state, step), ``e_step`` (the epoch's
    bins and targets) and ``position`` (epoch, step within it, fingerprint of the base model: plain
    JSON). Orbax writes into a temporary folder and renames it, so a killed save leaves nothing.

    Args:
      folder: of the checkpoints.
      keep: how many of the newest stay.
      fingerprint: of the base model; a checkpoint of another one is refused.
    """

    def __init__(self, folder: Path, *, keep: int, fingerprint: str):
        self._fingerprint = fingerprint
        self._folder = folder.resolve()
        self._manager = ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep, enable_async_checkpointing=True, create=True
            ),
        )

    def latest_step(self) -> int | None:
        return self._manager.latest_step()

    def save(self, step: int, state: Any, e_step: Any, position: dict) -> None:
        """Starts saving; the arrays are copied before this returns, so they may be donated."""
        if self._manager.latest_step() == step:
            return
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state),
                e_step=ocp.args.StandardSave(e_step),
                position=ocp.args.JsonSave({**position, "fingerprint": self._fingerprint}),
            ),
        )

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
        """The trained parameters of the newest checkpoint alone: no optimiser's moments are read.

        Args:
          trainable: abstract arrays with the shardings wanted.

        Raises:
          UserError: it belongs to another base model, or it cannot be read.
        """
        wanted = {"trainable": trainable}
        layouts = ocp.checkpoint_utils.construct_restore_args(wanted)
        restored, _ = self._restore(
            state=ocp.args.PyTreeRestore(wanted, restore_args=layouts, partial_restore=True)
        )
        return restored.state["trainable"]

    def _restore(self, **items: Any) -> tuple[Any, dict]:
        """The items of the newest checkpoint, and its position; the base is checked first."""
        step = self._manager.latest_step()
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
        except (KeyError, OSError, ValueError) as error:  # damaged JSON or arrays, lost files
            raise UserError(
                f"{self._folder / str(step)}: the checkpoint cannot be read ({error}). Delete this "
                "folder to go on from an earlier checkpoint or from the start."
            ) from None

    def reached_preemption(self, step: int) -> bool:
        """Whether the pod's coordination service announced a preemption (multi-host only)."""
        return jax.process_count() > 1 and self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Returns when everything that was started is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self._manager.wait_until_finished()
        self._manager.close()
