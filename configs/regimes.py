"""Regimes: accuracy and calibration error under ever more fine-tuning.

python -m calib_jax.main --config=configs/regimes.py
python -m calib_jax.main --config=configs/regimes.py --config.regimes.learning_rates=0.003,0.03 \\
    --config.regimes.ece_weight=1,100

Without a model: answers are drawn from a target generative model that is known, small networks are
fine-tuned on a few hundred of them by SFT and by CFT with several λ, and every epoch is a point in
the plane of accuracy and conf-ECE. Both are exact there. docs/regimes.md explains the page.

Written: report.html, summary.json, figures/plane.{png,svg}, tables/regimes.{md,tex,csv}.
Hardware: one CPU core, seconds.
"""

from calib_jax import config as base_config
from calib_jax.errors import UserError


def get_config(preset: str = ""):
    if preset:
        raise UserError(f"no preset {preset!r}; configs/regimes.py has none.")
    config = base_config.base()
    config.job = "regimes"
    config.method = "regimes"
    return config
