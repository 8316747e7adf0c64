"""What a user can run: ``config.job`` names one."""

from calib_jax.jobs import evaluate, export, finetune, lifecycle, report, study

JOBS = {
    "evaluate": evaluate.run,
    "export": export.run,
    "finetune": finetune.run,
    "lifecycle": lifecycle.run,
    "report": report.run,
    "study": study.run,
}

__all__ = ["JOBS"]
