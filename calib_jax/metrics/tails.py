"""What floats cannot hold of a probability near 0 or 1, taken from log-scores where they are given.

``probs`` are what is measured. A metric that depends on their tails, NLL and all that rank by
confidence, takes ``log_scores`` as well: [N, K] natural logs with any offset per row, whose softmax
over the valid options the probabilities are. They are read only where ``probs`` have run out of
bits: for a probability below the smallest normal number of its dtype, and for a confidence
within 1024 epsilon of 1. So equal confidences stay equal, whatever rounding does to logarithms.
Log-scores that contradict the probabilities there are not read: by more than 0.001, or, of a
probability of exactly 0, which may have been rounded, by more than 0.25.
Arrays of numpy (and lists) are read in the precision that they have, outside of jit. On the device
float32 below the smallest normal number would count as 0: its bits are read.
"""

import inspect
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics.inputs import as_answers, as_probs

# In units of epsilon: below this, 1 - c has lost more than ten of its bits.
_SATURATED = 1024
# A probability above -1e-6 and below 0 is a rounding error.
_ROUNDING = 1e-6
# How far softmax(log_scores) may be from a probability near 0 or 1 and still speak of it; and from
# an exact 0: half of the coarsest unit, 1/2.
_TOLERANCE, _ROUNDED = 1e-3, 0.25


def held_by_numpy(*arrays: Any) -> bool:
    """Whether all are numpy arrays, lists or None: readable in their own precision."""
    return not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(arrays))


def row_tail_nll(
    probs: ArrayLike, answers: ArrayLike, mask: ArrayLike | None, log_scores: ArrayLike | None
) -> jax.Array:
    """-ln p_y of each row, float32 [N]; inf where the probability is 0 by all that is known."""
    rows = as_probs(probs, mask)[0].shape[0]
    checked = as_answers(answers, rows)
    if not held_by_numpy(probs, answers, mask, log_scores):
        return _answer_nll(jnp, probs, checked, mask, log_scores)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        values = _answer_nll(np, np.asarray(probs), np.asarray(answers), mask, log_scores)
    return jnp.asarray(values.astype(np.float32))


def _answer_nll(xp, probs, answers, mask, log_scores):
    probs = xp.asarray(probs)
    wide, smallest = _wide(xp, probs)
    chosen = answers[:, None] == xp.arange(probs.shape[1])
    if mask is not None:
        chosen = chosen & xp.asarray(mask).astype(bool)
    own = xp.where(chosen, wide, 0).sum(axis=1)
    own = xp.where((own < 0) & (own > -_ROUNDING), 0, own)
    if probs.shape[1] == 1:
        return _single_nll(xp, own, wide[:, 0], chosen[:, 0], log_scores)
    if log_scores is None:
        return _nll(xp, own, probs, chosen)
    scores = _scores(xp, log_scores, mask, probs.shape)
    top = scores.max(axis=1, keepdims=True)
    scores = scores - xp.where(top == -xp.inf, 0, top)
    total = xp.log(xp.exp(scores).sum(axis=1))
    tail = total - xp.where(chosen, scores, -xp.inf).max(axis=1)
    least = xp.where(own == 0, -math.log(_ROUNDED), -math.log(_TOLERANCE))
    read = (own < smallest) & (tail >= least)
    return xp.where(read, tail, _nll(xp, xp.where(read, 1, own), probs, chosen))


def _single_nll(xp, own, confidence, right, log_scores):
    """Of a given answer: -ln c where it is right, and -ln(1 - c) where it is wrong."""
    own = xp.where(right, own, 1 - xp.minimum(confidence, 1))
    values = xp.abs(xp.log(own))
    if log_scores is None:
        return values
    score = xp.asarray(log_scores).astype(own.dtype)[:, 0]
    told = xp.where(right, -score, -xp.log(-xp.expm1(xp.minimum(score, 0))))
    # What rounds to 0 or to 1 keeps a finite logarithm.
    return xp.where((own == 0) & (told >= -math.log(_TOLERANCE)), told, values)


def _nll(xp, own, probs, chosen):
    """-ln of the probabilities ``own`` [N], which are those of ``probs`` at ``chosen`` [N, K]."""
    if xp is np or probs.dtype != jnp.float32:
        return xp.abs(xp.log(own))  # abs: -ln 1 is 0, not -0
    # XLA's arithmetic takes a subnormal number for 0. Its bits count multiples of 2^-149.
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(probs), jnp.int32)
    bits = jnp.where(chosen, bits, 0).sum(axis=1)
    subnormal = (bits > 0) & (bits < 1 << 23)
    tail = 149 * math.log(2) - jnp.log(jnp.where(subnormal, bits, 1).astype(jnp.float32))
    return jnp.where(subnormal, tail, jnp.abs(jnp.log(jnp.where(subnormal, 1, own))))


def confidence_order(
    probs: ArrayLike, mask: ArrayLike | None, log_scores: ArrayLike | None
) -> tuple[jax.Array, jax.Array | None]:
    """A key that orders the rows by confidence, and the rows by rising key where that is known.

    Both int32 [N]. The key is at or above 0, and equal where the confidences are equal: ranks
    where the host reads more than float32 holds, and there the order is known; else the bits of
    the confidence, or, with log-scores and near 1, of its log-odds.
    """
    if not held_by_numpy(probs, mask, log_scores):
        return _bit_key(probs, mask, log_scores), None
    held = np.asarray(probs)
    if log_scores is None and held.dtype.itemsize <= 4:
        return _bit_key(held, mask, log_scores), None
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        confidence, log_odds = _confidence(np, held, mask, log_scores)
    key = confidence if log_odds is None else log_odds
    order = np.argsort(key)
    key = key[order]
    ranks = np.zeros(len(key), np.int32)
    ranks[order[1:]] = np.cumsum(key[1:] != key[:-1])
    return jnp.asarray(ranks), jnp.asarray(order.astype(np.int32))


# From these log-odds on they are the key. Above lie less than 2^30 floats, below the bits of c.
_HIGH_ODDS = 6.0


@jax.jit
def _bit_key(probs, mask, log_scores):
    def bits(x):
        return jax.lax.bitcast_convert_type(jnp.asarray(x, jnp.float32), jnp.int32)

    confidence, log_odds = _confidence(jnp, probs, mask, log_scores)
    key = jnp.maximum(bits(confidence), 0)  # -0.0 is 0
    if log_odds is None:
        return key
    # Any two confidences of such odds differ by more in their logarithm than rounding takes away.
    above = bits(2.0) + bits(log_odds) - bits(_HIGH_ODDS)
    return jnp.where(log_odds >= _HIGH_ODDS, above, jnp.minimum(key, bits(2.0) - 1))


def _confidence(xp, probs, mask, log_scores):
    """Confidences, and with log-scores their log-odds, else None."""
    probs = xp.asarray(probs)
    wide, _ = _wide(xp, probs)
    if mask is not None:
        wide = xp.where(xp.asarray(mask).astype(bool), wide, -xp.inf)
    confidence = wide.max(axis=1)
    if log_scores is None:
        return confidence, None
    scores = _scores(xp, log_scores, mask, probs.shape)
    if probs.shape[1] == 1:  # the rest is not an option's: c against 1 - c
        scores = xp.minimum(scores, 0)
        scores = xp.concatenate([scores, xp.log(-xp.expm1(scores))], axis=1)
    best = scores.argmax(axis=1)[:, None] == xp.arange(scores.shape[1])
    others = xp.where(best, -xp.inf, scores)
    highest = others.max(axis=1, keepdims=True)
    base = xp.where(highest == -xp.inf, 0, highest)
    rest = base[:, 0] + xp.log(xp.exp(others - base).sum(axis=1))
    margin = scores.max(axis=1) - rest
    read = confidence > 1 - _SATURATED * float(_limits(probs).eps)
    read &= margin >= math.log(1 / _TOLERANCE - 1)
    odds = xp.log(confidence) - xp.log1p(-xp.minimum(confidence, 1))
    return confidence, xp.where(read, margin, odds)


def best_option(probs: ArrayLike, mask: ArrayLike | None) -> np.ndarray:
    """Each row's most probable valid option in the precision given, int32 [N]; -1 where none."""
    probs = np.asarray(probs)
    if mask is None:
        return probs.argmax(axis=1).astype(np.int32)
    mask = np.asarray(mask).astype(bool)
    best = np.where(mask, _wide(np, probs)[0], -np.inf).argmax(axis=1)
    return np.where(mask.any(axis=1), best, -1).astype(np.int32)


def _wide(xp, probs):
    """Probabilities in float64 on the host and float32 else; the smallest that is precise."""
    return probs.astype(np.float64 if xp is np else np.float32), float(_limits(probs).tiny)


def _limits(probs):
    floating = jnp.issubdtype(probs.dtype, jnp.floating)
    return jnp.finfo(probs.dtype if floating else np.float32)


def _scores(xp, log_scores, mask, shape):
    scores = xp.asarray(log_scores).astype(np.float64 if xp is np else np.float32)
    if scores.shape != shape:
        raise ValueError(f"log_scores must have the shape of probs {shape}, got {scores.shape}")
    return scores if mask is None else xp.where(xp.asarray(mask).astype(bool), scores, -xp.inf)


def takes_log_scores(metric: Callable) -> bool:
    """Whether a metric has the keyword ``log_scores``."""
    return "log_scores" in inspect.signature(metric).parameters


def call(metric, probs, answers, mask, weights, log_scores) -> Any:
    """A metric of one set of rows, given the log-scores if it takes them."""
    given = {"weights": weights}
    if log_scores is not None and takes_log_scores(metric):
        given["log_scores"] = log_scores
    return metric(probs, answers, mask, **given)
