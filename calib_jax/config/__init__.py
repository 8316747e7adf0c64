"""The configuration of a run: a table of fields, the config made of it, and its checks.

A config file (``configs/*.py``) starts from ``base()``, picks a preset and sets what makes the
method. Any field can be set on the command line: ``--config.train.learning_rate=1e-5``. The table
is in ``table_model``, ``table_train`` and ``table_jobs``, and docs/config.md is generated from it.
"""

from calib_jax.config.check import FIELDS, base, check_config, paths, set_field, unknown
from calib_jax.grammar import split_list

__all__ = ["FIELDS", "base", "check_config", "paths", "set_field", "split_list", "unknown"]
