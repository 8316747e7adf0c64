"""Do the intervals of small shares hold the truth: changes of accuracy, and win rates of a handful?

A change of accuracy: N questions, of which shares are gained and lost; coverage of 95 % intervals
and size of the test at 5 %, summed exactly over all outcomes. With three seeds, whose flips of one
question agree half of the time, by simulation. Old: the percentile bootstrap of the difference.

Win rates: single games, games with ties, and two games a question of weights 1 and 3 (simulated);
and with length controlled. Old: the percentile bootstrap over questions.

    python benchmarks/share_intervals.py [--draws 1000] [--resamples 400] [--quick]
"""

import argparse
import functools

import numpy as np
from scipy.stats import multinomial

from calib_jax.metrics import winrate
from calib_jax.metrics.paired_accuracy import accuracy_change
from calib_jax.reports.compare import differences

SIZES = 50, 200, 1000
# Shares gained and lost.
CHANGES = (0.0, 0.02), (0.02, 0.02), (0.03, 0.01), (0.01, 0.0), (0.1, 0.05), (0.2, 0.2)


@functools.cache
def of_counts(gained, lost, count):
    before, after = np.zeros((2, count), bool)
    after[:gained] = before[gained : gained + lost] = True
    return accuracy_change(before, after)


def exact(count, gained, lost):
    """Coverage and size, summed over every outcome of a probability above 1e-9."""
    law = multinomial(count, [gained, lost, 1 - gained - lost])
    span = [np.arange(count + 1) for _ in range(2)]
    grid = np.stack(np.meshgrid(*span, indexing="ij"), -1).reshape(-1, 2)
    centre, reach = count * np.array([gained, lost]), 6 * np.sqrt(count * np.array([gained, lost]))
    grid = grid[(np.abs(grid - centre) <= reach + 4).all(1) & (grid.sum(1) <= count)]
    weights = law.pmf(np.column_stack([grid, count - grid.sum(1)]))
    covered = rejected = 0.0
    for (g, k), weight in zip(grid.tolist(), weights, strict=True):
        if weight > 1e-9:
            found = of_counts(g, k, count)
            covered += weight * (found.low <= gained - lost <= found.high)
            rejected += weight * (found.p_value <= 0.05)
    return covered, rejected


def percentile(rng, rows, weights, resamples):
    """Percentile interval of sum(rows) / sum(weights) over resampled questions."""
    n = len(rows)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=resamples)
    return np.quantile(counts @ rows / (counts @ weights), (0.025, 0.975))


def simulated(rng, draws, world, rule, truth):
    """The share of draws whose interval holds the truth, and the share that are a point."""
    ends = np.array([rule(*world(rng)) for _ in range(draws)])
    held = (ends[:, 0] - 1e-9 <= truth) & (truth <= ends[:, 1] + 1e-9)
    return held.mean(), (ends[:, 0] == ends[:, 1]).mean()


def drawn_flips(rng, count, gained, lost):
    return rng.choice([1.0, -1.0, 0.0], count, p=[gained, lost, 1 - gained - lost])


def changes(rng, draws, resamples):
    print("\n| gained, lost | N | percentile: coverage (a point) | Tango: coverage | size at 5 % |")
    print("|---|---:|---:|---:|---:|")
    for gained, lost in CHANGES:
        for count in SIZES:

            def world(rng, count=count, gained=gained, lost=lost):
                return drawn_flips(rng, count, gained, lost), np.ones(count)

            rule = functools.partial(percentile, rng, resamples=resamples)
            old, point = simulated(rng, draws, world, rule, gained - lost)
            new, size = exact(count, gained, lost)
            shown = f"{size:.3f}" if gained == lost else "–"
            print(f"| {gained}, {lost} | {count} | {old:.3f} ({point:.2f}) | {new:.3f} | {shown} |")


def seeded(rng, draws, resamples):
    print("\nThree seeds, each of the same questions:\n")
    print("| gained, lost | N | percentile: coverage (a point) | coverage (a point) |")
    print("|---|---:|---:|---:|")
    for gained, lost in CHANGES:
        for count in SIZES:

            def world(rng, count=count, gained=gained, lost=lost):
                shared, *own = (drawn_flips(rng, count, gained, lost) for _ in range(4))
                same = rng.random((3, count)) < 0.5
                moved = np.where(same, shared, own).sum(axis=0) / (3 * count)
                return moved, np.full(count, 1 / count)

            rules = (
                functools.partial(percentile, rng, resamples=resamples),
                lambda d, g: differences.of_flips(d, g)[:2],
            )
            found = [simulated(rng, draws, world, rule, gained - lost) for rule in rules]
            shown = " | ".join(f"{held:.3f} ({point:.2f})" for held, point in found)
            print(f"| {gained}, {lost} | {count} | {shown} |")


def single(rng, count, rate, ties):
    u = rng.random(count)
    win = rate - ties / 2
    return np.where(u < win, 1.0, np.where(u < win + ties, 0.5, 0.0)), np.ones(count)


def arena(rng, count, rate, ties):
    """Two games a question that agree half of the time; every third verdict weighs 3."""
    won = rng.random((count, 2)) < rate
    won[:, 1] = np.where(rng.random(count) < 0.5, won[:, 0], won[:, 1])
    weight = np.where(rng.random((count, 2)) < 1 / 3, 3.0, 1.0)
    return (won * weight).sum(axis=1), weight.sum(axis=1)


def win_rates(rng, draws, resamples):
    print("\n| games | win rate | N | percentile: coverage (a point) | now: coverage (a point) |")
    print("|---|---:|---:|---:|---:|")
    worlds = {
        "won or lost": (single, 0.95, 0.0),
        "won or lost ": (single, 0.6, 0.0),
        "a tenth tied": (single, 0.9, 0.1),
        "half tied": (single, 0.5, 0.5),
        "nearly all tied": (single, 0.5, 0.95),
        "two a question, weights 1 and 3": (arena, 0.9, 0.0),
    }
    for name, (draw, rate, ties) in worlds.items():
        for count in (20, 50, 100):
            world = functools.partial(draw, count=count, rate=rate, ties=ties)
            old = functools.partial(percentile, rng, resamples=resamples)
            rules = old, winrate.win_rate_interval
            found = [simulated(rng, draws, world, rule, rate) for rule in rules]
            shown = " | ".join(f"{held:.3f} ({point:.2f})" for held, point in found)
            print(f"| {name} | {rate} | {count} | {shown} |")


def length_controlled(rng, draws):
    print("\n| at equal lengths | slope | ties | N | length-controlled: coverage (a point) |")
    print("|---:|---:|---:|---:|---:|")
    for rate, slope, ties in ((0.95, 0.0, 0.0), (0.95, 0.5, 0.0), (0.6, 1.0, 0.0), (0.6, 1.0, 0.3)):
        for count in (20, 50, 100, 805):

            def world(rng, count=count, rate=rate, slope=slope, ties=ties):
                ours, theirs = rng.lognormal(6.2, 0.5, count), rng.lognormal(6.0, 0.5, count)
                x = np.tanh((ours - theirs) / (ours - theirs).std(ddof=1))
                win = 1 / (1 + np.exp(-(np.log(rate / (1 - rate)) + slope * x)))
                wins = (rng.random(count) < win).astype(float)
                # A preference between 0 and 1 of the same mean.
                soft = rng.random(count) < ties
                return np.where(soft, win, wins), ours, theirs

            rule = winrate.length_controlled_interval
            held, point = simulated(rng, draws, world, rule, rate)
            print(f"| {rate} | {slope} | {ties} | {count} | {held:.3f} ({point:.2f}) |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=400)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    draws, resamples = (100, 100) if args.quick else (args.draws, args.resamples)
    rng = np.random.default_rng(0)
    print(f"{draws} draws (Monte Carlo error ±{2 * np.sqrt(0.05 * 0.95 / draws):.3f})")
    changes(rng, draws, resamples)
    seeded(rng, draws, resamples)
    win_rates(rng, draws, resamples)
    length_controlled(rng, draws // 2)


if __name__ == "__main__":
    main()
