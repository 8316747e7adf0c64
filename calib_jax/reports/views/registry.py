"""Job -> what is printed of its summary, also of summaries of schema 1, which name no job."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

from calib_jax.reports.views import Block, View

# Jobs whose view is another's; the rest have a module of their own name in this package.
_VIEWS = {
    "finetune": "measurement",
    "evaluate": "measurement",
    "report": "measurement",
    "compare": "comparison",
    "sweep": "comparison",
}


def view_of(job: str) -> Callable[..., View]:
    """The function of the job's module that makes its view."""
    return _module(job).view


def _module(job: str) -> ModuleType:
    return importlib.import_module(f"calib_jax.reports.views.{_VIEWS.get(job, job)}")


def console_of(summary: Mapping[str, Any]) -> Sequence[Block]:
    """What the run printed at its end."""
    # Schema 1: only studies hold pairs of models, and name no job.
    job = summary.get("job") or ("study" if "pairs" in summary else "evaluate")
    return _module(job).console(summary)
