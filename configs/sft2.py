"""SFT2 alone: question and answer tokens, no calibration term; the ablation beside RCFT.

python -m calib_jax.main --config=configs/sft2.py

What RCFT (configs/rcft.py) is without its term λ·ECE: the sum of −log π over a question's tokens
and its answer's, averaged over questions. Presets and hardware as in configs/cft.py. Not among
configs/compare.py's methods unless they are named: --config.compare.methods=rcft,sft2.
"""

from calib_jax import presets


def get_config(preset: str = ""):
    return presets.get(preset, "sft2")
