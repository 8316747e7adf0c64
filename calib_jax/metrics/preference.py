"""Preference collapse: does a policy prefer the chosen answer more often than people do?"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from calib_jax.metrics.inputs import as_weights
from calib_jax.metrics.sums import weighted_mean


class PreferenceCollapse(NamedTuple):
    """Means over pairs, float32 scalars; see ``preference_collapse``."""

    mean_ratio: jax.Array
    mean_excess: jax.Array
    share_above: jax.Array


@jax.jit
def preference_collapse(
    chosen_logps: ArrayLike,
    rejected_logps: ArrayLike,
    preference_rate: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> PreferenceCollapse:
    """How far the policy's pair ratio exceeds the rate at which people prefer the chosen answer.

        ratio_i = pi(y_w | x) / (pi(y_w | x) + pi(y_l | x)) = sigmoid(log pi(y_w) - log pi(y_l))

    Preference collapse is ratio_i > P(y_w > y_l | x): an aligned policy that has pushed all its
    mass to one answer where people are divided. Computed from the difference of the logs, so that
    sequences of log-probability -1000 are fine; "exceeds" is decided between log-odds, where
    ratios near 1 still differ. -inf for one answer gives a ratio of 0 or 1, for both NaN.
    Ratio and excess are differentiable in the log-probabilities, the share is piecewise constant.

    Source: Xiao et al. 2025 (arXiv 2505.01997), preference collapse.

    Args:
        chosen_logps: [N] log pi(y_w | x) in nats, summed over the answer's tokens.
        rejected_logps: [N] log pi(y_l | x), likewise.
        preference_rate: [N] or a scalar in [0, 1], P(y_w > y_l | x): the share of annotators, or
            a reward model's sigmoid. None: not known, and what depends on it is NaN.
        weights: [N], how often each pair counts; None means once. Weight 0: not at all.

    Returns:
        ``PreferenceCollapse(mean_ratio, mean_excess, share_above)``: mean of ratio_i, mean of
        ratio_i - rate_i, share of pairs with ratio_i > rate_i (strictly). NaN for no pairs.

    Raises:
        ValueError: shapes that do not fit.

    Example:
        >>> result = preference_collapse([-10.0, -10.0], [-10.0, -500.0], preference_rate=0.75)
        >>> [float(value) for value in result]   # ratios 1/2 and 1
        [0.75, 0.0, 0.5]
    """
    chosen = jnp.asarray(chosen_logps).astype(jnp.float32)
    rejected = jnp.asarray(rejected_logps).astype(jnp.float32)
    if chosen.ndim != 1 or rejected.shape != chosen.shape:
        raise ValueError(
            f"chosen_logps and rejected_logps must both have shape [N], got {chosen.shape} and "
            f"{rejected.shape}"
        )
    num_pairs = chosen.shape[0]
    rate = jnp.asarray(jnp.nan if preference_rate is None else preference_rate, jnp.float32)
    if rate.shape not in ((), (num_pairs,)):
        raise ValueError(f"preference_rate must be a scalar or ({num_pairs},), got {rate.shape}")
    weights = as_weights(weights, num_pairs)
    log_odds = chosen - rejected
    ratio = jax.nn.sigmoid(log_odds)
    above = (log_odds > jnp.log(rate) - jnp.log1p(-rate)).astype(jnp.float32)
    above = jnp.where(jnp.isnan(log_odds) | jnp.isnan(rate), jnp.nan, above)
    return PreferenceCollapse(
        weighted_mean(ratio, weights),
        weighted_mean(ratio - rate, weights),
        weighted_mean(above, weights),
    )
