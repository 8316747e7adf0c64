"""The engine's compiled programs: rows of trees in, log-probabilities at the places read out."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from calib_jax.models.attention import Forest, Prefix
from calib_jax.models.decoder import Decoder, head_logits
from calib_jax.models.table import Tree


@functools.partial(jax.jit, static_argnames=("decoder", "chunk", "top_tokens", "states"))
def score_rows(
    decoder: Decoder,
    variables: Tree,
    rows: dict,
    prefix: Prefix | None,
    chunk: int,
    top_tokens: bool,
    states: bool = False,
) -> dict:
    """Log-probabilities at the places that are read; the compiled heart of the engine.

    Args:
      decoder: in eval mode.
      variables: of the decoder.
      rows: tokens, positions, ends [B, L] int32; reads [B, R] int32, places in the row; targets
        [B, R, J] int32, tokens to score at each of them; count, scalar: reads of the longest row;
        where no tree branches, segments [B, L] int32 too, as in ``Forest``.
      prefix: keys and values before every row, or None.
      chunk: places at a time; R is a multiple of it.
      top_tokens: whether to look for the most probable tokens, a quarter of the LM head's time.
      states: whether to give the hidden states as well.

    Returns:
      log_probs [B, R, J], top_log_probs [B, R] float32, and top_tokens [B, R] int32 if asked for,
      held whole by every device; 0 beyond ``count``. And "hidden" [B, L, D] if asked for, the last
      layer's normalised states in the decoder's dtype, where the devices hold them.
    """
    forest = Forest(rows["positions"], rows["ends"], rows.get("segments"))
    hidden_BxLxD: Any = decoder.apply(variables, rows["tokens"], forest, prefix)
    B, R, J = rows["targets"].shape

    def read(i: jax.Array, out: dict) -> dict:
        at = i * chunk
        places_BxP = jax.lax.dynamic_slice_in_dim(rows["reads"], at, chunk, axis=1)
        targets_BxPxJ = jax.lax.dynamic_slice_in_dim(rows["targets"], at, chunk, axis=1)
        hidden_BxPxD = jnp.take_along_axis(hidden_BxLxD, places_BxP[:, :, None], axis=1)
        logits_BxPxV = head_logits(decoder.config, variables["params"], hidden_BxPxD)
        highest_BxP = logits_BxPxV.max(axis=-1)
        total_BxP = highest_BxP + jnp.log(
            jnp.exp(logits_BxPxV - highest_BxP[..., None]).sum(axis=-1)
        )
        chosen_BxPxJ = jnp.take_along_axis(logits_BxPxV, targets_BxPxJ, axis=-1)
        found = {
            "log_probs": chosen_BxPxJ - total_BxP[..., None],
            "top_log_probs": highest_BxP - total_BxP,
        }
        if top_tokens:
            found["top_tokens"] = jnp.argmax(logits_BxPxV, axis=-1).astype(jnp.int32)
        return {
            name: jax.lax.dynamic_update_slice_in_dim(out[name], value, at, axis=1)
            for name, value in found.items()
        }

    out = {
        "log_probs": jnp.zeros((B, R, J), jnp.float32),
        "top_log_probs": jnp.zeros((B, R), jnp.float32),
    }
    if top_tokens:
        out["top_tokens"] = jnp.zeros((B, R), jnp.int32)
    out = jax.lax.fori_loop(0, (rows["count"] + chunk - 1) // chunk, read, out)
    everywhere = jax.sharding.PartitionSpec()
    out = jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, everywhere), out)
    return out | ({"hidden": hidden_BxLxD} if states else {})


@jax.jit
def states_at(hidden_BxLxD: jax.Array, places_Gx2: jax.Array) -> jax.Array:
    """The states at (row, place), [G, D] float32, held whole by every device."""
    states_GxD = hidden_BxLxD[places_Gx2[:, 0], places_Gx2[:, 1]].astype(jnp.float32)
    return jax.lax.with_sharding_constraint(states_GxD, jax.sharding.PartitionSpec())


@functools.partial(jax.jit, static_argnames="decoder")
def compute_prefix(decoder: Decoder, variables: Tree, tokens_BxP: jax.Array) -> tuple:
    """Keys and values [layers, P, G, C] of one prefix, which stands in every row."""
    _, kept = decoder.clone(keep_kv=True).apply(variables, tokens_BxP)
    return jax.tree.map(lambda x: x[:, 0], kept)
