"""Many rows a block at a time, so that what is computed on the way stays in the cache.

At 1e7 rows an intermediate array per step costs more than the arithmetic: its memory is asked of
the system, page by page, at every call.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# A multiple of the rows that kernels sum in float32 without a tree.
ROWS = 1 << 17


def by_blocks(parts: Callable[..., Any], *rows: jax.Array | None) -> Any:
    """``parts(*rows)``, made of blocks of ``ROWS`` consecutive rows.

    Args:
        parts: arrays whose axis 0 is N -> a pytree of arrays whose axis 0 holds sums of consecutive
            rows. Called with blocks it returns what it returns for all rows, cut into pieces.
        rows: [N, ...] each, or None.

    Returns:
        What ``parts(*rows)`` is: the same sums of the same rows.
    """
    num_rows = next(x.shape[0] for x in rows if x is not None)
    whole = num_rows // ROWS
    if whole < 2:
        return parts(*rows)

    def block(number):
        start = number * ROWS
        # Slices here, not a scan over [whole, ROWS, ...]: that would copy all rows.
        return parts(
            *(x if x is None else jax.lax.dynamic_slice_in_dim(x, start, ROWS) for x in rows)
        )

    found = jax.lax.map(block, jnp.arange(whole, dtype=jnp.int32))
    found = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)
    if whole * ROWS == num_rows:
        return found
    rest = parts(*(x if x is None else x[whole * ROWS :] for x in rows))
    return jax.tree.map(lambda *x: jnp.concatenate(x), found, rest)
