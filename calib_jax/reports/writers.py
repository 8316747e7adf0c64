"""metrics.jsonl: a JSON object per line, flushed at once, no line doubled by a resumed run."""

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from calib_jax.atomic import write_text
from calib_jax.errors import UserError
from calib_jax.reports import sinks
from calib_jax.reports.sinks import Sink

KINDS = ("train", "estep", "eval")


def plain(value: Any) -> Any:
    """`value` as JSON can hold it: numpy and jax values become Python's, NaN and ±inf None.

    JSON has no NaN; `json.dumps` would write one all the same and other readers refuse the file.
    Dictionaries, lists and tuples are converted throughout; dictionary keys become strings.
    """
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, (np.ndarray, np.generic, jax.Array)):
        return plain(np.asarray(value).tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return value


def _complete_lines(data: bytes) -> bytes:
    """`data` up to its last newline: what follows was torn off by a kill."""
    return data[: data.rfind(b"\n") + 1]


def _parse(line: bytes, path: pathlib.Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(
            f"{path}, line {number}: not valid JSON ({error}). Remove the line, or start in a new "
            "workdir."
        ) from None
    if not isinstance(row, dict) or not isinstance(row.get("step"), int):
        raise UserError(
            f"{path}, line {number}: not an object with an integer 'step'. Remove the line, or "
            "start in a new workdir."
        )
    return row


def read_metrics(path: str | os.PathLike) -> list[dict[str, Any]]:
    """The lines of a metrics.jsonl, in order; a torn last line is left out.

    Raises:
      UserError: a line before the last is not a JSON object with an integer step.
    """
    path = pathlib.Path(path)
    lines = _complete_lines(path.read_bytes()).splitlines()
    return [_parse(line, path, number) for number, line in enumerate(lines, 1) if line.strip()]


def open_metrics(
    workdir: str | os.PathLike, names: str = "", config: Mapping[str, Any] | None = None
) -> "MetricsWriter":
    """The writer of a run's folder: metrics.jsonl and the sinks of ``config.report.writers``.

    Args:
      workdir: the run's folder.
      names: ``config.report.writers``, such as "tensorboard,wandb"; "" for metrics.jsonl alone.
      config: the run's configuration, for the sinks that show it.

    Raises:
      UserError: an unknown sink, or one whose package is not installed.
    """
    workdir = pathlib.Path(workdir)
    others = sinks.make(names, workdir, config)
    return MetricsWriter(workdir / "metrics.jsonl", sinks=others)


class MetricsWriter:
    """Appends lines {"step", "epoch", "kind", ...} to a file and flushes each.

    Several runs may append to one file in turn. A line that a kill tore in two is cut off on
    opening. After `truncate_after(step)` the lines of that very step are kept, and when the resumed
    run writes one of them again (same kind, step, epoch and split), the first one stands: so a
    resumed run leaves the same lines as an uninterrupted one, whether the kill came before or after
    the line was written.

    Args:
      path: the file; its folder is created.
      enabled: whether to write at all; None: on process 0 of a multi-host run only.
      sinks: where the same lines go as well (`sinks.make`); closed with the writer.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        enabled: bool | None = None,
        sinks: Sequence[Sink] = (),
    ):
        self.path = pathlib.Path(path)
        self.sinks = tuple(sinks)
        self.enabled = jax.process_index() == 0 if enabled is None else enabled
        self._kept: set[tuple] = set()
        self._file: Any = None
        if self.enabled:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open()

    def _open(self) -> None:
        self._file = self.path.open("a+b")
        self._file.seek(0)
        whole = len(_complete_lines(self._file.read()))
        self._file.truncate(whole)
        self._file.seek(0, os.SEEK_END)

    @staticmethod
    def _key(row: dict[str, Any]) -> tuple:
        return tuple(row.get(name) for name in ("kind", "step", "epoch", "split"))

    def write(self, kind: str, step: int, epoch: int, **values: Any) -> None:
        """Appends one line.

        Args:
          kind: "train" (an M-step's loss terms), "estep" (the training set's metrics) or "eval"
            (a held-out split's; name it with `split=`).
          step: optimiser steps taken so far.
          epoch: the EM epoch that the line belongs to.
          **values: numbers, strings, lists or dictionaries; NaN and infinities become null.

        Raises:
          ValueError: an unknown kind.
        """
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}; got {kind!r}")
        if not self.enabled:
            return
        row = plain({"step": int(step), "epoch": int(epoch), "kind": kind, **values})
        if self._key(row) in self._kept:
            return
        try:
            self._file.write(json.dumps(row, allow_nan=False).encode() + b"\n")
            self._file.flush()
        except OSError as error:  # a full disk; the half line is cut off on the next opening
            raise OSError(error.errno, error.strerror, os.fspath(self.path)) from error
        for sink in self.sinks:
            sink.write(row)

    def truncate_after(self, step: int) -> None:
        """Drops the lines of steps beyond `step`, the step of the checkpoint resumed from.

        Raises:
          UserError: a line of the file is not a JSON object with an integer step.
        """
        if not self.enabled:
            return
        self._file.close()
        rows = [row for row in read_metrics(self.path) if row["step"] <= step]
        self._kept = {self._key(row) for row in rows if row["step"] == step}
        write_text(self.path, "".join(json.dumps(row) + "\n" for row in rows))
        self._open()
        for sink in self.sinks:
            sink.reset(rows)

    def close(self) -> None:
        """Closes the file and the sinks."""
        if self._file is not None:
            self._file.close()
            for sink in self.sinks:
                sink.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(self, *exc_info) -> None:
        self.close()
