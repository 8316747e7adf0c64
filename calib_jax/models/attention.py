"""Attention: one function, the XLA path as the reference, cuDNN on GPUs, splash on TPUs.

A row is either one sequence or a forest of sequences that share their beginnings: a prefix tree in
depth-first order (``Forest``), before which a prefix that all rows share may stand (``Prefix``).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from calib_jax.models import splash


class Forest(NamedTuple):
    """Rows that hold prefix trees in depth-first order, one after the other.

    The subtree below token j is the run of tokens from j up to ``ends[j]``: exactly those see it.

    Attributes:
      positions: [B, L] int32, each token's place in its own sequence, the shared prefix included.
      ends: [B, L] int32, where the subtree of each token ends in the row; j + 1 for a leaf.
      segments: [B, L] int32, for rows of whole sequences, none of which branches: which of them
        each token belongs to; None for trees. It says nothing new, but kernels can use it.
    """

    positions: jax.Array
    ends: jax.Array
    segments: jax.Array | None = None


class Prefix(NamedTuple):
    """Keys and values of tokens that come before every sequence of every row.

    Attributes:
      keys, values: [P, G, C], rotated; with a leading axis of layers outside the layers.
      length: scalar int32; the places from there to P are padding.
    """

    keys: jax.Array
    values: jax.Array
    length: jax.Array


class Cache(NamedTuple):
    """Keys and values of what each row holds already: a prefix of its own, for generation.

    Attributes:
      keys, values: [B, P, G, C], rotated; with a leading axis of layers outside the layers.
      positions: [B, P] int32, of each key in its row's sequence; EMPTY where there is none yet.
        None inside the layers, which know it from ``Sight``.
    """

    keys: jax.Array
    values: jax.Array
    positions: Any


# A position that no query reaches.
EMPTY = jnp.iinfo(jnp.int32).max


class Sight(NamedTuple):
    """What the queries of a forest see of S keys: the P of a prefix, then the L of the row.

    Attributes:
      visible: [B, L, S] bool.
      queries: [B, L] int32, positions.
      keys: [B, S] int32, positions.
      segments: [B, L] int32 or None, see ``Forest``; None where there is a prefix.
    """

    visible: jax.Array
    queries: jax.Array
    keys: jax.Array
    segments: jax.Array | None = None


def forest_sight(forest: Forest, prefix: Prefix | Cache | None) -> Sight:
    """A token sees itself, its ancestors in the tree, and what comes before the row."""
    B, L = forest.positions.shape
    place = jnp.arange(L)
    visible = (place[None, :] <= place[:, None]) & (place[:, None] < forest.ends[:, None, :])
    keys = forest.positions
    if isinstance(prefix, Cache):
        earlier = prefix.positions[:, None, :] < forest.positions[:, :, None]
        visible = jnp.concatenate([earlier, visible], axis=-1)
        keys = jnp.concatenate([prefix.positions, keys], axis=-1)
    elif prefix is not None:
        before = jnp.arange(prefix.keys.shape[-3])
        shared = jnp.broadcast_to(before < prefix.length, (B, L, len(before)))
        visible = jnp.concatenate([shared, visible], axis=-1)
        keys = jnp.concatenate([jnp.broadcast_to(before, (B, len(before))), keys], axis=-1)
    segments = forest.segments if prefix is None else None
    return Sight(visible, forest.positions, keys, segments)


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    sight: Sight | None = None,
    prefix: Prefix | Cache | None = None,
    window: Any = None,
    scale: float | None = None,
    softcap: float | None = None,
    implementation: str = "xla",
) -> jax.Array:
    """Causal grouped-query attention, softmax(scale · q kᵀ) v, over right-padded rows.

    Pads come after every position that is read, so causality alone keeps them out and no padding
    mask is needed; in a forest each of them is a tree of its own.

    Args:
      q: [B, L, H, C] queries, rotated.
      k: [B, L, G, C] keys, rotated; H is a multiple of G.
      v: [B, L, G, C] values.
      sight: of rows that hold forests; None for plain causality.
      prefix: keys and values before the rows, of this layer; only with ``sight``.
      window: keys that a query sees, itself included (an int32 scalar where layers differ); None
        for all before it.
      scale: of the scores; None for 1/√C.
      softcap: c; scores become c · tanh(score / c) before the softmax (Gemma-2).
      implementation: "xla", anywhere; "cudnn", on NVIDIA GPUs with 16-bit inputs, without a
        soft cap and with a window that is a Python int; "splash", on TPUs: the kernel of
        ``models.splash`` for rows that it fits, and XLA for others, trees and prefixes.

    Returns:
      [B, L, H, C] in q's dtype. Scores and softmax are float32.
    """
    visible = None
    if sight is not None:
        visible = sight.visible
        if window is not None:
            visible &= sight.queries[:, :, None] - sight.keys[:, None, :] < window
    if implementation == "cudnn":
        if prefix is not None:
            k, v = (
                jnp.concatenate([jnp.broadcast_to(old, (len(new), *old.shape)), new], axis=1)
                for old, new in ((prefix.keys, k), (prefix.values, v))
            )
        causal = visible is None
        seen = None if visible is None else visible[:, None]
        return jax.nn.dot_product_attention(
            q,
            k,
            v,
            mask=seen,
            scale=scale,
            is_causal=causal,
            local_window_size=(window - 1, 0) if causal and window is not None else None,
            implementation="cudnn",
        )
    if implementation == "splash":
        whole = sight is None or sight.segments is not None
        if whole and prefix is None and splash.fits(q.shape, window):
            segments = None if sight is None else sight.segments
            return splash.splash_attention(
                q, k, v, segments=segments, window=window, scale=scale, softcap=softcap
            )
    elif implementation != "xla":
        raise ValueError(
            f"implementation is {implementation!r}; expected 'xla', 'cudnn' or 'splash'"
        )
    B, L, H, C = q.shape
    G, R = k.shape[2], H // k.shape[2]
    # Plain matrix products over leading batch axes: the R query heads that share a key head are
    # rows of one matrix. B and G stay apart, because the mesh splits each of them.
    q = (
        (q * (C**-0.5 if scale is None else scale))
        .reshape(B, L, G, R, C)
        .transpose(0, 2, 3, 1, 4)
        .reshape(B, G, R * L, C)
    )
    k, v = k.transpose(0, 2, 3, 1), v.transpose(0, 2, 1, 3)
    scores = jnp.matmul(q, k, preferred_element_type=jnp.float32)
    # A shared prefix takes one product for all rows: it is not copied for each.
    own = "b" if isinstance(prefix, Cache) else ""
    if prefix is not None:
        before = jnp.einsum(
            f"bgqc,{own}pgc->bgqp", q, prefix.keys, preferred_element_type=jnp.float32
        )
        scores = jnp.concatenate([before, scores], axis=-1)
    S = scores.shape[-1]
    scores = scores.reshape(B, G, R, L, S)
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    if visible is None:
        query, key = jnp.arange(L)[:, None], jnp.arange(L)[None, :]
        visible = key <= query
        if window is not None:
            visible &= key > query - window
        visible = visible[None]
    # A finite floor: every query sees at least itself, so the row's maximum is a real score.
    scores = jnp.where(visible[:, None, None], scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype).reshape(B, G, R * L, S)
    out = jnp.matmul(weights[..., S - L :], v)
    if prefix is not None:
        out += jnp.einsum(f"bgqp,{own}pgc->bgqc", weights[..., : S - L], prefix.values)
    out = out.reshape(B, G, R, L, C)
    return out.transpose(0, 3, 1, 2, 4).reshape(B, L, H, C)
