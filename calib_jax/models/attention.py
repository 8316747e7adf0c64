"""Attention: one function, the XLA path as the reference, cuDNN where it is asked for."""

import jax
import jax.numpy as jnp


def attend(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    window: int | jax.Array | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    implementation: str = "xla",
) -> jax.Array:
    """Causal grouped-query attention, softmax(scale · q kᵀ) v, over right-padded rows.

    Pads come after every position that is read, so causality alone keeps them out and no padding
    mask is needed.

    Args:
      q: [B, L, H, C] queries, rotated.
      k: [B, L, G, C] keys, rotated; H is a multiple of G.
      v: [B, L, G, C] values.
      window: keys that a query sees, itself included (an int32 scalar where layers differ); None
        for all before it.
      scale: of the scores; None for 1/√C.
      softcap: c; scores become c · tanh(score / c) before the softmax (Gemma-2).
      implementation: "xla", anywhere; "cudnn", on NVIDIA GPUs with 16-bit inputs, without a
        soft cap and with a window that is a Python int.

    Returns:
      [B, L, H, C] in q's dtype. Scores and softmax are float32.
    """
    if implementation == "cudnn":
        return jax.nn.dot_product_attention(
            q,
            k,
            v,
            scale=scale,
            is_causal=True,
            local_window_size=None if window is None else (window - 1, 0),
            implementation="cudnn",
        )
    if implementation != "xla":
        raise ValueError(f"implementation is {implementation!r}; expected 'xla' or 'cudnn'")
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
    scores = jnp.matmul(q, k, preferred_element_type=jnp.float32).reshape(B, G, R, L, L)
    if softcap is not None:
        scores = softcap * jnp.tanh(scores / softcap)
    query, key = jnp.arange(L)[:, None], jnp.arange(L)[None, :]
    visible = key <= query
    if window is not None:
        visible &= key > query - window
    # A finite floor: every query sees at least itself, so the row's maximum is a real score.
    scores = jnp.where(visible, scores, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(scores, axis=-1).astype(v.dtype).reshape(B, G, R * L, L)
    out = jnp.matmul(weights, v).reshape(B, G, R, L, C)
    return out.transpose(0, 3, 1, 2, 4).reshape(B, L, H, C)
