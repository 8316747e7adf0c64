"""Fine-tuning by any method of calib_jax.presets.METHODS, with any preset.

python -m calib_jax.main --config=configs/finetune.py:rcft
python -m calib_jax.main --config=configs/finetune.py:rcft@debug

METHOD or METHOD@PRESET, with the presets of configs/cft.py. The methods that come with calib_jax
have files of their own too, which say what to expect of them; one that is added to METHODS is here
at once.
"""

from calib_jax import presets
from calib_jax.errors import UserError


def get_config(name: str = ""):
    method, _, preset = name.partition("@")
    method = method or "cft"
    if method not in presets.METHODS:
        raise UserError(f"no method {method!r}; choose from: {', '.join(presets.METHODS)}.")
    return presets.get(preset, method)
