"""The losses of CFT and its rivals, as sums over rows, so that microbatches add up to the batch."""

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
    crossed_B = -jnp.sum(targets_BxK * _log_probs(log_scores_BxK, mask_BxK), axis=-1)
    if divergence == "cross_entropy":
        return crossed_B
    return crossed_B + jnp.sum(jax.scipy.special.xlogy(targets_BxK, targets_BxK), axis=-1)


# --- Losses of other authors, on the options' renormalised probabilities π ------------------------


def focal(
    log_scores_BxK: jax.Array,
    answers_B: jax.Array,
    mask_BxK: jax.Array,
    gamma: float = 3.0,
    gamma_low: float | None = None,
) -> jax.Array:
    """The focal loss per row: −(1 − π_y)^γ · ln π_y; γ = 0 is the options' cross-entropy.

    Args:
      log_scores_BxK: [B, K], natural log; need not be normalised over the options.
      answers_B: [B] int32, y.
      mask_BxK: [B, K] bool, the options that each question has.
      gamma: γ.
      gamma_low: γ where π_y < 0.2; None for ``gamma`` there as well. 5 beside 3 is FLSD-53. Which
        of the two a row has is a constant to its gradient.

    Returns:
      [B] float32, nats. Source: Mukhoti et al. 2020 (arXiv 2002.09437), sections 3 and 5.
    """
    log_probs_BxK = _log_probs(log_scores_BxK, mask_BxK)
    chosen_B = jnp.take_along_axis(log_probs_BxK, answers_B[:, None], axis=1)[:, 0]
    gamma_B = jnp.full(chosen_B.shape, gamma, jnp.float32)
    if gamma_low is not None:
        gamma_B = jnp.where(chosen_B < jnp.log(0.2), gamma_low, gamma_B)
    # 1 − π_y from the logarithm; at π_y = 1 the power's own derivative may be 0 · ∞.
    miss_B = -jnp.expm1(chosen_B)
    certain_B = miss_B <= 0
    factor_B = jnp.where(certain_B, 0.0, jnp.where(certain_B, 1.0, miss_B) ** gamma_B)
    return -jnp.where(gamma_B == 0, 1.0, factor_B) * chosen_B


# Below this a confidence and its target differ by rounding alone, and the sign of their difference
# would be a gradient of noise: with two options they are one number wherever the answer is right.
_ROUNDING = 2e-6


def catto(
    log_scores_BxK: jax.Array,
    answers_B: jax.Array,
    mask_BxK: jax.Array,
    temperature: float = 1.0,
) -> jax.Array:
    """CATTO's calibration term per row: |c − s(m)|, c the confidence, m the answer's margin.

      c = max_k π_k,   m = z_y − max_{k ≠ y} z_k,   s(m) = σ(m / τ)

    z are the options' logits, so m > 0 exactly where the answer is predicted, and s is a smooth
    1[correct]. The paper's text was not at hand: that its surrogate grows with this margin, and
    that its loss is the absolute difference, is what summaries tell; σ, τ = 1, the confidence of
    the *predicted* option, and s as a constant are choices of ours. A constant, because it is the
    target: with a gradient of its own the term would be lowered by larger margins too, which the
    task's loss sees to already. With two options c = s(m) at τ = 1 where the answer is right, so
    that the term draws at wrong answers alone.

    Args:
      log_scores_BxK: [B, K], natural log; need not be normalised over the options.
      answers_B: [B] int32, y.
      mask_BxK: [B, K] bool, the options that each question has.
      temperature: τ > 0; as it falls, s becomes 1[correct].

    Returns:
      [B] float32, in [0, 1]; 0 where c and s differ by no more than float32 rounds. Source: Parikh
      et al. 2026 (arXiv 2601.23096).
    """
    chex.assert_equal_shape([log_scores_BxK, mask_BxK])
    scores_BxK = jnp.where(mask_BxK, log_scores_BxK, -jnp.inf)
    right_BxK = jnp.arange(scores_BxK.shape[1]) == answers_B[:, None]
    margin_B = jnp.max(scores_BxK, -1, where=right_BxK, initial=-jnp.inf) - jnp.max(
        scores_BxK, -1, where=~right_BxK, initial=-jnp.inf
    )
    target_B = jax.lax.stop_gradient(jax.nn.sigmoid(margin_B / temperature))
    return _apart(jnp.max(renormalise(scores_BxK, mask_BxK), axis=-1), target_B)


def _apart(confidence: jax.Array, target: jax.Array) -> jax.Array:
    """|confidence − target|, 0 where only rounding parts them."""
    difference = jnp.abs(confidence - target)
    return jnp.where(difference > _ROUNDING, difference, 0.0)


def tokenised_brier(
    log_scores_BxK: jax.Array, answers_B: jax.Array, mask_BxK: jax.Array
) -> jax.Array:
    """ConfTuner's loss per row: Σ_k q_k (c_k − y)², q what the model gives to each confidence.

    The K options are confidences from 0 to 1 in equal steps, c_k = k / (K − 1), and y is 0 or 1:
    the first or the last of them is the answer. Least in expectation with all of q on the c_k
    nearest to the share of right answers, so it is proper. With two options it is |q_1 − y| and
    not proper: there must be levels in between.

    Args:
      log_scores_BxK: [B, K], natural log, of the confidences' tokens; K = 101 in the paper.
      answers_B: [B] int32, 0 for a wrong answer and the number of options − 1 for a right one.
      mask_BxK: [B, K] bool, the confidences that each question offers.

    Returns:
      [B] float32. Source: Li et al. 2025 (arXiv 2508.18847), the tokenised Brier score.
    """
    chex.assert_equal_shape([log_scores_BxK, mask_BxK])
    steps_B = jnp.maximum(jnp.sum(mask_BxK, axis=-1) - 1, 1)
    away_BxK = (jnp.arange(mask_BxK.shape[1]) - answers_B[:, None]) / steps_B[:, None]
    return jnp.sum(renormalise(log_scores_BxK, mask_BxK) * away_BxK**2, axis=-1)


def _log_probs(log_scores_BxK: jax.Array, mask_BxK: jax.Array) -> jax.Array:
    """[B, K], ln π; 0 where masked, with no gradient there."""
    chex.assert_rank(log_scores_BxK, 2)
    chex.assert_equal_shape([log_scores_BxK, mask_BxK])
    log_probs_BxK = jax.nn.log_softmax(log_scores_BxK, axis=-1, where=mask_BxK)
    return jnp.where(mask_BxK, log_probs_BxK, 0.0)


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
