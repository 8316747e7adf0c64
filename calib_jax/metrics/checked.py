"""Values looked at before a metric is computed from them, outside of jit."""

import functools
import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax.metrics.validation import sum_tolerance, validate

_MAX_COLUMNS = 32


def checked(kernel: Callable) -> Callable:
    """``kernel(probs, answers, mask=None, ..., weights=None)`` with its input validated first.

    Called with arrays, the function raises what ``validate`` raises; masked options and rows of
    weight 0 may hold anything. Under jit, vmap and grad, and for arrays that lie on several
    hosts, it is the kernel itself: no value is looked at, and NaN propagates. The check is one
    fused pass on the device; only input that fails it is copied to the host for the message.
    ``metric.kernel`` is the kernel without the check.

    Example:
        >>> mean = checked(lambda probs, answers, mask=None: jnp.mean(probs))
        >>> mean([[0.5, 0.75]], [0])
        Traceback (most recent call last):
        ...
        ValueError: row 0 sums to 1.25, not to 1 within 0.0001 (1 bad row of 1): normalise \
each row over its valid options
    """
    signature = inspect.signature(kernel)

    @functools.wraps(kernel)
    def metric(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        names = list(signature.parameters)
        _check(given[names[0]], given.get(names[1]), given.get("mask"), given.get("weights"))
        return kernel(*args, **kwargs)

    metric.kernel = kernel
    return metric


def _check(probs, answers, mask, weights) -> None:
    arrays = [x for x in (probs, answers, mask, weights) if x is not None]
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(arrays)):
        return
    if not all(getattr(x, "is_fully_addressable", True) for x in arrays):
        return
    probs = probs if hasattr(probs, "dtype") else np.asarray(probs, np.float32)
    answers = answers if answers is None or hasattr(answers, "dtype") else np.asarray(answers)
    shapes = {np.shape(x)[:1] for x in (probs, answers, mask, weights) if x is not None}
    if answers is None or probs.ndim != 2 or len(shapes) > 1 or not probs.size:
        return  # Of shapes the kernel itself complains; no rows are no bad rows.
    if mask is not None and np.shape(mask) != probs.shape:
        return
    if answers.ndim == 1 and not jnp.issubdtype(answers.dtype, jnp.integer):
        return
    if answers.ndim == 1 and not _suspicious(probs, answers, mask, weights, sum_tolerance(probs)):
        return
    counted = np.ones(len(probs), bool) if weights is None else np.asarray(weights) != 0
    valid = np.ones(probs.shape, bool) if mask is None else np.asarray(mask, bool)
    valid = valid | ~counted[:, None]
    probs, answers = np.asarray(probs), np.asarray(answers)
    if not jnp.issubdtype(probs.dtype, jnp.floating):
        probs = probs.astype(np.float32)
    # A row that does not count is made a good one, so that the others keep their numbers.
    good = np.eye(1, probs.shape[1], dtype=probs.dtype)
    probs = np.where(counted[:, None], np.where(valid, probs, 0), good).astype(probs.dtype)
    if answers.ndim == 1:
        answers = np.where(counted, answers, 0)
    else:
        answers = np.where(counted[:, None], np.where(valid, answers, 0), good)
        answers = answers.astype(probs.dtype)
    validate(probs, answers, valid)


@jax.jit
def _suspicious(probs, answers, mask, weights, tolerance) -> jax.Array:
    """Whether any counted row may be bad."""
    probs = jnp.asarray(probs).astype(jnp.float32)
    answers = jnp.asarray(answers)
    num_options = probs.shape[1]
    good = (answers >= 0) & (answers < num_options)
    if mask is not None:
        mask = jnp.asarray(mask).astype(bool)
        probs = jnp.where(mask, probs, 0)
        good &= (mask & (answers[:, None] == jnp.arange(num_options))).any(axis=1)
    # Column by column: one elementwise pass, where sums over a short last axis are slow.
    if num_options <= _MAX_COLUMNS:
        columns = [probs[:, k] for k in range(num_options)]
        total = functools.reduce(jnp.add, columns)
        lowest = functools.reduce(jnp.minimum, columns)
    else:
        total, lowest = probs.sum(axis=1), probs.min(axis=1)
    # NaN fails every comparison. Nothing negative and a sum of 1: nothing is above 1 either.
    good &= (lowest >= 0) & (jnp.abs(total - 1) <= tolerance)
    if weights is not None:
        good |= jnp.asarray(weights) == 0
    return ~good.all()
