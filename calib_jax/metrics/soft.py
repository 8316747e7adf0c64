"""Soft-binned ECE: a calibration error that is differentiable across bin edges, for training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics.bins import bin_edges
from calib_jax.metrics.calibration import safe_root
from calib_jax.metrics.checked import checked
from calib_jax.metrics.inputs import as_answers, as_probs, as_weights
from calib_jax.metrics.scores import confidences, predictions
from calib_jax.metrics.sums import total_weight, tree_sum

# Rows whose memberships [rows, M] are held at once.
_BLOCK = 1 << 13


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "norm"))
def soft_ece(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    temperature: ArrayLike = 1e-3,
    weights: ArrayLike | None = None,
    *,
    norm: str = "l1",
) -> jax.Array:
    """Soft-binned expected calibration error of the top label.

    Every row belongs to all bins in part: with the bins' centres x_m = (m - 1/2) / M,

        u_im = softmax_m(-(c_i - x_m)^2 / T)
        S_m = sum_i u_im,  A_m = sum_i u_im correct_i / S_m,  C_m = sum_i u_im c_i / S_m
        SB-ECE = (sum_m (S_m / N) |A_m - C_m|^p)^(1/p)

    As T -> 0 each row goes to the nearest centre and the value to ``conf_ece`` of the same norm,
    except that a confidence exactly on an edge is shared half and half: there is no ``edges``.
    Neighbouring bins mix over a zone of width about M T around each edge, so T should be well
    below 1 / M^2; larger T gives smoother gradients and a smaller value.

    Differentiable in ``probs`` and ``temperature`` wherever the top option is unique and no gap
    is exactly 0 (subgradient 0 there): the gradient passes through the memberships as well as
    through the confidences; correctness is a constant.

    Source: Karandikar et al. 2021 (arXiv 2108.00106), Eq. 11.

    Args:
        probs: [N, K] option probabilities; cast to float32.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        num_bins: M.
        temperature: T > 0, a number or traced scalar (annealed without compiling again).
        weights: [N], how often each row counts; None means once. Weight 0: not at all.
        norm: "l1" (p = 1) or "l2" (p = 2). No "max": every soft bin holds a trace of every row.

    Returns:
        float32 scalar in [0, 1]; NaN for no rows.

    Raises:
        ValueError: for shapes that do not fit together, or an unknown ``norm``.

    Example:
        >>> probs = [[0.75, 0.25], [0.75, 0.25]]
        >>> round(float(soft_ece(probs, [0, 0], temperature=1e-4)), 6)
        0.25
    """
    if norm not in ("l1", "l2"):
        raise ValueError(f'norm must be "l1" or "l2", got {norm!r}')
    probs, mask = as_probs(probs, mask)
    num_rows = len(probs)
    weights = as_weights(weights, num_rows)
    total = total_weight(weights, num_rows)
    weight = jnp.ones(num_rows) if weights is None else weights.astype(jnp.float32)
    # A row that does not count may hold NaN, and its gradient is to be 0.
    probs = jnp.where(weight[:, None] == 0, 0, probs)
    correct = predictions(probs, mask) == as_answers(answers, num_rows)
    confidence = confidences(probs, mask)
    edges = bin_edges(num_bins).astype(np.float64)
    centres = ((edges[1:] + edges[:-1]) / 2).astype(np.float32)

    def block_sums(rows):
        c, right, w = rows
        share = w[:, None] * jax.nn.softmax(-jnp.square(c[:, None] - centres) / temperature, axis=1)
        return share.sum(axis=0), (share * (right - c)[:, None]).sum(axis=0)

    block = max(1, min(num_rows, _BLOCK))
    rows = [
        jnp.pad(x, (0, -num_rows % block)).reshape(-1, block) for x in (confidence, correct, weight)
    ]
    if num_rows <= block:
        size, gap = block_sums([x.ravel() for x in rows])
    else:
        # The memberships are computed again on the way back rather than kept.
        size, gap = (tree_sum(x) for x in jax.lax.map(jax.checkpoint(block_sums), rows))
    if norm == "l1":
        return jnp.abs(gap).sum() / total
    # A bin so empty that the division is of roundings adds at most its share.
    held = size > 1e-12
    return safe_root(jnp.where(held, jnp.square(gap) / jnp.where(held, size, 1), 0).sum() / total)
