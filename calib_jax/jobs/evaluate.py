"""The job ``evaluate``: measure a model's calibration, change nothing."""

from pathlib import Path

import jax
import ml_collections

from calib_jax.reports import overview
from calib_jax.runs.evaluating import run_evaluation
from calib_jax.runs.measuring import say
from calib_jax.training.interrupt import StopRequest


def run(config: ml_collections.ConfigDict, workdir: Path, stop: StopRequest) -> None:
    """Scores every task by every method and writes predictions, figures, report and summary."""
    result = run_evaluation(config, workdir, stop)
    if jax.process_index() == 0:
        overview.show_summary(result)
        say(f"\nReport: {workdir / 'report.html'}    Numbers: {workdir / 'summary.json'}")
