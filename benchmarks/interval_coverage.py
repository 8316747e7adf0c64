"""Do 95 % bootstrap intervals hold the truth 95 % of the time? Synthetic models, known truth.

Scores s ~ N(0, 1.5^2), K = 4, answers drawn from softmax(s), reported probabilities
softmax(scale s): scale 1 is calibrated, 2 overconfident by a temperature of 2, 1.2 slightly so.
The truth is the metric's value in the population: means over two million rows, answers replaced
by their known probabilities, binned errors with the metric's own bins (0 for scale 1); smooth ECE
from as many rows with drawn answers. Printed: coverage and mean width by metric, N and method.

    python benchmarks/interval_coverage.py [--draws 1000] [--resamples 200] [--level 0.95]
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax import metrics
from calib_jax.metrics import intervals
from calib_jax.metrics.draws import strata

SCALES = {"calibrated": 1.0, "slightly overconfident": 1.2, "overconfident": 2.0}
SIZES = 100, 500, 2000
QUICK = {
    "accuracy": metrics.accuracy,
    "nll": metrics.nll,
    "brier": metrics.brier,
    "conf_ece": metrics.conf_ece,
    "cw_ece": metrics.cw_ece,
}
# A Fourier transform per step of its search for the bandwidth: fewer draws.
SLOW = {"smooth_ece": metrics.smooth_ece}
SLOW_SHARE = 5


def sample(key, num_rows, scale):
    """probs [N, 4], answers [N] and the true probabilities [N, 4]."""
    for_scores, for_answers = jax.random.split(key)
    scores = 1.5 * jax.random.normal(for_scores, (num_rows, 4))
    answers = jax.random.categorical(for_answers, scores)
    return jax.nn.softmax(scale * scores), answers, jax.nn.softmax(scores)


def population(scale, num_rows=2_000_000):
    """name -> the metric's value for infinitely many rows."""
    probs, answers, true = sample(jax.random.key(2**31), num_rows, scale)
    smooth = 0.0 if scale == 1 else float(metrics.smooth_ece(probs, answers))
    p, q = np.asarray(probs, np.float64), np.asarray(true, np.float64)
    top = p.argmax(axis=1)[:, None]
    confidence, right = (np.take_along_axis(x, top, axis=1)[:, 0] for x in (p, q))

    def binned(values, frequencies):
        index = np.asarray(metrics.bin_index(values))
        return np.abs(np.bincount(index, frequencies - values)).sum() / num_rows

    calibrated = scale == 1
    return {
        "accuracy": right.mean(),
        "nll": -(q * np.log(p)).sum(axis=1).mean(),
        "brier": (p * p - 2 * p * q + q).sum(axis=1).mean(),
        "conf_ece": 0.0 if calibrated else binned(confidence, right),
        "cw_ece": 0.0 if calibrated else np.mean([binned(p[:, k], q[:, k]) for k in range(4)]),
        "smooth_ece": smooth,
    }


def resampled(fns, num_rows, scale, num_draws, num_resamples):
    """name -> [draws, resamples + 1]: what the bootstrap sees in each draw, the estimate last."""
    plan = strata(num_rows)

    @jax.jit
    def run(key):
        def one(number):
            probs, answers, _ = sample(jax.random.fold_in(key, number), num_rows, scale)
            seed = number.astype(jnp.uint32)
            return intervals._resampled(
                tuple(fns.values()), (probs,), answers, None, plan, seed, num_resamples
            )

        return jax.lax.map(one, jnp.arange(num_draws))

    values = run(jax.random.key(1))
    return {name: np.asarray(value, np.float64) for name, value in zip(fns, values, strict=True)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--resamples", type=int, default=200)
    parser.add_argument("--level", type=float, default=0.95)
    args = parser.parse_args()
    started = time.perf_counter()
    slow_draws = max(1, args.draws // SLOW_SHARE)
    print(f"nominal {args.level:.0%}, {args.draws} draws ({slow_draws} for {', '.join(SLOW)})")
    print(f"{'':22} {'metric':>10} {'N':>5} {'truth':>7}", end="")
    print("".join(f"{method:>20}" for method in intervals.METHODS))
    for model, scale in SCALES.items():
        truth = population(scale)
        for size in SIZES:
            found = resampled(QUICK, size, scale, args.draws, args.resamples)
            found |= resampled(SLOW, size, scale, slow_draws, args.resamples // 2)
            for name, values in found.items():
                print(f"{model:22} {name:>10} {size:5} {truth[name]:7.4f}", end="")
                draws, estimate = values[:, :-1].T, values[:, -1]
                for method in intervals.METHODS:
                    low, high = intervals.interval(draws, estimate, args.level, method)
                    held = ((low <= truth[name]) & (truth[name] <= high)).mean()
                    print(f"{held:11.1%} ({(high - low).mean():.4f})", end="")
                print(flush=True)
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
