"""Methods measured on the same questions: means over seeds, intervals over questions, the best.

Source of the layout: Xiao et al. 2025, Table 2. Their in-domain test set is one mixture, so splits
of one domain are pooled, question by question.
"""

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.metrics.intervals import interval
from calib_jax.metrics.null import null_values, upper_quantile
from calib_jax.metrics.resampling import map_draws, row_counts, strata
from calib_jax.reports import measures
from calib_jax.reports.compare.comparison import (
    DOMAINS,
    METRICS,
    Comparison,
    Estimate,
    Part,
    Versus,
)

LEVEL = 0.95
# Row weights times methods that are held at once.
_CHUNK = 1 << 18


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
    parts, singles = {}, {}
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
      model, labels, reference, unchanged: as in ``Comparison``.
      num_bins, edges: of the calibration errors.
      seed, num_resamples: of the bootstrap.
    """
    names, seeds = list(scores), list(next(iter(scores.values())))
    first = scores[names[0]][seeds[0]]
    parts = parts_of(domains, {split: len(first[split]) for split in domains})
    rows: dict[str, dict[str, dict[str, Estimate]]] = {name: {} for name in names}
    chance: dict[str, dict[str, float]] = {name: {} for name in names}
    for key, part in parts.items():
        here = {
            name: [pooled({s: scores[name][k][s] for s in part.splits}) for k in seeds]
            for name in names
        }
        values, draws = _resample(list(here.values()), num_bins, edges, seed, num_resamples)
        for m, metric in enumerate(measures.logged(num_bins, edges)):
            found = estimates(names, metric, values[:, :, m], draws[:, :, m], reference, unchanged)
            for name, estimate in found.items():
                rows[name].setdefault(key, {})[metric] = estimate
        for name, by_seed in here.items():
            chance[name][key] = _chance(by_seed, num_bins, edges, seed, num_resamples)
    return Comparison(
        model, dict(labels), parts, tuple(seeds), reference, frozenset(unchanged), rows, chance
    )


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
      metric: a key of ``METRICS``.
      values: [P, S], of every seed.
      draws: [R, P], the mean over the seeds in every resample, the same questions for all.
      reference: the method that the others stand against; one that is not among them: none.
      unchanged: methods whose accuracy is another's, and is never called the best.
    """
    direction = METRICS[metric][1]
    means = values.mean(axis=1)
    eligible = np.isfinite(means)
    if metric == "accuracy":
        eligible &= [name not in unchanged for name in names]
    best = np.zeros(len(names), bool)
    if direction and eligible.sum() > 1:
        top = int(np.argmax(np.where(eligible, direction * means, -np.inf)))
        for i in np.flatnonzero(eligible):
            gap = _bounds(draws[:, i] - draws[:, top], means[i] - means[top], signed=True)
            # Worse beyond doubt: the whole interval of the difference on the bad side.
            worse = gap is not None and (gap[1] < 0 if direction > 0 else gap[0] > 0)
            best[i] = i == top or not worse
    found = {}
    base = names.index(reference) if reference in names else None
    for i, name in enumerate(names):
        versus = None
        if base is not None and i != base:
            each = values[i] - values[base]
            versus = _versus(draws[:, i] - draws[:, base], each)
        found[name] = Estimate(
            float(means[i]),
            tuple(map(float, values[i])),
            _bounds(draws[:, i], means[i], signed=False),
            bool(best[i]),
            versus,
        )
    return found


def _bounds(
    draws: np.ndarray, estimate: float, signed: bool, level: float = LEVEL
) -> tuple[float, float] | None:
    """The interval that ``metrics.bootstrap_all`` would give; None where it is not known."""
    if not math.isfinite(estimate):
        return None
    low, high = interval(draws, np.asarray(estimate), level, "bias_aware", signed=signed)
    return None if math.isnan(low) or math.isnan(high) else (float(low), float(high))


def _versus(draws: np.ndarray, each: np.ndarray) -> Versus:
    difference = float(each.mean())
    same = int(np.sum(np.sign(each) == np.sign(difference))) if difference else 0
    bounds = _bounds(draws, difference, signed=True)
    p_value = math.nan if bounds is None else _p_value(draws, difference)
    return Versus(difference, bounds, p_value, same)


def _p_value(draws: np.ndarray, difference: float) -> float:
    """The smallest 1 - level whose interval still leaves 0 out; 1 where none does.

    So p < 0.05 where the 95 % interval lies on one side of 0, and never less than the draws can
    tell, 2 / (R + 1).
    """
    if not difference:
        return 1.0

    def holds_zero(p: float) -> bool:
        bounds = _bounds(draws, difference, signed=True, level=1 - p)
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
    methods: Sequence[Sequence[Scores]],
    num_bins: int,
    edges: str,
    seed: int,
    num_resamples: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Every seed's values [P, S, F], and the seeds' mean in every resample [R, P, F]."""
    first = methods[0]
    # A question that several seeds ask is one question, whatever the order of its options.
    keys = list(dict.fromkeys(i for scores in first for i in scores.ids))
    place = {key: i for i, key in enumerate(keys)}
    groups = np.unique([key.rpartition("/")[0] for key in keys], return_inverse=True)[1]
    plan = strata(len(keys), groups)
    values, draws = [], np.zeros(())
    for s, scores in enumerate(first):
        rows = np.array([place[i] for i in scores.ids], np.int32)
        probs = np.stack([np.asarray(by_seed[s].probs) for by_seed in methods])
        found = np.asarray(
            _weighted(
                probs, scores.answers, scores.mask, rows, plan, jnp.uint32(seed),
                num_bins=num_bins, edges=edges, num_resamples=num_resamples,
            ),
            np.float64,
        )  # fmt: skip
        values.append(found[-1])
        draws = draws + found[:-1] / len(first)
    return np.stack(values, axis=1), draws


@functools.partial(jax.jit, static_argnames=("num_bins", "edges", "num_resamples"))
def _weighted(probs_PxNxK, answers, mask, rows_N, plan, seed, *, num_bins, edges, num_resamples):
    """Every metric of every method, [R + 1, P, F]: R resamples of the questions, then all once."""
    functions = measures.logged(num_bins, edges).values()

    def one(key: jax.Array, number: jax.Array) -> list[jax.Array]:
        weights = jnp.where(number == num_resamples, 1, row_counts(key, plan)[rows_N])

        def measure(probs: jax.Array) -> jax.Array:
            return jnp.stack([f(probs, answers, mask, weights=weights) for f in functions])

        return [jax.lax.map(measure, probs_PxNxK)]

    return map_draws(one, seed, num_resamples + 1, _CHUNK // max(answers.shape[0], 1))[0]


def _chance(scores: Sequence[Scores], num_bins: int, edges: str, seed: int, draws: int) -> float:
    functions = {"conf_ece": measures.logged(num_bins, edges)["conf_ece"]}
    quantiles = [
        upper_quantile(
            null_values(functions, s.probs, s.answers, s.mask, draws, seed)["conf_ece"][:-1], 0.95
        )
        for s in scores
    ]
    return float(np.mean(quantiles))
