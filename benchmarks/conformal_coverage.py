"""Coverage of prediction sets when rows arrive at once, one by one, and in fours.

A predictor is fitted to 2,000 rows at alpha 0.1 and covers further rows; nominal 0.9. "lumpy":
scores on a coarse grid, so that many rows are alike; their calls are numbered with ``draw``.

    python benchmarks/conformal_coverage.py [--quick]
"""

import argparse

import jax
import numpy as np

from calib_jax import posthoc


def data(rng, num_rows: int, lumpy: bool) -> tuple[np.ndarray, np.ndarray]:
    scores = 1.5 * rng.normal(size=(num_rows, 4))
    if lumpy:
        scores = np.round(scores)
    probs = np.exp(scores)
    probs /= probs.sum(axis=1, keepdims=True)
    answers = (probs.cumsum(axis=1) < rng.random((num_rows, 1))).sum(axis=1).clip(0, 3)
    return (2 * scores).astype(np.float32), answers.astype(np.int32)


def coverage(predictor, scores, answers, size: int, numbered: bool) -> float:
    hits = []
    for call, first in enumerate(range(0, len(scores) - size + 1, size)):
        rows = slice(first, first + size)
        draw = {"draw": call} if numbered else {}
        sets = np.asarray(predictor.sets(scores[rows], **draw))
        hits.append(sets[np.arange(size), answers[rows]].mean())
    return float(np.mean(hits))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="two seeds, fewer rows")
    quick = parser.parse_args().quick
    num_rows = 800 if quick else 4000
    print(f"alpha 0.1, 2,000 rows fitted, {num_rows:,} rows covered, {jax.default_backend()}\n")
    print("| scores | seed | one call | one row a call | 4 rows a call |\n|---|---|---|---|---|")
    for lumpy in (False, True):
        rng = np.random.default_rng(1)
        fitted, covered = data(rng, 2000, lumpy), data(rng, num_rows, lumpy)
        for seed in range(2 if quick else 6):
            predictor = posthoc.APS.fit(*fitted, alpha=0.1, randomized=True, seed=seed)
            shares = [coverage(predictor, *covered, size, lumpy) for size in (num_rows, 1, 4)]
            print(f"| {'lumpy' if lumpy else 'continuous'} | {seed} | ", end="")
            print(" | ".join(f"{share:.3f}" for share in shares) + " |", flush=True)


if __name__ == "__main__":
    main()
