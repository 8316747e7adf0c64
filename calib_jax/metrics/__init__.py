"""Calibration metrics over ``probs [N, K]``, ``answers [N]``, ``mask [N, K]`` (None: all valid).

Pure jitted functions that work under jit, vmap and sharding, and take arrays from any model.
"""

from calib_jax.metrics import streams
from calib_jax.metrics.adaptive import (
    adaptive_bin_stats,
    adaptive_class_bin_stats,
    adaptive_ece,
    cw_adaptive_ece,
    nixon_ace,
    tace,
)
from calib_jax.metrics.binary import (
    binary_bin_stats,
    binary_ece,
    binary_group_table,
    binary_null_quantile,
    cluster_bootstrap,
)
from calib_jax.metrics.bins import (
    BinStats,
    bin_edges,
    bin_index,
    bin_stats,
    class_bin_stats,
    merge,
    ovr_bin_stats,
)
from calib_jax.metrics.calibration import (
    average_ce,
    conf_ece,
    cw_ece,
    ece_from_bins,
    mce,
    overconfidence_error,
    pool_classes,
    pooled_ece,
    rmsce,
    sce_ovr,
    underconfidence_error,
)
from calib_jax.metrics.clusters import SmallStratum, expanded_level
from calib_jax.metrics.confidence_set import (
    ConfidenceSet,
    model_confidence_set,
    step_down_p_values,
)
from calib_jax.metrics.debiased import (
    cw_debiased_rmsce,
    debiased_ece,
    debiased_rmsce,
    sweep_ece,
    sweep_num_bins,
)
from calib_jax.metrics.decomposition import (
    BrierDecomposition,
    brier_decomposition,
)
from calib_jax.metrics.discrimination import (
    auprc,
    auroc,
)
from calib_jax.metrics.groups import group_table, macro_average
from calib_jax.metrics.intervals import (
    bootstrap,
    bootstrap_all,
    paired_bootstrap,
    paired_bootstrap_all,
)
from calib_jax.metrics.letters import (
    answer_counts,
    letter_counts,
    letter_entropy,
    share_above,
    top_letter_share,
)
from calib_jax.metrics.null import low_by_test, null_all, null_distribution, null_quantile
from calib_jax.metrics.paired_accuracy import AccuracyChange, accuracy_change
from calib_jax.metrics.preference import (
    PreferenceCollapse,
    preference_accuracy,
    preference_collapse,
    preference_margins,
    reward_margins,
    row_preference_collapse,
)
from calib_jax.metrics.ranked import row_rps, rps
from calib_jax.metrics.ratios import bootstrap_ratios
from calib_jax.metrics.reliability import ReliabilityCurve, reliability_curve
from calib_jax.metrics.robust import (
    cluster_consistency_test,
    clustered_null,
)
from calib_jax.metrics.sample_size import questions_needed
from calib_jax.metrics.scores import (
    accuracy,
    brier,
    confidence_gap,
    confidences,
    correctness,
    mean_confidence,
    nll,
    predictions,
    rank_quantiles,
    row_brier,
    row_nll,
)
from calib_jax.metrics.selective import (
    RiskCoverage,
    accuracy_at_coverage,
    aurc,
    coverage_at_accuracy,
    risk_coverage_curve,
)
from calib_jax.metrics.shares import (
    effective_rows,
    pooled_interval,
    share_interval,
    wilson_interval,
)
from calib_jax.metrics.significance import (
    TestResult,
    benjamini_hochberg,
    consistency_test,
    ks_test,
    kuiper_test,
    spiegelhalter_test,
)
from calib_jax.metrics.smooth import (
    SmoothStats,
    smooth_ece,
    smooth_ece_from_stats,
    smooth_stats,
)
from calib_jax.metrics.soft import soft_ece
from calib_jax.metrics.squared import (
    paired_squared_ece_interval,
    squared_ece,
    squared_ece_interval,
)
from calib_jax.metrics.target import cw_tce, tce
from calib_jax.metrics.thresholds import ActAbove, act_above
from calib_jax.metrics.validation import validate
from calib_jax.metrics.variational import VariationalError, variational_ece
from calib_jax.metrics.within import within_folds

__all__ = [
    "ActAbove",
    "AccuracyChange",
    "BinStats",
    "BrierDecomposition",
    "ConfidenceSet",
    "PreferenceCollapse",
    "ReliabilityCurve",
    "RiskCoverage",
    "SmallStratum",
    "SmoothStats",
    "TestResult",
    "VariationalError",
    "accuracy",
    "accuracy_at_coverage",
    "act_above",
    "accuracy_change",
    "adaptive_bin_stats",
    "adaptive_class_bin_stats",
    "adaptive_ece",
    "answer_counts",
    "auprc",
    "aurc",
    "auroc",
    "average_ce",
    "benjamini_hochberg",
    "bin_edges",
    "bin_index",
    "bin_stats",
    "binary_bin_stats",
    "binary_ece",
    "binary_group_table",
    "binary_null_quantile",
    "bootstrap",
    "bootstrap_all",
    "bootstrap_ratios",
    "brier",
    "brier_decomposition",
    "class_bin_stats",
    "cluster_bootstrap",
    "cluster_consistency_test",
    "clustered_null",
    "conf_ece",
    "confidence_gap",
    "confidences",
    "consistency_test",
    "correctness",
    "coverage_at_accuracy",
    "cw_adaptive_ece",
    "cw_debiased_rmsce",
    "cw_ece",
    "cw_tce",
    "debiased_ece",
    "debiased_rmsce",
    "ece_from_bins",
    "effective_rows",
    "expanded_level",
    "group_table",
    "ks_test",
    "kuiper_test",
    "letter_counts",
    "letter_entropy",
    "low_by_test",
    "macro_average",
    "mce",
    "mean_confidence",
    "merge",
    "model_confidence_set",
    "nixon_ace",
    "nll",
    "null_all",
    "null_distribution",
    "null_quantile",
    "overconfidence_error",
    "ovr_bin_stats",
    "paired_bootstrap",
    "paired_bootstrap_all",
    "paired_squared_ece_interval",
    "pool_classes",
    "pooled_ece",
    "pooled_interval",
    "predictions",
    "preference_accuracy",
    "preference_collapse",
    "preference_margins",
    "questions_needed",
    "rank_quantiles",
    "reliability_curve",
    "reward_margins",
    "risk_coverage_curve",
    "rmsce",
    "row_brier",
    "row_nll",
    "row_preference_collapse",
    "row_rps",
    "rps",
    "sce_ovr",
    "share_above",
    "share_interval",
    "smooth_ece",
    "smooth_ece_from_stats",
    "smooth_stats",
    "soft_ece",
    "spiegelhalter_test",
    "squared_ece",
    "squared_ece_interval",
    "step_down_p_values",
    "streams",
    "sweep_ece",
    "sweep_num_bins",
    "tace",
    "tce",
    "top_letter_share",
    "underconfidence_error",
    "validate",
    "variational_ece",
    "wilson_interval",
    "within_folds",
]
