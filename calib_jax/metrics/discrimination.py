"""How well confidence ranks right answers above wrong ones. Piecewise constant in ``probs``."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from calib_jax.metrics.checked import checked
from calib_jax.metrics.inputs import as_weights
from calib_jax.metrics.ranks import Keyed, by_confidence, sum_over_runs


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
    return _auroc(by_confidence(probs, answers, mask, log_scores), weights)


@jax.jit
def _auroc(keyed: Keyed, weights) -> jax.Array:
    num_rows = keyed.key.shape[0]
    if num_rows == 0:
        return jnp.float32(jnp.nan)

    def pairs(counts):
        # Right rows above the run, plus half of those in it, as a share of all right rows.
        twice_above = (counts.found_before + counts.found).astype(jnp.float32)
        share_above = twice_above / (2 * counts.all_found.astype(jnp.float32))
        wrong = (counts.shown - counts.found) - (counts.shown_before - counts.found_before)
        return wrong * share_above

    weights = as_weights(weights, num_rows)
    area, shown, found, unknown = sum_over_runs(
        keyed, weights, pairs, sought=True, lowest_first=False
    )
    return jnp.where(unknown, jnp.nan, area / (shown - found))


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
    return _auprc(by_confidence(probs, answers, mask, log_scores), weights, positive)


@functools.partial(jax.jit, static_argnames="positive")
def _auprc(keyed: Keyed, weights, positive) -> jax.Array:
    num_rows = keyed.key.shape[0]
    if num_rows == 0:
        return jnp.float32(jnp.nan)
    right = positive == "correct"

    def precisions(counts):
        # Rows of weight 0 ahead of all others are shown to nobody: 0 * 0/0.
        precision = counts.found / jnp.where(counts.shown == 0, 1, counts.shown)
        return (counts.found - counts.found_before) * precision

    weights = as_weights(weights, num_rows)
    area, _, found, unknown = sum_over_runs(
        keyed, weights, precisions, sought=right, lowest_first=not right
    )
    return jnp.where(unknown, jnp.nan, area / found)
