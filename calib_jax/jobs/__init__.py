"""What a user can run: ``config.job`` names one."""

from calib_jax.jobs import evaluate, finetune

JOBS = {"evaluate": evaluate.run, "finetune": finetune.run}

__all__ = ["JOBS"]
