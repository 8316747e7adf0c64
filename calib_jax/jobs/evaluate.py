"""The job ``evaluate``: measure a model's calibration, change nothing."""

from calib_jax.runs.evaluating import run_evaluation
from calib_jax.runs.run import Run


def main(run: Run) -> None:
    """Scores every task by every reading and writes predictions, figures, report and summary."""
    run_evaluation(run)
