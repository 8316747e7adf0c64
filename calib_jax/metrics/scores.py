"""Accuracy, confidence and the proper scores (NLL, Brier), as means and per row.

Every scalar metric of this package has one signature, ``(probs, answers, mask=None, ...,
weights=None)``, so that any of them can be resampled by ``intervals``. NLL and Brier are
differentiable in ``probs``; accuracy is piecewise constant.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from calib_jax.metrics.bits import of_order_bits, order_bits
from calib_jax.metrics.checked import checked
from calib_jax.metrics.inputs import answer_matrix, as_answers, as_probs, as_weights
from calib_jax.metrics.sums import weighted_mean
from calib_jax.metrics.tails import best_option, held_by_numpy, row_tail_nll


def predictions(probs: ArrayLike, mask: ArrayLike | None = None) -> jax.Array:
    """Index of each row's most probable valid option, int32 [N].

    Ties go to the first index; -1 where a row has no valid option. Arrays of numpy and lists are
    compared in the precision that they have.

    Args:
        probs: [N, K] option probabilities.
        mask: [N, K] bool, True where the option exists; None means everywhere.

    Example:
        >>> predictions([[0.2, 0.8], [0.5, 0.5]]).tolist()
        [1, 0]
    """
    narrow, valid = as_probs(probs, mask)
    if held_by_numpy(probs, mask):
        return jnp.asarray(best_option(probs, mask))
    return _predictions(narrow, valid)


@jax.jit
def _predictions(probs: jax.Array, mask: jax.Array | None) -> jax.Array:
    if mask is None:
        return jnp.argmax(probs, axis=1).astype(jnp.int32)
    best = jnp.argmax(jnp.where(mask, probs, -jnp.inf), axis=1).astype(jnp.int32)
    return jnp.where(mask.any(axis=1), best, -1)


@jax.jit
def confidences(probs: ArrayLike, mask: ArrayLike | None = None) -> jax.Array:
    """Probability of each row's predicted option, c = max_k p_k, float32 [N].

    NaN where a row has no valid option.

    Example:
        >>> confidences([[0.25, 0.75], [0.5, 0.5]]).tolist()
        [0.75, 0.5]
    """
    probs, mask = as_probs(probs, mask)
    if mask is None:
        return probs.max(axis=1)
    best = jnp.where(mask, probs, -jnp.inf).max(axis=1)
    return jnp.where(mask.any(axis=1), best, jnp.nan)


@checked
def correctness(probs: ArrayLike, answers: ArrayLike, mask: ArrayLike | None = None) -> jax.Array:
    """1.0 where the prediction is the answer, else 0.0, float32 [N]; NaN where ``probs`` is NaN.

    Example:
        >>> correctness([[0.25, 0.75], [0.5, 0.5]], [1, 1]).tolist()
        [1.0, 0.0]
    """
    predicted = predictions(probs, mask)
    answers = as_answers(answers, predicted.shape[0])
    correct = (predicted == answers).astype(jnp.float32)
    return jnp.where(jnp.isnan(confidences(probs, mask)), jnp.nan, correct)


@checked
def accuracy(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Share of rows whose most probable valid option is the answer (first index on ties).

    Args:
        probs: [N, K] option probabilities; cast to float32.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        weights: [N], how often each row counts; None means once. Weight 0: not at all.

    Returns:
        float32 scalar; NaN for no rows.

    Example:
        >>> float(accuracy([[0.75, 0.25], [0.5, 0.5], [0.1, 0.9], [0.2, 0.8]], [0, 1, 1, 1]))
        0.75
    """
    correct = correctness.kernel(probs, answers, mask)
    return weighted_mean(correct, as_weights(weights, correct.shape[0]))


@checked
@jax.jit
def mean_confidence(
    probs: ArrayLike,
    answers: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Mean of the probability given to the predicted option, (1/N) sum_i max_k p_ik.

    ``answers`` is not read; it is there for the signature that all scalar metrics share.
    Mean confidence minus ``accuracy`` is the overconfidence; its size bounds conf-ECE from below.

    Returns:
        float32 scalar; NaN for no rows.

    Example:
        >>> float(mean_confidence([[0.75, 0.25], [0.5, 0.5]]))
        0.625
    """
    confidence = confidences(probs, mask)
    if answers is not None:
        as_answers(answers, confidence.shape[0])
    return weighted_mean(confidence, as_weights(weights, confidence.shape[0]))


@checked
@jax.jit
def confidence_gap(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Mean confidence minus accuracy, (1/N) sum_i (max_k p_ik - 1[prediction_i = y_i]).

    Positive: over-confident on the whole. Signed, so that errors of both kinds cancel; its size is
    the conf-ECE of a single bin, and at most the conf-ECE of any bins. Differentiable as
    ``mean_confidence``.

    Arguments as in ``accuracy``. Returns a float32 scalar in [-1, 1]; NaN for no rows.

    Example:
        >>> float(confidence_gap([[0.75, 0.25], [0.75, 0.25]], [0, 1]))
        0.25
    """
    gaps = confidences(probs, mask) - correctness(probs, answers, mask)
    return weighted_mean(gaps, as_weights(weights, gaps.shape[0]))


@checked
def row_nll(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    *,
    log_scores: ArrayLike | None = None,
) -> jax.Array:
    """Negative log-likelihood of each row's answer, -ln p_y in nats, float32 [N].

    A probability of 0 gives inf: nothing is clipped (scikit-learn's log_loss clips at the dtype's
    epsilon), unless ``log_scores`` tell what it was. An answer that is masked or out of range has
    probability 0.

    Args:
        probs, answers, mask: as in ``nll``.
        log_scores: [N, K], see ``nll``.

    Example:
        >>> row_nll([[1.0, 0.0], [1.0, 0.0]], [0, 1]).tolist()
        [0.0, inf]
        >>> row_nll([[1.0, 0.0]], [1], log_scores=[[-10.0, -150.0]]).tolist()
        [140.0]
    """
    return row_tail_nll(probs, answers, mask, log_scores)


@checked
def nll(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    *,
    log_scores: ArrayLike | None = None,
) -> jax.Array:
    """Mean negative log-likelihood of the answers, -(1/N) sum_i ln p_i,y_i, in nats.

    inf as soon as one counted answer has probability 0 and no log-scores tell more (see
    ``row_nll``). A uniform guesser over K options scores ln K. Strictly proper. Source: Gneiting
    and Raftery 2007 (logarithmic score).

    Args:
        probs: [N, K] option probabilities.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        weights: [N], how often each row counts; None means once.
        log_scores: [N, K] natural logs with any offset per row, of which ``probs`` are the softmax
            over the valid options; read where a probability is too small for its dtype (``tails``).

    Returns:
        float32 scalar; NaN for no rows.

    Example:
        >>> round(float(nll([[0.25, 0.25, 0.25, 0.25]], [2])), 4)
        1.3863
    """
    values = row_tail_nll(probs, answers, mask, log_scores)
    return weighted_mean(values, as_weights(weights, values.shape[0]))


@checked
@jax.jit
def row_brier(probs: ArrayLike, answers: ArrayLike, mask: ArrayLike | None = None) -> jax.Array:
    """Brier score of each row, sum_k (p_k - 1[y = k])^2, float32 [N], between 0 and 2.

    A masked option counts as probability 0.

    Example:
        >>> row_brier([[0.5, 0.5], [1.0, 0.0]], [0, 1]).tolist()
        [0.5, 2.0]
    """
    probs, mask = as_probs(probs, mask)
    if mask is not None:
        probs = jnp.where(mask, probs, 0)
    target = answer_matrix(as_answers(answers, probs.shape[0]), probs.shape[1])
    return jnp.square(probs - target).sum(axis=1)


@checked
@jax.jit
def brier(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Mean Brier score, (1/N) sum_i sum_k (p_ik - 1[y_i = k])^2, between 0 and 2.

    The sum over classes (Brier 1950; also lm-eval, scikit-learn's multi-class default), not their
    mean and not the top-label square (c - correct)^2. A uniform guesser over K options scores
    1 - 1/K.

    Args:
        probs: [N, K] option probabilities; cast to float32.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        weights: [N], how often each row counts; None means once.

    Returns:
        float32 scalar; NaN for no rows.

    Example:
        >>> float(brier([[0.25, 0.25, 0.25, 0.25]], [2]))
        0.75
    """
    values = row_brier(probs, answers, mask)
    return weighted_mean(values, as_weights(weights, values.shape[0]))


@functools.partial(jax.jit, static_argnames="quantiles")
def rank_quantiles(
    probs: ArrayLike,
    mask: ArrayLike | None = None,
    quantiles: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95),
) -> jax.Array:
    """Quantiles of each row's largest, second largest, ... probability, float32 [K, Q].

    The numbers of a box plot of sorted confidences: a collapsed model has its first box near 1
    and the rest near 0. Rank k is over the rows that have more than k options; NaN where none
    has. Linear interpolation between order statistics.

    Example:
        >>> rank_quantiles([[0.25, 0.75], [0.5, 0.5]], quantiles=(0.0, 1.0)).tolist()
        [[0.5, 0.75], [0.25, 0.5]]
    """
    probs, mask = as_probs(probs, mask)
    if mask is not None:
        probs = jnp.where(mask, probs, jnp.nan)
    if not len(probs):
        return jnp.full((probs.shape[1], len(quantiles)), jnp.nan)
    falling = jnp.sort(order_bits(-probs), axis=1)  # NaN last
    known = (~jnp.isnan(of_order_bits(falling))).sum(axis=0)
    falling = jnp.sort(falling.T, axis=1)
    place = (1 - jnp.asarray(quantiles)) * (known[:, None] - 1)
    low, high = (
        -of_order_bits(jnp.take_along_axis(falling, side(place).astype(jnp.int32), axis=1))
        for side in (jnp.floor, jnp.ceil)
    )
    return low + (place - jnp.floor(place)) * (high - low)
