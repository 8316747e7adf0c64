"""What a user can run: ``config.job`` names one."""

from calib_jax.jobs import (
    alignment,
    compare,
    evaluate,
    export,
    finetune,
    generate,
    lifecycle,
    report,
    study,
    sweep,
)

JOBS = {
    "alignment": alignment.run,
    "compare": compare.run,
    "evaluate": evaluate.run,
    "export": export.run,
    "finetune": finetune.run,
    "generate": generate.run,
    "lifecycle": lifecycle.run,
    "report": report.run,
    "study": study.run,
    "sweep": sweep.run,
}

__all__ = ["JOBS"]
