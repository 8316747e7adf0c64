"""SFT alone: the answer's token, no calibration term; the ablation beside CFT.

python -m calib_jax.main --config=configs/sft.py

By one reading of the paper this is CFT: its abstract can be understood as domain-specific
fine-tuning alone restoring calibration, and the ECE term as what makes RCFT of it. By its
Algorithm 1, which configs/cft.py follows, CFT has the term λ·ECE, and this is the ablation
"accuracy loss only". With question tokens too: configs/sft2.py.

Presets and hardware as in configs/cft.py. Beside CFT and the others: configs/compare.py.
"""

from calib_jax import presets


def get_config(preset: str = ""):
    return presets.get(preset, "sft")
