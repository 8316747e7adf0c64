"""Smooth calibration error: kernel-smoothed residuals in place of bins.

Rows are put once on a fine grid of confidences (``SmoothStats``, mergeable); every bandwidth then
costs one short Fourier transform.
"""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from calib_jax.metrics.blocks import ROWS, by_blocks
from calib_jax.metrics.checked import checked
from calib_jax.metrics.inputs import as_answers, as_probs, as_weights
from calib_jax.metrics.scores import confidences, predictions
from calib_jax.metrics.sums import add_counts, known_count, tree_sum

# Confidences are collected at the nodes j / 8192: 0, 1 and every bfloat16 from 1/64 upwards are
# nodes.
_CELLS = 8192
# Frequencies kept, and cells of the grid on which the smoothed residual is integrated.
_MODES = 4096
# At the smallest bandwidth the last kept frequency is damped to 3e-9.
_MIN_SIGMA = 2 / _MODES
# Rows per float32 running sum; the sums are of distances within a cell, at most 1/16384.
_BLOCK = ROWS
_BISECTIONS = 14


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class SmoothStats:
    """Sums per node of a fine grid over [0, 1], arrays of shape [..., 8193]. A pytree.

    Each row belongs to the node nearest to its confidence; its distance from the node is kept to
    first order. 128 KiB in all, whatever the number of rows.

    Attributes:
        count: rows at the node. int32 for weights that are None, bool or integers; for float
            weights the float32 sum of weights.
        correct: how many of them are correct, in the dtype of ``count``.
        offset: float32 sum of their (confidence - node), in cells of 1/8192.
        correct_offset: the same sum over the correct ones alone.

    Example:
        >>> first = smooth_stats([[0.75, 0.25]], [0])
        >>> second = smooth_stats([[0.5, 0.5]], [1])
        >>> int(first.merge(second).count.sum())
        2
        >>> float(smooth_ece_from_stats(first.merge(SmoothStats.empty())))
        0.25
    """

    count: jax.Array
    correct: jax.Array
    offset: jax.Array
    correct_offset: jax.Array

    @classmethod
    def empty(cls, *shape: int) -> "SmoothStats":
        """No rows yet, to merge batches into; ``shape`` are leading axes."""
        integers = jnp.zeros((*shape, _CELLS + 1), jnp.int32)
        floats = jnp.zeros((*shape, _CELLS + 1), jnp.float32)
        return cls(integers, integers, floats, floats)

    def merge(self, other: "SmoothStats") -> "SmoothStats":
        """The statistics of both sets of rows together; exact in the counts."""
        return jax.tree.map(add_counts, self, other)


@checked
@jax.jit
def smooth_stats(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> SmoothStats:
    """Top-label statistics from which ``smooth_ece`` is computed; merge those of batches.

    Differentiable in ``probs`` through the offsets; the nodes are constants.

    Arguments as in ``smooth_ece``. Returns ``SmoothStats`` of shape [8193].

    Example:
        >>> stats = smooth_stats([[0.75, 0.25], [1.0, 0.0]], [1, 0])
        >>> int(stats.count[6144]), int(stats.correct[6144]), int(stats.correct[8192])
        (1, 0, 1)
    """
    num_rows = as_probs(probs, mask)[0].shape[0]
    answers, weights = as_answers(answers, num_rows), as_weights(weights, num_rows)
    arrays = jnp.asarray(probs), answers, None if mask is None else jnp.asarray(mask)
    # Weighted in one block: what the weights do not change is computed once for all resamples.
    found = by_blocks(_block_sums, *arrays) if weights is None else _block_sums(*arrays, weights)
    count, offset = map(tree_sum, found)
    return SmoothStats(count.sum(axis=-1), count[:, 1], offset.sum(axis=-1), offset[:, 1])


def _block_sums(probs, answers, mask, weights=None) -> tuple[jax.Array, jax.Array]:
    """Weight and offset at each node of wrong rows and of right ones, by blocks: [B, 8193, 2]."""
    probs, mask = as_probs(probs, mask)
    num_rows = probs.shape[0]
    right = predictions(probs, mask) == answers
    confidence = confidences(probs, mask)
    scaled = confidence * _CELLS
    # NaN has no defined integer: such a row goes to node 0, where its offset is NaN.
    node = jnp.nan_to_num(jnp.clip(jnp.round(jax.lax.stop_gradient(scaled)), 0, _CELLS))
    offset = scaled - node
    # Integer counts are exact however many rows share a node (confidences of exactly 1), and the
    # offsets are summed in blocks, then by a tree.
    num_blocks = -(-num_rows // _BLOCK) if num_rows else 1
    block = jnp.arange(num_rows, dtype=jnp.int32) // _BLOCK
    cell = 2 * (block * (_CELLS + 1) + node.astype(jnp.int32)) + right
    weight = jnp.ones(num_rows, jnp.int32) if weights is None else weights
    offset = offset if weights is None else jnp.where(weight == 0, 0, offset * weight)

    def node_sums(x):
        sums = jax.ops.segment_sum(x, cell, num_segments=2 * num_blocks * (_CELLS + 1))
        return sums.reshape(num_blocks, _CELLS + 1, 2)

    return node_sums(weight), node_sums(offset)


@checked
@jax.jit
def smooth_ece(
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    sigma: ArrayLike | None = None,
    weights: ArrayLike | None = None,
) -> jax.Array:
    """Smooth expected calibration error of the confidence: no bins, no parameter.

        smECE_s = integral_0^1 |r_s(t)| dt,   r_s(t) = (1/N) sum_i (correct_i - c_i) K_s(t, c_i)
        smECE   = smECE_s at the s where smECE_s = s

    c = max_k p_k, and K_s is the Gaussian of standard deviation s, reflected at 0 and 1 without
    end, so that every row keeps its whole mass on [0, 1]. smECE_s never increases with s, which
    makes the fixed point unique. At least |accuracy - mean confidence|. A consistent measure: it
    moves continuously with the probabilities, where a binned error jumps at its edges. Biased
    upwards for small N, like every error of this kind. A number only: the bandwidth is the error
    itself, and accuracy smoothed with it is flattened the more, the worse the model is. For the
    curve see ``reliability_curve``.

    Accuracy: the fixed point, found by bisection and one Newton step, is right to 1e-6. A chosen
    bandwidth s costs a relative error of up to 2e-9 / s^2 (mostly a tenth of that) where
    confidences are not multiples of 1/8192. A fixed point below 1/2048 is not resolved: the value
    is then smECE_s at s = 1/2048, which is smaller.

    Agrees with relplot 1.0.3 to 1e-6 at a chosen bandwidth while the smoothed rows stay clear of
    0 and 1. Where they do not the two differ: there a confidence of exactly 1 has half the weight
    of any other (0.1415 in place of 0.1649 where 4 rows of 24 hold 1), the values can increase
    with s, and the search for the fixed point stops at 1e-3; mostly less than 1e-3 in all.

    Differentiable in ``probs`` almost everywhere, through the fixed point (the predicted option
    and correctness are constants); not where two options tie for the maximum or where r_s
    vanishes on an interval. Between nodes of the grid of 1/8192 the kernel is linear.

    Source: Blasiok and Nakkiran 2024 (arXiv 2309.12236), smECE with the reflected Gaussian kernel.

    Args:
        probs: [N, K] option probabilities; cast to float32.
        answers: [N] int, 0-based index of the right option.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        sigma: bandwidth s, at least 1/2048 (below: NaN); None finds the fixed point.
        weights: [N], how often each row counts; None means once. Weight 0: not at all.

    Returns:
        float32 scalar in [0, 1]; NaN for no rows.

    Example:
        >>> probs = [[0.75, 0.25], [0.75, 0.25], [0.75, 0.25], [0.75, 0.25]]
        >>> round(float(smooth_ece(probs, [0, 0, 1, 1])), 6)   # |1/2 - 0.75| at any bandwidth
        0.25
    """
    return smooth_ece_from_stats(smooth_stats(probs, answers, mask, weights), sigma)


@jax.jit
def smooth_ece_from_stats(
    stats: SmoothStats, sigma: ArrayLike | None = None, total: ArrayLike | None = None
) -> jax.Array:
    """``smooth_ece`` of the rows behind merged ``SmoothStats``; leading axes are kept.

    ``total``: of how many rows, where the counts do not say it (``clustered_null``).

    Example:
        >>> stats = smooth_stats([[0.75, 0.25], [0.75, 0.25]], [0, 0])
        >>> round(float(smooth_ece_from_stats(stats, sigma=0.05)), 6)
        0.25
    """
    if stats.count.ndim > 1:
        if sigma is None:
            return jax.vmap(smooth_ece_from_stats)(stats)
        return jax.vmap(smooth_ece_from_stats, in_axes=(0, None))(stats, sigma)
    total = known_count(stats.count).sum() if total is None else total
    residual = _spectrum(*_residuals(stats)) / total
    if sigma is not None:
        return _checked(sigma, _smoothed_error(residual, sigma))
    lowest = _smoothed_error(residual, _MIN_SIGMA)
    root = jax.lax.stop_gradient(_crossing(jax.lax.stop_gradient(residual)))
    value, slope = jax.jvp(functools.partial(_smoothed_error, residual), (root,), (1.0,))
    # Newton's step for smECE_s - s = 0: the value gains digits, and its derivative becomes that
    # of the fixed point (implicit function theorem).
    fixed_point = root + (value - root) / (1 - jax.lax.stop_gradient(slope))
    return jnp.where(lowest < _MIN_SIGMA, lowest, fixed_point)


def _residuals(stats: SmoothStats) -> tuple[jax.Array, jax.Array]:
    """Per node: sum of r = correct - confidence, and of r times the offset (to first order)."""
    node = jnp.arange(_CELLS + 1, dtype=jnp.float32) / _CELLS
    wrong = stats.count - stats.correct
    residual = (stats.correct * (1 - node) - wrong * node) - stats.offset / _CELLS
    return residual, stats.correct_offset - node * stats.offset


def _spectrum(mass: jax.Array, moment: jax.Array) -> jax.Array:
    """sum_i m_i cos(pi k x_i) for k = 0.._MODES, of point masses given by node and first moment.

    The reflected Gaussian is the heat kernel of [0, 1] with insulated ends: in this basis it only
    damps, by exp(-(pi k s)^2 / 2), whatever the number of reflections.
    """
    # One transform for both: the even extension of the masses is real in frequency, the odd
    # extension of the moments (the derivative of the cosine) imaginary.
    half = mass[1:-1] / 2
    slope = moment[1:-1] / 2
    line = jnp.concatenate([mass[:1], half + slope, mass[-1:], (half - slope)[::-1]])
    wave = jnp.fft.rfft(line)[: _MODES + 1]
    frequency = jnp.arange(_MODES + 1, dtype=jnp.float32) * (jnp.pi / _CELLS)
    return wave.real + frequency * wave.imag


def _smoothed(spectrum: jax.Array, sigma: ArrayLike) -> jax.Array:
    """The masses smoothed with bandwidth sigma, at 0, 1/_MODES, ..., 1."""
    frequency = jnp.arange(_MODES + 1, dtype=jnp.float32) * jnp.pi
    damped = spectrum * jnp.exp(-jnp.square(frequency * sigma) / 2)
    return jnp.fft.irfft(damped.astype(jnp.complex64), 2 * _MODES)[: _MODES + 1] * (2 * _MODES)


def _smoothed_error(spectrum: jax.Array, sigma: ArrayLike) -> jax.Array:
    """Integral over [0, 1] of the size of the smoothed masses."""
    curve = _smoothed(spectrum, sigma)
    left, right = curve[:-1], curve[1:]
    size = jnp.abs(left) + jnp.abs(right)
    # The trapezium rule is as good as exact for the smooth curve, but its size has a corner at
    # each zero: there two triangles, and h^2/12 times the jump of the slope, 2 (|l| + |r|) / h,
    # that Euler and Maclaurin ask for.
    crosses = left * right < 0
    corners = (left * left + right * right) / jnp.where(crosses, size, 1) + size / 3
    return jnp.where(crosses, corners, size).sum() / (2 * _MODES)


def _crossing(spectrum: jax.Array) -> jax.Array:
    """The s with smECE_s = s, by bisection of log s to 0.05 %; the ends where there is none."""

    def halve(_, ends):
        low, high = ends
        middle = jnp.sqrt(low * high)
        above = _smoothed_error(spectrum, middle) > middle
        return jnp.where(above, middle, low), jnp.where(above, high, middle)

    ends = (jnp.float32(_MIN_SIGMA), jnp.float32(1))
    low, high = jax.lax.fori_loop(0, _BISECTIONS, halve, ends)
    return jnp.sqrt(low * high)


def _checked(sigma: ArrayLike, values: jax.Array) -> jax.Array:
    """``values``, or NaN for a bandwidth below what the grid resolves."""
    return jnp.where(jnp.asarray(sigma) >= _MIN_SIGMA, values, jnp.nan)
