"""Do subjects' adjusted p-values find a miscalibrated one among many, and no calibrated ones?

G subjects of n two-way questions; the confidence is uniform from .55 to .95 and is right as often,
but for some subjects that are right less often by a gap. ``metrics.group_table`` tests each, and
Benjamini and Hochberg's adjustment allows for their number. Printed, as Markdown, of all draws: the
share of the bad subjects that are found (adjusted p at most .05), the share of tables in which some
calibrated subject is called bad, and the share of calibrated subjects whose raw p is at most .05
and .001; each with 1,000 null draws for all (``fixed``), which leaves no p-value below 1/1001, and
as the table is now.

    python benchmarks/subjects.py [--draws 100] [--resamples 1000]
"""

import argparse

import numpy as np

from calib_jax import metrics
from calib_jax.metrics import groups

# Subjects, questions of each, bad ones, and their gap.
WORLDS = ((57, 100, 1, 0.3), (57, 100, 5, 0.3), (57, 100, 0, 0.0), (120, 50, 2, 0.4))


def table(rng, world, resamples, seed):
    """p-values, raw and adjusted, of every subject; the bad ones come first."""
    count, size, bad, gap = world
    confidence = rng.uniform(0.55, 0.95, count * size)
    names = np.repeat(np.arange(count), size)
    right = rng.random(len(names)) < confidence - gap * (names < bad)
    arrays = np.column_stack([confidence, 1 - confidence]), np.where(right, 0, 1)
    rows = metrics.group_table(*arrays, names, num_resamples=resamples, seed=seed)
    return np.array([[row["conf_ece_p_value"], row["conf_ece_p_adjusted"]] for row in rows]).T


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--resamples", type=int, default=1000)
    args = parser.parse_args()
    print(f"{args.draws} tables, {args.resamples} resamples\n")
    print("| subjects | bad, by | draws | found | tables with a false one | p <= .05 | p <= .001 |")
    print("|---|---|---|---|---|---|---|")
    often = groups._DRAWS_A_GROUP
    for world in WORLDS:
        count, size, bad, gap = world
        for rule, draws_a_group in (("fixed", 0), ("now", often)):
            groups._DRAWS_A_GROUP = draws_a_group
            rng, found = np.random.default_rng(count + bad), []
            for seed in range(args.draws):
                found.append(table(rng, world, args.resamples, seed))
            p, adjusted = np.swapaxes(found, 0, 1)
            power = f"{(adjusted[:, :bad] <= 0.05).mean():.2f}" if bad else "-"
            false = (adjusted[:, bad:] <= 0.05).any(axis=1).mean()
            small = " | ".join(f"{(p[:, bad:] <= level).mean():.4f}" for level in (0.05, 0.001))
            print(
                f"| {count} of {size} | {bad}, {gap} | {rule} | {power} | {false:.2f} | {small} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
