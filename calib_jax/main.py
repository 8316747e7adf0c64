"""Entry point: ``python -m calib_jax.main --config=configs/cft.py``."""

import contextlib
import signal
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any

import jax

from calib_jax import command_line
from calib_jax.characters import prepare_console
from calib_jax.errors import UserError, UserNotice
from calib_jax.jobs import JOBS
from calib_jax.parallel.mesh import join_pod, leave_pod
from calib_jax.runs.run import CONFIG, Run
from calib_jax.training.interrupt import Stopped, StopRequest


def main(argv: list[str]) -> int:
    """Reads the flags, runs the config's job, and returns the exit status.

    0: done. 1: bad input or a loss that is not finite, with one message on standard error. 143 and
    130: stopped by SIGTERM or Ctrl-C with work left, so that ``train && export`` stops there;
    what was done is saved (an export leaves nothing).
    """
    workdir, is_run, stop = None, True, StopRequest()
    warnings.showwarning = _show_warning
    try:
        config, workdir = command_line.parse(argv)
        if config is None:
            return 0
        join_pod()
        is_run = config.job != "export"  # an export's folder holds a model, not a run
        run = Run(config, workdir, stop)
        with run if is_run else contextlib.nullcontext():
            if not is_run or not run.show_if_finished():
                stop.install()
                JOBS[config.job](run)
    except Stopped:
        print(f"Stopped as asked; {_left(is_run, workdir)}", file=sys.stderr)
        return 128 + stop.signal
    except KeyboardInterrupt:
        print(f"Interrupted; {_left(is_run, workdir)}", file=sys.stderr)
        return 128 + signal.SIGINT
    except (UserError, FloatingPointError) as error:
        print(f"calib_jax: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.filename is None:
            raise
        # A folder that cannot be written, a full disk: the place and the reason say it all.
        print(f"calib_jax: {error.filename}: {error.strerror}", file=sys.stderr)
        return 1
    except jax.errors.JaxRuntimeError as error:
        if not jax.distributed.is_initialized() or "RESOURCE_EXHAUSTED" in str(error):
            raise
        print(
            f"calib_jax: process {jax.process_index()}: {str(error).splitlines()[0]}. If another "
            "process ended, it says why; the same command, started on all, continues.",
            file=sys.stderr,
        )
        return 1
    return 0


def _left(is_run: bool, workdir: Path | None) -> str:
    """What a stopped command leaves behind."""
    if workdir is None or (is_run and not (workdir / CONFIG).exists()):
        return "nothing was written."
    if not is_run:
        return f"nothing was written to {workdir}."
    return f"the same command continues from {workdir}."


_default_show = warnings.showwarning


def _show_warning(message: Any, category: type[Warning], *place: Any, **options: Any) -> None:
    """A notice as one line; other warnings as Python shows them."""
    if issubclass(category, UserNotice):
        print(f"calib_jax: {message}", file=sys.stderr)
    else:
        _default_show(message, category, *place, **options)


def _show_exception(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """Python's own, but for the echoes of a save that failed: that one is raised, and said once.

    TensorStore tells every other write of the save through a loop that Orbax has closed by then.
    """
    if kind is not RuntimeError or str(error) != "Event loop is closed":
        sys.__excepthook__(kind, error, trace)


def run() -> None:
    """The console script ``calib-jax``."""
    sys.excepthook = _show_exception
    prepare_console()
    try:
        status = main(sys.argv)
    except Exception:
        traceback.print_exc()
        status = 1
    if status == 1:
        leave_pod(status)
    sys.exit(status)


if __name__ == "__main__":
    run()
