"""Structured matrix scaling: between temperature, vector and matrix scaling, by the data's size."""

import dataclasses
import warnings
from typing import NamedTuple, Self, TypeAlias

import numpy as np

from calib_jax.errors import UserError
from calib_jax.posthoc.calibrator import CalibrationWarning, number, parameter, register, row
from calib_jax.posthoc.inputs import check_inputs, without_zeros
from calib_jax.posthoc.linear import Scaling, features_of
from calib_jax.posthoc.temperature import MAX_TEMPERATURE, MIN_TEMPERATURE, temperature_kernel

_MAX_STEPS = 100
# Largest component of the gradient of the mean loss: where Newton stops, and what is no optimum.
_TARGET, _TOLERANCE = 1e-9, 1e-5
# Penalties that the data may choose: from the authors' default to one that leaves the temperature.
_SMALLEST, _LARGEST = 1.0, 1e5
# ln of the prior odds of more than a temperature. At -2, rows of a model that has no more to mend
# lose 0.001 nats at n = 100, and most of a letter's bias is undone (benchmarks/structured_scaling).
_PRIOR = -2.0
_MAX_CHOICES = 20
# Rows are taken in blocks of so many numbers.
_BLOCK = 1 << 22


# The features, the options that exist, the answers and the shares of a ``_Problem``.
_Rows: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


class _Problem(NamedTuple):
    """The mean loss of theta [K, K + 1] = (W, b), float64 on the host; strictly convex."""

    features: np.ndarray  # [N, K + 1], the last is 1
    valid: np.ndarray
    answers: np.ndarray
    shares: np.ndarray  # [N], the rows' weights, adding up to 1
    penalty: np.ndarray  # [K, K + 1]

    @property
    def start(self) -> np.ndarray:
        return np.eye(*self.penalty.shape)

    def _rows(self, theta: np.ndarray, rows: slice) -> tuple[np.ndarray, np.ndarray]:
        """(log-probabilities, probabilities) [n, K]."""
        logits = np.where(self.valid[rows], self.features[rows] @ theta.T, -np.inf)
        logits -= logits.max(axis=1, keepdims=True)
        log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        return log_probs, np.exp(log_probs)

    def _blocks(self):
        size = max(_BLOCK // self.penalty.size, 1)
        return (slice(i, i + size) for i in range(0, len(self.answers), size))

    def value(self, theta: np.ndarray) -> float:
        total = float(np.sum(self.penalty * (theta - self.start) ** 2))
        for rows in self._blocks():
            log_probs, _ = self._rows(theta, rows)
            chosen = np.take_along_axis(log_probs, self.answers[rows, None], axis=1)[:, 0]
            total -= float(self.shares[rows] @ chosen)
        return total

    def slopes(self, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Gradient [K (K + 1)] and Hessian."""
        options, columns = theta.shape
        gradient = 2 * self.penalty * (theta - self.start)
        curves = np.diag(2 * self.penalty.ravel())
        blocks = curves.reshape(options, columns, options, columns)
        for rows in self._blocks():
            _, probs = self._rows(theta, rows)
            x, share = self.features[rows], self.shares[rows, None]
            push = probs.copy()
            push[np.arange(len(push)), self.answers[rows]] -= 1
            gradient += (share * push).T @ x
            spread = (probs[:, :, None] * x[:, None, :]).reshape(len(x), -1)
            curves -= (share * spread).T @ spread
            for k in range(options):
                blocks[k, :, k, :] += (share * probs[:, k : k + 1] * x).T @ x
        return gradient.ravel(), curves

    def solve(self, theta: np.ndarray | None = None) -> tuple[np.ndarray, float, int]:
        """(theta, the gradient's largest component, steps) by Newton's method, damped."""
        theta = self.start if theta is None else theta
        value = self.value(theta)
        for steps in range(_MAX_STEPS + 1):
            gradient, curves = self.slopes(theta)
            steepest = float(np.abs(gradient).max())
            if steepest <= _TARGET or steps == _MAX_STEPS:
                break
            step = np.linalg.solve(curves, gradient)
            promised, length = float(gradient @ step), 1.0
            while length > 1e-6:
                after = theta - length * step.reshape(theta.shape)
                if (found := self.value(after)) <= value - 1e-4 * length * promised:
                    break
                length /= 2
            else:  # float64 sees no descent any more
                break
            theta, value = after, found
        return theta, steepest, steps


class _Sizes(NamedTuple):
    """The groups of parameters: b, the diagonal and the rest of A, and how they are penalised."""

    options: int
    total: float  # N

    @property
    def group(self) -> np.ndarray:
        """[K, K + 1]: which of the three an entry of theta belongs to."""
        group = np.full((self.options, self.options + 1), 2)
        group[:, -1] = 0
        group[np.diag_indices(self.options)] = 1
        return group

    def strengths(self, penalties: np.ndarray) -> np.ndarray:
        """[3], what multiplies the squares of each group in the sum of all rows' losses."""
        factors = np.array([1, 1, max(self.options - 1, 1)]) * self.options
        return np.asarray(penalties, np.float64) * factors

    def problem(self, rest: _Rows, penalties: np.ndarray) -> _Problem:
        return _Problem(*rest, penalty=self.strengths(penalties)[self.group] / self.total)


def _evidence(problem: _Problem, theta: np.ndarray, total: float) -> float:
    """Laplace's approximation of the log marginal likelihood, without what all penalties share."""
    _, curves = problem.slopes(theta)
    prior = np.log(2 * total * problem.penalty).sum()
    return -total * problem.value(theta) + (prior - np.linalg.slogdet(total * curves)[1]) / 2


def _choose(rest: _Rows, sizes: _Sizes) -> tuple[np.ndarray, float]:
    """The penalties [3] under which the data are most probable, by MacKay's fixed point.

    And the posterior probability that there is more to mend than the temperature.
    """
    if sizes.options < 2:
        return np.full(3, _LARGEST), 0.0
    base = sizes.problem(rest, np.full(3, _LARGEST))
    theta, _, _ = base.solve()
    plain = _evidence(base, theta, sizes.total)
    penalties, group = np.full(3, 4.0), sizes.group
    for _ in range(_MAX_CHOICES):
        problem = sizes.problem(rest, penalties)
        theta, _, _ = problem.solve(theta)
        _, curves = problem.slopes(theta)
        variances = np.diag(np.linalg.inv(sizes.total * curves)).reshape(theta.shape)
        squares = (theta - problem.start) ** 2
        before, strengths = penalties, sizes.strengths(penalties)
        found = []
        for g, strength in enumerate(strengths):
            known = (group == g).sum() - 2 * strength * variances[group == g].sum()
            found.append(known / (2 * max(squares[group == g].sum(), 1e-30)))
        penalties = np.clip(np.array(found) * before / strengths, _SMALLEST, _LARGEST)
        if np.abs(np.log(penalties / before)).max() < 0.05:
            break
    problem = sizes.problem(rest, penalties)
    theta, _, _ = problem.solve(theta)
    odds = _evidence(problem, theta, sizes.total) - plain + _PRIOR
    return penalties, float(np.exp(-np.logaddexp(0, -odds)))


@register("structured_matrix", "Structured matrix scaling")
@dataclasses.dataclass(frozen=True)
class StructuredMatrixScaling(Scaling):
    """Structured matrix scaling (SMS): matrix scaling that few rows leave at temperature scaling.

        p = softmax(A z + b),   z = c / T,   c = s - mean of s over the row's valid options
        mean NLL + (1 / N) (l_b K |b|^2 + l_d K sum_k (A_kk - 1)^2
                            + l_o K (K - 1) sum_{j != k} A_jk^2)

    T is the temperature of ``Temperature``, fitted first and without a penalty; N is the sum of the
    weights. The optimum is unique, and found by Newton's method in float64. Options may change
    places.

    By default the data choose the penalties l_b, l_d and l_o between 1 and 1e5: as precisions of
    normal priors they maximise the marginal likelihood (MacKay's fixed point, Laplace's
    approximation). What was found then moves from the temperature (A the identity, b = 0) towards
    that optimum by the posterior probability that there is more to mend than the temperature, at
    prior odds of e^-2: rows that show no more get little more.

    Source: Berta, Holzmueller, Jordan and Bach 2025 (arXiv 2511.03685); the form of the penalties
    as in the authors' package probmetrics 1.1 (ridge, rho = tau = 1), whose default is 1 for all
    three (``penalty=1.0`` here). Besides the choice of the penalties (MacKay 1992) two things
    differ from it: z is centred, where the package takes ln of the probabilities, and the
    temperature's probabilities are not mixed with the uniform ones before.

    Attributes:
        weight: A / T, K rows of K floats; applied to c.
        bias: b, K floats.
        converged: whether the gradient's largest component fell to 1e-5.
        steps: Newton's, at most 100.
        gradient: that component at the end.
        temperature: T.
        penalties: l_b, l_d, l_o.
        share: how far A and b went from the temperature to the optimum, of 1.

    Example:
        >>> scores = [[2.0, 0.0], [2.0, 0.0], [0.0, 2.0], [0.0, 2.0]]
        >>> calibrator = StructuredMatrixScaling.fit(scores, [0, 0, 0, 1])
        >>> calibrator.converged, calibrator.bias[0] > calibrator.bias[1]
        (True, True)
    """

    weight: tuple[tuple[float, ...], ...] = parameter(row(row(number())))
    temperature: float = parameter(number(MIN_TEMPERATURE, MAX_TEMPERATURE), default=1.0)
    penalties: tuple[float, ...] = parameter(row(number(0)), default=(1.0, 1.0, 1.0))
    share: float = parameter(number(0, 1), default=1.0)

    @classmethod
    def fit(cls, log_scores, answers=None, mask=None, *, weights=None, penalty=None) -> Self:
        """Fit to labelled rows; ``penalty`` > 0 for all three, or None: the data choose them."""
        if penalty is not None and not (np.isfinite(penalty) and penalty > 0):
            raise UserError(f"{cls.name}: the penalty must be > 0, got {penalty!r}")
        inputs, floor = without_zeros(check_inputs(log_scores, answers, mask, weights))
        temperature = float(temperature_kernel(*inputs).temperature)
        temperature = min(max(temperature, MIN_TEMPERATURE), MAX_TEMPERATURE)  # float32's bounds
        features = np.asarray(features_of(inputs.log_scores, inputs.mask), np.float64) / temperature
        sizes = _Sizes(features.shape[1], float(inputs.weights.sum(dtype=np.float64)))
        rest = (
            np.column_stack([features, np.ones(len(features))]),
            inputs.mask,
            inputs.answers.astype(np.int64),
            inputs.weights / sizes.total,
        )
        penalties, share = np.full(3, float(penalty or 1)), 1.0
        if penalty is None:
            penalties, share = _choose(rest, sizes)
        problem = sizes.problem(rest, penalties)
        theta, gradient, steps = problem.solve()
        theta = problem.start + share * (theta - problem.start)
        converged = gradient <= _TOLERANCE
        if not converged:
            warnings.warn(
                f"{cls.name}: the fit stopped after {steps} steps with a gradient of "
                f"{gradient:.1e}, above {_TOLERANCE:g}: raise the penalty or add rows",
                CalibrationWarning,
                stacklevel=2,
            )
        weight, bias = (theta[:, :-1] / temperature).tolist(), theta[:, -1].tolist()
        return cls(
            weight,
            bias,
            converged,
            steps,
            gradient,
            temperature,
            tuple(penalties.tolist()),
            share,
            floor=floor,
        )
