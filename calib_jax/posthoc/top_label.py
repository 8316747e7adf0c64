"""Platt scaling and beta calibration of the top label's confidence; the rest of the row follows."""

import abc
import dataclasses
import functools
import itertools
import warnings
from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax.errors import UserError
from calib_jax.posthoc.calibrator import CalibrationWarning, Calibrator, number, parameter, register
from calib_jax.posthoc.inputs import (
    centred_scores,
    check_inputs,
    masked_logsumexp,
    without_zeros,
)

_MAX_STEPS = 100
# The largest 1/T of a row. Beyond it a near tie at the top would need a 1/T in the thousands, which
# leaves the other options nothing.
MAX_INVERSE_TEMPERATURE = 2.0
# Of the log-odds that a row's temperature gives its best option.
_TOLERANCE = 1e-6


class TopLabel(NamedTuple):
    """A row seen as its best option (the first of equals) against the rest.

    Attributes:
        option: int32 [N], the best option.
        scores: float32 [N, K], log-scores less the best one's; 0 where masked.
        valid: bool [N, K], which options exist.
        log_top: float32 [N], ln c of its probability c.
        log_rest: float32 [N], ln(1 - c), exact also where c rounds to 1; -inf without other
            options.
        confidence: float32 [N], c. Fits and calibrators read this one: another exp of ``log_top``
            may differ in the last bit, and fall on the other side of an edge.
    """

    option: jax.Array
    scores: jax.Array
    valid: jax.Array
    log_top: jax.Array
    log_rest: jax.Array
    confidence: jax.Array


@jax.jit
def top_label(log_scores, mask=None, floor=None) -> TopLabel:
    """Split each row into its best option and the rest, in logarithms."""
    scores, valid = centred_scores(log_scores, mask, floor)
    option = jnp.argmax(jnp.where(valid, scores, -jnp.inf), axis=1).astype(jnp.int32)
    best = option[:, None] == jnp.arange(scores.shape[1])
    rest = masked_logsumexp(scores, valid & ~best)
    total = masked_logsumexp(scores, valid)
    top = TopLabel(option, scores, valid, -total, rest - total, jnp.exp(-total))
    # Fused with what follows, the last bit might depend on it.
    return jax.lax.optimization_barrier(top)


@functools.partial(jax.jit, static_argnames="logs")
def with_log_odds(top: TopLabel, log_odds: jax.Array, logs: bool = False) -> jax.Array:
    """Rows whose best option has the log-odds ``log_odds`` [N]; probabilities or their logarithms.

    The row becomes softmax(s / T) at the T at which its best option is so probable: the options
    keep their order, and the prediction stays. Three conventions:

    * log-odds below those of 1/K (K the row's own number of options) are read as these: every
      option gets 1/K. So that the prediction stays all the same, the best option's float32 is then
      the larger one by a bit.
    * T is at least 1/2. Where that does not suffice (a near tie at the top, or an exact one, which
      no T breaks) the others give the best option the rest in proportion to what they have.
    * A row with a single option keeps its probability of 1.

    The T is found by Newton's method on 1/T from 0: the log-odds -ln sum_k exp(s_k / T), s <= 0,
    are increasing and concave in 1/T, so no step goes too far and the steps converge quadratically.
    Not differentiable backwards (a while loop).
    """
    position = jnp.arange(top.scores.shape[1])
    best = top.option[:, None] == position
    others = top.valid & ~best
    count = others.sum(axis=1)
    log_odds = jnp.where(count == 0, jnp.inf, jnp.maximum(log_odds, -jnp.log(count)))
    second = jnp.where(others, top.scores, -jnp.inf).max(axis=1, keepdims=True)
    second = jnp.where(count[:, None] == 0, 0, second)
    below = jnp.where(others, top.scores - second, 0)

    def powers(inverse):
        return jnp.where(others, jnp.exp(inverse[:, None] * below), 0)

    def missing(inverse):
        """Log-odds that are still to be gained, and what they gain by 1/T."""
        share = powers(inverse)
        total = jnp.maximum(share.sum(axis=1), 1)
        reached = -inverse * second[:, 0] - jnp.log(total)
        slope = -second[:, 0] - (share * below).sum(axis=1) / total
        return log_odds - reached, slope

    def going(state):
        return (state[0] < _MAX_STEPS) & state[2].any()

    def step(state):
        steps, inverse, _ = state
        gap, slope = missing(inverse)
        wanted = gap > _TOLERANCE * jnp.maximum(1, jnp.abs(log_odds))
        # Where all options are equal the slope is 0, and 1/T becomes as large as it may be.
        move = jnp.where(wanted, gap / jnp.abs(slope), 0)
        inverse = jnp.minimum(inverse + move, MAX_INVERSE_TEMPERATURE)
        return steps + 1, inverse, wanted & (inverse < MAX_INVERSE_TEMPERATURE)

    start = jnp.zeros_like(top.log_top)
    inverse = jax.lax.while_loop(going, step, (0, start, count > 0))[1]
    total = jnp.maximum(powers(inverse).sum(axis=1), 1)
    share = inverse[:, None] * below - jnp.log(total)[:, None]
    found = jax.nn.log_sigmoid(jnp.where(best, 1, -1) * log_odds[:, None])
    found = jnp.where(others, found + share, jnp.where(best & top.valid, found, -jnp.inf))
    if not logs:
        found = jnp.exp(found)
    # No option overtakes by rounding; one before the best may not even come level with it.
    chosen = jnp.where(best, found, -jnp.inf).max(axis=1, keepdims=True)
    level = jnp.where(position < top.option[:, None], jnp.nextafter(chosen, -jnp.inf), chosen)
    return jnp.where(others, jnp.minimum(found, level), found)


class TopLabelData(NamedTuple):
    """Float64 host arrays over the rows of two options or more; what zeros were read as."""

    log_top: np.ndarray
    log_rest: np.ndarray
    confidence: np.ndarray
    correct: np.ndarray
    weights: np.ndarray
    floor: float | None


def top_label_data(log_scores, answers, mask, weights) -> TopLabelData:
    """The binary problem "is the best option right?"; rows with a single option say nothing."""
    inputs = check_inputs(log_scores, answers, mask, weights)
    floor = without_zeros(inputs)[1]
    # By the program that the calibrator will apply, so that both see the same bits.
    top = jax.device_get(top_label(inputs.log_scores, inputs.mask, floor))
    kept = (top.log_rest > -np.inf) & (inputs.weights > 0)
    if not kept.any():
        raise UserError("no row has two options or more: nothing to fit to")
    correct = top.option == inputs.answers
    columns = (top.log_top, top.log_rest, top.confidence, correct, inputs.weights)
    top_, rest, c, right, weights = (column[kept].astype(np.float64) for column in columns)
    return TopLabelData(top_, rest, c, right, weights, floor)


def _targets(data: TopLabelData, smooth: bool) -> np.ndarray:
    """0 and 1, or Platt's (N+ + 1)/(N+ + 2) and 1/(N- + 2), which keep the optimum finite."""
    if not smooth:
        return data.correct
    right = (data.weights * data.correct).sum()
    wrong = data.weights.sum() - right
    return np.where(data.correct == 1, (right + 1) / (right + 2), 1 / (wrong + 2))


def _logistic(columns, targets, weights) -> tuple[np.ndarray, float, bool]:
    """Logistic regression by damped Newton: coefficients, mean loss, whether it converged."""
    features = np.stack(columns, axis=1)
    weights = weights / weights.sum()

    def loss(x):
        logits = features @ x
        return weights @ (np.logaddexp(0, logits) - targets * logits)

    x = np.zeros(features.shape[1])
    value = loss(x)
    for _ in range(_MAX_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(features @ x, -700, 700)))
        gradient = features.T @ (weights * (chance - targets))
        hessian = (features * (weights * chance * (1 - chance))[:, None]).T @ features
        if np.abs(hessian).max() < 1e-12:  # every row certain: the optimum is at infinity
            return x, value, False
        # Collinear features (all rows alike) have many optima: lstsq takes the nearest.
        move = np.linalg.lstsq(hessian, gradient, rcond=1e-13)[0]
        # Newton squares the error, so nothing is left after a step this small.
        last = np.abs(features @ move).max() < 1e-6
        scale = 1.0
        while not last and loss(x - scale * move) > value and scale > 1e-10:
            scale /= 2
        x = x - scale * move
        value = loss(x)
        if last:
            return x, value, True
    return x, value, False


def _warn_unless(converged: bool, name: str) -> None:
    if not converged:
        warnings.warn(
            f"{name}: no finite optimum (right and wrong rows do not overlap), the fit stopped on "
            "its way to infinity: keep smooth_targets=True",
            CalibrationWarning,
            stacklevel=4,
        )


@functools.partial(jax.jit, static_argnames="logs")
def _apply_linear(top: TopLabel, on_top, on_rest, intercept, logs) -> jax.Array:
    rest = jnp.where(top.log_rest == -jnp.inf, 0, top.log_rest)
    return with_log_odds(top, on_top * top.log_top + on_rest * rest + intercept, logs)


class TopLabelCalibrator(Calibrator):
    """A map of the best option's confidence; the row follows by a temperature of its own."""

    preserves_argmax = True

    @abc.abstractmethod
    def _applied(self, top: TopLabel, logs: bool) -> jax.Array:
        """The probabilities after the map, or their logarithms."""

    def __call__(self, log_scores, mask=None) -> jax.Array:
        return self._applied(top_label(log_scores, mask, self.floor), logs=False)

    def log_probs(self, log_scores, mask=None) -> jax.Array:
        return self._applied(top_label(log_scores, mask, self.floor), logs=True)


class _Linear(TopLabelCalibrator):
    """A linear function of ln c and ln(1 - c), as the new log-odds of the best option."""

    @abc.abstractmethod
    def _linear(self) -> tuple[float, float, float]:
        """The factors of ln c and ln(1 - c), and the constant."""

    def _applied(self, top, logs) -> jax.Array:
        return _apply_linear(top, *self._linear(), logs=logs)


@register("platt", "Platt scaling")
@dataclasses.dataclass(frozen=True)
class PlattScaling(_Linear):
    """Platt scaling of the top label: logistic regression on the logit of the confidence c.

        P(right) = sigmoid(slope ln(c / (1 - c)) + intercept)

    takes the place of c, by a temperature for each row (``with_log_odds``).

    Preserves: the order of a row's options, so every prediction and the accuracy; between rows
    the order of the confidences where slope > 0. Not the letters' mean probabilities. The
    confidence is the calibrated one, but for an estimate below 1/K, which becomes 1/K.

    ln(c / (1 - c)) is computed from the scores, so that confidences that round to 1 stay apart.
    Source: Platt 1999, with its target values.

    Attributes:
        slope, intercept: floats.

    Example:
        >>> scores = [[2.0, 0.0]] * 4
        >>> calibrator = PlattScaling.fit(scores, [0, 0, 0, 1])
        >>> round(float(calibrator(scores)[0, 0]), 4)      # (3 * 4/5 + 1/3) / 4
        0.6833
    """

    scalars = ("slope", "intercept")
    slope: float = parameter(number())
    intercept: float = parameter(number())

    @classmethod
    def fit(cls, log_scores, answers=None, mask=None, *, weights=None, smooth_targets=True) -> Self:
        """Maximum likelihood of Platt's targets; of 0 and 1 with ``smooth_targets=False``."""
        data = top_label_data(log_scores, answers, mask, weights)
        columns = [data.log_top - data.log_rest, np.ones(len(data.correct))]
        x, _, converged = _logistic(columns, _targets(data, smooth_targets), data.weights)
        _warn_unless(converged, cls.name)
        return cls(*np.asarray(x, np.float32).tolist(), floor=data.floor)

    def _linear(self) -> tuple[float, float, float]:
        return self.slope, -self.slope, self.intercept


@register("beta", "Beta calibration")
@dataclasses.dataclass(frozen=True)
class BetaCalibration(_Linear):
    """Beta calibration of the top label's confidence c.

        P(right) = sigmoid(a ln c - b ln(1 - c) + intercept),   a, b >= 0

    takes the place of c as in ``PlattScaling``, which is the case a = b. Source: Kull, Silva
    Filho and Flach 2017, Eq. 3; a and b are the best that are not negative.

    Preserves: as ``PlattScaling``; a, b >= 0 keep the order of the confidences.

    Attributes:
        a, b: floats >= 0.
        intercept: float (c in the paper).

    Example:
        >>> calibrator = BetaCalibration.fit([[2.0, 0.0]] * 4, [0, 0, 0, 1])
        >>> round(float(calibrator([[2.0, 0.0]])[0, 0]), 4)
        0.6833
    """

    scalars = ("a", "b", "intercept")
    a: float = parameter(number(0))
    b: float = parameter(number(0))
    intercept: float = parameter(number())

    @classmethod
    def fit(cls, log_scores, answers=None, mask=None, *, weights=None, smooth_targets=True) -> Self:
        """Maximum likelihood of Platt's targets; of 0 and 1 with ``smooth_targets=False``."""
        data = top_label_data(log_scores, answers, mask, weights)
        targets = _targets(data, smooth_targets)
        columns = [data.log_top, -data.log_rest, np.ones(len(targets))]
        best: tuple[np.ndarray, float, bool] | None = None
        # The optimum with a, b >= 0 is the best of those with either, both or none left out.
        for used in itertools.product((True, False), repeat=2):
            kept = [k for k, use in enumerate((*used, True)) if use]
            found, loss, converged = _logistic([columns[k] for k in kept], targets, data.weights)
            x = np.zeros(3)
            x[kept] = found
            if x[:2].min() >= 0 and (best is None or loss < best[1]):
                best = x, loss, converged
                if all(used):
                    break
        assert best is not None  # with both left out, a = b = 0
        _warn_unless(best[2], cls.name)
        return cls(*np.asarray(best[0], np.float32).tolist(), floor=data.floor)

    def _linear(self) -> tuple[float, float, float]:
        return self.a, -self.b, self.intercept
