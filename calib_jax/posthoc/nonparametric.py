"""Histogram binning and isotonic regression of the top label's confidence."""

import abc
import dataclasses
import functools
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax import metrics
from calib_jax.errors import UserError
from calib_jax.posthoc.calibrator import (
    Calibrator,
    choice,
    number,
    optional,
    parameter,
    register,
    row,
)
from calib_jax.posthoc.top_label import (
    TopLabelData,
    top_label,
    top_label_data,
    with_confidence,
    with_log_confidence,
)


def _bins(confidence, edges, side: str, xp):
    """Bin of each confidence among the inner edges; "right" bins are (a, b]."""
    return xp.searchsorted(edges[1:-1], confidence, side="left" if side == "right" else "right")


@functools.partial(jax.jit, static_argnames=("side", "logs"))
def _apply_bins(log_scores, mask, floor, edges, values, side, logs) -> jax.Array:
    top = top_label(log_scores, mask, floor)
    confidence = jnp.exp(top.log_top)
    found = values[_bins(confidence, edges, side, jnp)]
    known = ~jnp.isnan(found)
    if logs:
        log_found = jnp.where(known, jnp.log(found), top.log_top)
        log_remainder = jnp.where(known, jnp.log1p(-found), top.log_rest)
        return with_log_confidence(top, log_found, log_remainder)
    remainder = jnp.where(known, 1 - found, jnp.exp(top.log_rest))
    return with_confidence(top, jnp.where(known, found, confidence), remainder)


@functools.partial(jax.jit, static_argnames="logs")
def _apply_corners(log_scores, mask, floor, corners, values, logs) -> jax.Array:
    top = top_label(log_scores, mask, floor)
    found = jnp.interp(jnp.exp(top.log_top), corners, values)
    if logs:
        return with_log_confidence(top, jnp.log(found), jnp.log1p(-found))
    return with_confidence(top, found, 1 - found)


class _Binned(Calibrator):
    """A piecewise map of the best option's confidence."""

    preserves_argmax = False

    @abc.abstractmethod
    def _applied(self, log_scores, mask, logs: bool) -> jax.Array:
        """The probabilities after the map, or their logarithms."""

    def __call__(self, log_scores, mask=None) -> jax.Array:
        return self._applied(log_scores, mask, logs=False)

    def log_probs(self, log_scores, mask=None) -> jax.Array:
        return self._applied(log_scores, mask, logs=True)


def _equal_mass_edges(data: TopLabelData, num_bins: int) -> np.ndarray:
    """Edges half-way between the neighbours at the ranks that split the rows evenly.

    Equal confidences are never split: such edges fall on the value, or together.
    """
    order = np.argsort(data.confidence, kind="stable")
    values, weights = data.confidence[order].astype(np.float32), data.weights[order]
    total = np.cumsum(weights)
    ranks = np.arange(1, num_bins) * total[-1] / num_bins
    if (weights == np.round(weights)).all():  # whole rows: the first bins take the odd ones
        each, odd = divmod(int(total[-1]), num_bins)
        ranks = np.arange(1, num_bins) * each + np.minimum(np.arange(1, num_bins), odd)
    last = len(values) - 1
    below = values[np.minimum(np.searchsorted(total, ranks, side="left"), last)]
    above = values[np.minimum(np.searchsorted(total, ranks, side="right"), last)]
    middle = (below + above) / np.float32(2)
    # Between neighbouring floats the half-way point is one of them; (a, b] wants the lower.
    inner = np.unique(np.where(middle >= above, below, middle))
    return np.concatenate([[0], inner[(inner > 0) & (inner < values[-1])], [1]])


@register("histogram", "Histogram binning")
@dataclasses.dataclass(frozen=True)
class HistogramBinning(_Binned):
    """Histogram binning of the top label: the confidence becomes its bin's share of right rows.

    The other options share the rest in their old proportions; the best option may change. A bin
    into which no fitted row fell leaves the confidence as it is. A bin that was always right
    gives a confidence of exactly 1, and an infinite NLL to a wrong row there later;
    ``pseudo_count`` avoids it. Piecewise constant: no useful gradient. Source: Zadrozny and Elkan
    2001; for the top label Guo et al. 2017.

    Attributes:
        edges: M + 1 increasing floats from 0 to 1.
        values: M shares, None for an empty bin.
        side: "right" for bins (a, b], "left" for [a, b).

    Example:
        >>> scores = [[0.0, 0.0], [0.0, 0.0], [2.0, 0.0], [2.0, 0.0]]
        >>> calibrator = HistogramBinning.fit(scores, [0, 1, 0, 0], num_bins=2)
        >>> calibrator.values
        (0.5, 1.0)
    """

    edges: tuple[float, ...] = parameter(row(number(0, 1), least=2))
    values: tuple[float | None, ...] = parameter(row(optional(number(0, 1))))
    side: str = parameter(choice("right", "left"), default="right")

    def _check_together(self):
        if len(self.edges) != len(self.values) + 1:
            raise UserError(
                f'{self.name}: "edges" must hold one more than "values", got {len(self.edges)} '
                f"and {len(self.values)}"
            )
        if self.edges[0] != 0 or self.edges[-1] != 1 or (np.diff(self.edges) <= 0).any():
            raise UserError(f'{self.name}: "edges" must increase from 0 to 1')

    @classmethod
    def fit(
        cls,
        log_scores,
        answers=None,
        mask=None,
        *,
        weights=None,
        num_bins=10,
        equal_mass=False,
        edges="right",
        pseudo_count=0.0,
    ) -> Self:
        """Count right rows per bin.

        Args:
            num_bins: M; with ``equal_mass`` fewer where many rows share one confidence.
            equal_mass: bins of equally many rows instead of equal width.
            edges: "right" or "left", as in the metrics.
            pseudo_count: this many invented rows are added to each bin, half of them right.
        """
        data = top_label_data(log_scores, answers, mask, weights)
        if not (np.isfinite(pseudo_count) and pseudo_count >= 0):
            raise UserError(f"pseudo_count must be >= 0, got {pseudo_count!r}")
        if edges not in ("right", "left"):
            raise UserError(f'edges must be "right" or "left", got {edges!r}')
        limits = metrics.bin_edges(num_bins)  # refuses a bad number
        if equal_mass:
            if edges == "left":
                raise UserError('equal_mass bins are (a, b]: use edges="right"')
            limits = _equal_mass_edges(data, num_bins)
        limits = limits.astype(np.float32)
        bins = _bins(data.confidence.astype(np.float32), limits, edges, np)
        size = len(limits) - 1
        rows = np.bincount(bins, data.weights, size)
        right = np.bincount(bins, data.weights * data.correct, size)
        share = (right + pseudo_count / 2) / np.maximum(rows + pseudo_count, 1e-300)
        values = [
            float(v) if n > 0 else None for v, n in zip(share.astype(np.float32), rows, strict=True)
        ]
        return cls(limits.tolist(), tuple(values), edges, floor=data.floor)

    def _applied(self, log_scores, mask, logs) -> jax.Array:
        values = np.array([np.nan if x is None else x for x in self.values], np.float32)
        edges = np.asarray(self.edges, np.float32)
        return _apply_bins(log_scores, mask, self.floor, edges, values, self.side, logs)


@register("isotonic", "Isotonic regression")
@dataclasses.dataclass(frozen=True)
class IsotonicRegression(_Binned):
    """Isotonic regression of the top label: the best non-decreasing map of the confidence.

    Least squares by pool-adjacent-violators on the distinct confidences; between the fitted
    confidences the map is linear, beyond them constant. The other options share the rest in
    their old proportions; the best option may change. Ends at exactly 0 or 1 as in
    ``HistogramBinning``; ``pseudo_count`` avoids it. Source: Zadrozny and Elkan 2002.

    Attributes:
        confidences: increasing floats, the corners of the map.
        values: its values there, non-decreasing.

    Example:
        >>> scores = [[0.0, 0.0], [0.0, 0.0], [2.0, 0.0], [2.0, 0.0]]
        >>> IsotonicRegression.fit(scores, [0, 1, 0, 0]).values
        (0.5, 1.0)
    """

    confidences: tuple[float, ...] = parameter(row(number(0, 1)))
    values: tuple[float, ...] = parameter(row(number(0, 1)))

    def _check_together(self):
        if len(self.confidences) != len(self.values):
            raise UserError(f'{self.name}: "confidences" and "values" must be equally long')
        if (np.diff(self.confidences) <= 0).any() or (np.diff(self.values) < 0).any():
            raise UserError(
                f'{self.name}: "confidences" must increase and "values" must not decrease'
            )

    @classmethod
    def fit(cls, log_scores, answers=None, mask=None, *, weights=None, pseudo_count=0.0) -> Self:
        """Fit the map; ``pseudo_count`` is the weight of two invented rows.

        Half of it goes to a right row at the lowest confidence, half to a wrong one at the
        highest: the map then never reaches 0 or 1, and stays monotone.
        """
        # Loaded here: scipy.optimize takes longer to import than the rest of the package.
        from scipy.optimize import isotonic_regression

        data = top_label_data(log_scores, answers, mask, weights)
        if not (np.isfinite(pseudo_count) and pseudo_count >= 0):
            raise UserError(f"pseudo_count must be >= 0, got {pseudo_count!r}")
        points, index = np.unique(data.confidence.astype(np.float32), return_inverse=True)
        rows = np.bincount(index, data.weights)
        right = np.bincount(index, data.weights * data.correct)
        rows[[0]] += pseudo_count / 2
        right[0] += pseudo_count / 2
        rows[-1] += pseudo_count / 2
        values = isotonic_regression(right / rows, weights=rows).x
        values = np.clip(values, 0, 1).astype(np.float32)
        # The middle of a flat stretch needs no corner.
        same = (values[1:-1] == values[:-2]) & (values[1:-1] == values[2:])
        corner = np.concatenate([[True], ~same, [True]])[: len(values)]
        return cls(points[corner].tolist(), values[corner].tolist(), floor=data.floor)

    def _applied(self, log_scores, mask, logs) -> jax.Array:
        # Beyond 1, where no confidence is, up to a power of two: folds share one compilation.
        extra = max(64, 1 << (len(self.values) - 1).bit_length()) - len(self.values)
        corners = np.array([*self.confidences, *[2.0] * extra], np.float32)
        values = np.array([*self.values, *[self.values[-1]] * extra], np.float32)
        return _apply_corners(log_scores, mask, self.floor, corners, values, logs)
