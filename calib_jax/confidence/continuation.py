"""Continuation extraction: how probable is each option's own text after the prompt?

Pure functions from the log-probabilities of the options' tokens, one tensor for all of them, to
one score an option. ``renormalise`` makes them probabilities.

    l[n, k, t] = ln p(token t of option k | context of question n, tokens before t)

Shapes: N questions, K options, T tokens. An option without any token has the score -inf, as one
that is masked: its sum would be 0, the score of certainty. Questions with such an option are left
out before it comes to that (``reading``).
"""

import chex
import jax
import jax.numpy as jnp


def _exists(scores_NxK: jax.Array, mask_NxKxT: jax.Array) -> jax.Array:
    return jnp.where(mask_NxKxT.any(axis=-1), scores_NxK, -jnp.inf)


def _checked(log_probs_NxKxT: jax.Array, mask_NxKxT: jax.Array) -> jax.Array:
    chex.assert_rank(log_probs_NxKxT, 3)
    chex.assert_equal_shape([log_probs_NxKxT, mask_NxKxT])
    chex.assert_type(mask_NxKxT, bool)
    return log_probs_NxKxT.astype(jnp.float32)


def sum_log_probs(log_probs_NxKxT: jax.Array, mask_NxKxT: jax.Array) -> jax.Array:
    """The log-probability of the whole option: s_k = sum_t l_kt.

    Oh & Hwang 2024 (arXiv 2409.00352), "continuation-sum"; ``acc`` of lm-evaluation-harness is its
    argmax. Longer options score lower.

    Args:
      log_probs_NxKxT: [N, K, T], natural log.
      mask_NxKxT: [N, K, T] bool, the tokens that exist.

    Returns:
      [N, K] float32; -inf where an option has no token.

    >>> import jax.numpy as jnp
    >>> log_probs = jnp.array([[[-1.0, -2.0], [-2.0, -9.0]]])
    >>> mask = jnp.array([[[True, True], [True, False]]])
    >>> sum_log_probs(log_probs, mask).tolist()
    [[-3.0, -2.0]]
    """
    log_probs = _checked(log_probs_NxKxT, mask_NxKxT)
    return _exists(jnp.where(mask_NxKxT, log_probs, 0).sum(axis=-1), mask_NxKxT)


def min_log_probs(log_probs_NxKxT: jax.Array, mask_NxKxT: jax.Array) -> jax.Array:
    """The log-probability of the least likely token: s_k = min_t l_kt.

    Oh & Hwang 2024, "continuation-min": words that the options share weigh less.

    Args and return as for ``sum_log_probs``.
    """
    log_probs = _checked(log_probs_NxKxT, mask_NxKxT)
    return _exists(jnp.where(mask_NxKxT, log_probs, jnp.inf).min(axis=-1), mask_NxKxT)


def mean_log_probs(log_probs_NxKxT: jax.Array, mask_NxKxT: jax.Array) -> jax.Array:
    """The mean over tokens: s_k = (1/T_k) sum_t l_kt (Brown et al. 2020, arXiv 2005.14165, 2.4).

    Args and return as for ``sum_log_probs``.
    """
    return log_probs_per_length(log_probs_NxKxT, mask_NxKxT, mask_NxKxT.sum(axis=-1))


def log_probs_per_length(
    log_probs_NxKxT: jax.Array, mask_NxKxT: jax.Array, lengths_NxK: jax.Array
) -> jax.Array:
    """The log-probability over the option's length: s_k = sum_t l_kt / length_k.

    With lengths in characters the argmax is ``acc_norm`` of lm-evaluation-harness, with lengths in
    UTF-8 bytes ``acc_bytes``; both are of the option's text without the delimiter before it.

    Args:
      log_probs_NxKxT, mask_NxKxT: as for ``sum_log_probs``.
      lengths_NxK: [N, K], 1 or more wherever an option has tokens.

    Returns:
      [N, K] float32; -inf where an option has no token.
    """
    total_NxK = sum_log_probs(log_probs_NxKxT, mask_NxKxT)
    chex.assert_equal_shape([total_NxK, lengths_NxK])
    return total_NxK / jnp.maximum(lengths_NxK, 1).astype(jnp.float32)


def pmi(
    log_probs_NxKxT: jax.Array,
    mask_NxKxT: jax.Array,
    unconditional_NxKxT: jax.Array,
    unconditional_mask_NxKxT: jax.Array,
) -> jax.Array:
    """Pointwise mutual information: s_k = ln p(option k | context) - ln p(option k).

    Holtzman et al. 2021 (arXiv 2104.08315), with an empty premise in the denominator, which is
    ``acc_mutual_info`` of lm-evaluation-harness: it removes how common the option's text is.

    Args:
      log_probs_NxKxT, mask_NxKxT: after the context, as for ``sum_log_probs``.
      unconditional_NxKxT, unconditional_mask_NxKxT: [N, K, T'], after BOS alone.

    Returns:
      [N, K] float32; -inf where an option has no token.
    """
    prior_NxK = sum_log_probs(unconditional_NxKxT, unconditional_mask_NxKxT)
    score_NxK = sum_log_probs(log_probs_NxKxT, mask_NxKxT)
    chex.assert_equal_shape([prior_NxK, score_NxK])
    return jnp.where(jnp.isfinite(prior_NxK), score_NxK - prior_NxK, -jnp.inf)
