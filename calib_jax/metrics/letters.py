"""Which options a model chooses, and how often it is nearly certain."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics.checked import checked
from calib_jax.metrics.inputs import answer_matrix, as_answers, as_probs, as_weights
from calib_jax.metrics.scores import confidences, predictions
from calib_jax.metrics.sums import total_weight, weighted_mean, weighted_sum


@checked
@jax.jit
def letter_counts(
    probs: ArrayLike, mask: ArrayLike | None = None, weights: ArrayLike | None = None
) -> jax.Array:
    """How many rows predict each option, [K] (first index on ties).

    int32; the float32 sum of weights for float ``weights``. A row without a valid option is in
    none.

    Example:
        >>> letter_counts([[0.9, 0.1], [0.5, 0.5], [0.2, 0.8]]).tolist()
        [2, 1]
    """
    probs, mask = as_probs(probs, mask)
    weights = as_weights(weights, probs.shape[0])
    return _counts(predictions(probs, mask), probs.shape[1], weights)


@checked
@functools.partial(jax.jit, static_argnames=("num_options",))
def answer_counts(
    answers: jax.Array | np.ndarray | Sequence[int],
    num_options: int,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """How many rows have each option as their answer, [K]: the base rates of the letters.

    Args:
        answers: [N] int, 0-based index of the right option.
        num_options: K.
        weights: [N], how often each row counts; None means once.

    Example:
        >>> answer_counts([0, 2, 2], num_options=4).tolist()
        [1, 0, 2, 0]
    """
    answers = as_answers(answers, len(answers))
    return _counts(answers, num_options, as_weights(weights, answers.shape[0]))


@checked
@jax.jit
def top_letter_share(
    probs: ArrayLike,
    answers: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Share of rows that predict the most often predicted option, max_k count_k / N.

    1/K for a model without a favourite letter, 1 for one that always says "A". ``answers`` is not
    read; it is there for the signature that all scalar metrics share. NaN for no rows.

    Example:
        >>> round(float(top_letter_share([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])), 4)
        0.6667
    """
    counts = letter_counts(probs, mask, weights)
    num_rows = as_probs(probs)[0].shape[0]
    if answers is not None:
        as_answers(answers, num_rows)
    return counts.max() / total_weight(as_weights(weights, num_rows), num_rows)


@checked
@jax.jit
def letter_entropy(
    probs: ArrayLike,
    answers: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Entropy of the histogram of predicted options, -sum_k q_k ln q_k with q_k = count_k / N.

    In nats, as ``nll`` is; not divided by ln K, which ragged options do not have. ln K for a
    model without a favourite letter, 0 for one that always says "A"; below the entropy of
    ``answer_counts`` the model favours letters more than the data do. About the predictions, not
    the mean entropy of the rows' probabilities. ``answers`` is not read; it is there for the
    signature that all scalar metrics share. Piecewise constant in ``probs``.

    Source: Shannon 1948.

    Returns:
        float32 scalar in [0, ln K]; NaN for no rows.

    Example:
        >>> float(letter_entropy([[0.9, 0.1], [0.6, 0.4]]))
        0.0
        >>> round(float(letter_entropy([[0.9, 0.1], [0.2, 0.8]])), 4)   # ln 2
        0.6931
    """
    counts = letter_counts(probs, mask, weights).astype(jnp.float32)
    num_rows = as_probs(probs)[0].shape[0]
    if answers is not None:
        as_answers(answers, num_rows)
    share = counts / total_weight(as_weights(weights, num_rows), num_rows)
    # abs: the entropy of one letter is 0, not -0.
    return jnp.abs(jnp.where(share == 0, 0, share * jnp.log(share)).sum())


@checked
@jax.jit
def share_above(
    probs: ArrayLike,
    answers: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    threshold: float = 0.9,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Share of rows whose confidence max_k p_k is strictly above ``threshold``; NaN for no rows.

    ``answers`` is not read; it is there for the signature that all scalar metrics share.

    Example:
        >>> float(share_above([[0.95, 0.05], [0.6, 0.4]], threshold=0.9))
        0.5
    """
    confidence = confidences(probs, mask)
    if answers is not None:
        as_answers(answers, confidence.shape[0])
    above = (confidence > jnp.float32(threshold)).astype(jnp.float32)
    above = jnp.where(jnp.isnan(confidence), jnp.nan, above)
    return weighted_mean(above, as_weights(weights, confidence.shape[0]))


def _counts(choices: jax.Array, num_options: int, weights: jax.Array | None) -> jax.Array:
    hits = answer_matrix(choices, num_options)
    dtype = jnp.int32 if weights is None else weights.dtype
    return weighted_sum(hits.astype(dtype), weights)
