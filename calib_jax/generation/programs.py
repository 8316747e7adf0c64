"""The compiled programs of generation: all prompts of a batch at once, then token by token.

Rows are right-padded to P, and T places follow for what is generated: token number t of every row
stands in place P + t, so that a step writes one slice for all rows. Its position in its own
sequence is another number; the cache knows both.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from calib_jax.generation.sampler import Sampling, next_tokens
from calib_jax.models.attention import EMPTY, Cache, Forest
from calib_jax.models.decoder import Decoder, constrain, head_logits
from calib_jax.models.table import Tree


class Rows(NamedTuple):
    """What stays the same while a batch is generated; [B] each.

    Attributes:
      lengths: int32, of the prompts.
      limits: int32, tokens that may be generated; 0 for a row that only fills the batch.
      salts: uint32, makes a row's random numbers its own.
    """

    lengths: jax.Array
    limits: jax.Array
    salts: jax.Array


class State(NamedTuple):
    """A batch that is being generated.

    Attributes:
      cache: of P + T places.
      tokens: [B, T] int32, generated so far; 0 after a row's end.
      count: scalar int32, how many steps were done.
      sizes: [B] int32, tokens of each row, the stopping one included.
      stopped: [B] bool, whether a row ended in a stopping token.
      broken: [B] bool, whether a row's logits were no numbers.
    """

    cache: Cache
    tokens: jax.Array
    count: jax.Array  # type: ignore[assignment]  # in the place of tuple.count
    sizes: jax.Array
    stopped: jax.Array
    broken: jax.Array


def _live(state: State, rows: Rows) -> jax.Array:
    return ~(state.stopped | state.broken) & (state.sizes < rows.limits)


def _choose(
    decoder: Decoder,
    variables: Tree,
    sampling: Sampling,
    seed: jax.Array,
    state: State,
    rows: Rows,
    stops_E: jax.Array,
    hidden_BxD: jax.Array,
) -> State:
    """One more token for every live row, from its last hidden state."""
    logits_BxV = head_logits(decoder.config, variables["params"], hidden_BxD)
    # The key is made of the seed, the row's salt and the step: not of the batch.
    keys_B = jax.vmap(lambda salt: jax.random.fold_in(jax.random.key(seed), salt))(rows.salts)
    keys_B = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys_B, state.count)
    token_B = next_tokens(sampling, logits_BxV, keys_B)
    live_B = _live(state, rows)
    broken_B = live_B & ~jnp.isfinite(logits_BxV.max(axis=-1))
    token_B = jnp.where(live_B, token_B, 0)
    stop_B = (token_B[:, None] == stops_E[None, :]).any(axis=-1)
    tokens_BxT = jax.lax.dynamic_update_slice_in_dim(
        state.tokens, token_B[:, None], state.count, axis=1
    )
    return state._replace(
        tokens=tokens_BxT,
        count=state.count + 1,
        sizes=state.sizes + live_B,
        stopped=state.stopped | (live_B & stop_B),
        broken=state.broken | broken_B,
    )


def _laid_out(decoder: Decoder, state: State) -> State:
    """The cache split as keys and values are inside the layers; the small rest whole everywhere."""
    heads = "kv_heads" if decoder.config.num_kv_heads > 1 else None
    keys, values = (constrain(x, None, "batch", None, heads, None) for x in state.cache[:2])
    cache = Cache(keys, values, constrain(state.cache.positions, "batch", None))
    whole = (constrain(x, *(None,) * x.ndim) for x in state[1:])
    return State(cache, *whole)


@functools.partial(jax.jit, static_argnames=("decoder", "sampling", "room", "copies"))
def prefill(
    decoder: Decoder,
    variables: Tree,
    sampling: Sampling,
    seed: jax.Array,
    tokens_BxP: jax.Array,
    rows: Rows,
    stops_E: jax.Array,
    room: int,
    copies: int = 1,
) -> State:
    """Computes the prompts and the first token after each.

    Every prompt is computed once, whatever the number of its answers.

    Args:
      decoder: in eval mode.
      variables: of the decoder.
      sampling, seed: how tokens are chosen.
      tokens_BxP: int32, right-padded prompts, B / copies of them.
      rows: B rows, those of one prompt beside each other.
      stops_E: int32, tokens that end an answer.
      room: T, places for the answers.
      copies: answers to each prompt.
    """
    B, P = len(rows.lengths), tokens_BxP.shape[1]
    kept: Any
    hidden_BxPxD, kept = decoder.clone(keep_kv=True).apply(variables, tokens_BxP)
    if copies > 1:
        hidden_BxPxD = jnp.repeat(hidden_BxPxD, copies, axis=0)
        kept = [jnp.repeat(x, copies, axis=1) for x in kept]
    keys, values = (jnp.pad(x, [(0, 0), (0, 0), (0, room), (0, 0), (0, 0)]) for x in kept)
    place = jnp.arange(P + room)
    positions_BxS = jnp.where(place < rows.lengths[:, None], place, EMPTY)
    last_Bx1x1 = jnp.maximum(rows.lengths - 1, 0)[:, None, None]
    hidden_BxD = jnp.take_along_axis(hidden_BxPxD, last_Bx1x1, axis=1)[:, 0]
    none_B = jnp.zeros(B, bool)
    state = State(
        Cache(keys, values, positions_BxS.astype(jnp.int32)),
        jnp.zeros((B, room), jnp.int32),
        jnp.int32(0),
        jnp.zeros(B, jnp.int32),
        none_B,
        none_B,
    )
    state = _choose(decoder, variables, sampling, seed, state, rows, stops_E, hidden_BxD)
    return _laid_out(decoder, state)


@functools.partial(jax.jit, static_argnames=("decoder", "sampling"), donate_argnames="state")
def decode(
    decoder: Decoder,
    variables: Tree,
    sampling: Sampling,
    seed: jax.Array,
    state: State,
    rows: Rows,
    stops_E: jax.Array,
    until: jax.Array,
) -> State:
    """Goes on until ``until`` tokens a row, or until every row has ended.

    Args:
      state: consumed.
      until: scalar int32, at most T.
      decoder, variables, sampling, seed, rows, stops_E: as in ``prefill``.
    """
    # One query a row: no kernel for long sequences is of use.
    decoder = decoder.clone(keep_kv=True, attention="xla")
    P = state.cache.keys.shape[2] - state.tokens.shape[1]

    def step(state: State) -> State:
        t = state.count - 1  # the newest token, which is not in the cache yet
        token_Bx1 = jax.lax.dynamic_slice_in_dim(state.tokens, t, 1, axis=1)
        position_Bx1 = (rows.lengths + t)[:, None]
        forest = Forest(position_Bx1, jnp.ones_like(position_Bx1))
        hidden_Bx1xD, kept = decoder.apply(variables, token_Bx1, forest, state.cache)
        keys, values = (
            jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), P + t, axis=2)
            for old, new in zip(state.cache[:2], kept, strict=True)
        )
        positions = jax.lax.dynamic_update_slice_in_dim(
            state.cache.positions, position_Bx1, P + t, axis=1
        )
        state = state._replace(cache=Cache(keys, values, positions))
        state = _choose(
            decoder, variables, sampling, seed, state, rows, stops_E, hidden_Bx1xD[:, 0]
        )
        return _laid_out(decoder, state)

    def going_on(state: State) -> jax.Array:
        return (state.count < until) & _live(state, rows).any()

    return jax.lax.while_loop(going_on, step, state)
