"""Which calibration error is right of few rows: binned, debiased, or variational? Known accuracies.

Confidences c uniform in [0.3, 1]; the model is right with a probability that is a known function
of c: c itself ("calibrated"), c - 0.15 ("over"), c + 0.2 (1 - c) ("under"), and 0.65 + (c - 0.65)/2
("both": over above 0.65, under below). Printed by world and n: the truth, and mean and standard
deviation over the draws. About a minute for 200 draws on a CPU.

    python benchmarks/variational_error.py [--quick] [--draws 200]
"""

import argparse

import numpy as np

from calib_jax import metrics

SIZES = 100, 400, 2000
# name -> accuracy at c, true over- and under-part.
WORLDS = {
    "calibrated": (lambda c: c, 0.0, 0.0),
    "over": (lambda c: c - 0.15, 0.15, 0.0),
    "under": (lambda c: c + 0.2 * (1 - c), 0.0, 0.07),
    "both": (lambda c: 0.65 + (c - 0.65) / 2, 0.04375, 0.04375),
}


def sample(rng, world, rows):
    confidence = rng.uniform(0.3, 1, rows)
    right = rng.random(rows) < WORLDS[world][0](confidence)
    rest = np.repeat((1 - confidence)[:, None] / 3, 3, axis=1)
    return np.column_stack([confidence, rest]), np.where(right, 0, 1)


def measure(probs, answers):
    found = metrics.variational_ece(probs, answers)
    arrays = probs.astype(np.float32), answers
    return (
        float(metrics.conf_ece(*arrays)),
        float(metrics.debiased_ece(*arrays)),
        found.error,
        found.over,
        found.under,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="10 draws")
    args = parser.parse_args()
    draws = 10 if args.quick else args.draws
    print(f"Mean ± standard deviation over {draws} draws.\n")
    print("| world | n | truth | conf-ECE | debiased | variational | true over | over |", end="")
    print(" true under | under |\n|---|---:|" + "---:|" * 8)
    for world, (_, over, under) in WORLDS.items():
        for size in SIZES:
            rng = np.random.default_rng(0)
            found = np.array([measure(*sample(rng, world, size)) for _ in range(draws)])
            plain, debiased, error, above, below = (
                f"{mean:.3f} ± {spread:.3f}"
                for mean, spread in zip(found.mean(axis=0), found.std(axis=0), strict=True)
            )
            print(
                f"| {world} | {size} | {over + under:.3f} | {plain} | {debiased} | {error} "
                f"| {over:.3f} | {above} | {under:.3f} | {below} |"
            )


if __name__ == "__main__":
    main()
