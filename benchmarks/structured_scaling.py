"""What structured matrix scaling costs and wins beside temperature, vector and matrix scaling.

Scores s = content + noise of four options, answers drawn from known probabilities q(s). Fitted to n
rows, judged on 20,000 others by the expected NLL, less that of q itself: nats that are left to win.
The worlds: "temperature", q = softmax(s / 2); "letter bias", the model adds the same offset to a
letter in every question; "letter bias and slopes", its letters differ in sharpness as well;
"calibrated", q = softmax(s). Printed: mean over the draws, and how often the structured fit is at
most 0.002 nats above the temperature. Seconds on a CPU for --quick.

    python benchmarks/structured_scaling.py [--quick] [--draws 100]
"""

import argparse
import warnings

import numpy as np

from calib_jax import posthoc

METHODS = "temperature", "vector", "matrix", "structured_matrix"
SIZES = 100, 200, 1000
BIAS, SLOPES = np.array([1.0, 0.3, -0.4, -0.9]), np.array([0.35, 0.5, 0.65, 0.5])
# What undoes the model's distortion: true logits as a function of its scores.
WORLDS = {
    "calibrated": lambda s: s,
    "temperature": lambda s: s / 2,
    "letter bias": lambda s: (s - BIAS) / 2,
    "letter bias and slopes": lambda s: (s - BIAS) * SLOPES,
}


def softmax(x):
    x = np.exp(x - x.max(axis=1, keepdims=True))
    return x / x.sum(axis=1, keepdims=True)


def sample(rng, world, rows):
    """(scores, true probabilities) [rows, 4]."""
    scores = rng.normal(0, 3, (rows, 4))
    if "bias" in world:
        scores += BIAS
    return scores.astype(np.float32), softmax(WORLDS[world](scores.astype(np.float64)))


def excess(log_probs, true):
    """Expected NLL less the least that is possible."""
    return float(np.sum(true * (np.log(true) - np.asarray(log_probs, np.float64)), axis=1).mean())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--quick", action="store_true", help="5 draws")
    args = parser.parse_args()
    draws = 5 if args.quick else args.draws
    warnings.simplefilter("ignore", posthoc.CalibrationWarning)
    print(f"Nats above the least, mean of {draws} draws (structured: ± standard error).\n")
    print(f"| world | n | none | {' | '.join(METHODS)} | structured ≤ temperature + 0.002 |")
    print("|---|---:|" + "---:|" * (len(METHODS) + 2))
    for world in WORLDS:
        rng = np.random.default_rng(0)
        scores, true = sample(rng, world, 20_000)
        raw = excess(np.log(softmax(scores.astype(np.float64))), true)
        for size in SIZES:
            found = np.empty((draws, len(METHODS)))
            for d in range(draws):
                own, probs = sample(rng, world, size)
                answers = (probs.cumsum(axis=1) < rng.random((size, 1))).sum(axis=1).clip(max=3)
                for m, name in enumerate(METHODS):
                    fitted = posthoc.METHODS[name].fit(own, answers)
                    found[d, m] = excess(fitted.log_probs(scores), true)
            means = [f"{value:.4f}" for value in found.mean(axis=0)]
            means[-1] += f" ± {found[:, -1].std() / np.sqrt(draws):.4f}"
            better = np.mean(found[:, -1] <= found[:, 0] + 0.002)
            print(f"| {world} | {size} | {raw:.4f} | {' | '.join(means)} | {better:.0%} |")


if __name__ == "__main__":
    main()
