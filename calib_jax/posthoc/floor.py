"""How a fit reads an option of probability exactly 0.

A probability of 0 on an option that exists is a rounded one. Read as a very small number it rules
the fit: a single right answer there makes every temperature explode. Read as half the rounding
unit it is too large where options are many. So a zero's probability is taken from its interval,
from 0 to half the unit, by the likelihood.
"""

import math

import numpy as np

from calib_jax.metrics.zeros import normalised

# A weak pull of 1 / T towards 1: where every row is one-hot, nothing else says what T is.
_RIDGE = 1e-6


def most_likely_floor(
    log_scores: np.ndarray,
    valid: np.ndarray,
    answers: np.ndarray | None,
    weights: np.ndarray,
    highest: float,
) -> float:
    """ln of the one probability that all zeros are read as.

    The floor that makes the answers most likely,

        max over floor <= ln highest of sum_i w_i ln softmax(s_i / T)_y,   s = floor at a zero

    at the temperature of the answers and options that are no zeros, which needs no floor: a choice
    among some of the options has the odds of all (McFadden 1978). Where these alone leave T at a
    bound, at the most likely T and floor together. Convex in 1/T and floor/T. Half an answer more
    than there is counts as one that was given a zero (Jeffreys), so that no zero becomes
    impossible. Without answers: ``ln highest``.

    Args:
        log_scores: [N, K], -inf at the zeros.
        valid: [N, K] bool.
        answers: [N] int or None.
        weights: [N] >= 0.
        highest: as in ``metrics.zeros.Zeros``.
    """
    # Loaded here: scipy.optimize takes longer to import than the rest of the package.
    from scipy.optimize import minimize

    log_highest = math.log(highest)
    if answers is None:
        return log_highest
    counted = weights > 0
    log_scores, valid, answers = log_scores[counted], valid[counted], answers[counted]
    weights = weights[counted].astype(np.float64)
    zero = valid & (log_scores == -np.inf)
    if not zero.any():
        return log_highest
    scores = normalised(log_scores, valid & ~zero)
    on_zero = np.take_along_axis(zero, answers[:, None], axis=1)[:, 0]
    own = np.take_along_axis(scores, answers[:, None], axis=1)[:, 0]
    extra = np.where(zero.any(axis=1), weights, 0)
    extra *= 0.5 / extra.sum()

    def given_loss(x):
        logits = np.where(valid & ~zero, x[0] * scores, -np.inf)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        share = powers / powers.sum(axis=1, keepdims=True)
        log_total = logits.max(axis=1) + np.log(powers.sum(axis=1))
        rows = weights * ~on_zero
        slope = rows @ ((share * scores).sum(axis=1) - own)
        ridge = _RIDGE * (x[0] - 1)
        value = rows @ (log_total - x[0] * own) / weights.sum() + ridge * (x[0] - 1) / 2
        return value, np.array([slope / weights.sum() + ridge])

    def loss(x):
        beta, below = x  # 1 / T, and how far the floor lies beneath the highest, over T
        at_zero = beta * log_highest - below
        logits = np.where(zero, at_zero, np.where(valid, beta * scores, -np.inf))
        top = logits.max(axis=1, keepdims=True)
        powers = np.exp(logits - top)
        total = powers.sum(axis=1, keepdims=True)
        share = powers / total
        log_total = (top + np.log(total))[:, 0]
        value = weights @ (log_total - np.where(on_zero, at_zero, beta * own))
        value += extra @ (log_total - at_zero)
        rows = weights + extra
        zeros = rows @ np.where(zero, share, 0).sum(axis=1) - weights @ on_zero - extra.sum()
        slope = rows @ (share * scores).sum(axis=1) - weights @ np.where(on_zero, 0, own)
        gradient = np.array([slope + zeros * log_highest, -zeros]) / weights.sum()
        ridge = _RIDGE * (beta - 1)
        return value / weights.sum() + ridge * (beta - 1) / 2, gradient + [ridge, 0]

    options = {"ftol": 1e-13, "gtol": 1e-9, "maxiter": 500}
    limits = low, high = 1e-3, 100.0
    found = minimize(
        given_loss, [0.5], jac=True, method="L-BFGS-B", bounds=[limits], options=options
    )
    beta = found.x[0]
    if 1.01 * low < beta < 0.99 * high:
        limits = beta, beta
    found = minimize(
        loss,
        [min(max(0.5, limits[0]), limits[1]), 1.0],
        jac=True,
        method="L-BFGS-B",
        bounds=[limits, (0, None)],
        options=options,
    )
    beta, below = found.x
    return log_highest - below / beta
