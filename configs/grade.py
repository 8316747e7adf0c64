"""Grade: a model answers questions by letters, and its answers become questions themselves.

python -m calib_jax.main --config=configs/grade.py

Is the proposed answer correct, yes or no; and how probable is that, 0 % to 100 %? Both are what
calibration-tuning and ConfTuner learn from (docs/objectives.md), and sources of questions like any
other: CFT on the first is CFT on P(True). Nothing is trained here.

  preset     hardware             what it does
  (default)  2 CPU cores, 3 GiB   500 questions of OpenBookQA to learn from, and 500 held out
  debug      the same             8 of each: does everything run?

Written beside tables and report.html, in graded/: <source>-yes_no.jsonl and <source>-levels.jsonl.
"""

from calib_jax import config as base_config
from calib_jax.errors import UserError


def get_config(preset: str = ""):
    if preset not in ("", "debug"):
        raise UserError(f"no preset {preset!r}; choose from: debug, or none.")
    config = base_config.base()
    config.job = config.method = "grade"
    config.data.train = ""
    config.data.eval = "graded=offline:openbookqa/train,held-out=offline:openbookqa/validation"
    config.data.eval_size = 8 if preset else 500
    config.prompt.max_length = 0
    config.batch.token_budget = 0
    return config
