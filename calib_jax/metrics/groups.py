"""The figures of every subject or other group of rows, each with what chance alone would show.

Groups have different sizes, but nothing is compiled per group: resamples run over all rows at
once, the point estimates over groups padded to a few common sizes with rows of weight 0.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from calib_jax.metrics import intervals
from calib_jax.metrics.binary import null_eces
from calib_jax.metrics.bins import bin_index
from calib_jax.metrics.calibration import conf_ece, cw_ece
from calib_jax.metrics.clusters import expanded_level
from calib_jax.metrics.draws import (
    group_codes,
    in_parts,
    map_draws,
    random_words,
    row_counts,
    strata,
)
from calib_jax.metrics.null import low_by_test, p_value, upper_quantile
from calib_jax.metrics.scores import accuracy, brier, confidences, correctness, mean_confidence, nll
from calib_jax.metrics.settings import checked_settings
from calib_jax.metrics.shares import share_interval, wilson_interval
from calib_jax.metrics.significance import benjamini_hochberg
from calib_jax.metrics.squared import squared_ece
from calib_jax.metrics.validation import validate

# Rows summed into one float32 cell at most.
_BLOCK = 1 << 14
# Of G groups, those whose error fewer draws than ``_FEW`` reach get ``_DRAWS_A_GROUP`` G draws in
# all: of R draws no p-value is below 1/(R + 1), which adjusted for G groups is G/(R + 1).
_FEW, _DRAWS_A_GROUP = 10, 40
# A draw that is as large as the observed error but for float32's rounding counts as a tie.
_ROUNDING = 1e-6


@checked_settings
def group_table(
    probs: ArrayLike,
    answers: ArrayLike,
    groups: ArrayLike,
    mask: ArrayLike | None = None,
    num_bins: int = 10,
    edges: str = "right",
    seed: int = 0,
    num_resamples: int = 1000,
    level: float = 0.95,
    *,
    clusters: ArrayLike | None = None,
    log_scores: ArrayLike | None = None,
) -> list[dict]:
    """One row of figures per group (subject, task, source), sorted by the group's name.

    Calibration errors of small groups are mostly noise: a perfectly calibrated 4-way subject of
    100 questions shows a conf-ECE of about 0.1. So each stands beside its null quantile and
    p-value (answers drawn from the probabilities, see ``null_all`` and ``consistency_test``), the
    unbiased squared error and an interval. Of many calibrated groups, one in twenty still has a
    p-value below 0.05: the adjusted one allows for their number.

    Args:
        probs: [N, K] option probabilities.
        answers: [N] int.
        groups: [N] int or str, each row's group.
        mask: [N, K] bool or None.
        num_bins, edges: of the binned metrics, see ``conf_ece``.
        seed: of resamples and null draws.
        num_resamples: how many of each; of null draws 40 G for those of G > 1 groups that fewer
            than 10 draws reach, where that is more: else no p-value withstands the adjustment.
            The p-values stay exact (Besag and Clifford 1991).
        level: of the intervals, strictly between 0 and 1.
        clusters: [N] int or str, or None: rows that depend on each other. Intervals are then over
            clusters (accuracy_ci by ``share_interval``), and what chance would show is that of
            ``clustered_null``. A cluster in several groups is a cluster of its own in each.
        log_scores: [N, K] or None, for the NLL (see ``nll``).

    Returns:
        list of dicts of plain Python values:
        group; n (rows); with clusters, n_clusters; accuracy, with accuracy_ci (Wilson's score
        interval: it does not shrink to a point where all answers are right); mean_confidence;
        conf_ece, with conf_ece_ci ("bias_aware" bootstrap within the group, see ``bootstrap_all``,
        which holds 0 exactly where the p-value is above 1 - level, see ``low_by_test``),
        conf_ece_null_q95, conf_ece_p_value and conf_ece_p_adjusted (over the groups, see
        ``benjamini_hochberg``); squared_ece (NaN where no bin holds two rows); cw_ece; nll; brier.
        Intervals are [low, high].

    Raises:
        ValueError: arrays that ``validate`` refuses, groups of another length or type, bad options.

    Example:
        >>> probs, answers = [[0.75, 0.25]] * 8, [0, 0, 0, 1, 0, 0, 0, 0]
        >>> table = group_table(probs, answers, ["law"] * 4 + ["art"] * 4, num_resamples=99)
        >>> [(row["group"], row["n"], row["accuracy"], row["conf_ece"]) for row in table]
        [('art', 4, 1.0, 0.25), ('law', 4, 0.75, 0.0)]
        >>> table[1]["conf_ece_p_value"]   # every draw is at least 0
        1.0
    """
    validate(probs, answers, mask)
    if num_resamples < 1:
        raise ValueError(f"num_resamples must be at least 1, got {num_resamples}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie strictly between 0 and 1, got {level}")
    names, codes = group_codes(groups, len(np.asarray(answers)))
    if not len(names):
        return []
    probs, answers = jnp.asarray(probs), jnp.asarray(answers)
    mask = None if mask is None else jnp.asarray(mask)
    sizes = np.bincount(codes)
    cluster, counts = None, sizes
    if clusters is not None:
        cluster = group_codes(clusters, len(codes), "clusters")[1]
        cluster = np.unique(codes * len(codes) + cluster, return_inverse=True)[1]
        counts = np.bincount(codes[np.unique(cluster, return_index=True)[1]])
    log_scores = None if log_scores is None else jnp.asarray(log_scores)
    points = _points(probs, answers, mask, log_scores, codes, sizes, num_bins, edges)

    right = np.asarray(correctness(probs, answers, mask))
    resampled, drawn = _draws(
        probs, right, mask, codes, cluster, num_bins, edges, seed, num_resamples
    )
    wide: Any = level  # of every group its own, with clusters
    if cluster is not None:
        wide = np.array([expanded_level(level, int(n)) for n in counts])
    low, high = intervals.interval(resampled[:-1], resampled[-1], wide, "bias_aware")
    null_q95, p = upper_quantile(drawn[:-1], 0.95), p_value(drawn[:-1], drawn[-1])
    more = _DRAWS_A_GROUP * len(names) - 1 - num_resamples
    if more > 0 and len(names) > 1:
        rows = confidences(probs, mask), right, codes, cluster
        reached = np.round(p * (num_resamples + 1)) - 1
        rare = np.flatnonzero(reached < _FEW)
        extra = _more_draws(*rows, rare, num_bins, edges, more, seed)
        reached = reached[rare] + (extra >= drawn[-1, rare] - _ROUNDING).sum(axis=0)
        p[rare] = (1 + reached) / (1 + num_resamples + more)
    low = low_by_test(low, drawn[-1], drawn[:-1], level, p)
    adjusted = benjamini_hochberg(p)
    if cluster is None:
        hits = np.bincount(codes, right)
        ends = np.column_stack(wilson_interval(hits, sizes, level))
    else:
        inside = (codes == g for g in range(len(names)))
        ends = np.array([share_interval(right[rows], cluster[rows], level) for rows in inside])

    return [
        {
            "group": name,
            "n": int(size),
            **({} if cluster is None else {"n_clusters": int(counts[g])}),
            "accuracy": point["accuracy"],
            "accuracy_ci": ends[g].tolist(),
            "mean_confidence": point["mean_confidence"],
            "conf_ece": point["conf_ece"],
            "conf_ece_ci": [float(low[g]), float(high[g])],
            "conf_ece_null_q95": float(null_q95[g]),
            "conf_ece_p_value": float(p[g]),
            "conf_ece_p_adjusted": float(adjusted[g]),
            "squared_ece": point["squared_ece"] if cluster is None else float("nan"),
            "cw_ece": point["cw_ece"],
            "nll": point["nll"],
            "brier": point["brier"],
        }
        for g, (name, size, point) in enumerate(zip(names.tolist(), sizes, points, strict=True))
    ]


def macro_average(table: Sequence[dict]) -> dict[str, float]:
    """Unweighted mean over the groups of every figure that is one: each group counts the same.

    Sizes, names, intervals and p-values have no mean and are left out. The mean of noisy
    calibration errors is as biased as they are: compare it with the mean of the null quantiles, or
    take the squared error, which is unbiased (its mean is over the groups in which it is known).

    Example:
        >>> macro_average([{"group": "a", "n": 9, "nll": 1.0}, {"group": "b", "n": 1, "nll": 2.0}])
        {'nll': 1.5}
    """
    always = ("accuracy", "mean_confidence", "conf_ece", "squared_ece", "conf_ece_null_q95")
    names = [n for n in (*always, "cw_ece", "nll", "brier") if table and n in table[0]]
    found = {name: np.array([row[name] for row in table], float) for name in names}
    if (known := found.get("squared_ece")) is not None:
        found["squared_ece"] = known[~np.isnan(known)]
    return {name: float(np.mean(x)) if len(x) else np.nan for name, x in found.items()}


def _points(
    probs, answers, mask, log_scores, codes, sizes, num_bins, edges
) -> list[dict[str, float]]:
    """The point estimates of each group."""
    order = np.argsort(codes, kind="stable")
    starts = np.r_[0, sizes.cumsum()[:-1]]
    # 64, 512, 4096, ...: few shapes, and at most eight times the work.
    exponent = np.maximum(np.ceil(np.log2(sizes) / 3 - 1e-9), 2).astype(int)
    found: list[dict[str, float]] = [{} for _ in sizes]
    for this in np.unique(exponent):
        members = np.flatnonzero(exponent == this)
        place = starts[members, None] + np.arange(8**this)
        inside = np.arange(8**this) < sizes[members, None]
        rows = order[np.minimum(place, len(order) - 1)]
        values = _padded(probs, answers, mask, log_scores, rows, inside, num_bins, edges)
        for name, column in values.items():
            for group, value in zip(members, np.asarray(column).tolist(), strict=True):
                found[group][name] = value
    return found


@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def _padded(probs, answers, mask, log_scores, rows, inside, num_bins, edges):
    """The figures of each group g, its rows being ``rows[g]`` where ``inside[g]``; [G] each."""

    def one(group):
        rows, inside = group
        arrays = probs[rows], answers[rows], None if mask is None else mask[rows]
        logs = None if log_scores is None else log_scores[rows]
        bins = {"num_bins": num_bins, "edges": edges}
        return {
            "accuracy": accuracy(*arrays, weights=inside),
            "mean_confidence": mean_confidence(*arrays, weights=inside),
            "conf_ece": conf_ece(*arrays, **bins, weights=inside),
            "squared_ece": squared_ece(*arrays, **bins, weights=inside),
            "cw_ece": cw_ece(*arrays, **bins, weights=inside),
            "nll": nll(*arrays, weights=inside, log_scores=logs),
            "brier": brier(*arrays, weights=inside),
        }

    return jax.lax.map(one, (rows, inside))


def _draws(probs, right, mask, codes, cluster, num_bins, edges, seed, num_resamples):
    """conf-ECE of every group, [R + 1, G]: resampled, and under the null; observed value last."""
    confidence = confidences(probs, mask)
    # An answer drawn from the probabilities is the top label with this probability.
    top = np.asarray(confidence).astype(np.float64)
    top = top / np.asarray(probs).astype(np.float64).sum(axis=1)
    limit = np.minimum(np.round(top * 2.0**32), 2.0**32 - 1).astype(np.uint32)
    # Groups are summed in parts of at most _BLOCK rows: see sums on long float32 totals.
    sizes = np.bincount(codes)
    order = np.argsort(codes, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order)) - np.repeat(np.r_[0, sizes.cumsum()[:-1]], sizes)
    parts = -(-sizes // _BLOCK)
    part = np.r_[0, parts.cumsum()[:-1]][codes] + rank // _BLOCK
    cell = part * num_bins + np.asarray(bin_index(confidence, num_bins, edges))
    group_of_part = np.repeat(np.arange(len(sizes)), parts)
    arrays = (
        confidence,
        jnp.asarray(right),
        jnp.asarray(limit),
        jnp.asarray(cell, jnp.int32),
        jnp.asarray(group_of_part, jnp.int32),
        jnp.asarray(sizes, jnp.int32),
        strata(len(codes), codes, cluster),
        jnp.uint32(seed),
        num_bins,
        num_resamples,
    )
    values = in_parts(functools.partial(_drawn_eces, *arrays), num_resamples + 1, len(codes))
    return [np.asarray(value) for value in values]


def _more_draws(confidence, right, codes, cluster, chosen, num_bins, edges, num_draws, seed):
    """conf-ECE of some groups under the null, [D, G'], of further draws than ``_draws`` makes."""
    confidence, rng = np.asarray(confidence, np.float64), np.random.default_rng([seed, 1])
    draws = np.empty((num_draws, len(chosen)))
    for place, group in enumerate(chosen):
        rows = np.flatnonzero(codes == group)
        own = confidence[rows].astype(np.float32)
        if cluster is None:
            seeds = int(rng.integers(2**63))
            one = np.zeros(len(rows), int)
            draws[:, place] = null_eces(own, one, 1, num_bins, edges, num_draws, seeds)[:, 0]
            continue
        unit = np.unique(cluster[rows], return_inverse=True)[1]
        cell = unit * num_bins + np.asarray(bin_index(own, num_bins, edges))
        sums = np.bincount(cell, right[rows] - confidence[rows], (unit.max() + 1) * num_bins)
        signs = 2.0 * rng.integers(0, 2, (num_draws, unit.max() + 1)) - 1
        draws[:, place] = np.abs(signs @ sums.reshape(-1, num_bins)).sum(axis=1) / len(rows)
    return draws


@functools.partial(jax.jit, static_argnames=("num_bins", "num_resamples", "count"))
def _drawn_eces(
    confidence,
    right,
    limit,
    cell,
    group_of_part,
    rows_of_group,
    plan,
    seed,
    num_bins,
    num_resamples,
    first=0,
    count=None,
):
    num_rows, num_groups = confidence.shape[0], rows_of_group.shape[0]

    def one(key, number):
        observed = number == num_resamples
        counts = jnp.where(observed, 1, row_counts(jax.random.fold_in(key, 0), plan))
        words = random_words(jax.random.fold_in(key, 1), num_rows)
        if plan.unit is None:
            by_chance = (words < limit).astype(jnp.float32) - confidence
        else:  # whole clusters with the one sign or the other, see clustered_null
            by_chance = jnp.where(words[plan.unit] >> 31, 1, -1) * (right - confidence)
        by_chance = jnp.where(observed, right - confidence, by_chance)
        gaps = jnp.stack([counts * (right - confidence), by_chance], axis=-1)
        sums = jax.ops.segment_sum(gaps, cell, group_of_part.shape[0] * num_bins)
        sums = sums.reshape(-1, num_bins, 2)
        sums = jax.ops.segment_sum(sums, group_of_part, num_groups)
        eces = jnp.abs(sums).sum(axis=1)
        drawn = rows_of_group  # clusters of several sizes: not as many rows in every resample
        if plan.unit is not None:
            drawn = jax.ops.segment_sum(counts, cell, group_of_part.shape[0] * num_bins)
            drawn = drawn.reshape(-1, num_bins).sum(axis=1)
            drawn = jax.ops.segment_sum(drawn, group_of_part, num_groups)
        return [eces[:, 0] / drawn, eces[:, 1] / rows_of_group]

    chunk = intervals._CHUNK_ELEMENTS // max(num_rows, 1)
    return map_draws(one, seed, count or num_resamples + 1, chunk, first)
