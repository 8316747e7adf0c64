"""Choice extraction: how probable is each option's letter after the prompt? Pure functions."""

import jax
import jax.numpy as jnp


def choice_log_scores(
    logits_BxV: jax.Array, letter_ids_K: jax.Array, mask_BxK: jax.Array
) -> jax.Array:
    """The letters' log-probabilities among all tokens of the vocabulary.

    log_scores[b, k] = logits[b, letter_ids[k]] - logsumexp_v logits[b, v]

    Args:
      logits_BxV: [B, V], at the answer position; cast to float32.
      letter_ids_K: [K] int, the token of each letter.
      mask_BxK: [B, K] bool, the options that each question has.

    Returns:
      [B, K] float32, natural log; -inf where masked.
    """
    logits_BxV = logits_BxV.astype(jnp.float32)
    letters_BxK = logits_BxV[:, letter_ids_K]
    log_scores_BxK = letters_BxK - jax.nn.logsumexp(logits_BxV, axis=-1, keepdims=True)
    return jnp.where(mask_BxK, log_scores_BxK, -jnp.inf)


def renormalise(log_scores_BxK: jax.Array, mask_BxK: jax.Array) -> jax.Array:
    """A float32 softmax over the options: the confidence that all three papers mean.

    Args:
      log_scores_BxK: [B, K], natural log.
      mask_BxK: [B, K] bool, at least one option a row.

    Returns:
      [B, K] float32, rows summing to 1; exactly 0 where masked.

    >>> import jax.numpy as jnp
    >>> probs = renormalise(jnp.log(jnp.array([[0.2, 0.6, 0.7]])), jnp.array([[True, True, False]]))
    >>> [[round(float(p), 4) for p in row] for row in probs]
    [[0.25, 0.75, 0.0]]
    """
    return jax.nn.softmax(log_scores_BxK.astype(jnp.float32), axis=-1, where=mask_BxK)
