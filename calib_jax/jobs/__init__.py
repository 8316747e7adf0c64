"""What a user can run: ``config.job`` names one. Each is a module here, with ``main(run)``."""

import importlib

from calib_jax.config.field import JOBS as NAMES

JOBS = {name: importlib.import_module(f"{__name__}.{name}").main for name in NAMES}

__all__ = ["JOBS"]
