"""Pairs of answers: preference accuracy, DPO's reward margins, and preference collapse.

Preference collapse asks: does a policy prefer the chosen answer more often than people do?
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from calib_jax.metrics.checked import checked
from calib_jax.metrics.inputs import as_weights
from calib_jax.metrics.sums import weighted_mean


class PreferenceCollapse(NamedTuple):
    """Means over pairs, float32 scalars; see ``preference_collapse``."""

    mean_ratio: jax.Array
    mean_excess: jax.Array
    share_above: jax.Array


@checked
@jax.jit
def preference_collapse(
    chosen_logps: ArrayLike,
    rejected_logps: ArrayLike,
    preference_rate: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    chosen_tokens: ArrayLike | None = None,
    rejected_tokens: ArrayLike | None = None,
) -> PreferenceCollapse:
    """How far the policy's pair ratio exceeds the rate at which people prefer the chosen answer.

        ratio_i = pi(y_w | x) / (pi(y_w | x) + pi(y_l | x)) = sigmoid(log pi(y_w) - log pi(y_l))

    Preference collapse is ratio_i > P(y_w > y_l | x): an aligned policy that has pushed all its
    mass to one answer where people are divided. Computed from the difference of the logs, so that
    sequences of log-probability -1000 are fine; "exceeds" is decided between log-odds, where
    ratios near 1 still differ. -inf for one answer gives a ratio of 0 or 1, for both NaN.
    Ratio and excess are differentiable in the log-probabilities, the share is piecewise constant.

    Of answers with hundreds of tokens the logs differ by tens of nats, and nearly every ratio is 0
    or 1: their mean says little more than which answer is the more probable one. With the numbers
    of tokens the ratio is that of the geometric means of the tokens' probabilities,
    sigmoid(log pi(y_w) / |y_w| - log pi(y_l) / |y_l|), which does not saturate. It is no
    probability of an answer, so it is read beside the other, and over models.

    Source: Xiao et al. 2025 (arXiv 2505.01997), preference collapse; Meng et al. 2024
    (arXiv 2405.14734), Eq. 3, for the length-normalised form.

    Args:
        chosen_logps: [N] log pi(y_w | x) in nats, summed over the answer's tokens.
        rejected_logps: [N] log pi(y_l | x), likewise.
        preference_rate: [N] or a scalar in [0, 1], P(y_w > y_l | x): the share of annotators, or
            a reward model's sigmoid. None: not known, and what depends on it is NaN.
        weights: [N], how often each pair counts; None means once. Weight 0: not at all.
        chosen_tokens, rejected_tokens: [N], how many tokens the answers have, for the ratio of a
            token; None: of the whole answers.

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
    rows = row_preference_collapse(
        chosen_logps, rejected_logps, preference_rate, chosen_tokens, rejected_tokens
    )
    weights = as_weights(weights, rows[0].shape[0])
    return PreferenceCollapse(*(weighted_mean(row, weights) for row in rows))


@jax.jit
def row_preference_collapse(
    chosen_logps: ArrayLike,
    rejected_logps: ArrayLike,
    preference_rate: ArrayLike | None = None,
    chosen_tokens: ArrayLike | None = None,
    rejected_tokens: ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """ratio_i, ratio_i - rate_i and whether ratio_i > rate_i (1 or 0) of every pair, float32 [N].

    What ``preference_collapse`` averages; see there.

    Example:
        >>> ratio, excess, above = row_preference_collapse([-10.0], [-10.0], 0.25)
        >>> ratio.tolist(), excess.tolist(), above.tolist()
        ([0.5], [0.25], [1.0])
    """
    log_odds = preference_margins(chosen_logps, rejected_logps, chosen_tokens, rejected_tokens)
    num_pairs = log_odds.shape[0]
    rate = jnp.asarray(jnp.nan if preference_rate is None else preference_rate, jnp.float32)
    if rate.shape not in ((), (num_pairs,)):
        raise ValueError(f"preference_rate must be a scalar or ({num_pairs},), got {rate.shape}")
    ratio = jax.nn.sigmoid(log_odds)
    above = (log_odds > jnp.log(rate) - jnp.log1p(-rate)).astype(jnp.float32)
    above = jnp.where(jnp.isnan(log_odds) | jnp.isnan(rate), jnp.nan, above)
    return ratio, ratio - rate, above


@jax.jit
def preference_margins(
    chosen_logps: ArrayLike,
    rejected_logps: ArrayLike,
    chosen_tokens: ArrayLike | None = None,
    rejected_tokens: ArrayLike | None = None,
) -> jax.Array:
    """log pi(y_w | x) - log pi(y_l | x) of every pair, float32 [N].

    A longer answer is less probable whatever it says. With the numbers of tokens, each sum is
    divided by its own: the mean log-probability of a token, as SimPO compares answers.

    Source: Meng et al. 2024 (arXiv 2405.14734), Eq. 3, for the length-normalised form.

    Args:
        chosen_logps, rejected_logps: [N] nats, summed over each answer's tokens.
        chosen_tokens, rejected_tokens: [N], how many tokens these are; None: not normalised.

    Raises:
        ValueError: shapes that do not fit, or one number of tokens without the other.

    Example:
        >>> preference_margins([-4.0], [-3.0]).tolist()
        [-1.0]
        >>> preference_margins([-4.0], [-3.0], [4], [2]).tolist()
        [0.5]
    """
    chosen, rejected = _pairs(chosen_logps, rejected_logps)
    if (chosen_tokens is None) != (rejected_tokens is None):
        raise ValueError("give the numbers of tokens of both answers, or of none")
    if chosen_tokens is not None:
        lengths = jnp.asarray(chosen_tokens), jnp.asarray(rejected_tokens)
        if any(length.shape != chosen.shape for length in lengths):
            raise ValueError(f"the numbers of tokens must be {chosen.shape} each")
        chosen, rejected = chosen / lengths[0], rejected / lengths[1]
    return chosen - rejected


@checked
@jax.jit
def preference_accuracy(
    chosen_logps: ArrayLike,
    rejected_logps: ArrayLike,
    chosen_tokens: ArrayLike | None = None,
    rejected_tokens: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Share of pairs whose chosen answer is the more probable one, strictly: a tie is none.

    Args:
        chosen_logps, rejected_logps, chosen_tokens, rejected_tokens: see ``preference_margins``.
        weights: [N], how often each pair counts; None means once.

    Returns:
        A float32 scalar; NaN for no pairs.

    Example:
        >>> float(preference_accuracy([-1.0, -3.0, -2.0, -1.0], [-2.0, -2.0, -2.0, -5.0]))
        0.5
    """
    margins = preference_margins(chosen_logps, rejected_logps, chosen_tokens, rejected_tokens)
    right = jnp.where(jnp.isnan(margins), jnp.nan, (margins > 0).astype(jnp.float32))
    return weighted_mean(right, as_weights(weights, right.shape[0]))


@jax.jit
def reward_margins(
    chosen_logps: ArrayLike,
    rejected_logps: ArrayLike,
    reference_chosen_logps: ArrayLike,
    reference_rejected_logps: ArrayLike,
    beta: jax.Array | float = 0.1,
) -> jax.Array:
    """DPO's implicit reward of the chosen answer less the rejected one's, float32 [N].

        beta [(log pi(y_w) - log pi_ref(y_w)) - (log pi(y_l) - log pi_ref(y_l))]

    The loss of DPO is -log sigmoid of it.

    Source: Rafailov et al. 2023 (arXiv 2305.18290), Eq. 7.

    Args:
        chosen_logps, rejected_logps: [N] of the policy, summed over each answer's tokens.
        reference_chosen_logps, reference_rejected_logps: [N] of the reference model.
        beta: the scale of the reward.

    Example:
        >>> reward_margins([-10.0], [-30.0], [-15.0], [-20.0], beta=0.5).tolist()
        [7.5]
    """
    chosen, rejected = _pairs(chosen_logps, rejected_logps)
    reference = _pairs(reference_chosen_logps, reference_rejected_logps)
    if reference[0].shape != chosen.shape:
        raise ValueError(f"the reference has {reference[0].shape}, the policy {chosen.shape}")
    return beta * ((chosen - reference[0]) - (rejected - reference[1]))


def _pairs(chosen_logps: ArrayLike, rejected_logps: ArrayLike) -> tuple[jax.Array, jax.Array]:
    chosen = jnp.asarray(chosen_logps).astype(jnp.float32)
    rejected = jnp.asarray(rejected_logps).astype(jnp.float32)
    if chosen.ndim != 1 or rejected.shape != chosen.shape:
        raise ValueError(
            f"chosen_logps and rejected_logps must both have shape [N], got {chosen.shape} and "
            f"{rejected.shape}"
        )
    return chosen, rejected
