"""The calibration term alone, λ·ECE; the ablation beside CFT.

python -m calib_jax.main --config=configs/ece_only.py

Presets and hardware as in configs/cft.py. The default, measured with seed 0: conf-ECE @E1@
(OpenBookQA test), @E2@ (ARC-Easy test).
"""

from calib_jax import presets


def get_config(preset: str = ""):
    config = presets.get(preset)
    config.method = "ece_only"
    config.train.sft = "none"
    config.train.ece_weight = 1.0
    return config
