"""Intervals and tests that stay right where rows of one cluster depend on each other."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics.bins import bin_stats, class_bin_stats
from calib_jax.metrics.draws import group_codes, map_draws, random_words
from calib_jax.metrics.null import upper_quantile
from calib_jax.metrics.settings import checked_settings
from calib_jax.metrics.significance import TestResult
from calib_jax.metrics.smooth import smooth_ece_from_stats, smooth_stats
from calib_jax.metrics.validation import validate

# The errors whose draws are known: sums over bins, or over a kernel, of residuals.
ERRORS = ("conf_ece", "cw_ece", "smooth_ece")
# Row weights held at once: draws are made in chunks of this many divided by N.
_CHUNK_ELEMENTS = 1 << 18
# All signs turned give the same value but for float32's rounding: such a draw counts as a tie.
_ROUNDING = 1e-6


@checked_settings
def clustered_null(
    probs: ArrayLike,
    answers: ArrayLike,
    clusters: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    num_draws: int = 1000,
    seed: int = 0,
    names: Sequence[str] = ERRORS,
) -> dict[str, np.ndarray]:
    """What calibration errors show by chance where rows of a cluster depend on each other.

    ``null_all`` draws every row's answer independently. A calibrated model of three questions on
    one passage may yet be right on all or on none of them, and then such draws are too small.
    Here the residuals stay as they are, onehot(y) - p, and those of a whole cluster are all kept or
    all multiplied by -1, with a fair coin: each has mean 0 under calibration, whatever the
    dependence within the cluster, so the sums over bins keep their covariance. Right as the number
    of clusters grows, and exact if a cluster's residuals are as likely as their opposites.

    Source: Liu 1988; Cameron, Gelbach and Miller 2008 (wild cluster bootstrap, the null imposed).

    Args:
        probs: [N, K] option probabilities.
        answers: [N] int.
        clusters: [N] int or str.
        mask: [N, K] bool or None.
        num_bins, edges: of conf_ece and cw_ece.
        num_draws, seed: of the signs.
        names: which errors, of conf_ece, cw_ece and smooth_ece.

    Returns:
        name -> float [num_draws + 1], the observed value last.

    Raises:
        ValueError: arrays that ``validate`` refuses, clusters of another length, num_draws < 1, an
            unknown name.

    Example:
        >>> draws = clustered_null([[0.75, 0.25]] * 4, [0, 0, 0, 0], [7, 7, 7, 7])["conf_ece"]
        >>> sorted(set(draws.tolist()))   # one cluster: its residuals or their opposites
        [0.25]
    """
    if num_draws < 1:
        raise ValueError(f"num_draws must be at least 1, got {num_draws}")
    for name in names:
        if name not in ERRORS:
            raise ValueError(f"metric must be one of {', '.join(ERRORS)}, got {name!r}")
    validate(probs, answers, mask)
    of_clusters, code = group_codes(clusters, len(np.asarray(answers)), "clusters")
    arrays = jnp.asarray(probs), jnp.asarray(answers), None if mask is None else jnp.asarray(mask)
    of_row = jnp.asarray(code, jnp.int32)
    keys, sizes = tuple(names), (len(of_clusters), num_bins, edges, num_draws)
    draws = _signed(*arrays, of_row, jnp.uint32(seed), keys, *sizes)
    return {key: np.asarray(values) for key, values in zip(keys, draws, strict=True)}


@functools.partial(
    jax.jit, static_argnames=("names", "num_clusters", "num_bins", "edges", "num_draws")
)
def _signed(probs, answers, mask, code, seed, names, num_clusters, num_bins, edges, num_draws):
    num_rows = probs.shape[0]
    bins = {"num_bins": num_bins, "edges": edges}
    pairs = probs.size if mask is None else mask.sum()

    def one(key, number):
        coins = random_words(key, num_clusters) >> 31
        # What is summed in a bin is linear in the weights, so the signs can be the weights.
        signs = jnp.where(number == num_draws, 1, 2 * coins.astype(jnp.int32) - 1)[code]
        found = {}
        if "conf_ece" in names:
            gaps = bin_stats(probs, answers, mask, **bins, weights=signs).gap()
            found["conf_ece"] = jnp.abs(gaps).sum() / num_rows
        if "cw_ece" in names:
            gaps = class_bin_stats(probs, answers, mask, **bins, weights=signs).gap()
            found["cw_ece"] = jnp.abs(gaps).sum() / pairs
        if "smooth_ece" in names:
            stats = smooth_stats(probs, answers, mask, weights=signs)
            found["smooth_ece"] = smooth_ece_from_stats(stats, total=num_rows)
        return [found[name] for name in names]

    return map_draws(one, seed, num_draws + 1, _CHUNK_ELEMENTS // max(num_rows, 1))


@checked_settings
def cluster_consistency_test(
    probs: ArrayLike,
    answers: ArrayLike,
    clusters: ArrayLike,
    mask: ArrayLike | None = None,
    metric: str = "conf_ece",
    num_bins: int = 10,
    edges: str = "right",
    num_draws: int = 1000,
    seed: int = 0,
) -> TestResult:
    """``consistency_test`` that allows for dependence within clusters; see ``clustered_null``.

        p = (1 + #{draws >= observed}) / (1 + draws)

    The test of independent rows rejects calibrated models too often where rows of a cluster are
    right or wrong together: at a nominal 5 %, 22 % of them at 20 clusters of 10 rows with a
    correlation of .5, and 38 % at 8 of 25, where this one rejects 6 % and 6 %
    (``benchmarks/clusters.py``, 500 draws).

    Args:
        metric: "conf_ece", "cw_ece" or "smooth_ece".
        probs, answers, clusters, mask, num_bins, edges, num_draws, seed: as in ``clustered_null``.

    Returns:
        ``TestResult`` as of ``consistency_test``.

    Example:
        >>> probs, clusters = [[0.75, 0.25]] * 40, [i // 2 for i in range(40)]
        >>> cluster_consistency_test(probs, [1] * 40, clusters).p_value < 0.01
        True
        >>> cluster_consistency_test(probs, [1] * 40, [0] * 40).p_value   # one tells nothing
        1.0
    """
    options: dict[str, Any] = {
        "num_bins": num_bins,
        "edges": edges,
        "num_draws": num_draws,
        "seed": seed,
    }
    values = clustered_null(probs, answers, clusters, mask, **options, names=(metric,))[metric]
    draws, observed = values[:-1], float(values[-1])
    return TestResult(
        statistic=observed,
        p_value=chance_p_value(values),
        null_mean=float(draws.mean()),
        null_q95=float(upper_quantile(draws, 0.95)),
    )


def chance_p_value(values: np.ndarray) -> float:
    """(1 + #{draws >= observed}) / (1 + draws), of [R + 1] values with the observed one last."""
    draws, observed = values[:-1], values[-1] * (1 - _ROUNDING)
    return float((1 + np.sum(~(draws < observed))) / len(values))
