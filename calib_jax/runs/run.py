"""A run's folder: it belongs to one config, and it knows whether the run is finished."""

import contextlib
import dataclasses
import difflib
import fcntl
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
from jax.experimental import multihost_utils

from calib_jax import provenance
from calib_jax.atomic import write_text
from calib_jax.config import base, split_list
from calib_jax.errors import UserError
from calib_jax.provenance import Inputs
from calib_jax.reports import console, result
from calib_jax.reports.compare.comparison import current_name
from calib_jax.reports.figures import files
from calib_jax.reports.page.render import render
from calib_jax.reports.result import SUMMARY, Result
from calib_jax.reports.views import View
from calib_jax.reports.views.registry import console_of
from calib_jax.runs.costs import costs
from calib_jax.training.interrupt import StopRequest

CONFIG, INPUTS, LOCK = "config.json", "inputs.json", ".lock"
REPORT = "report.html"


def say(text: str) -> None:
    """A line for the person who watches, from one process."""
    if jax.process_index() == 0:
        print(text, flush=True)


def agreed(value: bool) -> bool:
    """Process 0's value, on every process: all of them must take the same branch."""
    if jax.process_count() == 1:
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.array(value)))


def as_json(config: ml_collections.ConfigDict) -> str:
    return json.dumps(config.to_dict(), indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _as_asked(text: str) -> str:
    """The config of a run as far as it makes the run's numbers.

    A run may change its devices; a field that its version did not have yet has the default, and a
    method that its version called otherwise its present name.
    """
    try:
        config = json.loads(text)
    except ValueError:  # not what we wrote: it differs
        return text
    config = _filled(config, base().to_dict())
    config["mesh"].pop("shape", None)
    methods = split_list(config["compare"]["methods"])
    config["compare"]["methods"] = ",".join(map(current_name, methods))
    config.pop("accept_other_code", None)
    return json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)


def _filled(there: Any, default: Any) -> Any:
    if not isinstance(there, dict) or not isinstance(default, dict):
        return there
    return {**default, **{key: _filled(value, default.get(key)) for key, value in there.items()}}


def check_workdir(workdir: Path, config: ml_collections.ConfigDict) -> None:
    """Raises UserError when the folder is another run's (the difference is shown) or no run's."""
    path = workdir / CONFIG
    if path.exists():
        there = _as_asked(path.read_text(encoding="utf-8"))
        asked = _as_asked(as_json(config))
        if there != asked:
            lines = difflib.unified_diff(there.splitlines(), asked.splitlines(), n=0, lineterm="")
            changed = [line for line in lines if line[0] in "+-" and line[:3] not in ("+++", "---")]
            raise UserError(
                f"{workdir} holds a run with another config (-: there, +: asked for):\n"
                + "\n".join(f"  {line}" for line in changed)
                + "\nChoose another --workdir, delete this one, or ask for the same config."
            )
    elif workdir.exists() and (
        not workdir.is_dir() or any(place.name != LOCK for place in workdir.iterdir())
    ):
        raise UserError(
            f"{workdir} is not empty and holds no config.json, so it is not a run's folder. Choose "
            "another --workdir."
        )


class Run:
    """A job at work in its folder.

        with Run(config, workdir, stop) as run:
            if not run.show_if_finished():
                JOBS[config.job](run)

    Within the block the folder is this process's, and what is read is taken down as the run's
    inputs. A run that has begun, or is finished, must find its inputs as they were: nothing is
    read, printed or continued otherwise. A job calls ``claim`` once its input has proven good, and
    ``finish`` at its end.

    Attributes:
      config: the run's config.
      workdir: its folder.
      stop: asked between batches whether to stop.
      started: ``time.monotonic()`` at the beginning.

    Raises:
      UserError: on entering: the folder is another run's or no run's, another process runs in it,
        an input has changed, or an unfinished run was begun by other code.
    """

    def __init__(
        self, config: ml_collections.ConfigDict, workdir: Path, stop: StopRequest | None = None
    ):
        self.config, self.workdir = config, Path(workdir)
        self.stop = StopRequest() if stop is None else stop
        self.started = time.monotonic()
        self._within = contextlib.ExitStack()

    def __enter__(self) -> "Run":
        with contextlib.ExitStack() as stack:
            stack.enter_context(running(self.workdir, self.config))
            self._within = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._within.__exit__(*error)

    @property
    def finished(self) -> bool:
        """Whether the folder holds the run's result, on every process alike."""
        return agreed((self.workdir / SUMMARY).exists())

    def claim(self, inputs: Mapping[str, str] | None = None) -> None:
        """Makes the folder this run's own; see ``claim``."""
        claim(self.workdir, self.config, inputs)

    def show_if_finished(self) -> bool:
        """Prints what the run printed at its end, where it is finished."""
        return show_if_finished(self.workdir)

    def finish(
        self,
        found: Result,
        view: Callable[[Mapping[str, Any]], View],
        quietly: bool = False,
    ) -> dict[str, Any]:
        """Writes tables, figures, the page and, last of all, ``summary.json``; then shows them.

        Called on process 0.

        Args:
          found: what the job has found.
          view: of the summary: how it is shown.
          quietly: whether nothing is printed, as by a run within another.

        Returns:
          The summary.
        """
        settle()
        summary = found.as_summary(self.config.job, costs(self.started))
        shown = view(summary)
        for path, text in shown.files.items():
            write_text(self.workdir / path, text)
        files.write(self.workdir, shown.figures)
        if shown.sections:
            command = shlex.join(["python", "-m", "calib_jax.main", *sys.argv[1:]])
            page = render(shown, summary, self.config.to_dict(), command)
            write_text(self.workdir / REPORT, page)
        result.write(self.workdir / SUMMARY, summary)
        if not quietly:
            console.show(shown.console)
            report = f"Report: {self.workdir / REPORT}    " if shown.sections else ""
            say(f"\n{report}Numbers: {self.workdir / SUMMARY}")
        return summary


@dataclasses.dataclass
class _Running:
    """A folder that this process runs in: it has begun when it is claimed, or was found so."""

    inputs: Inputs
    lock: contextlib.ExitStack
    begun: bool


_running: dict[Path, _Running] = {}


@contextlib.contextmanager
def running(workdir: Path, config: ml_collections.ConfigDict) -> Iterator[None]:
    """Within it the folder is this process's, and what is read is taken down as the run's inputs.

    A run that has begun, or is finished, must find its inputs as they were: nothing is read,
    printed or continued otherwise.

    Raises:
      UserError: the folder is another run's or no run's, another process runs in it, an input has
        changed, or an unfinished run was begun by other code.
    """
    check_workdir(workdir, config)
    place = workdir.resolve()
    with contextlib.ExitStack() as lock:
        begun = agreed((workdir / CONFIG).exists())
        finished = agreed((workdir / SUMMARY).exists())
        if begun and not finished and jax.process_index() == 0:
            lock.enter_context(locked(workdir))
        inputs = Inputs(workdir / INPUTS)
        if begun:
            _check_inputs(inputs, config, finished)
        _running[place] = _Running(inputs, lock, begun)
        try:
            if finished or jax.process_index() != 0:
                yield
            else:
                with provenance.listening(inputs):
                    yield
                settle()
        finally:
            del _running[place]
    if finished and inputs.recorded and jax.process_index() == 0:
        with contextlib.suppress(OSError):  # another's folder, which can only be read
            inputs.save(write_text)  # with the times of files that were touched


def _check_inputs(inputs: Inputs, config: ml_collections.ConfigDict, finished: bool) -> None:
    """Raises UserError, on every process, where the run in a folder must not be shown or continued.

    Of a finished run what cannot be checked is said.
    """
    workdir, refusal = inputs.path.parent, ""
    if jax.process_index() == 0:
        changed, gone = inputs.compare()
        now = provenance.code_version()
        if changed:
            refusal = inputs.refusal(changed)
        elif not inputs.recorded:
            said = f"{workdir} does not say what it was made from: an earlier version made it"
            if finished:
                print(f"{said}. Whether its inputs have changed is not known.", flush=True)
            else:
                refusal = f"{said}, and did not finish it. Choose another --workdir, or delete it."
        elif finished and gone:
            print(f"No longer there, so not compared: {', '.join(gone)}.", flush=True)
        elif (
            not finished
            and str(inputs.code).split(", ")[-1] != now
            and not config.accept_other_code
        ):
            refusal = (
                f"{workdir} was begun by the code {inputs.code}, and this is {now}: its numbers "
                "would come from both. Choose another --workdir, delete this one, or continue all "
                "the same with --config.accept_other_code=True."
            )
        if finished and inputs.recorded and inputs.code != now:
            print(f"{workdir} was made by the code {inputs.code}; this is {now}.", flush=True)
        if not finished and not refusal and inputs.recorded:
            inputs.add_code(now)
    if agreed(bool(refusal)):
        raise UserError(refusal or f"{workdir} cannot be continued; process 0 says why.")


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Within it no other process can lock this folder, on this machine or a shared file system.

    Raises:
      UserError: another process has it.
    """
    path = folder / LOCK
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"{folder}: another run is at work in it ({file.read().strip()}). Wait for it, or "
                "choose another --workdir."
            ) from None
        except OSError as error:  # a file system without locks
            say(f"{folder}: cannot be locked ({error.strerror}); run only one command in it.")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield


def claim(
    workdir: Path, config: ml_collections.ConfigDict, inputs: Mapping[str, str] | None = None
) -> None:
    """Makes the folder this run's own; called once its input has proven good.

    What has been read until then is written down as the run's inputs; a run that continues must
    find them as they were: half a training on other questions is nobody's.

    Args:
      inputs: fingerprints of what a run learns from and is measured on as it is encoded, by name.

    Raises:
      UserError: an input is another than when the run began, or another run has claimed the folder
        meanwhile.
    """
    if jax.process_index() != 0:
        return
    entry = _running.get(workdir.resolve())
    if entry is None:  # a job that is called as a function
        begun = (workdir / CONFIG).exists()
        entry = _Running(Inputs(workdir / INPUTS), contextlib.ExitStack(), begun)
    for name, digest in (inputs or {}).items():
        entry.inputs.hear(f"{name}, as encoded", provenance.Read(value=digest))
    if entry.begun:
        entry.inputs.save(write_text)
        return
    workdir.mkdir(parents=True, exist_ok=True)
    entry.lock.enter_context(locked(workdir))
    if (workdir / CONFIG).exists():
        raise UserError(
            f"{workdir}: another run began in it meanwhile. Start this one again, or choose "
            "another --workdir."
        )
    entry.inputs.save(write_text)
    write_text(workdir / CONFIG, as_json(config))
    entry.begun = True


def settle() -> None:
    """Writes down what has been read since, before anything that was made of it is written."""
    for entry in _running.values() if jax.process_index() == 0 else ():
        if entry.begun:
            entry.inputs.save(write_text)


def show_if_finished(workdir: Path) -> bool:
    """Prints what a run printed at its end; False where its folder holds no result."""
    if not agreed((workdir / SUMMARY).exists()):
        return False
    if jax.process_index() == 0:
        print(f"{workdir} is finished; this is its result.", flush=True)
        console.show(console_of(result.read(workdir / SUMMARY)))
    return True
