"""What a user can run: ``config.job`` names one."""

from calib_jax.jobs import evaluate, export, finetune, report

JOBS = {
    "evaluate": evaluate.run,
    "export": export.run,
    "finetune": finetune.run,
    "report": report.run,
}

__all__ = ["JOBS"]
