"""Methods measured on the same questions: means over seeds, intervals over questions, the best.

Source of the layout: Xiao et al. 2025, Table 2. Their in-domain test set is one mixture, so splits
of one domain are pooled, question by question.
"""

import functools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.metrics.draws import (
    answer_limits,
    draw_answers,
    map_draws,
    row_counts,
    strata,
)
from calib_jax.metrics.intervals import change_interval, interval
from calib_jax.metrics.null import upper_quantile
from calib_jax.metrics.tails import call
from calib_jax.reports import catalogue
from calib_jax.reports.compare.comparison import DOMAINS, Comparison, Estimate, Part, Versus
from calib_jax.reports.measure import uniform

LEVEL = 0.95
# Row weights times methods that are held at once.
_CHUNK = 1 << 20


def pooled(splits: Mapping[str, Scores]) -> Scores:
    """The questions of several splits as one, padded to the most options; ids "split/id"."""
    width = max(scores.mask.shape[1] for scores in splits.values())

    def joined(name: str, fill: Any) -> np.ndarray:
        arrays = [np.asarray(getattr(scores, name)) for scores in splits.values()]
        pads = [((0, 0), (0, width - x.shape[1])) for x in arrays]
        padded = [np.pad(x, p, constant_values=fill) for x, p in zip(arrays, pads, strict=True)]
        return np.concatenate(padded)

    return Scores(
        log_scores=joined("log_scores", -np.inf),
        probs=joined("probs", 0),
        mask=joined("mask", False),
        answers=np.concatenate([np.asarray(s.answers) for s in splits.values()]),
        ids=tuple(f"{name}/{i}" for name, s in splits.items() for i in s.ids),
        tasks=tuple(task for s in splits.values() for task in s.tasks),
        subjects=tuple(subject for s in splits.values() for subject in s.subjects),
    )


def parts_of(domains: Mapping[str, str], sizes: Mapping[str, int]) -> dict[str, Part]:
    """The parts that a comparison measures; see ``Comparison``.

    >>> parts = parts_of({"a": "in", "b": "out", "c": "in"}, {"a": 2, "b": 3, "c": 5})
    >>> {name: part.questions for name, part in parts.items()}
    {'in': 7, 'out': 3, 'a': 2, 'c': 5}
    """
    parts: dict[str, Part] = {}
    singles: dict[str, Part] = {}
    for domain in DOMAINS:
        splits = tuple(split for split, of in domains.items() if of == domain)
        if splits:
            parts[domain] = Part(domain, splits, sum(sizes[split] for split in splits))
        if len(splits) > 1:
            # A split called "in" or "out" must not take a domain's place.
            singles |= {
                s if s not in DOMAINS else f"{s} (split)": Part(domain, (s,), sizes[s])
                for s in splits
            }
    return {**parts, **singles}


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
    counts once.

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
    values, draws, quantiles = _resample(everything, parts, seed, options)
    rows: dict[str, dict[str, dict[str, Estimate]]] = {name: {} for name in names}
    for p, key in enumerate(parts):
        for m, metric in enumerate(catalogue.functions(catalogue.LOG, num_bins, edges)):
            here = values[:, p, :, m], draws[:, p, :, m]
            for name, found in estimates(names, metric, *here, reference, unchanged).items():
                rows[name].setdefault(key, {})[metric] = found
    chance = {
        name: {key: float(quantiles[p, i]) for p, key in enumerate(parts)}
        for i, name in enumerate(names)
    }
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
) -> dict[str, Estimate]:
    """What a metric's values and resampled values say of the methods.

    Args:
      names: of P methods.
      metric: a key of the catalogue.
      values: [S, P], of every seed.
      draws: [R, P], the mean over the seeds in every resample, the same questions for all.
      reference: the method that the others are compared with; none where it is not among them.
      unchanged: methods whose accuracy is another's, and is never called the best.
    """
    direction = catalogue.get(metric).direction
    means = values.mean(axis=0)
    eligible = np.isfinite(means)
    if metric == "accuracy":
        eligible &= [name not in unchanged for name in names]
    best = np.zeros(len(names), bool)
    if direction and eligible.sum() > 1:
        top = int(np.argmax(np.where(eligible, direction * means, -np.inf)))
        for i in np.flatnonzero(eligible):
            gap = _bounds(draws[:, i], means[i], (draws[:, top], means[top]))
            # Worse beyond doubt: the whole interval of the difference on the bad side.
            worse = gap is not None and (gap[1] < 0 if direction > 0 else gap[0] > 0)
            best[i] = i == top or not worse
    found = {}
    base = names.index(reference) if reference in names else None
    for j, name in enumerate(names):
        versus = None
        if base is not None and j != base:
            mine, other = ((draws[:, k], means[k]) for k in (j, base))
            versus = _versus(*mine, other, values[:, j] - values[:, base])
        found[name] = Estimate(
            float(means[j]),
            tuple(map(float, values[:, j])),
            _bounds(draws[:, j], means[j]),
            bool(best[j]),
            versus,
        )
    return found


# Resampled values [R] of a method, and its value.
Side = tuple[np.ndarray, float]


def _bounds(
    draws: np.ndarray, value: float, other: Side | None = None, level: float = LEVEL
) -> tuple[float, float] | None:
    """The interval that ``metrics.bootstrap_all`` would give, or of the difference to another
    method ``metrics.paired_bootstrap_all``; None where it is not known."""
    if not math.isfinite(value if other is None else value - other[1]):
        return None
    if other is None:
        low, high = interval(draws, np.asarray(value), level, "bias_aware")
    else:
        sides = (np.append(*side) for side in (other, (draws, value)))
        low, high = change_interval(*sides, level, "bias_aware")
    return None if math.isnan(low) or math.isnan(high) else (float(low), float(high))


def _versus(draws: np.ndarray, value: float, other: Side, each: np.ndarray) -> Versus:
    difference = float(each.mean())
    same = int(np.sum(np.sign(each) == np.sign(difference))) if difference else 0
    bounds = _bounds(draws, value, other)
    p_value = math.nan if bounds is None else _p_value(draws, value, other)
    return Versus(difference, bounds, p_value, same)


def _p_value(draws: np.ndarray, value: float, other: Side) -> float:
    """The smallest 1 - level whose interval still leaves 0 out; 1 where none does.

    So p < 0.05 where the 95 % interval lies on one side of 0, and never less than the draws can
    tell, 2 / (R + 1).
    """
    if value == other[1]:
        return 1.0

    def holds_zero(p: float) -> bool:
        bounds = _bounds(draws, value, other, level=1 - p)
        return bounds is None or bounds[0] <= 0 <= bounds[1]

    low, high = 2 / (len(draws) + 1), 1 - 1e-6
    if not holds_zero(low):
        return low
    if holds_zero(high):
        return 1.0
    while high - low > 5e-4:
        middle = (low + high) / 2
        low, high = (middle, high) if holds_zero(middle) else (low, middle)
    return high


def _resample(
    methods: Sequence[Sequence[Scores]], parts: Mapping[str, Part], seed: int, options: Mapping
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values and resampled values of every metric, and what chance makes of conf-ECE.

    Args:
      methods: P times S pooled scores of all splits.
      parts: Q of them.
      seed: of the draws.
      options: num_bins, edges and num_resamples, R.

    Returns:
      [S, Q, P, F] of every seed; [R, Q, P, F], the seeds' mean in every resample; [Q, P], the 95 %
      quantile of conf-ECE under perfect calibration, mean over the seeds.
    """
    first = methods[0]
    # A question that several seeds ask is one question, whatever the order of its options.
    keys = list(dict.fromkeys(i for scores in first for i in scores.ids))
    place = {key: i for i, key in enumerate(keys)}
    split_of = np.array([key.partition("/")[0] for key in keys])  # ids may hold slashes
    plan = strata(len(keys), np.unique(split_of, return_inverse=True)[1])
    values: list[np.ndarray] = []
    draws, quantiles = np.zeros(()), np.zeros(())
    for s, scores in enumerate(first):
        rows = np.array([place[i] for i in scores.ids], np.int32)
        # The questions of a part: the rest weigh nothing, so all parts share one compilation.
        member = np.stack([np.isin(split_of[rows], part.splits) for part in parts.values()])
        probs = np.stack([np.asarray(by_seed[s].probs) for by_seed in methods])
        limits = jnp.stack([answer_limits(one) for one in probs])
        logs = np.stack([np.asarray(by_seed[s].log_scores) for by_seed in methods])
        arrays = probs, logs, limits, scores.answers, scores.mask, member.astype(np.float32), rows
        found, null = _weighted(*arrays, plan, jnp.uint32(seed), **options)
        found = np.asarray(found, np.float64)
        values.append(found[-1])
        draws = draws + found[:-1] / len(first)
        quantiles = quantiles + upper_quantile(np.asarray(null)[:-1], 0.95) / len(first)
    return np.stack(values), draws, quantiles


@functools.partial(jax.jit, static_argnames=("num_bins", "edges", "num_resamples"))
def _weighted(
    probs_PxNxK,
    logs_PxNxK,
    limits,
    answers,
    mask,
    member_QxN,
    rows_N,
    plan,
    seed,
    *,
    num_bins,
    edges,
    num_resamples,
):
    """[R + 1, Q, P, F]: R resamples of the questions, then all once; [R + 1, Q, P]: conf-ECE of
    answers that are drawn from the probabilities themselves."""
    functions = catalogue.functions(catalogue.LOG, num_bins, edges)

    def one(key: jax.Array, number: jax.Array) -> list[jax.Array]:
        counts = jnp.where(number == num_resamples, 1, row_counts(key, plan)[rows_N])
        drawn_PxN = jax.vmap(lambda limit: draw_answers(key, limit))(limits)

        def measure(method: tuple, weights: jax.Array) -> jax.Array:
            return jnp.stack(
                [call(f, method[0], answers, mask, weights, method[2]) for f in functions.values()]
            )

        def by_chance(method: tuple, weights: jax.Array) -> jax.Array:
            return functions["conf_ece"](method[0], method[1], mask, weights=weights)

        def every(function: Callable, weigh: Callable) -> jax.Array:
            return jax.lax.map(
                lambda member: jax.lax.map(
                    lambda method: function(method, weigh(member)),
                    (probs_PxNxK, drawn_PxN, logs_PxNxK),
                ),
                member_QxN,
            )

        return [
            every(measure, lambda member: counts * member),
            every(by_chance, lambda member: member),
        ]

    chunk = _CHUNK // max(probs_PxNxK.shape[0] * answers.shape[0], 1)
    return map_draws(one, seed, num_resamples + 1, chunk)
