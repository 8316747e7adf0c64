"""Metrics that hold rows against one another, of cross-fitted scores: within the folds."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from calib_jax.metrics.tails import call


def within_folds(
    metric: Callable[..., jax.Array],
    probs: ArrayLike,
    answers: ArrayLike,
    mask: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    *,
    folds: ArrayLike,
    num_folds: int,
    log_scores: ArrayLike | None = None,
) -> jax.Array:
    """The mean over the folds of a metric of each fold's rows, weighted by their number.

        sum_f n_f metric(rows of fold f) / sum_f n_f,   over the folds where the metric is defined

    Rows of different folds were calibrated by different fits, and the fit of a fold that does badly
    has seen the others do well: it makes exactly these rows too confident. Pooled, uninformative
    scores then look worse than chance (an AUROC of .42 of 50 rows); within a fold a fit treats all
    rows alike. AUROC and AURC of few rows are unbiased, so the mean over small folds is; AUPRC of
    few rows is higher than that of many. Source: Parker, Günter and Bedo 2007; Airola et al. 2011.

    Args:
        metric: as in ``bootstrap_all``; its kernel is called with arrays.
        probs, answers, mask, weights, log_scores: as the metric takes them.
        folds: [N] int, 0-based, each row's fold (``posthoc.fold_numbers``).
        num_folds: F.

    Returns:
        float32 scalar; NaN where the metric is undefined in every fold that has rows.

    Raises:
        ValueError: folds that are no integers from 0 to F - 1, or of another length.

    Example:
        >>> from calib_jax.metrics.discrimination import auroc
        >>> probs = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]]
        >>> float(within_folds(auroc, probs, [0, 1, 1, 0], folds=[0, 0, 1, 1], num_folds=2))
        0.5
    """
    folds = jnp.asarray(folds)
    num_rows = jnp.shape(probs)[0]
    if folds.shape != (num_rows,) or not jnp.issubdtype(folds.dtype, jnp.integer):
        raise ValueError(
            f"folds must be [{num_rows}] integers, got {folds.dtype} of shape {folds.shape}"
        )
    if not isinstance(folds, jax.core.Tracer) and num_rows:
        low, high = int(folds.min()), int(folds.max())
        if low < 0 or high >= num_folds:
            raise ValueError(f"folds must be 0 to {num_folds - 1}, got {low} to {high}")
    weights = jnp.ones(folds.shape[0], jnp.int32) if weights is None else jnp.asarray(weights)
    rows = probs, answers, mask, log_scores
    arrays = [None if x is None else jnp.asarray(x) for x in rows]
    own = jnp.where(folds == jnp.arange(num_folds)[:, None], weights, 0)
    return mean_over_folds(metric, arrays, own, None)


def mean_over_folds(
    metric: Callable[..., jax.Array], rows: Sequence[Any], weights: jax.Array, axis: int | None
) -> jax.Array:
    """``within_folds`` of weights [F, L], 0 on the rows of other folds.

    Args:
        metric: as there.
        rows: probs, answers, mask, log_scores; mask and log_scores may be None.
        weights: [F, L].
        axis: 0 where ``rows`` are [F, L, ...], each fold's own, so that nothing is computed of the
            others; None where they are [L, ...], the same for all folds.
    """
    metric = getattr(metric, "kernel", metric)

    def one(rows, own):
        probs, answers, mask, log_scores = rows
        return call(metric, probs, answers, mask, own, log_scores)

    values = jax.vmap(one, in_axes=(axis, 0))(tuple(rows), weights)
    sizes = weights.sum(axis=1).astype(jnp.float32)
    known = ~jnp.isnan(values) & (sizes > 0)
    total = jnp.where(known, values * sizes, 0).sum()
    return jnp.where(known.any(), total / jnp.where(known, sizes, 0).sum(), jnp.nan)
