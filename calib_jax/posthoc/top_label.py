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


class TopLabel(NamedTuple):
    """A row seen as its best option (the first of equals) against the rest.

    Attributes:
        option: int32 [N], the best option.
        log_top: float32 [N], ln c of its probability c.
        log_rest: float32 [N], ln(1 - c), exact also where c rounds to 1; -inf without other
            options.
        log_others: float32 [N, K], ln of each other option's share of 1 - c; -inf for the best and
            where masked.
    """

    option: jax.Array
    log_top: jax.Array
    log_rest: jax.Array
    log_others: jax.Array


@jax.jit
def top_label(log_scores, mask=None, floor=None) -> TopLabel:
    """Split each row into its best option and the rest, in logarithms."""
    scores, valid = centred_scores(log_scores, mask, floor)
    option = jnp.argmax(jnp.where(valid, scores, -jnp.inf), axis=1).astype(jnp.int32)
    best = option[:, None] == jnp.arange(scores.shape[1])
    rest = masked_logsumexp(scores, valid & ~best)
    total = masked_logsumexp(scores, valid)
    base = jnp.where(rest == -jnp.inf, 0, rest)
    log_others = jnp.where(valid & ~best, scores - base[:, None], -jnp.inf)
    return TopLabel(option, -total, rest - total, log_others)


@jax.jit
def with_confidence(top: TopLabel, confidence: jax.Array, remainder: jax.Array) -> jax.Array:
    """Rows whose best option has ``confidence`` [N] and whose others share ``remainder`` [N].

    The others keep their proportions. A row with a single option keeps its probability of 1.
    """
    alone = top.log_rest == -jnp.inf
    confidence = jnp.where(alone, 1, confidence)[:, None]
    remainder = jnp.where(alone, 0, remainder)[:, None]
    best = top.option[:, None] == jnp.arange(top.log_others.shape[1])
    return jnp.where(best, confidence, remainder * jnp.exp(top.log_others)).astype(jnp.float32)


@jax.jit
def with_log_confidence(top: TopLabel, confidence: jax.Array, remainder: jax.Array) -> jax.Array:
    """ln of ``with_confidence``, from the logarithms of ``confidence`` and ``remainder`` [N]."""
    alone = top.log_rest == -jnp.inf
    confidence = jnp.where(alone, 0, confidence)[:, None]
    remainder = jnp.where(alone, 0, remainder)[:, None]
    best = top.option[:, None] == jnp.arange(top.log_others.shape[1])
    return jnp.where(best, confidence, remainder + top.log_others).astype(jnp.float32)


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
    inputs, floor = without_zeros(check_inputs(log_scores, answers, mask, weights))
    top = jax.device_get(top_label(inputs.log_scores, inputs.mask))
    kept = (top.log_rest > -np.inf) & (inputs.weights > 0)
    if not kept.any():
        raise UserError("no row has two options or more: nothing to fit to")
    correct = top.option == inputs.answers
    # float32, as it will be when the calibrator is applied.
    confidence = np.exp(top.log_top)
    columns = (top.log_top, top.log_rest, confidence, correct, inputs.weights)
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
def _apply_linear(log_scores, mask, floor, on_top, on_rest, intercept, logs) -> jax.Array:
    top = top_label(log_scores, mask, floor)
    rest = jnp.where(top.log_rest == -jnp.inf, 0, top.log_rest)
    logit = on_top * top.log_top + on_rest * rest + intercept
    if logs:
        return with_log_confidence(top, jax.nn.log_sigmoid(logit), jax.nn.log_sigmoid(-logit))
    return with_confidence(top, jax.nn.sigmoid(logit), jax.nn.sigmoid(-logit))


class _Linear(Calibrator):
    """A linear function of ln c and ln(1 - c), as the new log-odds of the best option."""

    preserves_argmax = False

    @abc.abstractmethod
    def _linear(self) -> tuple[float, float, float]:
        """The factors of ln c and ln(1 - c), and the constant."""

    def __call__(self, log_scores, mask=None) -> jax.Array:
        return _apply_linear(log_scores, mask, self.floor, *self._linear(), logs=False)

    def log_probs(self, log_scores, mask=None) -> jax.Array:
        return _apply_linear(log_scores, mask, self.floor, *self._linear(), logs=True)


@register("platt", "Platt scaling")
@dataclasses.dataclass(frozen=True)
class PlattScaling(_Linear):
    """Platt scaling of the top label: logistic regression on the logit of the confidence c.

        P(right) = sigmoid(slope ln(c / (1 - c)) + intercept)

    takes the place of c; the other options share the rest in their old proportions. The best
    option may change where the new confidence falls below another option's. ln(c / (1 - c)) is
    computed from the scores, so that confidences that round to 1 stay apart. Source: Platt 1999,
    with its target values.

    Attributes:
        slope, intercept: floats.

    Example:
        >>> scores = [[2.0, 0.0]] * 4
        >>> calibrator = PlattScaling.fit(scores, [0, 0, 0, 1])
        >>> round(float(calibrator(scores)[0, 0]), 4)      # (3 * 4/5 + 1/3) / 4
        0.6833
    """

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

    Attributes:
        a, b: floats >= 0.
        intercept: float (c in the paper).

    Example:
        >>> calibrator = BetaCalibration.fit([[2.0, 0.0]] * 4, [0, 0, 0, 1])
        >>> round(float(calibrator([[2.0, 0.0]])[0, 0]), 4)
        0.6833
    """

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
