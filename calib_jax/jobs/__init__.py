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
    "align": align.main,
    "alignment": alignment.main,
    "compare": compare.main,
    "evaluate": evaluate.main,
    "export": export.main,
    "finetune": finetune.main,
    "generate": generate.main,
    "lifecycle": lifecycle.main,
    "plan": plan.main,
    "report": report.main,
    "stages": stages.main,
    "study": study.main,
    "sweep": sweep.main,
    "winrate": winrate.main,
}

__all__ = ["JOBS"]
