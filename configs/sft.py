"""SFT alone: the answer's token, no calibration term; the ablation beside CFT.

python -m calib_jax.main --config=configs/sft.py

Presets and hardware as in configs/cft.py. Beside CFT and the others: configs/compare.py.
"""

from calib_jax import presets


def get_config(preset: str = ""):
    return presets.get(preset, "sft")
