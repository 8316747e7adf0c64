"""The scoring engine: one forward pass a question, read at the answer position."""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax.confidence.choice import choice_log_scores, renormalise
from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError
from calib_jax.models.decoder import Decoder, head_logits
from calib_jax.models.table import Tree
from calib_jax.parallel import mesh as meshes
from calib_jax.questions.batching import Batch, scoring_batches
from calib_jax.questions.encoding import Encoded


def last_hidden(decoder: Decoder, variables: Tree, tokens: jax.Array, last: jax.Array) -> jax.Array:
    """Final hidden states [B, D] at the answer positions, gathered before the LM head."""
    hidden_BxLxD = decoder.apply(variables, tokens)
    return jnp.take_along_axis(hidden_BxLxD, last[:, None, None], axis=1)[:, 0]


@functools.partial(jax.jit, static_argnames="decoder")
def _score_batch(decoder: Decoder, variables: Tree, batch: dict, letter_ids: jax.Array) -> Tree:
    """Log-scores and probabilities [B, K] of one batch, held whole by every device."""
    hidden_BxD = last_hidden(decoder, variables, batch["tokens"], batch["last"])
    logits_BxV = head_logits(decoder.config, variables["params"], hidden_BxD)
    log_scores = choice_log_scores(logits_BxV, letter_ids, batch["mask"])
    result = {"log_scores": log_scores, "probs": renormalise(log_scores, batch["mask"])}
    everywhere = jax.sharding.PartitionSpec()
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, everywhere), result)


def score_encoded(
    decoder: Decoder,
    variables: Tree,
    encoded: Encoded,
    *,
    mesh: jax.sharding.Mesh,
    buckets: Sequence[int],
    token_budget: int,
    on_batch: Callable[[Batch], None] = lambda batch: None,
) -> Scores:
    """Scores encoded questions by their letters: evaluation and E-step alike.

    Args:
      decoder: the module, in eval mode (dropout off).
      variables: {"params": ..., and "lora": ... where the decoder has adapters}.
      encoded: N questions.
      mesh: the devices that hold ``variables``.
      buckets: padded lengths, see ``choose_buckets``.
      token_budget: tokens a batch.
      on_batch: called after every batch, for progress and for a stop in between.

    Returns:
      Scores in the order of ``encoded``; float32 whatever the weights.

    Raises:
      UserError: a token outside the model's vocabulary, or a probability that is not a number.
    """
    _check_vocabulary(encoded, decoder.config.vocab_size)
    N, K = encoded.mask.shape
    out = {name: np.zeros((N, K), np.float32) for name in ("log_scores", "probs")}

    def collect(batch: Batch, result: Tree) -> None:
        for name, value in result.items():
            out[name][batch.rows[: batch.size]] = np.asarray(value)[: batch.size]
        bad = ~np.isfinite(out["probs"][batch.rows[: batch.size]]).all(axis=1)
        if bad.any():
            question = encoded.questions[batch.rows[bad.argmax()]]
            raise UserError(
                f"question {question.id!r}: the model's probabilities are not numbers (NaN). Its "
                "weights hold NaN or infinity, or overflow in this dtype."
            )
        on_batch(batch)

    pending = None
    with meshes.use(mesh):
        letter_ids = jax.device_put(encoded.letter_ids, meshes.replicated(mesh))
        for batch in scoring_batches(encoded, buckets, token_budget, meshes.batch_shards(mesh)):
            arrays = {"tokens": batch.tokens, "last": batch.last, "mask": batch.mask}
            result = _score_batch(decoder, variables, meshes.put_batch(arrays, mesh), letter_ids)
            # Fetched one batch late, so that the devices are never idle.
            if pending:
                collect(*pending)
            pending = (batch, result)
        if pending:
            collect(*pending)
    return Scores(
        **out,
        mask=encoded.mask,
        answers=encoded.answers,
        ids=tuple(q.id for q in encoded.questions),
        tasks=tuple(q.task for q in encoded.questions),
        subjects=tuple(q.subject for q in encoded.questions),
        method="choice",
        questions=tuple(q.question for q in encoded.questions),
        choices=tuple(q.choices for q in encoded.questions),
    )


def _check_vocabulary(encoded: Encoded, vocab_size: int) -> None:
    """Raises UserError for a token that the model has no embedding of: JAX would clamp it."""
    highest = max((int(tokens.max()) for tokens in encoded.tokens), default=0)
    highest = max(highest, int(encoded.letter_ids.max()))
    if highest >= vocab_size:
        raise UserError(
            f"the tokenizer gives token {highest}, and the model's vocabulary is {vocab_size} "
            "tokens: the tokenizer files belong to another model."
        )
