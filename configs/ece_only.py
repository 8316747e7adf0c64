"""The calibration term alone, λ·ECE; the ablation beside CFT.

python -m calib_jax.main --config=configs/ece_only.py

Presets and hardware as in configs/cft.py. Measured on 256 questions, beside CFT: the table in
README.md.
"""

from calib_jax import presets


def get_config(preset: str = ""):
    return presets.get(preset, "ece_only")
