"""Histogram binning and isotonic regression of the top label's confidence."""

import dataclasses
import functools
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax import metrics
from calib_jax.errors import UserError
from calib_jax.posthoc.calibrator import (
    choice,
    number,
    optional,
    parameter,
    register,
    row,
)
from calib_jax.posthoc.top_label import (
    TopLabel,
    TopLabelCalibrator,
    TopLabelData,
    top_label_data,
    with_log_odds,
)


def _bins(confidence, edges, side: str, xp):
    """Bin of each confidence among the inner edges; "right" bins are (a, b]."""
    return xp.searchsorted(edges[1:-1], confidence, side="left" if side == "right" else "right")


@functools.partial(jax.jit, static_argnames=("side", "logs"))
def _apply_bins(top: TopLabel, edges, values, side, logs) -> jax.Array:
    found = values[_bins(top.confidence, edges, side, jnp)]
    log_odds = jnp.where(jnp.isnan(found), top.log_top - top.log_rest, _log_odds(found))
    return with_log_odds(top, log_odds, logs)


@functools.partial(jax.jit, static_argnames="logs")
def _apply_corners(top: TopLabel, corners, values, logs) -> jax.Array:
    return with_log_odds(top, _log_odds(jnp.interp(top.confidence, corners, values)), logs)


def _log_odds(shares):
    return jnp.log(shares) - jnp.log1p(-shares)


def _but_for_rounding(points: np.ndarray) -> np.ndarray:
    """Numbers of increasing values, 0, 1, ...: one for those that rounding alone sets apart.

    Rows with the same probabilities but other offsets of their scores differ in the last bits, and
    so does one row among others. Together are neighbours within 2.4e-7 (4 bits below 1), up to 1e-6
    from the first of them.
    """
    run = np.concatenate([[0], np.cumsum(np.diff(points) > 2.4e-7)])
    first = points[np.unique(run, return_index=True)[1]][run]
    piece = np.floor((points - first) / 1e-6)
    new = (np.diff(run) > 0) | (np.diff(piece) > 0)
    return np.concatenate([[0], np.cumsum(new)])


def _check_pseudo_count(pseudo_count: float) -> None:
    if not (np.isfinite(pseudo_count) and pseudo_count >= 0):
        raise UserError(f"pseudo_count must be >= 0, got {pseudo_count!r}")


def _equal_mass_edges(data: TopLabelData, num_bins: int) -> np.ndarray:
    """Edges half-way between the distinct confidences nearest to the ranks that split evenly.

    Equal confidences are never split: where a rank lies among them, they belong to the lower bin.
    """
    values, index = np.unique(data.confidence.astype(np.float32), return_inverse=True)
    total = np.cumsum(np.bincount(index, data.weights))
    ranks = np.arange(1, num_bins) * total[-1] / num_bins
    if (data.weights == np.round(data.weights)).all():  # whole rows: the first bins take the rest
        each, odd = divmod(int(total[-1]), num_bins)
        ranks = np.arange(1, num_bins) * each + np.minimum(np.arange(1, num_bins), odd)
    cut = np.unique(np.searchsorted(total, ranks, side="left"))
    cut = cut[cut < len(values) - 1]
    below, above = values[cut], values[cut + 1]
    middle = (below + above) / np.float32(2)
    # Between neighbouring floats the half-way point is one of them; (a, b] wants the lower.
    return np.concatenate([[0], np.where(middle >= above, below, middle), [1]])


@register("histogram", "Histogram binning")
@dataclasses.dataclass(frozen=True)
class HistogramBinning(TopLabelCalibrator):
    """Histogram binning of the top label: the confidence becomes its bin's share of right rows.

    The row follows by a temperature of its own (``top_label.with_log_odds``). A bin into which no
    fitted row fell leaves the confidence as it is. Every bin's share counts ``pseudo_count``
    invented rows, half of them right: 1 by default, the Beta(1/2, 1/2) prior of Jeffreys. With 0 a
    bin that was always right gives a confidence of exactly 1, and an infinite NLL to a wrong row
    there later. Piecewise constant: no useful gradient. Source: Zadrozny and Elkan 2001, whose
    binary problem here is whether the best option is right.

    Preserves: the order of a row's options, so every prediction and the accuracy. Not the order of
    the confidences between rows, nor the letters' mean probabilities. The confidence is the
    calibrated one, but for an estimate below 1/K, which becomes 1/K.

    Attributes:
        edges: M + 1 increasing floats from 0 to 1.
        values: M shares, None for an empty bin.
        side: "right" for bins (a, b], "left" for [a, b).

    Example:
        >>> scores = [[0.0, 0.0], [0.0, 0.0], [2.0, 0.0], [2.0, 0.0]]
        >>> calibrator = HistogramBinning.fit(scores, [0, 1, 0, 0], num_bins=2)
        >>> [round(value, 4) for value in calibrator.values]   # (2 + 1/2) / (2 + 1)
        [0.5, 0.8333]
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
        pseudo_count=1.0,
    ) -> Self:
        """Count right rows per bin.

        Args:
            num_bins: M; with ``equal_mass`` fewer where many rows share one confidence.
            equal_mass: bins of equally many rows instead of equal width.
            edges: "right" or "left", as in the metrics.
            pseudo_count: >= 0, how many invented rows are added to each bin, half of them right.
        """
        data = top_label_data(log_scores, answers, mask, weights)
        _check_pseudo_count(pseudo_count)
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

    def _applied(self, top, logs) -> jax.Array:
        values = np.array([np.nan if x is None else x for x in self.values], np.float32)
        edges = np.asarray(self.edges, np.float32)
        return _apply_bins(top, edges, values, self.side, logs)


@register("isotonic", "Isotonic regression")
@dataclasses.dataclass(frozen=True)
class IsotonicRegression(TopLabelCalibrator):
    """Isotonic regression of the top label: the best non-decreasing map of the confidence.

    Least squares by pool-adjacent-violators on the distinct confidences (those that rounding alone
    sets apart are one); between the fitted
    confidences the map is linear, beyond them constant. The row follows by a temperature of its own
    (``top_label.with_log_odds``). ``pseudo_count`` invented rows, 1 by default, keep the map from
    0 and 1: half of them is right at the lowest confidence, half is wrong at the highest. With 0
    it may end at exactly 0 or 1, with an infinite NLL. Source: Zadrozny and Elkan 2002.

    Preserves: as ``HistogramBinning``; between rows also the order of the confidences (some become
    equal).

    Attributes:
        confidences: increasing floats, the corners of the map.
        values: its values there, non-decreasing.

    Example:
        >>> scores = [[0.0, 0.0], [0.0, 0.0], [2.0, 0.0], [2.0, 0.0]]
        >>> values = IsotonicRegression.fit(scores, [0, 1, 0, 0]).values
        >>> [round(value, 4) for value in values]   # (1 + 1/2) / (2 + 1/2), 2 / (2 + 1/2)
        [0.6, 0.8]
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
    def fit(cls, log_scores, answers=None, mask=None, *, weights=None, pseudo_count=1.0) -> Self:
        """Fit the map; ``pseudo_count`` >= 0 is the weight of the two invented rows together."""
        # Loaded here: scipy.optimize takes longer to import than the rest of the package.
        from scipy.optimize import isotonic_regression

        data = top_label_data(log_scores, answers, mask, weights)
        _check_pseudo_count(pseudo_count)
        points, index = np.unique(data.confidence.astype(np.float32), return_inverse=True)
        same = _but_for_rounding(points)
        rows = np.bincount(same[index], data.weights)
        right = np.bincount(same[index], data.weights * data.correct)
        rows[0] += pseudo_count / 2
        right[0] += pseudo_count / 2
        rows[-1] += pseudo_count / 2
        values = isotonic_regression(right / rows, weights=rows).x
        values = np.clip(values, 0, 1).astype(np.float32)[same]
        # The middle of a flat stretch needs no corner.
        flat = (values[1:-1] == values[:-2]) & (values[1:-1] == values[2:])
        corner = np.concatenate([[True], ~flat, [True]])[: len(values)]
        return cls(points[corner].tolist(), values[corner].tolist(), floor=data.floor)

    def _applied(self, top, logs) -> jax.Array:
        # Beyond 1, where no confidence is, up to a power of two: folds share one compilation.
        extra = max(64, 1 << (len(self.values) - 1).bit_length()) - len(self.values)
        corners = np.array([*self.confidences, *[2.0] * extra], np.float32)
        values = np.array([*self.values, *[self.values[-1]] * extra], np.float32)
        return _apply_corners(top, corners, values, logs)
