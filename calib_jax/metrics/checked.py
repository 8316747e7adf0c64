"""Values looked at before a metric is computed from them, outside of jit."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, Protocol, cast

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax.metrics.inputs import narrowed, on_host
from calib_jax.metrics.validation import rounding, sum_tolerance, validate, validate_weights

_MAX_COLUMNS = 32
# The parameters of kernels that hold an entry for each row.
_ARRAYS = frozenset(
    "probs log_scores answers target_probs mask weights sets chosen_logps rejected_logps "
    "chosen_tokens rejected_tokens preference_rate".split()
)


class Checked(Protocol):
    """A metric that looks at the values of its input first."""

    kernel: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any: ...


def checked(kernel: Callable[..., Any]) -> Checked:
    """``kernel(probs, answers, mask=None, ..., weights=None)`` with its input validated first.

    Called with arrays, the function raises what ``validate`` and ``validate_weights`` raise; masked
    options and rows of weight 0 may hold anything. Whatever numpy reads is an array: a pandas
    column too. Of a kernel that has no ``probs`` and ``answers`` the weights alone are looked at.
    Under jit, vmap and grad, and for arrays that lie on several hosts, it is the kernel itself: no
    value is looked at, and NaN propagates. The check is one fused pass on the device; only input
    that fails it is copied to the host for the message. ``metric.kernel`` is the kernel without
    the check.

    Example:
        >>> mean = checked(lambda probs, answers, mask=None: jnp.mean(probs))
        >>> mean([[0.5, 0.75]], [0])
        Traceback (most recent call last):
        ...
        ValueError: row 0 sums to 1.25, not to 1 within 0.0001 (1 bad row of 1): normalise \
each row over its valid options
    """
    signature = inspect.signature(kernel)
    names = list(signature.parameters)
    needed = {n for n, p in signature.parameters.items() if p.default is p.empty} & _ARRAYS

    @functools.wraps(kernel)
    def with_check(*args, **kwargs):
        given = signature.bind(*args, **kwargs).arguments
        for name in needed & given.keys():
            if given[name] is None:
                raise ValueError(f"{name} is None: pass an array")
        arrays = {name: given[name] for name in _ARRAYS & given.keys() if given[name] is not None}
        if not _is_concrete(arrays):
            return kernel(*args, **kwargs)
        arrays = {name: on_host(value, name) for name, value in arrays.items()}
        if names[:2] in (["probs", "answers"], ["probs", "target_probs"]):
            _check(arrays, names[1])
        elif "weights" in arrays:
            validate_weights(arrays["weights"])
        if "log_scores" in arrays:
            _check_log_scores(arrays["log_scores"], arrays.get("mask"))
        if "answers" in arrays:
            arrays["answers"] = narrowed(arrays["answers"])
        return kernel(
            *(arrays.get(name, value) for name, value in zip(names, args, strict=False)),
            **{name: arrays.get(name, value) for name, value in kwargs.items()},
        )

    metric = cast(Checked, with_check)
    metric.kernel = kernel
    return metric


def _is_concrete(arrays: Mapping[str, Any]) -> bool:
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(arrays)):
        return False
    return all(getattr(x, "is_fully_addressable", True) for x in arrays.values())


def _check_log_scores(log_scores: Any, mask: Any) -> None:
    """Refuses NaN; under a mask anything may be. Of shapes the kernel itself complains."""
    bad = jnp.isnan(jnp.asarray(log_scores))
    if bad.ndim != 2:
        return
    if mask is not None and np.shape(mask) == bad.shape:
        bad = bad & jnp.asarray(mask).astype(bool)
    rows = bad.any(axis=1)
    if rows.any():
        total = int(rows.sum())
        raise ValueError(
            f"row {int(jnp.argmax(rows))} of log_scores holds NaN ({total} bad "
            f"row{'s' if total > 1 else ''} of {len(rows)}): log-scores are numbers or -inf"
        )


def _check(arrays: Mapping[str, Any], second: str) -> None:
    probs, answers = arrays["probs"], arrays.get(second)
    mask, weights = arrays.get("mask"), arrays.get("weights")
    shapes = {np.shape(x)[:1] for x in (probs, answers, mask, weights) if x is not None}
    if probs.ndim != 2 or len(shapes) > 1 or not probs.size:
        return  # Of shapes the kernel itself complains; no rows are no bad rows.
    if mask is not None and np.shape(mask) != probs.shape:
        return
    known = second == "target_probs"
    if answers is not None and answers.ndim != (2 if known else 1):
        return
    if not known and answers is not None and not jnp.issubdtype(answers.dtype, jnp.integer):
        return
    if weights is not None and np.ndim(weights) != 1:
        return
    # On the device 64-bit integers are cut to 32 bits.
    outside = False
    if answers is not None and not known and answers.dtype.itemsize == 8:
        outside = bool(((answers < 0) | (answers >= probs.shape[1])).any())
    limits = sum_tolerance(probs), rounding(probs)
    if not (known or outside or _suspicious(probs, answers, mask, weights, *limits)):
        return
    if weights is not None:
        validate_weights(weights)
    counted = np.ones(len(probs), bool) if weights is None else np.asarray(weights) != 0
    valid = np.ones(probs.shape, bool) if mask is None else np.asarray(mask, bool)
    valid = valid | ~counted[:, None]
    probs = np.asarray(probs)
    answers = np.argmax(valid, axis=1) if answers is None else np.asarray(answers)
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
def _suspicious(probs, answers, mask, weights, tolerance, rounding) -> jax.Array:
    """Whether any counted row, or any weight, may be bad."""
    probs = jnp.asarray(probs).astype(jnp.float32)
    num_options = probs.shape[1]
    good = jnp.ones(len(probs), bool)
    if mask is not None:
        mask = jnp.asarray(mask).astype(bool)
        probs = jnp.where(mask, probs, 0)
        good &= mask.any(axis=1)
    if answers is not None:
        answers = jnp.asarray(answers)
        good &= (answers >= 0) & (answers < num_options)
        if mask is not None:
            good &= (mask & (answers[:, None] == jnp.arange(num_options))).any(axis=1)
    # Column by column: one elementwise pass, where sums over a short last axis are slow.
    if num_options <= _MAX_COLUMNS:
        columns = [probs[:, k] for k in range(num_options)]
        total = functools.reduce(jnp.add, columns)
        lowest = functools.reduce(jnp.minimum, columns)
    else:
        total, lowest = probs.sum(axis=1), probs.min(axis=1)
    # NaN fails every comparison. Nothing negative and a sum of 1: nothing is above 1 either.
    good &= (lowest >= -rounding) & (jnp.abs(total - 1) <= tolerance)
    if weights is None:
        return ~good.all()
    weights = jnp.asarray(weights).astype(jnp.float32)
    fit = (weights >= 0) & jnp.isfinite(weights)
    return ~((good | (weights == 0)).all() & fit.all() & (weights > 0).any())
