"""Do the bands of the reliability curve hold? Synthetic models whose true accuracy is known.

Logits s ~ N(0, sd^2), K = 4, answers drawn from softmax(s), reported probabilities softmax(T s).
"Tied": 5 verbal confidences, of which the model is right 0.3 + 0.5 c of the time. Read at six
confidences, wherever at least 30 rows lie within 0.05 of one. Printed, as coverage (mean width):

- before: kernel smoothing at the bandwidth of the smooth ECE, bootstrapped 200 times;
- confidence: the confidence band of ``reliability_curve``, which is to hold the true accuracy;
- consistency: its consistency band, which is to hold the curve of a calibrated model.

    python benchmarks/reliability_bands.py [--draws 400] [--quick]
"""

import argparse

import numpy as np

from calib_jax import metrics

AT = np.array([0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
# name -> sd, T
WORLDS = {
    "calibrated": (1.5, 1.0),
    "overconfident": (1.5, 2.0),
    "underconfident": (1.5, 0.5),
    "near chance, overconfident": (0.25, 6.0),
    "sharp, overconfident": (6.0, 2.0),
}
TIED = "tied, overconfident"
VERBAL, SHARES = np.array([0.5, 0.7, 0.8, 0.9, 1.0]), (0.05, 0.1, 0.25, 0.35, 0.25)
SIZES = 400, 2000
LEAST, REACH, RESAMPLES = 30, 0.05, 200


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def sample(world, num_rows, rng):
    """probs [N, 4], and the true accuracy of each row's prediction [N]."""
    if world == TIED:
        top = VERBAL[rng.choice(5, num_rows, p=SHARES)]
        return np.column_stack([top, *[(1 - top) / 3] * 3]), 0.3 + 0.5 * top
    sd, scale = WORLDS[world]
    logits = sd * rng.normal(size=(num_rows, 4))
    probs = softmax(scale * logits)
    return probs, softmax(logits)[np.arange(num_rows), probs.argmax(axis=1)]


def truth(world):
    """[6] the true accuracy at each confidence, by a line through the rows within 0.01 of it."""
    if world == TIED:
        return np.where(np.isin(AT, VERBAL), 0.3 + 0.5 * AT, np.nan)
    rng = np.random.default_rng(2**31)
    found = [sample(world, 500_000, rng) for _ in range(8)]
    confidence = np.concatenate([probs.max(axis=1) for probs, _ in found])
    accuracy = np.concatenate([right for _, right in found])
    values = np.full(len(AT), np.nan)
    for i, t in enumerate(AT):
        near = np.abs(confidence - t) < 0.01
        if near.sum() > 100:
            values[i] = np.polyfit(confidence[near] - t, accuracy[near], 1)[1]
    return values


def smoothed_band(probs, answers, rng):
    """[2, 6]: the former band, by its definition: reflected Gaussians as wide as the smooth ECE."""
    confidence = probs.max(axis=1)
    right = probs.argmax(axis=1) == answers
    sigma = max(float(metrics.smooth_ece(probs, answers)), 1 / 2048)
    images = [s * confidence + 2 * k for s in (1, -1) for k in (-1, 0, 1)]
    kernel = sum(np.exp(-(((AT[:, None] - x) / sigma) ** 2) / 2) for x in images)
    weights = rng.multinomial(len(right), np.full(len(right), 1 / len(right)), RESAMPLES)
    curves = (weights @ (kernel * right).T) / (weights @ kernel.T)
    return np.quantile(curves, (0.025, 0.975), axis=0)


def measure(world, num_rows, num_draws, true):
    """name -> [draws, 6] of (held, width); NaN where there are too few rows."""
    found = {name: [] for name in ("before", "confidence", "consistency")}
    for draw in range(num_draws):
        rng = np.random.default_rng(draw)
        probs, accuracy = sample(world, num_rows, rng)
        predicted = probs.argmax(axis=1)
        right = rng.random(num_rows) < accuracy
        answers = np.where(right, predicted, (predicted + 1) % 4)
        near = np.abs(probs.max(axis=1)[:, None] - AT) <= REACH
        known = (near.sum(axis=0) >= LEAST) & ~np.isnan(true)
        curve = metrics.reliability_curve(probs, answers, at=AT, num_draws=400, seed=draw)
        bands = {
            "before": (*smoothed_band(probs, answers, rng), true),
            "confidence": (curve.low, curve.high, true),
            "consistency": (curve.consistency_low, curve.consistency_high, curve.accuracy),
        }
        for name, (low, high, inside) in bands.items():
            held = np.where((low <= inside) & (inside <= high), 1.0, 0.0)
            found[name].append(np.where(known, (held, high - low), np.nan))
    return {name: np.array(values) for name, values in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--quick", action="store_true", help="20 draws")
    args = parser.parse_args()
    num_draws = 20 if args.quick else args.draws
    print(f"{num_draws} draws\n")
    print("| model | n | band | " + " | ".join(f"{t:g}" for t in AT) + " |")
    print("|---|---:|---|" + "---|" * len(AT))
    for world in (*WORLDS, TIED):
        true = truth(world)
        said = " | ".join("–" if np.isnan(value) else f"{value:.3f}" for value in true)
        print(f"| {world} | | true accuracy | {said} |")
        for num_rows in SIZES:
            for name, values in measure(world, num_rows, num_draws, true).items():
                cells = []
                for held, width in values.transpose(2, 1, 0):
                    # Where hardly any draw has enough rows, there is nothing to say.
                    many = (~np.isnan(held)).sum() >= 20
                    cells.append(
                        f"{np.nanmean(held):.2f} ({np.nanmean(width):.2f})" if many else "–"
                    )
                print(f"| {world} | {num_rows} | {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
