"""Calibration against a known target distribution instead of sampled answers.

For synthetic questions, or where many people answered each: no label noise, so that the errors
are those which the binned ECEs reach only with ever more labels per question.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from calib_jax.metrics.bins import bin_index
from calib_jax.metrics.calibration import gap_norm
from calib_jax.metrics.checked import checked
from calib_jax.metrics.equal_mass import pair_weights, sum_by_bin
from calib_jax.metrics.inputs import as_probs, as_weights
from calib_jax.metrics.scores import confidences, predictions


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges", "norm"))
def tce(
    probs: ArrayLike,
    target_probs: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int | None = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
    *,
    norm: str = "l1",
) -> jax.Array:
    """Target calibration error of the top label: conf-ECE with the answers' true distribution.

        TCE = sum_m (n_m / N) |mean_{i in m} (p*_i[pred_i] - c_i)|

    over M equal-width bins of the confidence c = max_k p_k: p*[pred] is the probability that the
    target, the model that the answers are drawn from, gives to the predicted option. It is
    ``conf_ece`` as the number of answers drawn per question grows, and equals it when the target
    is one-hot at the answer. An estimate of E |E[p*[pred] | c] - c|.

    ``num_bins=None`` makes every row a bin of its own, (1/N) sum_i |p*_i[pred_i] - c_i|: the error
    question by question, which nothing averages away. It bounds the binned value from above and
    is 0 only if the model states the target's probability at every question.

    Source: Xiao et al. 2025 (arXiv 2505.01997) measure calibration against a target probabilistic
    generative model without printing the norm; L1 is chosen here, as in their conf-ECE.
    Differentiable piecewise: inside bins; in ``target_probs`` too.

    Args:
        probs: [N, K] option probabilities; cast to float32.
        target_probs: [N, K] true probabilities of the answers, in place of ``answers``, so that
            ``bootstrap`` takes this metric as well.
        mask: [N, K] bool, True where the option exists; None means everywhere.
        num_bins: M, or None for no bins.
        edges: "right" for bins (a, b], "left" for [a, b); see ``bin_index``.
        weights: [N], how often each row counts; None means once. Weight 0: not at all.
        norm: "l1", "l2" or "max"; see ``ece_from_bins``.

    Returns:
        float32 scalar in [0, 1]; NaN for no rows.

    Raises:
        ValueError: for shapes that do not fit together, or unknown options.

    Example:
        >>> probs, target = [[0.75, 0.25], [0.75, 0.25]], [[0.5, 0.5], [1.0, 0.0]]
        >>> float(tce(probs, target))   # 0.25 too high and 0.25 too low cancel in one bin
        0.0
        >>> float(tce(probs, target, num_bins=None))
        0.25
    """
    probs, target, mask = _checked(probs, target_probs, mask)
    chosen = predictions(probs, mask)[:, None]
    target = jnp.take_along_axis(target, jnp.maximum(chosen, 0), axis=1)
    weights = pair_weights(as_weights(weights, len(probs)), None)
    return _error(confidences(probs, mask)[:, None], target, weights, num_bins, edges, norm)


@checked
@functools.partial(jax.jit, static_argnames=("num_bins", "edges", "norm"))
def cw_tce(
    probs: ArrayLike,
    target_probs: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int | None = 10,
    edges: str = "right",
    weights: ArrayLike | None = None,
    *,
    norm: str = "l1",
) -> jax.Array:
    """Class-wise target calibration error: ``cw_ece`` with the answers' true distribution.

        cw-TCE = (1/K) sum_k sum_m (n_km / N) |mean_{i in km} (p*_ik - p_ik)|

    with the bins taken on p_k. ``num_bins=None``: (1/(N K)) sum_i sum_k |p*_ik - p_ik|, which is
    2/K of the mean total variation distance between model and target.

    Arguments, return value and differentiability as in ``tce``; ragged options as in ``cw_ece``.

    Example:
        >>> float(cw_tce([[0.75, 0.25]], [[0.5, 0.5]]))
        0.25
    """
    probs, target, mask = _checked(probs, target_probs, mask)
    weights = pair_weights(as_weights(weights, len(probs)), mask)
    return _error(probs, target, weights, num_bins, edges, norm)


def _checked(probs, target_probs, mask) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    probs, mask = as_probs(probs, mask)
    target = jnp.asarray(target_probs)
    if target.shape != probs.shape:
        raise ValueError(
            f"target_probs must have the shape of probs {probs.shape}, got {target.shape}"
        )
    return probs, target.astype(jnp.float32), mask


def _error(values, target, weights, num_bins, edges, norm):
    """Norm of target - values, [N, G], binned by ``values`` column by column or not at all."""
    gap = target - values
    if num_bins is not None:
        count, gap = sum_by_bin(gap, bin_index(values, num_bins, edges), weights, num_bins)
        return gap_norm(gap, count, norm)
    if edges not in ("right", "left"):
        raise ValueError(f'edges must be "right" or "left", got {edges!r}')
    if len(values) == 0:
        return jnp.float32(jnp.nan)
    if weights is None:
        return gap_norm(gap, jnp.ones(gap.shape, jnp.int32), norm)
    weights = jnp.broadcast_to(weights, gap.shape)
    return gap_norm(jnp.where(weights == 0, 0, gap * weights), weights, norm)
