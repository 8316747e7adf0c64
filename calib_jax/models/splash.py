"""Attention on TPUs: the Pallas splash kernel, which never holds the scores of a row.

Keys are read block by block and the softmax is accumulated, so that memory grows with a row's
length and not with its square, and blocks that no query sees are left out. The kernel computes one
device's rows and heads; ``jax.shard_map`` gives it these.
"""

import functools
import math
import re

import flax.linen as nn
import jax
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as kernels,
)
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks

from calib_jax.models.config import ModelConfig

# Below this the scores are small, and XLA's own attention is as fast.
SHORTEST = 1024
# Lanes of a TPU's vector unit: blocks are multiples of it.
LANES = 128
_BLOCKS = (512, 384, 256, 128)
# Matrix products of a block pair in each kernel: forward q kᵀ and p v; dq adds dp and ds k; dkv
# adds pᵀ do and dsᵀ q. Scores are computed again in each.
_PRODUCTS = {"fwd": 2, "dq": 3, "dkv": 4}


def fits(shape: tuple[int, ...], window: int | jax.Array | None) -> bool:
    """Whether the kernel computes queries of this shape [B, L, H, C] in the mesh in force.

    Rows must be long enough to gain from it and multiples of 128, head sizes 64 or multiples of
    128, and a window must be known when the program is traced (it is not where layers differ).
    """
    B, L, _, C = shape
    sizes = jax.sharding.get_abstract_mesh().shape
    return (
        L >= SHORTEST
        and L % LANES == 0
        and (C == 64 or C % LANES == 0)  # see ``refusal``
        and (window is None or isinstance(window, int))
        and B % (sizes.get("data", 1) * sizes.get("fsdp", 1)) == 0
    )


def refusal(config: ModelConfig) -> str | None:
    """Why the kernel never computes this model, in words; None where it does."""
    if config.head_dim != 64 and config.head_dim % LANES:
        return (
            f"knows heads of 64 or of multiples of 128 channels, and these have {config.head_dim}"
        )
    if config.layers_differ:
        return "knows no windows in some layers only, which this model has"
    return None


def splash_attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    segments: jax.Array | None = None,
    window: int | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    interpret: bool = False,
) -> jax.Array:
    """Causal grouped-query attention over rows of one sequence, or of several one after another.

    Args:
      q: [B, L, H, C] queries, rotated; L is a multiple of 128.
      k, v: [B, L, G, C], H a multiple of G.
      segments: [B, L] int32; a token sees those of its own segment alone. None for one sequence.
      window, scale, softcap: as in ``attention.attend``.
      interpret: compute without a TPU, slowly; for tests.

    Returns:
      [B, L, H, C] in q's dtype. Scores and softmax are float32.
    """
    B, L, H, C = q.shape
    mesh = jax.sharding.get_abstract_mesh()
    heads = nn.logical_to_mesh_axes(("batch", None, "heads", None))
    key_heads = nn.logical_to_mesh_axes(
        ("batch", None, "kv_heads" if k.shape[2] > 1 else None, None)
    )
    kernel = functools.partial(
        _kernel,
        window=window,
        scale=C**-0.5 if scale is None else scale,
        softcap=softcap,
        interpret=interpret,
    )
    inputs = (q, k, v) if segments is None else (q, k, v, segments)
    if not mesh.empty:
        rows = nn.logical_to_mesh_axes(("batch", None))
        kernel = jax.shard_map(
            kernel,
            mesh=mesh,
            in_specs=(heads, key_heads, key_heads, rows)[: len(inputs)],
            out_specs=heads,
            check_vma=False,
        )
    return kernel(*inputs)


def _kernel(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    segments: jax.Array | None = None,
    *,
    window: int | None,
    scale: float,
    softcap: float | None,
    interpret: bool,
) -> jax.Array:
    """One device's rows and heads."""
    _, L, H, C = q.shape
    block = next(size for size in _BLOCKS if L % size == 0)
    mask: masks.Mask = masks.CausalMask((L, L))
    if window is not None:
        mask = masks.LocalMask((L, L), (window - 1, 0), 0)
    make = kernels.make_splash_mha(
        masks.MultiHeadMask([mask] * H),
        block_sizes=kernels.BlockSizes(
            block_q=block,
            block_kv=block,
            block_q_dkv=block,
            block_kv_dkv=block,
            block_q_dq=block,
            block_kv_dq=block,
        ),
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=softcap,
        interpret=interpret,
    )
    # The scope tells ``kernel_flops`` what the kernel's operands do not.
    pairs = block_pairs(L, block, window)
    with jax.named_scope(f"splash_{pairs}_pairs_of_{block}_in_{L}x{C}"):
        q, k, v = ((x.transpose(0, 2, 1, 3)) for x in (q * scale, k, v))
        if segments is None:
            out = jax.vmap(make)(q, k, v)
        else:
            out = jax.vmap(lambda q, k, v, ids: make(q, k, v, kernels.SegmentIds(ids, ids)))(
                q, k, v, segments
            )
        return out.transpose(0, 2, 1, 3)


def block_pairs(length: int, block: int, window: int | None) -> int:
    """Pairs of a block of queries and a block of keys that have anything to do with each other."""
    count = length // block
    before = count if window is None else (window - 2) // block + 1
    return sum(min(i, before) + 1 for i in range(count))


def kernel_flops(op_name: str, operands: list[tuple[int, ...]]) -> int | None:
    """Floating-point operations of a splash kernel in a compiled program.

    Args:
      op_name: the operation's name in the program's metadata, with the scopes that it stands in.
      operands: shapes of the kernel's operands.

    Returns:
      Those of one call, blocks that are left out not counted; None for another kernel.
    """
    scope = re.search(r"splash_(\d+)_pairs_of_(\d+)_in_(\d+)x(\d+)", op_name)
    phase = re.search(r"splash_mha_(fwd|dq|dkv)", op_name)
    if not scope or not phase:
        return None
    pairs, block, L, C = map(int, scope.groups())
    # The queries come first among the operands of that length: [B, H, L, C], or [H, L, C].
    queries = next(shape for shape in operands if shape[-2:] == (L, C))
    heads = math.prod(queries[:-2])
    return heads * pairs * 2 * _PRODUCTS[phase[1]] * block**2 * C
