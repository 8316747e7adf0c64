"""How well confidence ranks right answers above wrong ones. Piecewise constant in ``probs``."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from calib_jax.metrics.checked import checked
from calib_jax.metrics.inputs import as_answers, as_weights
from calib_jax.metrics.scores import confidences, predictions
from calib_jax.metrics.sums import tree_sum
from calib_jax.metrics.tails import confidence_order


@checked
def auroc(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    *,
    log_scores: ArrayLike | None = None,
) -> jax.Array:
    """Area under the ROC curve of confidence for correctness.

        AUROC = P(c_right > c_wrong) + 1/2 P(c_right = c_wrong)

    over pairs of a correctly and a wrongly answered row, c = max_k p_k: ties count half
    (mid-rank). 0.5: confidence says nothing about correctness. Source: Hanley and McNeil 1982.

    Args:
        probs: [N, K] option probabilities.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        weights: [N], how often each row counts; None means once.
        log_scores: [N, K] natural logs of which ``probs`` are the softmax; they tell apart the
            confidences that round to 1 (``tails``).

    Returns:
        float32 scalar in [0, 1]; NaN when all counted rows are right, or all are wrong.

    Example:
        >>> probs = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]]
        >>> float(auroc(probs, [0, 1, 0, 1]))   # of 4 pairs, 3 in order
        0.75
    """
    return _auroc(*by_confidence(probs, answers, mask, log_scores), weights)


@jax.jit
def _auroc(key, confidence, right, weights) -> jax.Array:
    num_rows = confidence.shape[0]
    weights = as_weights(weights, num_rows)
    if num_rows == 0:
        return jnp.float32(jnp.nan)
    weights = jnp.ones(num_rows, jnp.int32) if weights is None else weights
    unknown = (jnp.isnan(confidence) & (weights != 0)).any()

    # Under vmap over weights (the bootstrap) the sort is done once: it does not depend on them.
    order = jnp.argsort(key)
    first, last = tie_runs(key[order])
    positive = jnp.where(right, weights, 0)
    negative = jnp.where(right, 0, weights)[order]
    up_to = jnp.cumsum(negative)
    # Wrong rows below the tie, plus half of those in it, as a share of all wrong rows.
    twice_below = up_to[last] + (up_to - negative)[first]
    share_below = twice_below.astype(jnp.float32) / (2 * up_to[-1].astype(jnp.float32))
    area = tree_sum(positive[order] * share_below) / tree_sum(positive)
    return jnp.where(unknown, jnp.nan, area)


@checked
def auprc(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    positive: str = "correct",
    weights: ArrayLike | None = None,
    *,
    log_scores: ArrayLike | None = None,
) -> jax.Array:
    """Area under the precision-recall curve of confidence for correctness (average precision).

        AUPRC = sum_t (R_t - R_{t-1}) P_t

    over the distinct confidences t from the highest down: P_t is the share of positives among the
    rows with c >= t, R_t the share of all positives found there. Rows of equal confidence enter
    together, nothing is interpolated (scikit-learn's average_precision_score). A constant
    confidence scores the share of positives, so compare only within one base rate.

    Source: Davis and Goadrich 2006; Hendrycks and Gimpel 2017 (AUPR-Success, AUPR-Error).

    Args:
        probs: [N, K] option probabilities.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        positive: "correct": right answers are to be found among the confident. "wrong": wrong
            answers among the unconfident (c from the lowest up).
        weights: [N], how often each row counts; None means once.
        log_scores: [N, K] natural logs of which ``probs`` are the softmax; they tell apart the
            confidences that round to 1 (``tails``).

    Returns:
        float32 scalar in [0, 1]; NaN without a positive row.

    Example:
        >>> probs = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]]
        >>> float(auprc(probs, [0, 1, 1, 0]))   # 1/2 1/1 + 1/2 2/4
        0.75
    """
    if positive not in ("correct", "wrong"):
        raise ValueError(f'positive must be "correct" or "wrong", got {positive!r}')
    return _auprc(*by_confidence(probs, answers, mask, log_scores), weights, positive)


@functools.partial(jax.jit, static_argnames="positive")
def _auprc(key, confidence, right, weights, positive) -> jax.Array:
    num_rows = confidence.shape[0]
    weights = as_weights(weights, num_rows)
    if num_rows == 0:
        return jnp.float32(jnp.nan)
    weights = jnp.ones(num_rows, jnp.int32) if weights is None else weights
    unknown = (jnp.isnan(confidence) & (weights != 0)).any()

    score = -key if positive == "correct" else key
    sought = right if positive == "correct" else ~right
    order = jnp.argsort(score)
    _, last = tie_runs(score[order])
    hits = jnp.where(sought, weights, 0)[order]
    found = jnp.cumsum(hits)[last].astype(jnp.float32)
    shown = jnp.cumsum(weights[order])[last].astype(jnp.float32)
    # A row of weight 0 ahead of all others is shown to nobody: 0 * 0/0.
    precision = found / jnp.where(shown == 0, 1, shown)
    area = tree_sum(hits * precision) / tree_sum(hits)
    return jnp.where(unknown, jnp.nan, area)


def by_confidence(
    probs: ArrayLike, answers: ArrayLike, mask: ArrayLike | None, log_scores: ArrayLike | None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What ranks the rows [N] (``confidence_order``), their confidence, and which are right."""
    confidence = confidences(probs, mask)
    right = predictions(probs, mask) == as_answers(answers, confidence.shape[0])
    return confidence_order(probs, mask, log_scores), confidence, right


def tie_runs(ordered: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First and last position of the run of equal values around each row of a sorted array."""
    size = ordered.shape[0]
    position = jnp.arange(size)
    changes = ordered[1:] != ordered[:-1]
    starts = jnp.concatenate([jnp.ones(1, bool), changes])
    ends = jnp.concatenate([changes, jnp.ones(1, bool)])
    first = jax.lax.cummax(jnp.where(starts, position, 0))
    last = jax.lax.cummin(jnp.where(ends, position, size - 1), reverse=True)
    return first, last
