"""SFT alone: the answer's token, no calibration term; the ablation beside CFT.

python -m calib_jax.main --config=configs/sft.py

Presets and hardware as in configs/cft.py. Measured on 256 questions, beside CFT: the table in
README.md.
"""

from calib_jax import presets


def get_config(preset: str = ""):
    config = presets.get(preset)
    config.method = "sft"
    config.train.sft = "sft1"
    config.train.ece_weight = 0.0
    return config
