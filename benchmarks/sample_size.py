"""Is an error seen as often as ``questions_needed`` says? Power of the test of conf-ECE, drawn.

Confidences of three shapes; the model is right by max(c - d, 0) where it says c, with a mean gap of
the error. For every draw the confidences are drawn anew, and the error rejects calibration where it
exceeds the 95 % quantile of as many draws of a calibrated model of the same shape. Printed: N, how
often the error is seen with N questions and with half of them (80 % of the first is the aim).

    python benchmarks/sample_size.py [--quick] [--draws 2000]
"""

import argparse

import numpy as np

from calib_jax import metrics

WORLDS = {
    "even in [0.25, 1]": np.linspace(0.25, 1, 4000),
    "sharp, Beta(8, 1)": np.random.default_rng(0).beta(8, 1, 4000),
    "low, in [0.25, 0.45]": np.linspace(0.25, 0.45, 4000),
}
ERRORS = 0.03, 0.05, 0.1


def conf_ece(confidence, right):
    """[R, n] each -> [R]; ten bins (a, b]."""
    index = np.clip(np.ceil(confidence * 10) - 1, 0, 9)
    gaps = [((right - confidence) * (index == m)).sum(axis=1) for m in range(10)]
    return np.abs(gaps).sum(axis=0) / confidence.shape[1]


def power(rng, world, error, rows, draws):
    shape = WORLDS[world]
    shift = min(np.linspace(0, 1, 20_001), key=lambda d: abs(np.minimum(shape, d).mean() - error))
    values: list[list[float]] = [[], []]
    for _ in range(0, draws, 100):  # a hundred at a time, for the memory
        c = rng.choice(shape, (100, rows))
        for found, accuracy in zip(values, (c, np.maximum(c - shift, 0)), strict=True):
            found.extend(conf_ece(c, rng.random(c.shape) < accuracy))
    return np.mean(np.array(values[1]) > np.quantile(values[0], 0.95))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--quick", action="store_true", help="300 draws")
    args = parser.parse_args()
    draws = 300 if args.quick else args.draws
    print(f"{draws} draws.\n\n| confidences | error | N | seen with N | with N / 2 |")
    print("|---|---:|---:|---:|---:|")
    for world, shape in WORLDS.items():
        for error in ERRORS:
            rows = metrics.questions_needed(error, shape)
            seen = (
                power(np.random.default_rng(1), world, error, n, draws) for n in (rows, rows // 2)
            )
            print(f"| {world} | {error} | {rows:,} | {' | '.join(f'{s:.1%}' for s in seen)} |")


if __name__ == "__main__":
    main()
