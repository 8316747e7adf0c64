"""The calibration term alone, λ·ECE; the ablation beside CFT.

python -m calib_jax.main --config=configs/ece_only.py

Presets and hardware as in configs/cft.py. Beside CFT and the others: configs/compare.py.
"""

from calib_jax import presets


def get_config(preset: str = ""):
    return presets.get(preset, "ece_only")
