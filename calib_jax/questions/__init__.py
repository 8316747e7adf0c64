"""The Question record, where questions come from, and what is done to them before a model."""

from calib_jax.questions.option_order import balance_answers, base_rates, shuffle_options
from calib_jax.questions.pipeline import (
    Prepared,
    drop_duplicate_options,
    prepare,
    remove_overlap,
    sample,
    sample_evenly,
)
from calib_jax.questions.record import LETTERS, Question, normalised
from calib_jax.questions.sources import load, split_name

__all__ = [
    "LETTERS",
    "Prepared",
    "Question",
    "balance_answers",
    "base_rates",
    "drop_duplicate_options",
    "load",
    "normalised",
    "prepare",
    "remove_overlap",
    "sample",
    "sample_evenly",
    "shuffle_options",
    "split_name",
]
