"""What a metric shows when the model is perfectly calibrated: answers drawn from the probabilities.

A calibration error of finitely many rows is never 0. How large it is by chance alone depends on N
and on the probabilities, so every small-sample figure is read beside its null quantile.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics import intervals
from calib_jax.metrics.draws import (
    answer_limits,
    draw_answers,
    in_parts,
    map_draws,
)
from calib_jax.metrics.intervals import MetricFn
from calib_jax.metrics.settings import checked_settings
from calib_jax.metrics.validation import validate

# p-values are ratios, which 1 - level may miss by a rounding error.
_SLACK = 1e-9


@checked_settings
def null_all(
    metric_fns: Mapping[str, MetricFn],
    probs: ArrayLike,
    mask: ArrayLike | None = None,
    num_draws: int = 1000,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Draws of several metrics under perfect calibration, all on the same drawn answers.

    ``num_draws`` times, every row's answer is drawn from the row's own probabilities, which stay
    as they are, and the metrics are computed. So "perfect" means that the whole distribution is
    right, not only its largest entry.

    Source: Broecker and Smith 2007 (consistency resampling; they resample the rows as well, which
    adds the spread of other data: here the rows are given); Vaicenavicius et al. 2019.

    Args:
        metric_fns: name -> function, called as ``fn(probs, answers, mask, weights=weights)``, as
            in ``bootstrap_all``; make the mapping once and reuse it.
        probs: [N, K] option probabilities.
        mask: [N, K] bool or None.
        num_draws: number of draws.
        seed: the same seed and N give the same random words.

    Returns:
        name -> float array [num_draws, ...], in the order of the draws.

    Raises:
        ValueError: arrays that ``validate`` refuses, or num_draws < 1.

    Example:
        >>> from calib_jax.metrics.scores import accuracy, mean_confidence
        >>> fns = {"accuracy": accuracy, "mean_confidence": mean_confidence}
        >>> draws = null_all(fns, [[0.75, 0.25]] * 64, num_draws=200)
        >>> bool(abs(draws["accuracy"].mean() - 0.75) < 0.02), float(draws["mean_confidence"].std())
        (True, 0.0)
    """
    values = null_values(metric_fns, probs, None, mask, num_draws, seed)
    return {name: draws[:-1] for name, draws in values.items()}


@checked_settings
def null_distribution(
    metric_fn: MetricFn,
    probs: ArrayLike,
    mask: ArrayLike | None = None,
    num_draws: int = 1000,
    seed: int = 0,
) -> np.ndarray:
    """Draws of one metric under perfect calibration, float [num_draws]; see ``null_all``.

    Example:
        >>> from calib_jax.metrics.calibration import conf_ece
        >>> draws = null_distribution(conf_ece, [[0.75, 0.25]] * 4, num_draws=100)
        >>> sorted(set(draws.tolist()))   # 0 to 4 right answers out of 4
        [0.0, 0.25, 0.5, 0.75]
    """
    return null_all({"metric": metric_fn}, probs, mask, num_draws, seed)["metric"]


@checked_settings
def null_quantile(
    metric_fn: MetricFn,
    probs: ArrayLike,
    mask: ArrayLike | None = None,
    level: float = 0.95,
    num_draws: int = 1000,
    seed: int = 0,
) -> float:
    """The quantile of a metric under perfect calibration, at these probabilities and this N.

    A conf-ECE below its 95 % null quantile is what calibrated models show in 19 samples out of
    20. For 4-way questions, 15 bins and N = 100 the quantile is about 0.15, at N = 14,042 (the
    MMLU test set) 0.013. An order statistic, above which a value is exactly where its p-value (see
    ``consistency_test``) is at most 1 - level; NaN draws are left out (NaN if none remains).

    Args:
        metric_fn: called as ``fn(probs, answers, mask, weights=weights)``, scalar.
        probs: [N, K] option probabilities.
        mask: [N, K] bool or None.
        level: strictly between 0 and 1.
        num_draws, seed: as in ``null_all``.

    Example:
        >>> from calib_jax.metrics.calibration import conf_ece
        >>> null_quantile(conf_ece, [[0.75, 0.25]] * 4)
        0.5
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}")
    return float(upper_quantile(null_distribution(metric_fn, probs, mask, num_draws, seed), level))


def null_values(metric_fns, probs, answers, mask, num_draws, seed) -> dict[str, np.ndarray]:
    """``null_all`` with one more entry at the end: the value at ``answers``."""
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}")
    if answers is None:  # each row's first most probable option passes validate
        answers = np.zeros(np.shape(probs)[:1], np.int32)
        if np.size(probs):
            answers = np.asarray(probs).astype(np.float32).argmax(axis=1).astype(np.int32)
    validate(probs, answers, mask)
    mask = None if mask is None else jnp.asarray(mask)
    arrays = jnp.asarray(probs), jnp.asarray(answers), mask, answer_limits(probs)
    given = tuple(metric_fns.values()), *arrays, jnp.uint32(seed), num_draws
    draws = in_parts(functools.partial(_drawn, *given), num_draws + 1, len(answers))
    return {name: np.asarray(value) for name, value in zip(metric_fns, draws, strict=True)}


@functools.partial(jax.jit, static_argnames=("fns", "num_draws", "count"))
def _drawn(fns, probs, answers, mask, limits, seed, num_draws, first=0, count=None):
    """Each fn's values at R sets of drawn answers, then at ``answers``; or a part of these."""
    num_rows = probs.shape[0]
    weights = jnp.ones(num_rows, jnp.int32)

    def one(key, number):
        # The observed value by the same compiled code: a tie with a draw is seen as one.
        drawn = jnp.where(number == num_draws, answers, draw_answers(key, limits))
        return [fn(probs, drawn, mask, weights=weights) for fn in fns]

    chunk = intervals._CHUNK_ELEMENTS // max(num_rows, 1)
    return map_draws(one, seed, count or num_draws + 1, chunk, first)


def upper_quantile(draws: np.ndarray, level: float) -> np.ndarray:
    """Quantile over axis 0, an order statistic, NaN left out.

    The least that no value of a ``p_value`` above 1 - level exceeds: of 19 draws or more, a value
    is above the 95 % quantile exactly where its p is at most 0.05.
    """
    ordered = np.sort(draws, axis=0)  # NaN last
    known = np.sum(~np.isnan(draws), axis=0)
    beyond = np.floor((1 - level) * (known + 1) + _SLACK).astype(int)
    rank = np.clip(known - beyond, 0, np.maximum(known - 1, 0))
    return np.take_along_axis(ordered, rank[None], axis=0)[0]


def p_value(draws: np.ndarray, observed: np.ndarray | float) -> np.ndarray:
    """(1 + #{draws >= observed}) / (1 + R) over axis 0 of ``draws`` [R, ...], float64 [...].

    A draw that is NaN counts as at least the observed value; NaN where that is NaN.
    """
    reached = (~(draws < observed)).sum(axis=0)
    return np.where(np.isnan(observed), np.nan, (1 + reached) / (1 + len(draws)))


@checked_settings
def low_by_test(
    low: np.ndarray | float,
    observed: np.ndarray | float,
    draws: np.ndarray,
    level: float = 0.95,
    p: np.ndarray | None = None,
) -> np.ndarray:
    """The low end of a calibration error's interval, brought into line with its test.

    0 where the p-value is above 1 - ``level``, and above 0 where it is not: the interval holds 0
    exactly where the test does not reject calibration. Where it does, and ``low`` is 0 all the
    same, the end is observed - q, with q the ``level`` quantile of ``draws``: what chance does not
    explain. That is above 0, for q lies below every error of such a p-value.

    Args:
        low: [...] as another method gives it, such as ``bootstrap``.
        observed: [...] the error.
        draws: [R, ...] of ``null_all``, under perfect calibration.
        level: of the interval, at least 1/2.
        p: [...] the p-values, where they are of more than these draws.

    Returns:
        float64 [...]; NaN where the observed error is.

    Example:
        >>> draws = np.arange(99) / 1000   # p of 0.096 is 4 / 100
        >>> float(low_by_test(0.0, 0.096, draws).round(3)), float(low_by_test(0.1, 0.05, draws))
        (0.002, 0.0)
    """
    surplus = observed - upper_quantile(draws, level).astype(np.float64)
    if p is None:
        p = p_value(draws, observed)
    else:  # of more draws it may be on the other side of these draws' quantile
        surplus = np.maximum(surplus, _SLACK)
    rejected = np.where(np.asarray(low) > 0, low, surplus) + 0 * p  # NaN stays
    return np.where(p > 1 - level + _SLACK, 0.0, rejected)
