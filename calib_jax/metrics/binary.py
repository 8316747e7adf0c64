"""Calibration of a confidence [N] against an outcome [N], where no other probabilities are kept.

For predictions over a whole vocabulary, of which the top probability and whether it was right are
all that there is. Rows may come in clusters (positions of one document), which are not
independent: then whole clusters are resampled.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics.bins import BinStats, bin_index, group_bin_stats
from calib_jax.metrics.calibration import ece_from_bins
from calib_jax.metrics.clusters import expanded_level
from calib_jax.metrics.draws import group_codes
from calib_jax.metrics.intervals import (
    interval,
)
from calib_jax.metrics.null import upper_quantile
from calib_jax.metrics.settings import checked_settings
from calib_jax.metrics.shares import share_interval

# Cells of the resampled counts held at once.
_CHUNK = 1 << 22


@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def _stats(confidence: jax.Array, correct: jax.Array, num_bins: int, edges: str) -> BinStats:
    stats = group_bin_stats(confidence[:, None], correct[:, None], None, None, num_bins, edges)
    return jax.tree.map(lambda x: x[0], stats)


def binary_bin_stats(
    confidence: ArrayLike, correct: ArrayLike, num_bins: int = 10, edges: str = "right"
) -> BinStats:
    """Per bin of ``confidence``: rows, how many are correct, and the sum of confidences.

    What ``bin_stats`` computes from [N, K], from the two columns that it reduces them to.

    Args:
        confidence: [N] in [0, 1]; cast to float32.
        correct: [N] bool.
        num_bins: M.
        edges: "right" for bins (a, b], "left" for [a, b); see ``bin_index``.

    Returns:
        ``BinStats`` of shape [M].

    Raises:
        ValueError: other shapes, or a confidence outside [0, 1].

    Example:
        >>> stats = binary_bin_stats([0.25, 0.75, 0.75], [False, True, False], num_bins=2)
        >>> stats.count.tolist(), stats.correct.tolist(), stats.confidence.tolist()
        ([1, 2], [0, 1], [0.25, 1.5])
    """
    confidence, correct = _checked(confidence, correct)
    return _stats(jnp.asarray(confidence), jnp.asarray(correct), num_bins, edges)


def binary_ece(
    confidence: ArrayLike, correct: ArrayLike, num_bins: int = 10, edges: str = "right"
) -> float:
    """conf-ECE, sum_m (n_m / N) |acc_m - conf_m|; arguments as in ``binary_bin_stats``.

    Example:
        >>> binary_ece([0.25, 0.75], [False, True])   # 1/2 * 0.25 + 1/2 * 0.25
        0.25
    """
    return float(ece_from_bins(binary_bin_stats(confidence, correct, num_bins, edges)))


@checked_settings
def cluster_bootstrap(
    confidence: ArrayLike,
    correct: ArrayLike,
    values: dict[str, ArrayLike] | None = None,
    clusters: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    num_resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, tuple[float, float]]:
    """Intervals of accuracy, mean_confidence, conf_ece and means of ``values``, over clusters.

    G clusters are drawn with replacement from the G there are, each with all of its rows, so that
    rows of one cluster need not be independent (Davison and Hinkley 1997, 3.8). conf_ece has the
    "bias_aware" interval of ``bootstrap_all``, the means the percentile interval. It gives what
    ``bootstrap_all(clusters=)`` gives, in law, for figures that are ratios of sums: millions of
    rows are reduced to the sums of their clusters first.

    Args:
        confidence: [N] in [0, 1].
        correct: [N] bool.
        values: name -> [N], further columns whose means get an interval.
        clusters: [N] int or str, each row's cluster; None: every row is one. Where they are fewer
            than rows, ``level`` becomes that of ``expanded_level``.
        num_bins, edges: of conf_ece.
        num_resamples, seed: of the bootstrap; the same seed and clusters give the same resamples.
        level: nominal coverage.

    Raises:
        ValueError: as ``binary_bin_stats``, no rows, or clusters of another length.

    Example:
        >>> cluster_bootstrap([0.75] * 4, [True] * 4, clusters=[0, 0, 1, 1])["conf_ece"]
        (0.25, 0.25)
    """
    confidence, correct = _checked(confidence, correct)
    N = len(confidence)
    names = np.arange(N) if clusters is None else np.asarray(clusters)
    if not N or names.shape != (N,) or num_resamples < 1:
        raise ValueError(
            f"{N} rows, clusters of shape {names.shape}, {num_resamples} resamples: expected rows, "
            "one cluster for each, and at least one resample"
        )
    code = np.unique(names, return_inverse=True)[1]
    G = int(code.max()) + 1
    level = expanded_level(level, G) if G < N else level
    index = np.asarray(bin_index(confidence, num_bins, edges))
    means = {"accuracy": correct, "mean_confidence": confidence, **(values or {})}
    # Everything is a ratio of sums over clusters, so a resample needs no more than these.
    columns = [np.bincount(code, minlength=G)]
    columns += [np.bincount(code, np.asarray(x, np.float64), G) for x in means.values()]
    gaps = np.zeros((G, num_bins))
    np.add.at(gaps, (code, index), correct - confidence.astype(np.float64))
    sums = np.column_stack([*columns, gaps])  # [G, 1 + means + M]

    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK // G)
    drawn = []
    for first in range(0, num_resamples, chunk):
        count = min(chunk, num_resamples - first)
        drawn.append(rng.multinomial(G, np.full(G, 1 / G), size=count) @ sums)
    totals = np.vstack([*drawn, sums.sum(axis=0)])  # the estimate last

    first_gap = 1 + len(means)
    found = {}
    for i, name in enumerate(means, 1):
        ratio = totals[:, i] / totals[:, 0]
        found[name] = _ends(ratio, level, "percentile")
    eces = np.abs(totals[:, first_gap:]).sum(axis=1) / totals[:, 0]
    found["conf_ece"] = _ends(eces, level, "bias_aware")
    return found


@checked_settings
def binary_null_quantile(
    confidence: ArrayLike,
    num_bins: int = 10,
    edges: str = "right",
    level: float = 0.95,
    num_draws: int = 1000,
    seed: int = 0,
) -> float:
    """The conf-ECE that exact calibration stays below in a share ``level`` of samples like this.

    Outcomes are drawn with the confidences as their probabilities, independently: what is
    calibrated given all that stands before it leaves no correlation between the positions of a
    text. Other arguments as in ``cluster_bootstrap``.

    Example:
        >>> binary_null_quantile([1.0, 1.0])   # nothing left to chance
        0.0
    """
    confidence, _ = _checked(confidence, np.zeros(np.shape(confidence), bool))
    one = np.zeros(len(confidence), int)
    draws = null_eces(confidence, one, 1, num_bins, edges, num_draws, seed)
    return float(upper_quantile(draws, level)[0])


@checked_settings
def binary_group_table(
    confidence: ArrayLike,
    correct: ArrayLike,
    groups: ArrayLike,
    num_bins: int = 10,
    edges: str = "right",
    num_draws: int = 1000,
    seed: int = 0,
    *,
    clusters: ArrayLike | None = None,
) -> list[dict]:
    """A row of figures per group, sorted by its name; see ``group_table``.

    Args:
        confidence: [N] in [0, 1].
        correct: [N] bool.
        groups: [N] int or str.
        num_bins, edges: of conf_ece.
        num_draws, seed: of conf_ece_null_q95, whose outcomes are drawn independently.
        clusters: [N] int or str, or None: rows that depend on each other, for accuracy_ci.

    Returns:
        list of dicts: group, n, accuracy with accuracy_ci (see ``share_interval``),
        mean_confidence, conf_ece and conf_ece_null_q95.

    Example:
        >>> rows = binary_group_table([0.75, 0.5, 0.5], [True, True, False], ["x", "y", "y"])
        >>> [(row["group"], row["n"], row["accuracy"], row["conf_ece"]) for row in rows]
        [('x', 1, 1.0, 0.25), ('y', 2, 0.5, 0.0)]
    """
    confidence, correct = _checked(confidence, correct)
    names, code = group_codes(groups, len(confidence))
    if not len(names):
        return []
    sizes = np.bincount(code)
    accuracy = np.bincount(code, correct) / sizes
    mean = np.bincount(code, confidence.astype(np.float64)) / sizes
    cluster = np.arange(len(code)) if clusters is None else np.asarray(clusters)
    inside = (code == g for g in range(len(names)))
    ends = [share_interval(correct[rows], cluster[rows]) for rows in inside]
    index = np.asarray(bin_index(confidence, num_bins, edges))
    gap = correct - confidence.astype(np.float64)
    gaps = np.bincount(code * num_bins + index, gap, len(names) * num_bins)
    eces = np.abs(gaps).reshape(-1, num_bins).sum(axis=1) / sizes
    null = null_eces(confidence, code, len(names), num_bins, edges, num_draws, seed)
    chance = upper_quantile(null, 0.95)
    return [
        {
            "group": name,
            "n": int(sizes[g]),
            "accuracy": float(accuracy[g]),
            "accuracy_ci": list(ends[g]),
            "mean_confidence": float(mean[g]),
            "conf_ece": float(eces[g]),
            "conf_ece_null_q95": float(chance[g]),
        }
        for g, name in enumerate(names.tolist())
    ]


def null_eces(
    confidence: np.ndarray,
    code: np.ndarray,
    num_groups: int,
    num_bins: int,
    edges: str,
    num_draws: int,
    seed: int,
) -> np.ndarray:
    """[R, G] conf-ECE of every group where outcomes are drawn from the confidences."""
    N = len(confidence)
    cell = code * num_bins + np.asarray(bin_index(confidence, num_bins, edges))
    # Rows of a cell beside each other: a cell's sum is then one slice's.
    order = np.argsort(cell, kind="stable")
    filled, starts = np.unique(cell[order], return_index=True)
    values = confidence[order].astype(np.float64)
    sizes = np.bincount(code, minlength=num_groups)
    rng = np.random.default_rng(seed)
    chunk = max(1, _CHUNK // max(N, 1))
    draws = []
    for first in range(0, num_draws, chunk):
        gap = (rng.random((min(chunk, num_draws - first), N)) < values) - values
        sums = np.zeros((len(gap), num_groups * num_bins))
        sums[:, filled] = np.abs(np.add.reduceat(gap, starts, axis=1))
        draws.append(sums.reshape(len(gap), num_groups, num_bins).sum(axis=2) / sizes)
    return np.concatenate(draws)


def _ends(values: np.ndarray, level: float, method: str) -> tuple[float, float]:
    low, high = interval(values[:-1], values[-1], level, method)
    return float(low), float(high)


def _checked(confidence: ArrayLike, correct: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    confidence, correct = np.asarray(confidence, np.float32), np.asarray(correct)
    if confidence.ndim != 1 or correct.shape != confidence.shape:
        raise ValueError(
            f"confidence and correct must be [N], got {confidence.shape} and {correct.shape}"
        )
    if not ((confidence >= 0) & (confidence <= 1)).all():
        row = int(np.argmin((confidence >= 0) & (confidence <= 1)))
        raise ValueError(f"row {row} has the confidence {confidence[row]}, outside [0, 1]")
    if correct.dtype != bool:
        raise ValueError(f"correct must be bool, got {correct.dtype}")
    return confidence, correct
