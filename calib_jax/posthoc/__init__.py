"""Post-hoc calibrators: fit on one set of option scores, apply to another, keep as JSON.

    calibrator = Temperature.fit(log_scores, answers, mask)     # or METHODS["temperature"].fit
    probs = calibrator(other_log_scores, other_mask)
    calibrator.save("temperature.json"); load("temperature.json")
    probs = cross_fit("temperature", log_scores, answers, mask)  # out of fold

``log_scores`` [N, K] are natural logs with any offset per row; every calibrator is a function of
softmax(log_scores) over the valid options, except for ``RidgeHead``, which reads ``states`` [N, D]
in their place. Without a mask -inf means that the option does not
exist; with one, a valid option at -inf has probability 0, and every fit reads it as its most likely
probability within the interval that was rounded to 0 (see ``floor``).
"""

from calib_jax.posthoc.basecal import re_evaluated
from calib_jax.posthoc.calibrator import (
    METHODS,
    CalibrationWarning,
    Calibrator,
    load,
    reads_states,
)
from calib_jax.posthoc.conformal import (
    APS,
    LAC,
    ConformalPredictor,
    conformal_rank,
    mean_set_size,
    set_coverage,
)
from calib_jax.posthoc.crossfit import (
    calibrated_scores,
    cross_fit,
    cross_fit_scores,
    fit_scores,
    fit_split,
    fold_numbers,
    split_rows,
)
from calib_jax.posthoc.daca import DACA
from calib_jax.posthoc.head import RidgeHead
from calib_jax.posthoc.letters import BatchCalibration, ContextualCalibration, PriDe
from calib_jax.posthoc.linear import DirichletScaling, MatrixScaling, VectorScaling
from calib_jax.posthoc.nonparametric import HistogramBinning, IsotonicRegression
from calib_jax.posthoc.structured import StructuredMatrixScaling
from calib_jax.posthoc.temperature import (
    MAX_TEMPERATURE,
    MIN_TEMPERATURE,
    STATUSES,
    FixedTemperature,
    Temperature,
    TemperatureFit,
    apply_temperature,
    fit_temperature,
    fit_temperature_by_group,
    temperature_kernel,
)
from calib_jax.posthoc.top_label import BetaCalibration, PlattScaling
from calib_jax.posthoc.uncertainty import temperature_interval

__all__ = [
    "APS",
    "DACA",
    "LAC",
    "MAX_TEMPERATURE",
    "METHODS",
    "MIN_TEMPERATURE",
    "STATUSES",
    "BatchCalibration",
    "BetaCalibration",
    "CalibrationWarning",
    "Calibrator",
    "ConformalPredictor",
    "ContextualCalibration",
    "DirichletScaling",
    "FixedTemperature",
    "HistogramBinning",
    "IsotonicRegression",
    "MatrixScaling",
    "PlattScaling",
    "PriDe",
    "RidgeHead",
    "StructuredMatrixScaling",
    "Temperature",
    "TemperatureFit",
    "VectorScaling",
    "apply_temperature",
    "calibrated_scores",
    "conformal_rank",
    "cross_fit",
    "cross_fit_scores",
    "fit_scores",
    "fit_split",
    "fit_temperature",
    "fit_temperature_by_group",
    "fold_numbers",
    "load",
    "mean_set_size",
    "reads_states",
    "re_evaluated",
    "set_coverage",
    "split_rows",
    "temperature_interval",
    "temperature_kernel",
]
