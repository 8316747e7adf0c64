"""The job ``evaluate``: measure a model's calibration, change nothing."""

import jax

from calib_jax.reports import overview
from calib_jax.runs.evaluating import run_evaluation
from calib_jax.runs.measuring import say
from calib_jax.runs.run import Run


def main(run: Run) -> None:
    """Scores every task by every method and writes predictions, figures, report and summary."""
    config, workdir, stop = run.config, run.workdir, run.stop
    result = run_evaluation(config, workdir, stop)
    if jax.process_index() == 0:
        overview.show_summary(result)
        say(f"\nReport: {workdir / 'report.html'}    Numbers: {workdir / 'summary.json'}")
