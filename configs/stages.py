"""Calibration after every stage of alignment, as in Figure 1 of Xiao et al. 2025.

python -m calib_jax.main --config=configs/stages.py
"""

from calib_jax import config as base_config
from calib_jax.errors import UserError


def get_config(preset: str = ""):
    if preset not in ("", "debug", "tulu3_8b"):
        raise UserError(f"no preset {preset!r}; there is debug, tulu3_8b, or none for the default.")
    config = base_config.base()
    config.job = "stages"
    config.method = "stages"
    # Every stage learns from other questions than those that are measured, and CFT from others
    # than DPO: questions that DPO has learnt by heart look calibrated.
    config.align.train = "questions:offline:arc_easy/train@0.8"
    config.align.eval = "questions:offline:arc_easy/test@0.8"
    config.align.train_size = 384
    config.align.eval_size = 200
    config.data.train = "offline:openbookqa/train"
    config.data.train_size = 384
    config.data.eval = "offline:openbookqa/test,offline:arc_easy/test"
    config.data.eval_size = 200
    config.train.method = "lora"
    config.train.learning_rate = 5e-4
    config.train.remat = False
    config.train.microbatches = 2
    config.checkpoint.every_steps = 25
    return config
