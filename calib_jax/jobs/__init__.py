"""What a user can run: ``config.job`` names one."""

from calib_jax.jobs import (
    align,
    alignment,
    compare,
    evaluate,
    export,
    finetune,
    generate,
    lifecycle,
    plan,
    report,
    stages,
    study,
    sweep,
    winrate,
)

JOBS = {
    "align": align.run,
    "alignment": alignment.run,
    "compare": compare.run,
    "evaluate": evaluate.run,
    "export": export.run,
    "finetune": finetune.run,
    "generate": generate.run,
    "lifecycle": lifecycle.run,
    "plan": plan.run,
    "report": report.run,
    "stages": stages.run,
    "study": study.run,
    "sweep": sweep.run,
    "winrate": winrate.run,
}

__all__ = ["JOBS"]
