"""Is what a table calls the best, and significantly better, so? Methods of known merit.

Scores s ~ N(0, 1.5^2), K = 4, answers drawn from softmax(s). Methods that are equal in the
population report softmax(2 (s + e)) with noise e ~ N(0, 0.5^2) of their own, on the same questions.

1. P equal methods: the share of tables in which some lose their bold. Old: what is worse than the
   best of the table by the percentile interval of the difference loses it.
2. One method is worse than P - 1 equal ones, or better, by some standard errors of the paired
   difference: how often those that are worse lose their bold.
3. softmax(1.5 s) against softmax(s): how often the overview says that the second is the best by
   NLL. Old: where the two intervals do not overlap.
4. P methods against a reference that is their equal, three metrics, two domains: how many tables have
   any "significantly better". Old: each p-value on its own.

    python benchmarks/which_is_best.py [--tables 200] [--resamples 500] [--quick]
"""

import argparse

import numpy as np

from calib_jax.reports import best
from calib_jax.reports.compare import differences, measure

OPTIONS, BINS = 4, 10
METRICS = "conf_ece", "nll", "accuracy"
DIRECTION = {"conf_ece": -1, "nll": -1, "accuracy": 1}
SIZES, SIZE = (50, 200), 200


def softmax(scores):
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def questions(rng, count):
    scores = 1.5 * rng.normal(size=(count, OPTIONS))
    drawn = softmax(scores).cumsum(axis=1) < rng.random((count, 1))
    return scores, drawn.sum(axis=1).clip(0, OPTIONS - 1)


def equals(rng, count, methods):
    """[P, N, K] probabilities of methods of equal merit, and the answers."""
    scores, answers = questions(rng, count)
    noise = 0.5 * rng.normal(size=(methods, *scores.shape))
    return softmax(2 * (scores + noise)), answers


def resampled(rng, probs, answers, resamples):
    """metric -> [R + 1, P]: its values on resampled questions, then on all."""
    count = len(answers)
    weights = rng.multinomial(count, np.full(count, 1 / count), size=resamples) / count
    weights = np.vstack([weights, np.full(count, 1 / count)])
    found = {metric: [] for metric in METRICS}
    rows = np.arange(count)
    for p in probs:
        top = p.argmax(axis=1)
        confidence, right = p[rows, top], (top == answers).astype(float)
        place = np.ceil(confidence * BINS).astype(int).clip(1, BINS) - 1
        gaps = np.zeros((count, BINS))
        gaps[rows, place] = right - confidence
        found["conf_ece"].append(np.abs(weights @ gaps).sum(axis=1))
        found["nll"].append(-weights @ np.log(p[rows, answers]))
        found["accuracy"].append(weights @ right)
    return {metric: np.stack(columns, axis=1) for metric, columns in found.items()}


def old_bold(metric, values, draws):
    """What the percentile interval of the difference does not call worse than the table's best."""
    goodness, draws = DIRECTION[metric] * values, DIRECTION[metric] * draws
    top = goodness.argmax()
    high = np.quantile(draws - draws[:, [top]], 0.975, axis=0, method="higher")
    return (high >= 0) | (np.arange(len(values)) == top)


def estimates(metric, table, reference="none"):
    names = [f"m{i}" for i in range(table.shape[1])]
    return measure.estimates(names, metric, table[-1:], table[:-1], reference, (), SIZE)


def new_bold(metric, table):
    return np.array([found.best for found in estimates(metric, table).values()])


def equal_methods(rng, tables, resamples):
    print("\n1. Some equal method loses its bold, share of tables: old, new")
    print("\n| P | N | " + " | ".join(METRICS) + " |\n|---:|---:|---:|---:|---:|")
    for methods in (2, 8, 15):
        for count in SIZES:
            lost = {metric: [] for metric in METRICS}
            for _ in range(tables):
                drawn = resampled(rng, *equals(rng, count, methods), resamples)
                for metric, table in drawn.items():
                    old = old_bold(metric, table[-1], table[:-1])
                    lost[metric].append((not old.all(), not new_bold(metric, table).all()))
            cells = ("{:.2f}, {:.2f}".format(*np.mean(lost[metric], axis=0)) for metric in METRICS)
            print(f"| {methods} | {count} | {' | '.join(cells)} |", flush=True)


def power(rng, tables, resamples):
    print(f"\n2. What is worse loses its bold, share, N = {SIZE}, NLL: old, new")
    print("\n| P | | 2 s.e. | 3 s.e. | 4 s.e. |\n|---:|---|---:|---:|---:|")
    many, answers = equals(rng, 100_000, 2)
    losses = -np.log(many[:, np.arange(len(answers)), answers])
    error = (losses[0] - losses[1]).std() / np.sqrt(SIZE)
    for methods, name, worse in (
        (2, "one is worse", [0]),
        (8, "one is worse", [0]),
        (8, "all but one are worse", list(range(1, 8))),
        (15, "one is worse", [0]),
        (15, "all but one are worse", list(range(1, 15))),
    ):
        cells = []
        for steps in (2, 3, 4):
            lost = []
            for _ in range(tables):
                table = resampled(rng, *equals(rng, SIZE, methods), resamples)["nll"]
                table[:, worse] += steps * error
                old, new = old_bold("nll", table[-1], table[:-1]), new_bold("nll", table)
                lost.append((1 - old[worse].mean(), 1 - new[worse].mean()))
            cells.append("{:.2f}, {:.2f}".format(*np.mean(lost, axis=0)))
        print(f"| {methods} | {name} | {' | '.join(cells)} |", flush=True)


def overview(rng, tables, resamples):
    print("\n3. A temperature of 1.5 against none, NLL: the second alone is bold, share of tables")
    print("\n| N | old: intervals apart | new |\n|---:|---:|---:|")
    for count in (200, 1000):
        alone = []
        for _ in range(tables):
            scores, answers = questions(rng, count)
            probs = np.stack([softmax(1.5 * scores), softmax(scores)])
            table = resampled(rng, probs, answers, resamples)["nll"]
            low, high = np.quantile(table[:-1], (0.025, 0.975), axis=0)
            p_values = best.column(-1, table[-1], table[:-1], [True, True], count)
            bold = list(map(best.is_bold, p_values))
            alone.append((high[1] < low[0], bold == [False, True]))
        print("| {} | {:.2f} | {:.2f} |".format(count, *np.mean(alone, axis=0)), flush=True)


def adjusted(rng, tables, resamples):
    print(f"\n4. Any equal method significantly better or worse than the reference, N = {SIZE}")
    print("\n| P | old: each alone | new: adjusted |\n|---:|---:|---:|")
    for methods in (3, 8, 15):
        said = []
        for _ in range(tables):
            rows, columns = {f"m{i}": {"in": {}, "out": {}} for i in range(methods)}, {}
            for part in ("in", "out"):
                drawn = resampled(rng, *equals(rng, SIZE, methods), resamples)
                for metric, table in drawn.items():
                    for j, (name, found) in enumerate(estimates(metric, table, "m0").items()):
                        rows[name][part][metric] = found
                        columns[name, part, metric] = table[:-1, j]
            every = [rows[f"m{i}"][p] for i in range(1, methods) for p in ("in", "out")]
            alone = any(e.versus.p_value <= 0.05 for cell in every for e in cell.values())
            differences.adjusted(rows, "m0", columns)
            said.append((alone, any(e.versus.significant for c in every for e in c.values())))
        print("| {} | {:.2f} | {:.2f} |".format(methods, *np.mean(said, axis=0)), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tables", type=int, default=200)
    parser.add_argument("--resamples", type=int, default=500)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    tables, resamples = (30, 100) if args.quick else (args.tables, args.resamples)
    print(f"{tables} tables, {resamples} resamples", flush=True)
    for part in (equal_methods, power, overview, adjusted):
        part(np.random.default_rng(1), tables, resamples)


if __name__ == "__main__":
    main()
