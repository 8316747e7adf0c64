"""The losses of CFT and RCFT, as sums over rows, so that microbatches add up to the batch."""

import chex
import jax
import jax.numpy as jnp

from calib_jax.confidence.choice import renormalise
from calib_jax.models.config import ModelConfig
from calib_jax.models.decoder import of_products


def sft1(
    logits_BxV: jax.Array,
    answer_ids_B: jax.Array,
    smoothing: float = 0.0,
    letter_ids_K: jax.Array | None = None,
    mask_BxK: jax.Array | None = None,
) -> jax.Array:
    """L_SFT1 per row: −log π(y | x) of the answer's token, among the whole vocabulary.

    With label smoothing ε: (1 − ε) · (−log π(y | x)) + ε · mean_v (−log π(v | x)), the mean over
    the whole vocabulary (Hugging Face's convention), or over the question's letters where these
    are given; π is the distribution over the whole vocabulary in both.

    Args:
      logits_BxV: [B, V] float32, at the answer position.
      answer_ids_B: [B] int32, the token of the right letter.
      smoothing: ε, in [0, 1).
      letter_ids_K: [K] int32, the letters' tokens, to smooth over them alone.
      mask_BxK: [B, K] bool, the letters of each row; with ``letter_ids_K``.

    Returns:
      [B] float32, nats. Source: Xiao et al. 2025, L_SFT1; Szegedy et al. 2016, label smoothing.
    """
    chex.assert_rank([logits_BxV, answer_ids_B], [2, 1])
    chex.assert_equal_shape_prefix([logits_BxV, answer_ids_B], 1)
    chex.assert_type([logits_BxV, answer_ids_B], [jnp.float32, int])
    total_B = jax.nn.logsumexp(logits_BxV, axis=-1)
    answer_B = jnp.take_along_axis(logits_BxV, answer_ids_B[:, None], axis=1)[:, 0]
    if not smoothing:
        return total_B - answer_B
    if letter_ids_K is None:
        mean_B = logits_BxV.mean(axis=-1)
    else:
        mean_B = logits_BxV[:, letter_ids_K].mean(axis=-1, where=mask_BxK)
    return total_B - (1.0 - smoothing) * answer_B - smoothing * mean_B


DIVERGENCES = ("squared", "kl", "cross_entropy")


def calibration(
    log_scores_BxK: jax.Array,
    targets_BxK: jax.Array,
    mask_BxK: jax.Array,
    divergence: str = "squared",
) -> jax.Array:
    """L_ECE per row: D(p, π), the targets p constant, π the options' renormalised probabilities.

      squared         Σ_k (p_k − π_k)²              a bounded pull: it fades where π_k nears 0 or 1
      kl              Σ_k p_k ln(p_k / π_k)         0 where the model says what it should
      cross_entropy   −Σ_k p_k ln π_k               kl + the entropy of p

    The targets are constants, so kl and cross_entropy have the same gradient, π − p in the scores,
    and train the same model; they differ in what the log shows. Both are computed from the scores'
    logarithms, and stay finite where a probability rounds to 0.

    Args:
      log_scores_BxK: [B, K], natural log; need not be normalised over the options.
      targets_BxK: [B, K] float32, from the E-step; 0 where masked.
      mask_BxK: [B, K] bool, the options that each question has.
      divergence: one of ``DIVERGENCES``.

    Returns:
      [B] float32. Source: Xiao et al. 2025, L_ECE = D(p(x), π(x)); theirs is the squared error.
    """
    chex.assert_rank(log_scores_BxK, 2)
    chex.assert_equal_shape([log_scores_BxK, targets_BxK, mask_BxK])
    targets_BxK = jax.lax.stop_gradient(targets_BxK)
    if divergence == "squared":
        return jnp.sum((targets_BxK - renormalise(log_scores_BxK, mask_BxK)) ** 2, axis=-1)
    log_probs_BxK = jax.nn.log_softmax(log_scores_BxK, axis=-1, where=mask_BxK)
    crossed_B = -jnp.sum(targets_BxK * jnp.where(mask_BxK, log_probs_BxK, 0.0), axis=-1)
    if divergence == "cross_entropy":
        return crossed_B
    return crossed_B + jnp.sum(jax.scipy.special.xlogy(targets_BxK, targets_BxK), axis=-1)


# Entries of the vocabulary in one chunk of the chunked loss: 32 MiB of logits per 1,024 positions.
CHUNK = 8192


def next_token_loss(
    config: ModelConfig,
    hidden_BxLxD: jax.Array,
    head_VxD: jax.Array,
    targets_BxL: jax.Array,
    *,
    shards: int = 1,
) -> jax.Array:
    """−log p(target) at every position, chunked over the vocabulary.

    The log-normaliser is accumulated over chunks of the vocabulary as a running maximum and sum,
    and the backward pass recomputes each chunk: [B, L, V] never exists.

    Args:
      config: of the model, for ``decoder.of_products``.
      hidden_BxLxD: [B, L, D], final hidden states.
      head_VxD: [V, D], the LM head.
      targets_BxL: [B, L] int32, the token after each position.
      shards: ways in which the mesh splits the vocabulary; a chunk takes an equal part of each
        shard, so that no shard moves.

    Returns:
      [B, L] float32, nats.
    """
    V, D = head_VxD.shape
    chex.assert_shape(hidden_BxLxD, (*targets_BxL.shape, D))
    chex.assert_type(targets_BxL, int)
    head_VxD = head_VxD.astype(hidden_BxLxD.dtype)
    per_shard = V // shards
    chunks = -(-per_shard // CHUNK)
    width = -(-per_shard // chunks)
    pieces = head_VxD.reshape(shards, per_shard, D)
    if fill := chunks * width - per_shard:
        pieces = jnp.pad(pieces, ((0, 0), (0, fill), (0, 0)))
    pieces = jnp.moveaxis(pieces.reshape(shards, chunks, width, D), 1, 0)
    exists = jnp.arange(chunks * width).reshape(chunks, width) < per_shard

    @jax.checkpoint
    def accumulate(carry: tuple, chunk: tuple) -> tuple:
        highest_BxL, total_BxL = carry
        piece_SxCxD, exists_C = chunk
        logits = jnp.einsum(
            "bld,scd->blsc", hidden_BxLxD, piece_SxCxD, preferred_element_type=jnp.float32
        )
        logits = jnp.where(exists_C, of_products(config, logits), -jnp.inf)
        top_BxL = jnp.maximum(highest_BxL, jax.lax.stop_gradient(logits.max(axis=(-2, -1))))
        scaled = jnp.exp(logits - top_BxL[..., None, None]).sum(axis=(-2, -1))
        return (top_BxL, total_BxL * jnp.exp(highest_BxL - top_BxL) + scaled), None

    B, L, _ = hidden_BxLxD.shape
    start = (jnp.full((B, L), -jnp.inf, jnp.float32), jnp.zeros((B, L), jnp.float32))
    (highest_BxL, total_BxL), _ = jax.lax.scan(accumulate, start, (pieces, exists))
    target_BxL = jnp.einsum(
        "bld,bld->bl",
        hidden_BxLxD,
        head_VxD[targets_BxL],
        preferred_element_type=jnp.float32,
    )
    return highest_BxL + jnp.log(total_BxL) - of_products(config, target_BxL)
