"""Choice extraction: how probable is each option's letter after the prompt? Pure functions."""

import chex
import jax
import jax.numpy as jnp
import numpy as np


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
    chex.assert_rank([logits_BxV, letter_ids_K, mask_BxK], [2, 1, 2])
    chex.assert_shape(mask_BxK, (len(logits_BxV), len(letter_ids_K)))
    chex.assert_type([letter_ids_K, mask_BxK], [int, bool])
    logits_BxV = logits_BxV.astype(jnp.float32)
    letters_BxK = logits_BxV[:, letter_ids_K]
    log_scores_BxK = letters_BxK - jax.nn.logsumexp(logits_BxV, axis=-1, keepdims=True)
    return jnp.where(mask_BxK, log_scores_BxK, -jnp.inf)


def renormalise(
    log_scores_BxK: jax.Array | np.ndarray, mask_BxK: jax.Array | np.ndarray
) -> jax.Array:
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
    chex.assert_equal_shape([log_scores_BxK, mask_BxK])
    return jax.nn.softmax(log_scores_BxK.astype(jnp.float32), axis=-1, where=mask_BxK)


def option_mass(log_scores_NxK: jax.Array) -> jax.Array:
    """The probability of all options together before they are renormalised: sum_k exp(s_k).

    Args:
      log_scores_NxK: [N, K], log-probabilities; -inf where masked.

    Returns:
      [N] float32. Little mass says that the model would rather have said something else.
    """
    return jnp.exp(log_scores_NxK.astype(jnp.float32)).sum(axis=-1)


def permuted_log_scores(
    letters_NxSxK: jax.Array, mask_NxK: jax.Array, mean: str = "geometric"
) -> jax.Array:
    """Every option's mean over the cyclic shifts of the options.

    Under shift s letter j stands before option (j + s) mod K_n, so that each option stands once
    under each letter, and p_ks is the probability of k's letter under shift s:

        geometric    s_k = (1/K_n) sum_s ln p_ks
        arithmetic   s_k = ln (1/K_n) sum_s p_ks

    Where the logit of a letter is that of its option plus a prior of the letter, the geometric mean
    cancels the prior exactly: every option gets the same sum of it. The arithmetic mean (Zheng et
    al. 2024, arXiv 2309.03882, section 3) leaves a part of it, which flattens the probabilities and
    can change their order. An option whose letter has probability 0 under one shift has a geometric
    mean of 0.

    Args:
      letters_NxSxK: [N, S, K], the LETTERS' log-probabilities under each shift; K_n shifts and
        letters count, the rest is not read.
      mask_NxK: [N, K] bool, the options that each question has; they come first. S = K.
      mean: "geometric" or "arithmetic".

    Returns:
      [N, K] float32, of the options in the order given; -inf where masked. Only those of the
      arithmetic mean are log-probabilities: geometric means add up to less than the letters' mass.

    Raises:
      ValueError: another mean.
    """
    if mean not in ("geometric", "arithmetic"):
        raise ValueError(f'mean must be "geometric" or "arithmetic", got {mean!r}')
    N, K = mask_NxK.shape
    chex.assert_shape(letters_NxSxK, (N, K, K))
    counts_Nx1 = mask_NxK.sum(axis=1)[:, None]
    shift, option = jnp.arange(K)[None, :, None], jnp.arange(K)[None, None, :]
    letter_NxSxK = (option - shift) % jnp.maximum(counts_Nx1[:, :, None], 1)
    scores = jnp.take_along_axis(letters_NxSxK.astype(jnp.float32), letter_NxSxK, axis=2)
    counted = mask_NxK[:, :, None] & mask_NxK[:, None, :]
    if mean == "geometric":
        means = jnp.where(counted, scores, 0).sum(axis=1) / counts_Nx1
    else:
        total = jax.nn.logsumexp(scores, axis=1, where=counted)
        means = total - jnp.log(counts_Nx1.astype(jnp.float32))
    return jnp.where(mask_NxK, means, -jnp.inf)


def content_free_prior(letters_NxCxK: jax.Array, mask_NxK: jax.Array) -> jax.Array:
    """What the letters get without content: ln of the mean over prompts of their probabilities.

    The prior of ``posthoc.ContextualCalibration``, of every question by itself.

    Args:
      letters_NxCxK: [N, C, K], the letters' log-probabilities after C content-free prompts that
        list as many options as the question has.
      mask_NxK: [N, K] bool.

    Returns:
      [N, K] float32, renormalised over the options of each prompt; 0 where masked.
    """
    chex.assert_shape(letters_NxCxK, (len(mask_NxK), None, mask_NxK.shape[1]))
    where = mask_NxK[:, None, :]
    log_probs = jax.nn.log_softmax(letters_NxCxK.astype(jnp.float32), axis=-1, where=where)
    mean = jax.nn.logsumexp(log_probs, axis=1) - jnp.log(letters_NxCxK.shape[1])
    return jnp.where(mask_NxK, mean, 0)


def contextual_log_scores(
    log_scores_NxK: jax.Array, log_prior_NxK: jax.Array, mask_NxK: jax.Array
) -> jax.Array:
    """The letters' scores over what they get without content: s_k = ln p_k - ln q_k.

    Zhao et al. 2021 (arXiv 2102.09690), section 5, with W = diag(q)^-1 and b = 0.

    Args:
      log_scores_NxK: [N, K], the letters' log-probabilities.
      log_prior_NxK: [N, K], ln q_k of ``content_free_prior``.
      mask_NxK: [N, K] bool.

    Returns:
      [N, K] float32; -inf where masked. ``renormalise`` of it is the calibrated confidence.
    """
    chex.assert_equal_shape([log_scores_NxK, log_prior_NxK, mask_NxK])
    return jnp.where(mask_NxK, log_scores_NxK - log_prior_NxK, -jnp.inf)
