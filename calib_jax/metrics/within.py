"""Metrics that hold rows against one another, of cross-fitted scores: within the folds."""

from collections.abc import Callable

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

    Example:
        >>> from calib_jax.metrics.discrimination import auroc
        >>> probs = [[0.9, 0.1], [0.8, 0.2], [0.7, 0.3], [0.6, 0.4]]
        >>> float(within_folds(auroc, probs, [0, 1, 1, 0], folds=[0, 0, 1, 1], num_folds=2))
        0.5
    """
    metric = getattr(metric, "kernel", metric)
    folds = jnp.asarray(folds)
    weights = jnp.ones(folds.shape[0], jnp.int32) if weights is None else jnp.asarray(weights)
    arrays = jnp.asarray(probs), jnp.asarray(answers), None if mask is None else jnp.asarray(mask)
    logs = None if log_scores is None else jnp.asarray(log_scores)

    def one(fold):
        own = jnp.where(folds == fold, weights, 0)
        return call(metric, *arrays, own, logs), own.sum().astype(jnp.float32)

    values, sizes = jax.vmap(one)(jnp.arange(num_folds))
    known = ~jnp.isnan(values) & (sizes > 0)
    total = jnp.where(known, values * sizes, 0).sum()
    return jnp.where(known.any(), total / jnp.where(known, sizes, 0).sum(), jnp.nan)
