"""Do 95 % intervals hold the truth 95 % of the time? Synthetic models, known truth.

Scores s ~ N(0, sd^2), K = 4, answers drawn from softmax(s), reported probabilities softmax(T s):
calibrated at T = 1. Two equal models see s with a noise of their own each; the sharp and the blunt
calibrated model know all of s and a part of it. The truth is the value in the population: a
million rows, answers replaced by their known probabilities, binned errors with the metric's own
bins (0 where calibrated), the smooth ECE from drawn answers. The intervals are those of reports.

    python benchmarks/interval_coverage.py [--draws=300] [--resamples=300] [--quick] \
[--output=docs/coverage.md]
"""

import argparse
import functools
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax import metrics
from calib_jax.metrics import intervals, null
from calib_jax.metrics.draws import strata
from calib_jax.reports import catalogue

SIZES = 50, 200, 1000
LEVEL = 0.95
# (sd, T)
MODELS = {
    "calibrated": (1.5, 1.0),
    "sharp, calibrated": (6.0, 1.0),
    "near chance, calibrated": (0.25, 1.0),
    "slightly over (T = 1.2)": (1.5, 1.2),
    "over (T = 2)": (1.5, 2.0),
    "under (T = 0.5)": (1.5, 0.5),
    "near chance, over (T = 6)": (0.25, 6.0),
    "sharp, over (T = 2)": (6.0, 2.0),
}
# Noise of each side's own, then T of both; () for the sharp and the blunt model.
CHANGES = {
    "over → calibrated": (0.0, 2.0, 1.0),
    "slightly over → calibrated": (0.0, 1.2, 1.0),
    "two equal, both over": (0.5, 2.0, 2.0),
    "two equal, near calibrated": (0.5, 0.9, 0.9),
    "sharp → blunt, both calibrated": (),
}
TESTED = tuple(metric.key for metric in catalogue.at(catalogue.NULL))
OTHERS = ("nll", "brier", "mean_confidence", "auroc", "auprc", "aurc", "sce_ovr", "mce")
# A Fourier transform per step of its search for the bandwidth: a fifth of the draws.
SLOW, SLOW_SHARE = ("smooth_ece",), 5
QUICK = tuple(key for key in (*TESTED, *OTHERS) if key not in SLOW)
CHANGED = {key: catalogue.get(key).function for key in ("conf_ece", "cw_ece", "nll", "brier")}


def softmax(scores):
    return jax.nn.softmax(scores, axis=-1)


def sample(key, num_rows, sd, scale):
    """log probs [N, 4], answers [N] and the true probabilities [N, 4]."""
    for_scores, for_answers = jax.random.split(key)
    scores = sd * jax.random.normal(for_scores, (num_rows, 4))
    answers = jax.random.categorical(for_answers, scores)
    return jax.nn.log_softmax(scale * scores), answers, softmax(scores)


def sample_pair(key, num_rows, kind):
    """probs of both sides [N, 4], answers [N] and the true probabilities [N, 4]."""
    keys = jax.random.split(key, 4)
    scores = jax.random.normal(keys[0], (num_rows, 4))
    if not kind:
        # The blunt one does not know which of 32 shifts there is: the mean over them is right.
        shifts = 3 * jax.random.normal(jax.random.key(0), (32, 1, 4))
        own = shifts[jax.random.randint(keys[1], (num_rows,), 0, 32), 0]
        true = softmax(scores + own)
        sides = true, softmax(scores + shifts).mean(axis=0)
    else:
        noise, *scales = kind
        scores, true = 1.5 * scores, softmax(1.5 * scores)
        seen = [scores + noise * jax.random.normal(k, scores.shape) for k in keys[1:3]]
        sides = tuple(softmax(t * s) for t, s in zip(scales, seen, strict=True))
    return sides, jax.random.categorical(keys[3], jnp.log(true)), true


@functools.cache
def population(sd, scale, num_rows=1_000_000):
    """key -> the metric's value for infinitely many rows."""
    logs, answers, true = sample(jax.random.key(2**31), num_rows, sd, scale)
    smooth = 0.0 if scale == 1 else float(metrics.smooth_ece(jnp.exp(logs), answers))
    p, q = np.exp(np.asarray(logs, np.float64)), np.asarray(true, np.float64)
    top = p.argmax(axis=1)
    confidence, right = (x[np.arange(num_rows), top] for x in (p, q))

    def gaps(values, frequencies):
        index = np.asarray(metrics.bin_index(values))
        return np.bincount(index, minlength=10), np.bincount(index, frequencies - values, 10)

    count, gap = gaps(confidence, right)
    classes = np.stack([gaps(p[:, k], q[:, k])[1] for k in range(4)])
    decided = [np.where(top == k, q[:, k], 1 - q[:, k]) for k in range(4)]
    ovr = np.stack([gaps(p[:, k], decided[k])[1] for k in range(4)])
    order = np.argsort(confidence)
    parts = np.array_split(order, 10)
    square = np.sum(gap**2 / np.maximum(count, 1)) / num_rows
    filled = count > 1e-5 * num_rows
    errors = {
        "conf_ece": np.abs(gap).sum() / num_rows,
        "squared_ece": square,
        "rmsce": np.sqrt(square),
        "mce": np.max(np.abs(gap[filled]) / count[filled]),
        "cw_ece": np.abs(classes).sum() / num_rows / 4,
        "pooled_ece": np.abs(classes.sum(axis=0)).sum() / num_rows / 4,
        "adaptive_ece": sum(abs(np.sum((right - confidence)[part])) for part in parts) / num_rows,
    }
    if scale == 1:
        errors = dict.fromkeys(errors, 0.0)
    hits, misses = right[order], 1 - right[order]
    below = misses.cumsum() - misses / 2
    precision = hits[::-1].cumsum() / np.arange(1, num_rows + 1)
    return errors | {
        "smooth_ece": smooth,
        "accuracy": right.mean(),
        "mean_confidence": confidence.mean(),
        "nll": -(q * np.asarray(logs, np.float64)).sum(axis=1).mean(),
        "brier": (p * p - 2 * p * q + q).sum(axis=1).mean(),
        "sce_ovr": np.abs(ovr).sum() / num_rows / 4,
        "auroc": (hits * below).sum() / hits.sum() / misses.sum(),
        "auprc": (hits[::-1] * precision).sum() / hits.sum(),
        "aurc": (1 - precision).mean(),
    }


@functools.partial(jax.jit, static_argnames=("keys", "num_rows", "num_draws", "num_resamples"))
def resampled(keys, sd, scale, num_rows, num_draws, num_resamples):
    """What bootstrap and null see in each draw, [draws, R + 1] per metric, and the draws."""
    plan = strata(num_rows)
    tested = [key for key in keys if key in TESTED]
    every, those = (tuple(catalogue.get(k).function for k in x) for x in (keys, tested))

    def one(number):
        key = jax.random.fold_in(jax.random.key(1), number)
        logs, answers, _ = sample(key, num_rows, sd, scale)
        rows = (probs := jnp.exp(logs)), answers, None
        seed = number.astype(jnp.uint32)
        found = intervals._resampled(every, (probs,), (None,), *rows[1:], plan, seed, num_resamples)
        limits = jnp.cumsum(probs, axis=1)[:, :-1] * 2.0**32
        limits = jnp.minimum(limits, 2.0**32 - 256).astype(jnp.uint32)
        drawn = null._drawn(those, *rows, limits, seed, num_resamples)
        return [sides[0] for sides in found], drawn, rows[:2]

    found, drawn, rows = jax.lax.map(one, jnp.arange(num_draws))
    return dict(zip(keys, found, strict=True)), dict(zip(tested, drawn, strict=True)), rows


@functools.partial(jax.jit, static_argnames=("num_rows", "num_draws", "num_resamples"))
def resampled_pairs(kind, num_rows, num_draws, num_resamples):
    """Per metric the values of both sides, [draws, R + 1] each, and the draws."""
    plan = strata(num_rows)

    def one(number):
        key = jax.random.fold_in(jax.random.key(2), number)
        sides, answers, _ = sample_pair(key, num_rows, kind)
        found = intervals._resampled(
            tuple(CHANGED.values()),
            sides,
            (None, None),
            answers,
            None,
            plan,
            number.astype(jnp.uint32),
            num_resamples,
        )
        return found, (*sides, answers)

    found, rows = jax.lax.map(one, jnp.arange(num_draws))
    return dict(zip(CHANGED, found, strict=True)), rows


def held(low, high, truth):
    """The share of intervals that hold the truth; an undefined one (NaN) does not count."""
    known = ~np.isnan(low)
    return np.mean(((low <= truth + 1e-9) & (truth - 1e-9 <= high))[known]) if known.any() else None


def of_models(sizes, num_draws, num_resamples):
    """Two tables, stated intervals and bootstrap alone: (metric, model, size) -> coverage."""
    stated, alone = {}, {}
    for model, (sd, scale) in MODELS.items():
        truth = population(sd, scale)
        for size in sizes:
            few = max(1, num_draws // SLOW_SHARE)
            slow = resampled(SLOW, sd, scale, size, few, num_resamples)
            found, drawn, rows = resampled(QUICK, sd, scale, size, num_draws, num_resamples)
            found, drawn = found | slow[0], drawn | slow[1]
            for key, values in found.items():
                values = np.asarray(values, np.float64)
                draws, estimate = values[:, :-1].T, values[:, -1]
                low, high = intervals.interval(draws, estimate, LEVEL, "bias_aware")
                alone[key, model, size] = held(low, high, truth[key])
                if key in TESTED:
                    null_values = np.asarray(drawn[key], np.float64)
                    low = metrics.low_by_test(low, null_values[:, -1], null_values[:, :-1].T, LEVEL)
                stated[key, model, size] = held(low, high, truth[key])
            probs, answers = map(np.asarray, rows)
            ends = [metrics.squared_ece_interval(*r) for r in zip(probs, answers, strict=True)]
            stated["squared_ece", model, size] = held(*np.transpose(ends), truth["squared_ece"])
            right = (probs.argmax(axis=2) == answers).sum(axis=1)
            ends = metrics.wilson_interval(right, size)
            stated["accuracy", model, size] = held(*ends, truth["accuracy"])
    return stated, alone


def of_changes(sizes, num_draws, num_resamples):
    """(metric, change, size) -> coverage of the change's interval."""
    found = {}
    for change, kind in CHANGES.items():
        truth = dict.fromkeys((*CHANGED, "squared_ece"), 0.0)
        if kind:
            first, last = (population(1.5, scale) for scale in kind[1:])
            truth = {key: last[key] - first[key] for key in truth}
        else:  # both are calibrated, and the blunt one tells less
            sides, _, true = sample_pair(jax.random.key(3), 1_000_000, kind)
            p, q = (np.asarray(x, np.float64) for x in (sides, true))
            nll, brier = -(q * np.log(p)).sum(axis=2), (p * p - 2 * p * q + q).sum(axis=2)
            truth |= {k: x[1].mean() - x[0].mean() for k, x in (("nll", nll), ("brier", brier))}
        for size in sizes:
            values, rows = resampled_pairs(kind, size, num_draws, num_resamples)
            for key, sides in values.items():
                before, after = (np.asarray(side, np.float64).T for side in sides)
                ends = intervals.change_interval(before, after, LEVEL, "bias_aware")
                found[key, change, size] = held(*ends, truth[key])
            ends = [
                metrics.paired_squared_ece_interval(*row)
                for row in zip(*map(np.asarray, rows), strict=True)
            ]
            found["squared_ece", change, size] = held(*np.transpose(ends), truth["squared_ece"])
    return found


def table(found, sizes):
    """Metrics down, models or changes across; a cell holds a coverage per size."""

    def shown(key, size, value):
        text = "–" if value is None else f"{value:.2f}".lstrip("0")
        metric = catalogue.get(key)
        given = (metric.interval or key == "squared_ece") and size >= metric.least
        return text if given else f"({text})"

    columns = list(dict.fromkeys(model for _, model, _ in found))
    order = [m.key for m in catalogue.METRICS if any(key == m.key for key, *_ in found)]
    lines = [f"| metric | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for key in order:
        cells = (" ".join(shown(key, n, found[key, one, n]) for n in sizes) for one in columns)
        lines.append(f"| {catalogue.get(key).label} | {' | '.join(cells)} |")
    return "\n".join(lines)


PAGE = """# Coverage of the intervals

How often a nominal 95 % interval holds the truth: {draws} draws of each model (smooth ECE: {few}),
{resamples} resamples and as many draws under calibration. A cell reads n = {sizes}. One standard
error of a coverage of .95 is {error:.3f}. In parentheses: intervals that reports do not state, for
that reason. The models: K = 4, scores of a normal distribution, overconfident by T = 2 where every
score is doubled; sharp models are right in 88 % of the cases, those near chance in 32 %. Made by
`python benchmarks/interval_coverage.py --output=docs/coverage.md`.

## One model

The intervals of reports and of `summary.json`. Those of calibration errors hold 0 exactly where
the p-value is above .05 (`metrics.low_by_test`).

{stated}

The same by `metrics.bootstrap` alone, which knows no p-value:

{alone}

## A change

The intervals of paired differences, `metrics.paired_bootstrap` and
`metrics.paired_squared_ece_interval`. These are other figures than those of one model: two sides
have two biases.

{changes}
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=300)
    parser.add_argument("--resamples", type=int, default=300)
    parser.add_argument("--quick", action="store_true", help="few draws of the smaller sizes")
    parser.add_argument("--output", help="a Markdown file to write")
    args = parser.parse_args()
    started = time.perf_counter()
    draws, sizes = (20, SIZES[:2]) if args.quick else (args.draws, SIZES)
    stated, alone = of_models(sizes, draws, args.resamples)
    page = PAGE.format(
        draws=draws,
        few=max(1, draws // SLOW_SHARE),
        resamples=args.resamples,
        sizes=", ".join(map(str, sizes)),
        error=(0.95 * 0.05 / draws) ** 0.5,
        stated=table(stated, sizes),
        alone=table({k: v for k, v in alone.items() if k[0] in TESTED}, sizes),
        changes=table(of_changes(sizes, draws, args.resamples), sizes),
    )
    if args.output:
        pathlib.Path(args.output).write_text(page)
    print(page)
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
