"""Entry point: ``python -m calib_jax.main --config=configs/cft.py``."""

import signal
import sys
import traceback
import warnings
from typing import Any

import jax

from calib_jax import command_line
from calib_jax.characters import prepare_console
from calib_jax.errors import UserError, UserNotice
from calib_jax.jobs import JOBS
from calib_jax.jobs.run import check_workdir, show_if_finished
from calib_jax.parallel.mesh import join_pod, leave_pod
from calib_jax.training.interrupt import Stopped, StopRequest


def main(argv: list[str]) -> int:
    """Reads the flags, runs the config's job, and returns the exit status.

    0: done, or stopped by SIGTERM with everything saved. 1: bad input or a loss that is not
    finite, with one message on standard error. 143: an export stopped by SIGTERM, which leaves
    nothing.
    """
    workdir, is_run = None, True
    warnings.showwarning = _show_warning
    try:
        config, workdir = command_line.parse(argv)
        if config is None:
            return 0
        if config.job not in JOBS:
            raise UserError(f"config.job is {config.job!r}; there is {', '.join(sorted(JOBS))}.")
        join_pod()
        is_run = config.job != "export"  # an export's folder holds a model, not a run
        if is_run:
            check_workdir(workdir, config)
        if not is_run or not show_if_finished(workdir):
            stop = StopRequest()
            stop.install()
            JOBS[config.job](config, workdir, stop)
    except Stopped:
        if not is_run:
            print(f"Stopped as asked; nothing was written to {workdir}.", file=sys.stderr)
            return 128 + signal.SIGTERM
        print(f"Stopped as asked; the same command continues from {workdir}.", file=sys.stderr)
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
