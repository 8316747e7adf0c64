"""Where a run's metrics go beside metrics.jsonl: TensorBoard and Weights & Biases, as extras.

metrics.jsonl is the record; a sink shows its numbers elsewhere, and no fault of a sink stops a run.
"""

import importlib.util
import os
import pathlib
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from calib_jax.config import split_list
from calib_jax.errors import UserError

# name in config.report.writers -> (package to import, what to install)
EXTRAS = {
    "tensorboard": ("tensorboardX", 'pip install "calib_jax[tensorboard]"'),
    "wandb": ("wandb", 'pip install "calib_jax[wandb]"'),
}
Line = Mapping[str, Any]


class Sink(Protocol):
    """Takes the lines of metrics.jsonl."""

    def reset(self, lines: Sequence[Line]) -> None:
        """Starts (again) from exactly these lines."""

    def write(self, line: Line) -> None:
        """Adds one line."""

    def close(self) -> None:
        """Writes what is pending."""


def check(names: str) -> tuple[str, ...]:
    """The sinks that ``config.report.writers`` names.

    Raises:
      UserError: an unknown name, or one whose package is not installed.
    """
    chosen = split_list(names)
    for name in chosen:
        if name not in EXTRAS:
            raise UserError(
                f"config.report.writers names {name!r}; choose from: {', '.join(EXTRAS)}; "
                "metrics.jsonl is written always"
            )
        package, remedy = EXTRAS[name]
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"config.report.writers names {name!r}, which needs the package {package}: {remedy}"
            )
    return chosen


def make(names: str, workdir: pathlib.Path, config: Mapping[str, Any] | None = None) -> list[Sink]:
    """The sinks of a run's folder, each guarded: a fault is said once and ends that sink alone.

    Args:
      names: ``config.report.writers``.
      workdir: the run's folder; a sink keeps its files in a folder of its own name there.
      config: the run's configuration, shown by Weights & Biases.
    """
    makers = {
        "tensorboard": lambda: TensorBoard(workdir / "tensorboard"),
        "wandb": lambda: WeightsAndBiases(workdir, config or {}),
    }
    return [_Guarded(name, makers[name]) for name in check(names)]


def scalars(line: Line) -> dict[str, float]:
    """The numbers of a line by name: "train/loss", "estep/conf_ece", "validation/conf_ece".

    Lists (bin counts, letter counts) and null stay in metrics.jsonl alone.

    Example:
        >>> scalars({"kind": "eval", "split": "dev", "step": 3, "epoch": 0, "nll": 1.5, "x": None})
        {'dev/epoch': 0, 'dev/nll': 1.5}
    """
    group = line.get("split") or line["kind"]
    return {
        f"{group}/{key}": value
        for key, value in line.items()
        if key not in ("kind", "step", "split")
        and isinstance(value, (int, float))
        and not isinstance(value, bool)
    }


class TensorBoard:
    """Event files in ``folder``; a resumed run writes them anew from metrics.jsonl."""

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        self._writer: Any = None

    def reset(self, lines: Sequence[Line]) -> None:
        self.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        for line in lines:
            self.write(line)

    def write(self, line: Line) -> None:
        if self._writer is None:
            import tensorboardX

            self._writer = tensorboardX.SummaryWriter(str(self.folder), flush_secs=10)
        for name, value in scalars(line).items():
            self._writer.add_scalar(name, value, line["step"])

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class WeightsAndBiases:
    """One W&B run per folder; offline unless WANDB_MODE says otherwise (`wandb sync` uploads it).

    Offline, a resumed run is written anew from metrics.jsonl, so nothing appears twice. Online,
    it continues under the same id, and lines up to the last step that the server has are left out.
    """

    def __init__(self, workdir: pathlib.Path, config: Mapping[str, Any]):
        self.workdir, self.config = workdir, config
        self._run: Any = None
        self._sent = -1

    @property
    def _offline(self) -> bool:
        return os.environ.get("WANDB_MODE", "offline") != "online"

    def _open(self) -> None:
        import wandb

        note = self.workdir / "wandb-run-id"
        if not note.exists():
            self.workdir.mkdir(parents=True, exist_ok=True)
            note.write_text(secrets.token_hex(4))
        self._run = wandb.init(
            project="calib_jax",
            id=note.read_text().strip(),
            name=self.workdir.name,
            dir=str(self.workdir),
            config=dict(self.config),
            mode=os.environ.get("WANDB_MODE", "offline"),
            resume=None if self._offline else "allow",
            # Waiting for a server or for a key at a prompt must not hold up the run.
            settings=wandb.Settings(
                silent=True, console="off", init_timeout=60, login_timeout=30, x_disable_stats=True
            ),
        )
        self._run.define_metric("*", step_metric="step")
        if not self._offline:
            self._sent = int(self._run.summary.get("step") or -1)

    def reset(self, lines: Sequence[Line]) -> None:
        self.close()
        if self._offline:
            shutil.rmtree(self.workdir / "wandb", ignore_errors=True)
        for line in lines:
            self.write(line)

    def write(self, line: Line) -> None:
        if self._run is None:
            self._open()
        if line["step"] > self._sent:
            self._run.log({"step": line["step"], **scalars(line)})

    def close(self) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None


class _Guarded:
    """A sink whose faults are said once on standard error and then cost nothing more."""

    def __init__(self, name: str, make_sink):
        self.name = name
        self._sink = None
        self._make, self._broken = make_sink, False

    def _do(self, what: str, *arguments) -> None:
        if self._broken:
            return
        try:
            self._sink = self._sink or self._make()
            getattr(self._sink, what)(*arguments)
        except Exception as error:  # whatever a package of others raises
            self._broken = True
            print(
                f"calib_jax: {self.name} is off from here on ({type(error).__name__}: {error}); "
                "metrics.jsonl continues",
                file=sys.stderr,
            )

    def reset(self, lines: Sequence[Line]) -> None:
        self._do("reset", lines)

    def write(self, line: Line) -> None:
        self._do("write", line)

    def close(self) -> None:
        if self._sink is not None:
            self._do("close")
