"""A ridge head: the options' scores read anew from the hidden state, then a temperature."""

import dataclasses
import functools
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax.errors import UserError
from calib_jax.posthoc.calibrator import Calibrator, choice, number, parameter, register, row
from calib_jax.posthoc.crossfit import fold_numbers
from calib_jax.posthoc.inputs import (
    FitInputs,
    check_options,
    check_states,
    masked_log_softmax,
    masked_softmax,
)
from calib_jax.posthoc.temperature import (
    STATUSES,
    Temperature,
    status_of,
    temperature_kernel,
    warn_of_status,
)

# Penalties that are tried, per row and standardised dimension: half decades from hardly any to one
# that leaves the options' shares alone, whatever D.
PENALTIES = tuple(10.0 ** (k / 2) for k in range(-8, 9))
# Of a dimension's largest value, below which its spread is float32's rounding.
_CONSTANT = 1e-6


def ridge_path(
    features: np.ndarray, targets: np.ndarray, weights: np.ndarray, penalties: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Ridge regression with a free intercept for several penalties, from one decomposition.

        min_{W, b}  sum_i w_i ||y_i - W' z_i - b||^2 + penalty sum_i w_i ||W||_F^2

    Solved in float64 for the smaller of rows and dimensions (Hoerl and Kennard 1970; the dual form
    after Saunders et al. 1998).

    Args:
        features: z, [N, D].
        targets: y, [N, C].
        weights: [N], above 0.
        penalties: [P], above 0.

    Returns:
        (W [P, D, C], b [P, C]), float64.

    Example:
        >>> z, y = np.array([[-1.0], [1.0]]), np.array([[0.0], [1.0]])
        >>> weight, bias = ridge_path(z, y, np.ones(2), np.array([1.0]))
        >>> round(weight.item(), 6), round(bias.item(), 6)
        (0.25, 0.5)
    """
    share = (weights / weights.sum())[:, None]
    centre, level = (share * features).sum(axis=0), (share * targets).sum(axis=0)
    A, B = np.sqrt(share) * (features - centre), np.sqrt(share) * (targets - level)
    dual = len(A) <= A.shape[1]
    values, vectors = np.linalg.eigh(A @ A.T if dual else A.T @ A)
    turned = vectors.T @ (B if dual else A.T @ B)
    # Rounding may leave an eigenvalue of 0 below it.
    solved = turned / (np.maximum(values, 0)[:, None] + penalties[:, None, None])
    weight = (A.T @ vectors if dual else vectors) @ solved
    return weight, level - centre @ weight


@dataclasses.dataclass(frozen=True)
class _Standard:
    """Each dimension's mean and spread; a scale of 0 stands for a dimension that does not vary."""

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, states: np.ndarray, weights: np.ndarray) -> Self:
        share = (weights / weights.sum())[:, None]
        mean = (share * states).sum(axis=0)
        spread = np.sqrt((share * (states - mean) ** 2).sum(axis=0))
        return cls(mean, np.where(spread > _CONSTANT * np.abs(states).max(axis=0), spread, 0))

    @property
    def inverse(self) -> np.ndarray:
        return np.divide(1, self.scale, out=np.zeros_like(self.scale), where=self.scale > 0)


def _fit_path(
    states: np.ndarray, inputs: FitInputs, penalties: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(mean [D], weight [P, D, K], bias [P, K]) of s = (h - mean) weight + bias, float64.

    Every option's regression is over the rows that have it; an option that no row has gets 0.
    """
    standard = _Standard.of(states, inputs.weights)
    features = (states - standard.mean) * standard.inverse
    D, K = states.shape[1], inputs.mask.shape[1]
    weight, bias = np.zeros((len(penalties), D, K)), np.zeros((len(penalties), K))
    one_hot = (inputs.answers[:, None] == np.arange(K)).astype(np.float64)
    patterns, group = np.unique(inputs.mask, axis=1, return_inverse=True)
    for g, rows in enumerate(patterns.T):
        options = np.flatnonzero(group.reshape(-1) == g)
        if rows.any():
            found = ridge_path(
                features[rows], one_hot[rows][:, options], inputs.weights[rows], penalties
            )
            weight[:, :, options], bias[:, options] = found
    return standard.mean, weight * standard.inverse[:, None], bias


def out_of_fold(
    states: np.ndarray, inputs: FitInputs, numbers: np.ndarray, penalties: np.ndarray
) -> np.ndarray:
    """Scores [P, N, K] float64 of every row under every penalty, by a fit on the other folds."""
    found = np.zeros((len(penalties), *inputs.mask.shape))
    for fold in np.unique(numbers):
        out, rest = numbers == fold, numbers != fold
        part = FitInputs(*(array[rest] for array in inputs))
        mean, weight, bias = _fit_path(states[rest], part, penalties)
        found[:, out] = (states[out] - mean) @ weight + bias[:, None]
    return found


@functools.partial(jax.jit, static_argnames="logs")
def _apply(states, mean, weight, bias, mask, temperature, logs) -> jax.Array:
    states = jnp.asarray(states).astype(jnp.float32)
    # Accelerators multiply in fewer bits unless told otherwise.
    scores = jnp.matmul(states - mean, weight.T, precision=jax.lax.Precision.HIGHEST) + bias
    valid = jnp.ones(scores.shape, bool) if mask is None else jnp.asarray(mask).astype(bool)
    return (masked_log_softmax if logs else masked_softmax)(scores / temperature, valid)


@register("ridge_head", "Ridge head on the state")
@dataclasses.dataclass(frozen=True)
class RidgeHead(Calibrator):
    """Ridge regression of the right option on the hidden state h, then a temperature.

        s = ((h - mean) / sigma) W + b,   p = softmax(s / T) over the row's own options
        W, b = argmin sum_i ||onehot(y_i) - s_i||^2 + N penalty ||W||_F^2

    Each option's column is fitted to the rows that have it. The penalty, of ``PENALTIES``, is the
    one whose out-of-fold scores have the lowest NLL at their own best T, and that T is kept: it is
    never fitted to scores of rows that W was fitted to. Where a scale or an offset of a dimension
    changes, nothing does. What the model's own letters say is not read.

    Preserves: neither the order of a row's options nor the accuracy; it may be right where the
    letters are wrong, and the other way round. Source: the ridge classifier (Hoerl and Kennard
    1970; Hastie et al. 2009, section 4.2); T after Guo et al. 2017.

    Attributes:
        mean: D floats, of the states.
        weight: K rows of D floats, W / sigma; 0 for a dimension that does not vary.
        bias: b, K floats. An option that no row has gets a weight and a bias of 0.
        temperature: T, on the scale of the one-hot answers.
        penalty: per row, the one chosen.
        status: how the fit of T ended, one of ``STATUSES``.

    Example:
        >>> states = [[1.0, 5.0], [2.0, 5.0], [-1.0, 5.0], [-2.0, 5.0]] * 3
        >>> head = RidgeHead.fit(states, [0, 0, 1, 1] * 3)
        >>> np.asarray(head([[1.5, 5.0], [-1.0, 5.0]])).argmax(axis=1).tolist()
        [0, 1]
    """

    mean: tuple[float, ...] = parameter(row(number()), repr=False)
    weight: tuple[tuple[float, ...], ...] = parameter(row(row(number())), repr=False)
    bias: tuple[float, ...] = parameter(row(number()))
    temperature: float = parameter(number(1e-6, 1e6))
    penalty: float = parameter(number(0))
    status: str = parameter(choice(*STATUSES[:4]), default="converged")

    preserves_argmax = False
    reads = "states"

    def _check_together(self):
        if len(self.weight) != len(self.bias):
            raise UserError(f'{self.name}: "weight" and "bias" must have one K')
        if {len(line) for line in self.weight} != {len(self.mean)}:
            raise UserError(f'{self.name}: "weight" and "mean" must have one D')

    @classmethod
    def fit(
        cls, states, answers=None, mask=None, *, weights=None, clusters=None, folds=5, seed=0
    ) -> Self:
        """Fit to labelled rows.

        Args:
            states: [N, D], finite.
            answers: [N] int, 0-based.
            mask: [N, K] bool, the options that each row has; None: all, as many as answers name.
            weights: [N] or None, how often each row counts; those of 0 are not looked at.
            clusters: [N] names or None; rows of one share a fold.
            folds: of the cross-validation; fewer where there are fewer rows or clusters.
            seed: of the folds; see ``fold_numbers``.

        Raises:
            UserError: arrays that do not fit together, or fewer than two rows or clusters.
        """
        values, given = check_states(states, answers, mask, weights)
        counted = given.weights > 0
        values = values[counted].astype(np.float64)
        inputs = FitInputs(*(array[counted] for array in given))
        if clusters is not None:
            clusters = np.asarray(clusters).astype(str)[counted]
        units = len(values) if clusters is None else len(np.unique(clusters))
        if units < 2:
            what = "row" if clusters is None else "cluster"
            raise UserError(
                f"{cls.name} was given 1 {what} to fit to: the penalty and T need at least 2"
            )
        numbers = fold_numbers(len(values), min(folds, units), seed, inputs.answers, clusters)
        penalties = np.array(PENALTIES)
        scores = out_of_fold(values, inputs, numbers, penalties).astype(np.float32)
        found = _temperatures(scores, inputs)
        # Of equals the largest penalty, which comes last.
        best = len(penalties) - 1 - int(np.argmin(np.asarray(found.nll)[::-1]))
        best_fit = jax.tree.map(lambda x: x[best], found)
        mean, weight, bias = _fit_path(values, inputs, penalties[best : best + 1])
        fitted = cls(
            mean.tolist(),
            weight[0].T.tolist(),
            bias[0].tolist(),
            float(best_fit.temperature),
            float(penalties[best]),
            status_of(best_fit),
        )
        judged = inputs._replace(log_scores=scores[best])
        warn_of_status(Temperature(fitted.temperature, fitted.status), judged)
        return fitted

    def __call__(self, states, mask=None) -> jax.Array:
        return self._applied(states, mask, logs=False)

    def log_probs(self, states, mask=None) -> jax.Array:
        return self._applied(states, mask, logs=True)

    def _applied(self, states, mask, logs) -> jax.Array:
        if np.ndim(states) != 2 or np.shape(states)[1] != len(self.mean):
            raise UserError(
                f"{self.name} was fitted to states of {len(self.mean)} dimensions, and these have "
                f"shape {np.shape(states)}: give those of the same model and layer"
            )
        if mask is not None:
            check_options(mask, len(self.bias), self.name)
        arrays = (np.asarray(x, np.float32) for x in (self.mean, self.weight, self.bias))
        return _apply(states, *arrays, mask, self.temperature, logs=logs)


def _temperatures(scores: np.ndarray, inputs: FitInputs):
    """The best T of each penalty's scores [P, N, K]; rows are padded to a power of two, so that
    folds of similar size share one compilation."""
    rows = len(inputs.answers)
    extra = max(256, 1 << (rows - 1).bit_length()) - rows
    answers, mask, weights = (np.pad(x, [(0, extra)] + [(0, 0)] * (x.ndim - 1)) for x in inputs[1:])
    scores = np.pad(scores, [(0, 0), (0, extra), (0, 0)])
    mask[rows:, 0] = True
    return jax.vmap(temperature_kernel, in_axes=(0, None, None, None))(
        scores, answers, mask, weights
    )
