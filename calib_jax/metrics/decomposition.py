"""The Brier score taken apart into calibration, refinement and what binning hides."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from calib_jax.metrics.bins import bin_index, group_bin_stats
from calib_jax.metrics.checked import checked
from calib_jax.metrics.inputs import answer_matrix, as_answers, as_probs, as_weights
from calib_jax.metrics.sums import total_weight, tree_sum, weighted_sum


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class BrierDecomposition:
    """Parts of the Brier score (sum over classes, mean over rows); float32 scalars, a pytree.

        brier = calibration - resolution + uncertainty + within_variance - within_covariance

    Attributes:
        calibration: squared distance of mean forecast and frequency ("reliability" of Murphy;
            0 is best).
        resolution: how far the bins' frequencies are from the base rates (more is better).
        uncertainty: Brier score of always forecasting the base rates; of the data alone.
        within_variance: variance of the forecasts inside their bins.
        within_covariance: twice the covariance of forecast and outcome inside the bins.
    """

    calibration: jax.Array
    resolution: jax.Array
    uncertainty: jax.Array
    within_variance: jax.Array
    within_covariance: jax.Array

    @property
    def refinement(self) -> jax.Array:
        """uncertainty - resolution: what stays of ``binned`` under perfect calibration."""
        return self.uncertainty - self.resolution

    @property
    def binned(self) -> jax.Array:
        """calibration + refinement: Brier score with each p_k replaced by its bin's mean."""
        return self.calibration + self.refinement

    @property
    def brier(self) -> jax.Array:
        """The sum of all parts: ``metrics.brier`` of the forecasts themselves."""
        return self.binned + (self.within_variance - self.within_covariance)


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def brier_decomposition(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
) -> BrierDecomposition:
    """Brier score as calibration, resolution, uncertainty and two within-bin terms.

    Per class k the rows are binned by p_k; n_km rows in bin m have the mean forecast f_km and the
    label frequency o_km, and o_k is the label frequency of class k:

        calibration       = (1/N) sum_k sum_m n_km (f_km - o_km)^2
        resolution        = (1/N) sum_k sum_m n_km (o_km - o_k)^2
        uncertainty       = (1/N) sum_k n_k o_k (1 - o_k)
        within_variance   = (1/N) sum_k sum_m sum_{i in m} (p_ik - f_km)^2
        within_covariance = (2/N) sum_k sum_m sum_{i in m} (p_ik - f_km) (1[y_i = k] - o_km)

    The first three alone are the Brier score of the binned forecast (each p_ik replaced by f_km,
    which need not sum to 1 over k); with the other two they are the Brier score itself, exactly,
    for any bins. All but the uncertainty depend on the bins: calibration is biased upwards for
    small N or many bins, refinement downwards by as much. A constant forecast of the base rates
    has uncertainty alone. Empty bins contribute 0; masked options are in no bin.

    Piecewise differentiable in ``probs``: bins and labels are constants.

    Source: Murphy 1973; DeGroot and Fienberg 1983 (calibration-refinement); Stephenson, Coelho
    and Jolliffe 2008, Equation 7 (within-bin terms).

    Args:
        probs: [N, K] option probabilities; cast to float32.
        answers: [N] int, 0-based index of the right option; must exist where ``mask`` says so.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        num_bins: M.
        edges: "right" for bins (a, b], "left" for [a, b); see ``bin_index``.
        weights: [N], how often each row counts; None means once. Weight 0: not at all.

    Returns:
        ``BrierDecomposition`` of float32 scalars; NaN for no rows.

    Example:
        >>> parts = brier_decomposition([[0.75, 0.25]] * 4, [0, 0, 1, 1])
        >>> float(parts.calibration), float(parts.refinement), float(parts.brier)
        (0.125, 0.5, 0.625)
    """
    probs, mask = as_probs(probs, mask)
    num_rows, num_options = probs.shape
    labels = answer_matrix(as_answers(answers, num_rows), num_options)
    weights = as_weights(weights, num_rows)
    total = total_weight(weights, num_rows)
    stats = group_bin_stats(probs, labels, mask, weights, num_bins=num_bins, edges=edges)

    # Everything is measured from the bins' middles, where squares are small and do not cancel.
    middle = (jnp.arange(num_bins, dtype=jnp.float32) + 0.5) / num_bins
    count = stats.count.astype(jnp.float32)
    filled = jnp.where(count == 0, 1, count)
    forecast = ((stats.confidence - count * middle) + stats.residual) / filled
    gap = stats.gap() / filled
    frequency = stats.correct / filled
    per_class = count.sum(axis=1)
    base_rate = stats.correct.sum(axis=1) / jnp.where(per_class == 0, 1, per_class)

    distance = probs - middle[bin_index(probs, num_bins, edges)]
    if mask is not None:
        distance = jnp.where(mask, distance, 0)
    squares = weighted_sum(jnp.square(distance).sum(axis=1), weights)
    products = weighted_sum(jnp.where(labels, distance, 0).sum(axis=1), weights)

    def mean(per_bin):
        return tree_sum(per_bin.ravel()) / total

    return BrierDecomposition(
        calibration=mean(count * jnp.square(gap)),
        resolution=mean(count * jnp.square(frequency - base_rate[:, None])),
        uncertainty=mean(per_class * base_rate * (1 - base_rate)),
        within_variance=squares / total - mean(count * jnp.square(forecast)),
        within_covariance=2 * (products / total - mean(stats.correct * forecast)),
    )
