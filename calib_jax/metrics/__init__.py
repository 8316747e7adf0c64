"""Calibration metrics over ``probs [N, K]``, ``answers [N]``, ``mask [N, K]`` (None: all valid).

Pure jitted functions that work under jit, vmap and sharding, and take arrays from any model.
"""

from calib_jax.metrics.binning import (
    BinStats,
    bin_edges,
    bin_index,
    bin_stats,
    class_bin_stats,
    merge,
)
from calib_jax.metrics.calibration import conf_ece, cw_ece, ece_from_bins, sce_ovr
from calib_jax.metrics.intervals import (
    bootstrap,
    bootstrap_all,
    paired_bootstrap,
    paired_bootstrap_all,
)
from calib_jax.metrics.letters import answer_counts, letter_counts, share_above, top_letter_share
from calib_jax.metrics.ranking import auroc
from calib_jax.metrics.scores import (
    accuracy,
    brier,
    confidences,
    correctness,
    mean_confidence,
    nll,
    predictions,
    row_brier,
    row_nll,
)
from calib_jax.metrics.validation import validate

__all__ = [
    "BinStats",
    "accuracy",
    "answer_counts",
    "auroc",
    "bin_edges",
    "bin_index",
    "bin_stats",
    "bootstrap",
    "bootstrap_all",
    "brier",
    "class_bin_stats",
    "conf_ece",
    "confidences",
    "correctness",
    "cw_ece",
    "ece_from_bins",
    "letter_counts",
    "mean_confidence",
    "merge",
    "nll",
    "paired_bootstrap",
    "paired_bootstrap_all",
    "predictions",
    "row_brier",
    "row_nll",
    "sce_ovr",
    "share_above",
    "top_letter_share",
    "validate",
]
