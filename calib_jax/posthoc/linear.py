"""Vector, matrix and Dirichlet scaling: linear maps of the scores, fitted by L-BFGS."""

import dataclasses
import functools
import warnings
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from calib_jax.errors import UserError
from calib_jax.metrics.sums import weighted_mean
from calib_jax.posthoc.calibrator import (
    CalibrationWarning,
    Calibrator,
    count,
    flag,
    number,
    parameter,
    register,
    row,
)
from calib_jax.posthoc.inputs import (
    FitInputs,
    centred_scores,
    check_inputs,
    check_options,
    masked_log_softmax,
    masked_logsumexp,
    masked_softmax,
    without_zeros,
)
from calib_jax.posthoc.temperature import solve_temperature

_MAX_STEPS = 500
# Largest component of the gradient of the mean loss (per unit of log-score) that counts as zero.
_TOLERANCE = 1e-5


class _Found(NamedTuple):
    weight: jax.Array
    bias: jax.Array
    loss: jax.Array
    gradient: jax.Array
    steps: jax.Array


def _features(scores: jax.Array, valid: jax.Array, kind: str) -> jax.Array:
    """What is multiplied: a function of the row's probabilities alone, 0 where masked."""
    if kind == "dirichlet":
        shift = masked_logsumexp(scores, valid)[:, None]
    else:
        counts = jnp.maximum(valid.sum(axis=1, keepdims=True), 1)
        shift = scores.sum(axis=1, keepdims=True) / counts
    return jnp.where(valid, scores - shift, 0)


def features_of(log_scores: ArrayLike, mask: ArrayLike | None) -> jax.Array:
    """Scores less their mean over the row's valid options, float32 [N, K]; 0 where masked."""
    return _features(*centred_scores(log_scores, mask), "matrix")


def _logits(features: jax.Array, weight: jax.Array, bias: jax.Array) -> jax.Array:
    if weight.ndim == 1:
        return features * weight + bias
    # Accelerators multiply in fewer bits unless told otherwise.
    return jnp.matmul(features, weight.T, precision=jax.lax.Precision.HIGHEST) + bias


def _penalty(weight, bias, weight_penalty, bias_penalty):
    """Mean squares: of the off-diagonal (ODIR), or of a vector's distance from its mean."""
    options = bias.shape[0]
    if weight.ndim == 1:
        spread = jnp.mean((weight - weight.mean()) ** 2)
    else:
        off = jnp.sum(jnp.where(jnp.eye(options, dtype=bool), 0, weight) ** 2)
        spread = off / max(options * (options - 1), 1)
    return weight_penalty * spread + bias_penalty * jnp.mean(bias**2)


@functools.partial(jax.jit, static_argnames="kind")
def _fit(log_scores, answers, mask, weights, weight_penalty, bias_penalty, kind) -> _Found:
    scores, valid = centred_scores(log_scores, mask)
    features = _features(scores, valid, kind)
    options = scores.shape[1]
    one_hot = answers[:, None] == jnp.arange(options)
    target = jnp.where(one_hot, scores, 0).sum(axis=1)
    # The best single temperature is the start, kept away from its bounds.
    beta = 1 / solve_temperature(scores, valid, target, weights).temperature
    beta = jnp.clip(jnp.nan_to_num(beta, nan=1.0), 0.01, 10.0)
    # Unit-sized features: one step length suits the weights and the bias. What is penalised
    # curves by its penalty as well, and by that alone where the features are tiny.
    largest = jnp.abs(features).max()
    largest = jnp.where(largest > 0, largest, 1)
    size = largest * jnp.sqrt(weighted_mean(jnp.mean((features / largest) ** 2, axis=1), weights))
    size = jnp.where(size > 0, size, 1)
    penalised = jnp.sqrt(size**2 + weight_penalty)

    def weight_of(x):
        if kind == "vector":
            return x.mean() / size + (x - x.mean()) / penalised
        return jnp.where(jnp.eye(options, dtype=bool), x / size, x / penalised)

    start = jnp.ones(options) if kind == "vector" else jnp.eye(options)

    def loss(params):
        weight, bias = weight_of(params[0]), params[1]
        logits = _logits(features, weight, bias)
        nll = masked_logsumexp(logits, valid) - jnp.where(one_hot, logits, 0).sum(axis=1)
        return weighted_mean(nll, weights) + _penalty(weight, bias, weight_penalty, bias_penalty)

    solver = optax.lbfgs(memory_size=10)
    value_and_grad = optax.value_and_grad_from_state(loss)

    def steepest(gradient):
        return jnp.maximum(jnp.abs(gradient[0]).max(), jnp.abs(gradient[1]).max())

    def going(carry):
        _, _, steps, gradient = carry
        return (steps < _MAX_STEPS) & (gradient > _TOLERANCE)

    def step(carry):
        params, state, steps, _ = carry
        value, gradient = value_and_grad(params, state=state)
        updates, state = solver.update(
            gradient, state, params, value=value, grad=gradient, value_fn=loss
        )
        params = optax.apply_updates(params, updates)
        after = optax.tree.get(state, "grad")
        return params, state, steps + 1, steepest(after)

    params = (start * beta * size, jnp.zeros(options))
    carry = (params, solver.init(params), jnp.int32(0), jnp.float32(jnp.inf))
    params, _, steps, _ = jax.lax.while_loop(going, step, carry)
    value, gradient = jax.value_and_grad(loss)(params)
    return _Found(weight_of(params[0]), params[1], value, steepest(gradient), steps)


@functools.partial(jax.jit, static_argnames=("kind", "logs"))
def _apply(log_scores, weight, bias, mask, floor, kind, logs) -> jax.Array:
    scores, valid = centred_scores(log_scores, mask, floor)
    logits = _logits(_features(scores, valid, kind), weight, bias)
    return (masked_log_softmax if logs else masked_softmax)(logits, valid)


def _padded(inputs: FitInputs) -> FitInputs:
    """Rows of weight 0 up to a power of two: splits of similar size share one compilation."""
    rows = len(inputs.weights)
    extra = max(256, 1 << (rows - 1).bit_length()) - rows
    return FitInputs(*(np.pad(x, [(0, extra)] + [(0, 0)] * (x.ndim - 1)) for x in inputs))


@dataclasses.dataclass(frozen=True)
class Scaling(Calibrator):
    """The call that linear maps of the scores share, and the fit of the three here."""

    weight: Any  # a slope for each option, or a row of them
    bias: tuple[float, ...] = parameter(row(number()))
    converged: bool = parameter(flag, default=True)
    steps: int = parameter(count, default=0)
    gradient: float = parameter(number(0), default=0.0)

    preserves_argmax = False

    @classmethod
    def _fitted(cls, inputs, weight_penalty, bias_penalty) -> Self:
        for key, value in (("weight", weight_penalty), ("bias", bias_penalty)):
            if not (np.isfinite(value) and value >= 0):
                raise UserError(f"{cls.name}: the {key} penalty must be >= 0, got {value!r}")
        inputs, floor = without_zeros(inputs)
        found = _fit(*_padded(inputs), weight_penalty, bias_penalty, kind=cls.name)
        gradient = float(found.gradient)
        if not np.isfinite(gradient):
            raise UserError(f"{cls.name}: the fit became NaN: check the scores and penalties")
        converged = gradient <= _TOLERANCE
        if not converged:
            warnings.warn(
                f"{cls.name}: the fit stopped after {int(found.steps)} steps with a gradient of "
                f"{gradient:.1e}, above {_TOLERANCE:g}: raise the penalty or add rows",
                CalibrationWarning,
                stacklevel=4,
            )
        weight, bias = np.asarray(found.weight).tolist(), np.asarray(found.bias).tolist()
        return cls(weight, bias, converged, int(found.steps), gradient, floor=floor)

    def _check_together(self):
        lengths = {len(self.bias), len(self.weight)}
        if isinstance(self.weight[0], tuple):
            lengths |= {len(line) for line in self.weight}
        if len(lengths) > 1:
            raise UserError(f'{self.name}: "weight" and "bias" must have one K, got {lengths}')

    def __call__(self, log_scores: ArrayLike, mask: ArrayLike | None = None) -> jax.Array:
        return self._applied(log_scores, mask, logs=False)

    def log_probs(self, log_scores: ArrayLike, mask: ArrayLike | None = None) -> jax.Array:
        return self._applied(log_scores, mask, logs=True)

    def _applied(self, log_scores, mask, logs) -> jax.Array:
        check_options(log_scores, len(self.bias), self.name)
        weight, bias = np.asarray(self.weight, np.float32), np.asarray(self.bias, np.float32)
        return _apply(log_scores, weight, bias, mask, self.floor, kind=self.name, logs=logs)


@register("vector", "Vector scaling")
@dataclasses.dataclass(frozen=True)
class VectorScaling(Scaling):
    """Vector scaling: a slope and an offset per option.

        p = softmax(w * c + b),   c = s - mean of s over the row's valid options

    Centring makes the result a function of the probabilities alone. Fitted to

        mean NLL + penalty (mean_k (w_k - mean w)^2 + mean_k b_k^2)

    so that a large penalty gives temperature scaling. Options may change places. Source: Guo et
    al. 2017.

    Attributes:
        weight: w, K floats.
        bias: b, K floats. Both of an option that no row has are only ruled by the penalty.
        converged: whether the gradient's largest component fell to 1e-5.
        steps: L-BFGS steps taken, at most 500.
        gradient: that component at the end.

    Example:
        >>> scores = [[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]]
        >>> calibrator = VectorScaling.fit(scores, [0, 0, 0, 1])
        >>> calibrator.converged, calibrator.bias[0] > calibrator.bias[1]
        (True, True)
    """

    weight: tuple[float, ...] = parameter(row(number()))

    @classmethod
    def fit(cls, log_scores, answers=None, mask=None, *, weights=None, penalty=1e-2) -> Self:
        """Fit to labelled rows; ``penalty`` >= 0 as in the formula, 0.01 by default."""
        return cls._fitted(check_inputs(log_scores, answers, mask, weights), penalty, penalty)


@register("matrix", "Matrix scaling")
@dataclasses.dataclass(frozen=True)
class MatrixScaling(Scaling):
    """Matrix scaling with off-diagonal and intercept regularisation (ODIR).

        p = softmax(W c + b),   c = s - mean of s over the row's valid options
        mean NLL + penalty / (K (K - 1)) sum_{j != k} W_jk^2 + bias_penalty / K sum_k b_k^2

    A masked option adds nothing to the others (c = 0). Options may change places. Source: Guo et
    al. 2017; the regularisation from Kull et al. 2019, section 3.

    Attributes:
        weight: W, K rows of K floats.
        bias: b, K floats.
        converged, steps, gradient: as in ``VectorScaling``.

    Example:
        >>> scores = [[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]]
        >>> MatrixScaling.fit(scores, [0, 0, 0, 1]).converged
        True
    """

    weight: tuple[tuple[float, ...], ...] = parameter(row(row(number())))

    @classmethod
    def fit(
        cls,
        log_scores,
        answers=None,
        mask=None,
        *,
        weights=None,
        penalty=1e-1,
        bias_penalty=1e-2,
    ) -> Self:
        """Fit to labelled rows; the two penalties of the formula are 0.1 and 0.01 by default."""
        return cls._fitted(check_inputs(log_scores, answers, mask, weights), penalty, bias_penalty)


@register("dirichlet", "Dirichlet scaling")
@dataclasses.dataclass(frozen=True)
class DirichletScaling(MatrixScaling):
    """Dirichlet calibration: matrix scaling of the log-probabilities, with the same ODIR.

        p = softmax(W ln q + b),   q = softmax(s) over the row's valid options

    That is Bayes' rule when q is Dirichlet-distributed given each answer. A masked option adds
    nothing (ln q = 0). Options may change places. Source: Kull et al. 2019, Eq. 2 (linear form).

    Attributes: as in ``MatrixScaling``.

    Example:
        >>> scores = [[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]]
        >>> DirichletScaling.fit(scores, [0, 0, 0, 1]).converged
        True
    """
