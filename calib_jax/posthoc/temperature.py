"""Temperature scaling: the exact maximum-likelihood temperature, for one set or many at once."""

import dataclasses
import math
import warnings
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from calib_jax.errors import UserError
from calib_jax.metrics.sums import tree_sum, weighted_sum
from calib_jax.posthoc.calibrator import (
    CalibrationWarning,
    Calibrator,
    choice,
    number,
    parameter,
    register,
)
from calib_jax.posthoc.inputs import (
    FitInputs,
    centred_scores,
    check_inputs,
    masked_log_softmax,
    masked_softmax,
    without_zeros,
)

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.01, 1000.0
# What TemperatureFit.status counts.
STATUSES = ("converged", "at_lower_bound", "at_upper_bound", "flat", "no_rows", "not_finite")
# Of the way from 1 / K to 1, up to which a mean confidence is that of a uniform guesser.
GUESSER = 0.05
_MAX_STEPS = 60
# Of the last step in log T. Newton squares the error: what remains is below float32's last bit.
_NEWTON_TOLERANCE, _BISECTION_TOLERANCE = 3e-5, 2e-7


class TemperatureFit(NamedTuple):
    """What ``temperature_kernel`` found; scalars, or one per subject under vmap.

    Attributes:
        temperature: float32, T.
        nll: float32, the mean negative log-likelihood (cross-entropy) at T, in nats.
        status: int32, index into ``STATUSES``: 0 "converged"; 1 "at_lower_bound", T stays at 0.01
            (every answer is the best option); 2 "at_upper_bound", T stays at 1000 (the scores
            say nothing or the contrary); 3 "flat", the scores are uniform, any T does, T = 1;
            4 "no_rows", T is NaN; 5 "not_finite", T is NaN.
    """

    temperature: jax.Array
    nll: jax.Array
    status: jax.Array


@jax.jit
def temperature_kernel(
    log_scores: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> TemperatureFit:
    """The T that minimises the mean NLL of softmax(log_scores / T); a pure kernel.

        T = argmin_T  sum_i w_i (log sum_k exp(s_ik / T) - s_iy / T),   0.01 <= T <= 1000

    Newton's method on log(1/T) within a bracket that shrinks at every step; the problem is convex
    in 1/T, so the optimum is the only one. Works under jit, sharding and vmap: pad the subjects
    to one length, with weight 0 on the padding, and map over the first axis. Not differentiable
    (a while loop). Source: Guo et al. 2017 (temperature scaling).

    Args:
        log_scores: [N, K] natural logs with any offset per row; see ``centred_scores`` for -inf.
        answers: [N] int, 0-based.
        mask: [N, K] bool or None.
        weights: [N], how often each row counts; weight 0: not at all.

    Returns:
        A ``TemperatureFit`` of scalars.

    Example:
        >>> import math
        >>> scores = [[math.log(9), 0.0]] * 4      # says 90 %, is right 3 times of 4
        >>> fit = temperature_kernel(scores, [0, 0, 0, 1])
        >>> round(float(fit.temperature), 4), STATUSES[int(fit.status)]   # log 9 / log 3
        (2.0, 'converged')
    """
    scores, valid = centred_scores(log_scores, mask)
    answers = jnp.asarray(answers).astype(jnp.int32)
    target = jnp.take_along_axis(scores, answers[:, None], axis=1)[:, 0]
    return solve_temperature(scores, valid, target, weights)


def solve_temperature(
    scores: jax.Array, valid: jax.Array, target: jax.Array, weights: ArrayLike | None
) -> TemperatureFit:
    """As ``temperature_kernel``, for ``target`` [N]: each row's expected score under its labels.

    ``scores`` come from ``centred_scores``. With target = sum_k t_k s_k the labels are soft, and
    the minimum is that of the cross-entropy of t.
    """
    weights = (
        jnp.ones(len(scores), jnp.float32)
        if weights is None
        else jnp.asarray(weights).astype(jnp.float32)
    )
    total = tree_sum(weights)

    def moments(log_beta):
        beta = jnp.exp(log_beta)
        # The largest score is 0 and beta > 0: no overflow.
        powers = jnp.where(valid, jnp.exp(beta * scores), 0)
        share = powers / powers.sum(axis=1, keepdims=True)
        mean = (share * scores).sum(axis=1)
        variance = (share * (scores - mean[:, None]) ** 2).sum(axis=1)
        slope, curvature = weighted_sum(jnp.stack([mean - target, variance], axis=1), weights)
        return slope / total, beta * curvature / total

    low, high = jnp.float32(-math.log(MAX_TEMPERATURE)), jnp.float32(-math.log(MIN_TEMPERATURE))
    slope_low, slope_high = jax.lax.map(lambda x: moments(x)[0], jnp.stack([low, high]))

    def going(state):
        steps, done = state[0], state[6]
        return (steps < _MAX_STEPS) & ~done

    def step(state):
        steps, low, high, x, before, moved, _ = state
        slope, curvature = moments(x)
        low, high = jnp.where(slope < 0, x, low), jnp.where(slope > 0, x, high)
        newton = -slope / curvature
        # Bisect when Newton leaves the bracket or does not halve the step before the last.
        good = (x + newton > low) & (x + newton < high) & (2 * jnp.abs(newton) < jnp.abs(before))
        go = jnp.where(good, newton, (low + high) / 2 - x)
        go = jnp.where(slope == 0, 0, go)
        enough = jnp.abs(go) <= jnp.where(good, _NEWTON_TOLERANCE, _BISECTION_TOLERANCE)
        return steps + 1, low, high, x + go, moved, go, enough | jnp.isnan(slope)

    width = high - low
    start = (0, low, high, jnp.float32(0), 2 * width, width, False)
    log_beta = jax.lax.while_loop(going, step, start)[3]

    flat = (slope_low == 0) & (slope_high == 0)
    conditions = [total == 0, ~jnp.isfinite(slope_low + slope_high), flat]
    conditions += [slope_high <= 0, slope_low >= 0]
    status = jnp.select(conditions, [*jnp.array([4, 5, 3, 1, 2])], 0).astype(jnp.int32)
    values = jnp.array([jnp.nan, jnp.nan, 1, MIN_TEMPERATURE, MAX_TEMPERATURE], jnp.float32)
    temperature = jnp.select(conditions, [*values], jnp.exp(-log_beta))
    beta = 1 / temperature
    powers = jnp.where(valid, jnp.exp(beta * scores), 0).sum(axis=1)
    nll = weighted_sum(jnp.log(powers) - beta * target, weights) / total
    return TemperatureFit(temperature, nll, status)


def fit_temperature(
    log_scores: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
) -> float:
    """The temperature T that makes softmax(log_scores / T) most likely; see the kernel.

    Args:
        log_scores: [N, K] natural logs (logits, log-probabilities) with any offset per row; -inf
            where masked. Someone who has probabilities passes log(probs), with a mask when some
            probabilities of existing options are 0: these are read as ``posthoc.floor`` says.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None: where the score is not -inf.
        weights: [N] or None, how often each row counts.

    Returns:
        T, a float in [0.01, 1000]. At a bound, or for uniform scores (T = 1), a
        CalibrationWarning says so.

    Raises:
        UserError: the arrays do not fit together; names the first bad row.

    Example:
        >>> import math
        >>> round(fit_temperature([[math.log(9), 0.0]] * 4, [0, 0, 0, 1]), 4)
        2.0
    """
    return Temperature.fit(log_scores, answers, mask, weights=weights).temperature


def fit_temperature_by_group(
    log_scores: ArrayLike,
    answers: ArrayLike,
    groups: ArrayLike,
    mask: ArrayLike | None = None,
) -> dict[str, "Temperature"]:
    """One temperature per group (subject, task), all in one vmapped call.

    Args:
        log_scores, answers, mask: as in ``fit_temperature``.
        groups: [N] names.

    Returns:
        group -> ``Temperature``, in sorted order; look at each ``status``: in a small group the
        temperature easily runs to a bound.

    Example:
        >>> scores = [[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [2.0, 0.0]]
        >>> found = fit_temperature_by_group(scores, [0, 0, 0, 0], ["a", "a", "b", "b"])
        >>> {name: fitted.status for name, fitted in found.items()}
        {'a': 'at_lower_bound', 'b': 'at_lower_bound'}
    """
    inputs = check_inputs(log_scores, answers, mask)
    groups = np.asarray(groups).astype(str)
    if groups.shape != (len(inputs.answers),):
        raise UserError(f"groups must have shape ({len(inputs.answers)},), got {groups.shape}")
    names, index = np.unique(groups, return_inverse=True)
    # Rows side by side, padded with weight 0 to the largest group.
    order = np.argsort(index, kind="stable")
    counts = np.bincount(index)
    place = np.arange(counts.max())
    inside = place < counts[:, None]
    rows = order[np.where(inside, (np.cumsum(counts) - counts)[:, None] + place, 0)]
    inputs, floor = without_zeros(inputs)
    fits = jax.vmap(temperature_kernel)(
        inputs.log_scores[rows], inputs.answers[rows], inputs.mask[rows], inside.astype(np.float32)
    )
    return {
        str(name): Temperature(float(t), STATUSES[int(s)], floor=floor)
        for name, t, s in zip(names, fits.temperature, fits.status, strict=True)
    }


@jax.jit
def apply_temperature(
    log_scores: ArrayLike,
    temperature: ArrayLike,
    mask: ArrayLike | None = None,
    floor: ArrayLike | None = None,
) -> jax.Array:
    """softmax(log_scores / T) over the valid options, float32 [N, K]; differentiable in both.

    ``floor``: how zeros are read, see ``centred_scores``.

    Example:
        >>> import math
        >>> round(float(apply_temperature([[math.log(9), 0.0]], 2.0)[0, 0]), 4)
        0.75
    """
    scores, valid = centred_scores(log_scores, mask, floor)
    return masked_softmax(scores / temperature, valid)


@jax.jit
def _log_probs(log_scores, temperature, mask, floor) -> jax.Array:
    scores, valid = centred_scores(log_scores, mask, floor)
    return masked_log_softmax(scores / temperature, valid)


class OneTemperature(Calibrator):
    """softmax(s / T), whatever T is fitted to."""

    preserves_argmax = True
    scalars = ("temperature",)
    temperature: float
    status: str  # of what is fitted to labels or to a reference

    def __call__(self, log_scores, mask=None) -> jax.Array:
        return apply_temperature(log_scores, self.temperature, mask, self.floor)

    def log_probs(self, log_scores, mask=None) -> jax.Array:
        return _log_probs(log_scores, self.temperature, mask, self.floor)


@register("temperature", "Temp. scale, fitted")
@dataclasses.dataclass(frozen=True)
class Temperature(OneTemperature):
    """Temperature scaling, softmax(s / T): one parameter.

    Preserves: the order of a row's options and their ties, so every prediction and the accuracy,
    and the ratio of two options' log-odds. Not the order of the confidences between rows. How
    certain T is: ``temperature_interval``. Source: Guo et al. 2017.

    Attributes:
        temperature: T.
        status: how the fit ended, one of ``STATUSES``.

    Example:
        >>> import math
        >>> calibrator = Temperature.fit([[math.log(9), 0.0]] * 4, [0, 0, 0, 1])
        >>> round(float(calibrator([[math.log(9), 0.0]])[0, 0]), 4)
        0.75
    """

    temperature: float = parameter(number(1e-6, 1e6))
    status: str = parameter(choice(*STATUSES[:4]), default="converged")

    @classmethod
    def fit(cls, log_scores, answers=None, mask=None, *, weights=None) -> Self:
        """T by maximum likelihood; see ``fit_temperature``.

        Where there are zeros, of the answers and options that are none (see ``posthoc.floor``);
        where these say nothing of T, with the zeros at their most likely value.
        """
        given = check_inputs(log_scores, answers, mask, weights)
        inputs, floor = without_zeros(given)
        found = temperature_kernel(*(inputs if floor is None else only_given(given)))
        if floor is not None and STATUSES[int(found.status)] != "converged":
            found = temperature_kernel(*inputs)
        fitted = cls(float(found.temperature), status_of(found), floor=floor)
        warn_of_status(fitted, inputs)
        return fitted


@register("fixed_temperature", "Temp. scale, T = 1.5")
@dataclasses.dataclass(frozen=True)
class FixedTemperature(OneTemperature):
    """Softmax at a T chosen beforehand; 1.5 is the published "temperature scaling" baseline.

    The released code of Xiao et al. 2025 never moves its T from the initial 1.5. Preserves: as
    ``Temperature``.

    Example:
        >>> FixedTemperature()
        FixedTemperature(temperature=1.5)
    """

    temperature: float = parameter(number(1e-6, 1e6), default=1.5)

    needs_answers = False

    @classmethod
    def fit(cls, log_scores=None, answers=None, mask=None, *, weights=None, temperature=1.5):
        """``FixedTemperature(temperature)``; the data only say how zeros are to be read."""
        floor = None
        if log_scores is not None:
            inputs = check_inputs(log_scores, answers, mask, weights, needs_answers=False)
            floor = without_zeros(inputs)[1]
        return cls(temperature, floor=floor)


def only_given(inputs: FitInputs) -> FitInputs:
    """The inputs without the options of probability 0, and the rows whose answer is one."""
    given = inputs.mask & (inputs.log_scores > -np.inf)
    kept = np.take_along_axis(given, inputs.answers[:, None], axis=1)[:, 0]
    return inputs._replace(mask=given, weights=inputs.weights * kept)


def status_of(found: TemperatureFit) -> str:
    """How a fit ended; UserError where it found nothing."""
    status = STATUSES[int(found.status)]
    if status in STATUSES[4:]:
        raise UserError(f"the temperature fit failed ({status}): check the scores")
    return status


def warn_of_status(fitted: OneTemperature, inputs: FitInputs) -> None:
    """Say in words that a fit ended at a bound, or that its T leaves all but a uniform guesser.

    Args:
        fitted: with ``temperature`` and ``status``.
        inputs: what it was fitted to, without zeros.
    """
    low, high = f"lower bound {MIN_TEMPERATURE:g}", f"upper bound {MAX_TEMPERATURE:g}"
    guesses = _guesses(fitted, inputs)
    text = None
    if fitted.status == "flat":
        text = "the scores of every row are uniform, so every T gives the same: T = 1"
    elif fitted.status == "at_lower_bound" and guesses:
        text = f"the scores of a row hardly differ: T stays at its {low}; multiply the scores"
    elif fitted.status == "at_lower_bound":
        text = (
            "every answer is its row's best option, so the likelihood grows as T -> 0: T stays at "
            f"its {low}"
        )
    elif fitted.status == "at_upper_bound" and guesses:
        text = (
            "the scores say nothing of the answers or the contrary, so the likelihood grows as "
            f"T -> infinity: T stays at its {high}, all but the uniform guesser"
        )
    elif fitted.status == "at_upper_bound":
        text = f"the scores of a row differ by far too much: T stays at its {high}; divide them"
    elif guesses:
        text = (
            "the fitted T makes the model all but a uniform guesser, of a mean confidence hardly "
            "above 1/K: its calibration error is worth what a guesser's is"
        )
    if text:
        warnings.warn(text, CalibrationWarning, stacklevel=4)


def _guesses(fitted: OneTemperature, inputs: FitInputs) -> bool:
    """Whether the mean confidence at T is that of a uniform guesser; see ``GUESSER``."""
    counted = (inputs.weights > 0) & (inputs.mask.sum(axis=1) > 1)
    if not counted.any():
        return False
    chance = 1 / inputs.mask.sum(axis=1)[counted]
    probs = apply_temperature(inputs.log_scores, fitted.temperature, inputs.mask)
    confidence = np.asarray(probs)[counted].max(axis=1)
    return bool((confidence - chance).mean() <= GUESSER * (1 - chance).mean())
