"""Methods measured on the same questions: means over seeds, intervals over questions, the best.

Source of the layout: Xiao et al. 2025, Table 2. Their in-domain test set is one mixture, so splits
of one domain are pooled, question by question.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.metrics.bins import bin_stats
from calib_jax.metrics.clusters import expanded_level
from calib_jax.metrics.confidence_set import change_p_value
from calib_jax.metrics.draws import (
    answer_limits,
    draw_answers,
    map_draws,
    random_words,
    row_counts,
    strata,
)
from calib_jax.metrics.intervals import change_interval, interval
from calib_jax.metrics.null import upper_quantile
from calib_jax.metrics.tails import call
from calib_jax.metrics.within import within_folds
from calib_jax.reports import best, catalogue, zeros
from calib_jax.reports.compare import differences
from calib_jax.reports.compare.comparison import Comparison, Estimate, Part, Versus
from calib_jax.reports.compare.parts import parts_of, pooled
from calib_jax.reports.measure import uniform

LEVEL = 0.95
# Row weights times methods that are held at once.
_CHUNK = 1 << 20


def compare(
    scores: Mapping[str, Mapping[int, Mapping[str, Scores]]],
    domains: Mapping[str, str],
    *,
    model: str,
    labels: Mapping[str, str],
    reference: str,
    unchanged: Collection[str] = (),
    remarks: Collection[str] = (),
    settings: Mapping[str, Mapping[str, str]] | None = None,
    num_bins: int = 10,
    edges: str = "right",
    seed: int = 0,
    num_resamples: int = 1000,
) -> Comparison:
    """Measures methods on the same questions.

    A resample draws questions with replacement, within each split, and the same for every method
    and every seed's model; so differences are paired, and a question that several seeds share
    counts once. Questions of one cluster (``Scores.clusters``) are drawn together, and a part's
    intervals are then those of ``metrics.expanded_level``.

    Args:
      scores: method -> seed -> split -> scores; every method of a seed on the same questions.
      domains: split -> "in" or "out".
      model, labels, reference, unchanged, remarks, settings: as in ``Comparison``.
      num_bins, edges: of the calibration errors.
      seed, num_resamples: of the bootstrap.
    """
    names, seeds = list(scores), list(next(iter(scores.values())))
    first = scores[names[0]][seeds[0]]
    parts = parts_of(domains, {split: len(first[split]) for split in domains})
    everything = [
        [pooled({split: scores[name][k][split] for split in domains}) for k in seeds]
        for name in names
    ]
    options = {"num_bins": num_bins, "edges": edges, "num_resamples": num_resamples}
    values, draws, quantiles, counts = _resample(everything, parts, seed, options)
    parts = {
        key: dataclasses.replace(part, clusters=drawn[0]) if drawn else part
        for (key, part), drawn in zip(parts.items(), counts, strict=True)
    }
    rows: dict[str, dict[str, dict[str, Estimate]]] = {name: {} for name in names}
    columns: dict[tuple[str, str, str], np.ndarray] = {}
    for p, (key, part) in enumerate(parts.items()):
        for m, metric in enumerate(catalogue.functions(catalogue.LOG, num_bins, edges)):
            here = values[:, p, :, m], draws[:, p, :, m]
            found = estimates(names, metric, *here, reference, unchanged, part.questions, counts[p])
            for j, (name, estimate) in enumerate(found.items()):
                columns[name, key, metric] = here[1][:, j]
                if metric == "accuracy" and estimate.versus is not None and counts[p] is None:
                    sides = everything[names.index(reference)], everything[j]
                    low, high, p_value = differences.of_accuracy(*sides, part.splits, LEVEL)
                    versus = dataclasses.replace(
                        estimate.versus, interval=(low, high), p_value=p_value
                    )
                    estimate = dataclasses.replace(estimate, versus=versus)
                rows[name].setdefault(key, {})[metric] = estimate
    differences.adjusted(rows, reference, columns)
    chance = {
        name: {key: float(quantiles[p, i]) for p, key in enumerate(parts)}
        for i, name in enumerate(names)
    }
    for name, by_part in rows.items():
        for key, found in by_part.items():
            if "conf_ece" in found:
                found["conf_ece"] = differences.by_chance(found["conf_ece"], chance[name][key])
    return Comparison(
        model,
        dict(labels),
        parts,
        tuple(seeds),
        reference,
        frozenset(unchanged),
        rows,
        chance,
        {key: _guesser(scores[names[0]], part) for key, part in parts.items()},
        tuple(remarks),
        settings or {},
        first[next(iter(domains))].method,
    )


def _guesser(by_seed: Mapping[int, Mapping[str, Scores]], part: Part) -> dict[str, Any]:
    """What a uniform guesser gets on a part's questions, of all seeds."""
    every = (found[split].mask for found in by_seed.values() for split in part.splits)
    return uniform(np.concatenate([np.asarray(mask, bool).sum(axis=1) for mask in every]))


def estimates(
    names: Sequence[str],
    metric: str,
    values: np.ndarray,
    draws: np.ndarray,
    reference: str,
    unchanged: Collection[str] = (),
    questions: int | None = None,
    clusters: tuple[int, int] | None = None,
) -> dict[str, Estimate]:
    """What a metric's values and resampled values say of the methods.

    Args:
      names: of P methods.
      metric: a key of the catalogue.
      values: [S, P], of every seed.
      draws: [R, P], the mean over the seeds in every resample, the same questions for all.
      reference: the method that the others are compared with; none where it is not among them.
      unchanged: methods whose accuracy is another's, and is never called the best.
      questions: how many; None where that is not known (``best.column``).
      clusters: how many of them were drawn, in how many splits; None where questions were.
    """
    means = values.mean(axis=0)
    eligible = [metric != "accuracy" or name not in unchanged for name in names]
    drawn = questions if clusters is None else clusters[0]
    p_values = best.column(catalogue.get(metric).direction, means, draws, eligible, drawn)
    found = {}
    base = names.index(reference) if reference in names else None
    for j, name in enumerate(names):
        versus = None
        if base is not None and j != base:
            mine, other = ((draws[:, k], means[k]) for k in (j, base))
            versus = _versus(*mine, other, values[:, j] - values[:, base], clusters)
        found[name] = Estimate(
            float(means[j]),
            tuple(map(float, values[:, j])),
            _bounds(draws[:, j], means[j], clusters=clusters),
            best.is_bold(p_values[j]),
            versus,
            p_values[j],
        )
    return found


# Resampled values [R] of a method, and its value.
Side = tuple[np.ndarray, float]


def _bounds(
    draws: np.ndarray,
    value: float,
    other: Side | None = None,
    level: float = LEVEL,
    clusters: tuple[int, int] | None = None,
) -> tuple[float, float] | None:
    """The interval that ``metrics.bootstrap_all`` would give, or of the difference to another
    method ``metrics.paired_bootstrap_all``; None where it is not known."""
    if not math.isfinite(value if other is None else value - other[1]):
        return None
    level = level if clusters is None else expanded_level(level, *clusters)
    if other is None:
        low, high = interval(draws, np.asarray(value), level, "bias_aware")
    else:
        first, last = (np.append(*side) for side in (other, (draws, value)))
        low, high = change_interval(first, last, level, "bias_aware")
    return None if math.isnan(low) or math.isnan(high) else (float(low), float(high))


def _versus(
    draws: np.ndarray,
    value: float,
    other: Side,
    each: np.ndarray,
    clusters: tuple[int, int] | None = None,
) -> Versus:
    difference = float(each.mean())
    same = int(np.sum(np.sign(each) == np.sign(difference))) if difference else 0
    bounds = _bounds(draws, value, other, clusters=clusters)
    p_value = math.nan
    if bounds is not None:
        expand = None if clusters is None else lambda level: expanded_level(level, *clusters)
        first, last = (np.append(*side) for side in (other, (draws, value)))
        p_value = change_p_value(first, last, expand)
    return Versus(difference, bounds, p_value, same)


def _resample(
    methods: Sequence[Sequence[Scores]], parts: Mapping[str, Part], seed: int, options: Mapping
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[tuple[int, int] | None]]:
    """Values and resampled values of every metric, and what chance makes of conf-ECE.

    Args:
      methods: P times S pooled scores of all splits.
      parts: Q of them.
      seed: of the draws.
      options: num_bins, edges and num_resamples, R.

    Returns:
      [S, Q, P, F] of every seed; [R, Q, P, F], the seeds' mean in every resample; [Q, P], the 95 %
      quantile of conf-ECE under perfect calibration, mean over the seeds; every part's clusters
      and splits, None where no two of its questions share a cluster.
    """
    first = methods[0]
    # A question that several seeds ask is one question, whatever the order of its options.
    keys = list(dict.fromkeys(i for scores in first for i in scores.ids))
    place = {key: i for i, key in enumerate(keys)}
    split_of = np.array([key.partition("/")[0] for key in keys])  # ids may hold slashes
    # Of a question without a cluster, the question itself; ids and clusters may share names.
    cluster_of: dict[str, tuple[str | None, str | None]] = {}
    for scores in first:
        for key, name in zip(scores.ids, scores.clusters or [None] * len(scores), strict=True):
            cluster_of.setdefault(key, (name, None) if name is not None else (None, key))
    numbers = {name: i for i, name in enumerate(dict.fromkeys(cluster_of.values()))}
    cluster = np.array([numbers[cluster_of[key]] for key in keys])
    split = np.unique(split_of, return_inverse=True)[1]
    plan = strata(len(keys), split, cluster if len(numbers) < len(keys) else None)
    counts: list[tuple[int, int] | None] = []
    for part in parts.values():
        here = np.isin(split_of, part.splits)
        drawn = len(np.unique(cluster[here]))
        counts.append((drawn, len(part.splits)) if drawn < here.sum() else None)
    values: list[np.ndarray] = []
    draws, quantiles = np.zeros(()), np.zeros(())
    for s, scores in enumerate(first):
        rows = np.array([place[i] for i in scores.ids], np.int32)
        # The questions of a part: the rest weigh nothing, so all parts share one compilation.
        member = np.stack([np.isin(split_of[rows], part.splits) for part in parts.values()])
        probs = np.stack([np.asarray(by_seed[s].probs) for by_seed in methods])
        limits = jnp.stack([answer_limits(one) for one in probs])
        logs = np.stack([zeros.as_read(by_seed[s]) for by_seed in methods])
        whole = np.zeros(len(rows), np.int32)  # one fold of all rows, where none was held out
        folds = np.stack([whole if (f := by_seed[s].folds) is None else f for by_seed in methods])
        arrays = probs, logs, folds, limits, scores.answers, scores.mask
        found, null = _weighted(
            *arrays,
            member.astype(np.float32),
            rows,
            plan,
            jnp.uint32(seed),
            num_folds=int(folds.max()) + 1,
            **options,
        )
        found = np.asarray(found, np.float64)
        values.append(found[-1])
        draws = draws + found[:-1] / len(first)
        quantiles = quantiles + upper_quantile(np.asarray(null)[:-1], 0.95) / len(first)
    return np.stack(values), draws, quantiles, counts


@functools.partial(jax.jit, static_argnames=("num_folds", "num_bins", "edges", "num_resamples"))
def _weighted(
    probs_PxNxK,
    logs_PxNxK,
    folds_PxN,
    limits,
    answers,
    mask,
    member_QxN,
    rows_N,
    plan,
    seed,
    *,
    num_folds,
    num_bins,
    edges,
    num_resamples,
):
    """[R + 1, Q, P, F]: R resamples of the questions, then all once; [R + 1, Q, P]: conf-ECE of
    answers that are drawn from the probabilities themselves (with clusters, of turned signs)."""
    functions = catalogue.functions(catalogue.LOG, num_bins, edges)

    def one(key: jax.Array, number: jax.Array) -> list[jax.Array]:
        counts = jnp.where(number == num_resamples, 1, row_counts(key, plan)[rows_N])
        drawn_PxN = jax.vmap(lambda limit: draw_answers(key, limit))(limits)

        def measure(method: tuple, weights: jax.Array) -> jax.Array:
            def value(key: str, function: Callable) -> jax.Array:
                rows = method[0], answers, mask, weights
                if num_folds == 1 or not catalogue.get(key).ranked:
                    return call(function, *rows, method[2])
                folds = {"folds": method[3], "num_folds": num_folds}
                return within_folds(function, *rows, **folds, log_scores=method[2])

            return jnp.stack([value(*each) for each in functions.items()])

        def by_chance(method: tuple, weights: jax.Array) -> jax.Array:
            if plan.unit is not None:  # as ``metrics.clustered_null``
                coins = random_words(key, plan.num_rows)[plan.unit] >> 31
                signs = jnp.where(number == num_resamples, 1, 2 * coins.astype(jnp.int32) - 1)
                arrays = method[0], answers, mask, num_bins, edges, signs[rows_N] * weights
                return jnp.abs(bin_stats(*arrays).gap()).sum() / weights.sum()
            return functions["conf_ece"](method[0], method[1], mask, weights=weights)

        def every(function: Callable, weigh: Callable) -> jax.Array:
            return jax.lax.map(
                lambda member: jax.lax.map(
                    lambda method: function(method, weigh(member)),
                    (probs_PxNxK, drawn_PxN, logs_PxNxK, folds_PxN),
                ),
                member_QxN,
            )

        return [
            every(measure, lambda member: counts * member),
            every(by_chance, lambda member: member),
        ]

    chunk = _CHUNK // max(probs_PxNxK.shape[0] * answers.shape[0], 1)
    return map_draws(one, seed, num_resamples + 1, chunk)
