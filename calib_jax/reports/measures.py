"""Which metrics a summary states, and their values in one compiled program each."""

import functools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax import metrics
from calib_jax.confidence.scores import Scores
from calib_jax.metrics.null import null_values, upper_quantile
from calib_jax.metrics.tails import call
from calib_jax.metrics.zeros import find_zeros

Functions = Mapping[str, Callable[..., jax.Array]]


@functools.cache
def logged(num_bins: int, edges: str) -> Functions:
    """The metrics that a training run logs. Cached: they are compiled per function object."""
    bins = {"num_bins": num_bins, "edges": edges}
    return MappingProxyType(
        {
            "accuracy": metrics.accuracy,
            "conf_ece": functools.partial(metrics.conf_ece, **bins),
            "cw_ece": functools.partial(metrics.cw_ece, **bins),
            "nll": metrics.nll,
            "brier": metrics.brier,
            "auroc": metrics.auroc,
            "mean_confidence": metrics.mean_confidence,
        }
    )


@functools.cache
def compared(num_bins: int, edges: str) -> Functions:
    """The metrics whose change from before to after is stated, with an interval."""
    return MappingProxyType({**logged(num_bins, edges), "smooth_ece": metrics.smooth_ece})


@functools.cache
def measured(num_bins: int, edges: str) -> Functions:
    """The metrics of a ROW that have intervals."""
    bins = {"num_bins": num_bins, "edges": edges}
    more = {
        "sce_ovr": functools.partial(metrics.sce_ovr, **bins),
        "adaptive_ece": functools.partial(metrics.adaptive_ece, num_bins=num_bins),
        "pooled_ece": functools.partial(metrics.pooled_ece, **bins),
        "mce": functools.partial(metrics.mce, **bins),
        "rmsce": functools.partial(metrics.rmsce, **bins),
        "aurc": metrics.aurc,
        "auprc": metrics.auprc,
    }
    return MappingProxyType({**compared(num_bins, edges), **more})


def uniform(options: np.ndarray) -> dict[str, Any]:
    """What a uniform guesser gets, as a ROW holds it.

    Args:
      options: [N], the number of options of every question.
    """
    return {
        "num_options": [int(options.min()), int(options.max())],
        "uniform_accuracy": float(np.mean(1 / options)),
        "uniform_nll": float(np.mean(np.log(options))),
        "uniform_brier": float(np.mean((options - 1) / options)),
    }


def zeros(scores: Scores) -> dict[str, Any]:
    """What a ROW says of options with a probability of exactly 0; nothing where there is none."""
    found = find_zeros(np.asarray(scores.log_scores), np.asarray(scores.mask, bool))
    if found is None:
        return {}
    row: dict[str, Any] = {"zero_probability_rows": found.rows}
    return row if found.unit is None else {**row, "rounding_unit": found.unit}


@functools.partial(jax.jit, static_argnames=("num_bins", "edges", "all_of_them"))
def _values(probs, answers, mask, log_scores, num_bins: int, edges: str, all_of_them: bool):
    """All figures in one program: compiled once instead of once per metric."""
    arrays = probs, answers, mask
    functions = (measured if all_of_them else compared)(num_bins, edges)
    values = {name: call(f, *arrays, None, log_scores) for name, f in functions.items()}
    if all_of_them:
        parts = metrics.brier_decomposition(*arrays, num_bins=num_bins, edges=edges)
        values |= {
            "conf_ece_debiased": metrics.debiased_ece(*arrays, num_bins=num_bins, edges=edges),
            "letter_entropy": metrics.letter_entropy(*arrays),
            "share_above_090": metrics.share_above(*arrays, threshold=0.9),
            "brier_calibration": parts.calibration,
            "brier_refinement": parts.refinement,
        }
    names = sorted(values)
    return jnp.stack([values[name] for name in names])


def values_of(
    scores: Scores, num_bins: int, edges: str, all_of_them: bool = True
) -> dict[str, float]:
    """name -> value, of the measured metrics and the figures without interval.

    Args:
      scores: N questions.
      num_bins, edges: of the bins.
      all_of_them: False for those of ``compared`` alone.
    """
    arrays = scores.probs, scores.answers, scores.mask, scores.log_scores
    values = _values(*arrays, num_bins=num_bins, edges=edges, all_of_them=all_of_them).tolist()
    functions = (measured if all_of_them else compared)(num_bins, edges)
    names = set(functions) | (set(STATED) if all_of_them else set())
    return dict(zip(sorted(names), values, strict=True))


def mean_interval(values: np.ndarray) -> tuple[float, list[float]]:
    """The mean of N values between 0 and 1, and its normal 95 % interval within them."""
    values = np.asarray(values, np.float64)
    mean, half = values.mean(), 1.96 * values.std() / np.sqrt(len(values))
    return float(mean), [float(max(mean - half, 0)), float(min(mean + half, 1))]


@functools.cache
def null_functions(num_bins: int, edges: str) -> Functions:
    """The calibration errors that stand beside their distribution under perfect calibration."""
    functions = compared(num_bins, edges)
    return MappingProxyType({name: functions[name] for name in NULL})


def null_figures(
    scores: Scores, num_bins: int, edges: str, num_draws: int, seed: int
) -> dict[str, float]:
    """What chance alone makes of a calibration error: its 95 % quantile, and conf-ECE's p-value.

    Answers are drawn from the probabilities themselves, the same for all three errors: the figures
    of ``metrics.null_quantile`` and ``metrics.consistency_test`` in one program.

    Args:
      scores: N questions.
      num_bins, edges: of the bins.
      num_draws, seed: of the drawn answers.
    """
    functions = null_functions(num_bins, edges)
    values = null_values(
        functions, scores.probs, scores.answers, scores.mask, num_draws=num_draws, seed=seed
    )
    figures = {f"{n}_null_q95": float(upper_quantile(v[:-1], 0.95)) for n, v in values.items()}
    draws, observed = values["conf_ece"][:-1], values["conf_ece"][-1]
    figures["conf_ece_p_value"] = float((1 + np.sum(~(draws < observed))) / (1 + num_draws))
    return figures


NULL = ("conf_ece", "cw_ece", "smooth_ece")
# Figures of a ROW without interval that ``_values`` computes.
STATED = (
    "conf_ece_debiased",
    "letter_entropy",
    "share_above_090",
    "brier_calibration",
    "brier_refinement",
)
