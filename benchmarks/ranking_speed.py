"""Ranking and binned metrics against numpy on one core's worth of work, at 1e5, 1e6 and 1e7 rows.

One process, the same float32 probabilities [N, 4]. Both sides take the top label and confidence
and count ties exactly; numpy sorts with argsort and works in float64. Times are the least over the
rounds, of the wall and of the CPU (all threads): on a shared machine the second is the steadier.
The last column of each metric is how its CPU time grows over ten times the rows, where n log n
grows by 12.0 and 11.7. "bootstrap" is the CPU time of one resample and row.

    python benchmarks/ranking_speed.py [--quick] [--rounds 5]

With PYTHONPATH set to another checkout the same command measures that one: before and after.
"""

import argparse
import functools
import time

import jax.numpy as jnp
import numpy as np

from calib_jax import metrics


def data(num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=1.5, size=(num_rows, 4)).astype(np.float32)
    answers = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1).astype(np.int32)
    probs = np.exp(2 * (logits - logits.max(axis=1, keepdims=True)))
    return probs / probs.sum(axis=1, keepdims=True), answers


def ranked(probs, answers):
    """Confidences from the top down, rows so far and right ones at the ends of runs of ties."""
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == answers
    order = np.argsort(confidence)[::-1]
    confidence, right = confidence[order], right[order]
    end = np.flatnonzero(np.r_[confidence[1:] != confidence[:-1], True])
    return end + 1.0, np.cumsum(right)[end].astype(np.float64)


def numpy_auroc(probs, answers):
    shown, right = ranked(probs, answers)
    wrong = shown - right
    area = (np.diff(wrong, prepend=0) * (right + np.r_[0, right[:-1]])).sum() / 2
    return area / (right[-1] * wrong[-1])


def numpy_auprc(probs, answers):
    shown, right = ranked(probs, answers)
    return (np.diff(right, prepend=0) * right / shown).sum() / right[-1]


def numpy_aurc(probs, answers):
    shown, right = ranked(probs, answers)
    before, errors = np.r_[0, shown[:-1]], shown - right
    errors_before = np.r_[0, errors[:-1]]
    harmonic = np.r_[0, np.cumsum(1 / np.arange(1, len(probs) + 1))]
    steps = harmonic[shown.astype(int)] - harmonic[before.astype(int)]
    own = (errors - errors_before) / (shown - before)
    return (((errors_before - before * own) * steps).sum() + errors[-1]) / len(probs)


def numpy_ece(probs, answers):
    confidence, right = probs.max(axis=1), probs.argmax(axis=1) == answers
    index = np.searchsorted(metrics.bin_edges(10)[1:-1], confidence)
    return np.abs(np.bincount(index, right - confidence.astype(np.float64))).sum() / len(probs)


PAIRS = {
    "auroc": (metrics.auroc, numpy_auroc),
    "auprc": (metrics.auprc, numpy_auprc),
    "aurc": (metrics.aurc, numpy_aurc),
    "accuracy_at_coverage": (functools.partial(metrics.accuracy_at_coverage, coverage=0.5), None),
    "conf_ece": (metrics.conf_ece, numpy_ece),
    "adaptive_ece": (metrics.adaptive_ece, None),
    "sweep_ece": (metrics.sweep_ece, None),
    "smooth_ece": (metrics.smooth_ece, None),
}


def least(function, rounds: int) -> tuple[float, float, float]:
    """Value, and wall and CPU milliseconds."""
    value, walls, processors = float(function()), [], []
    for _ in range(rounds):
        wall, processor = time.perf_counter(), time.process_time()
        value = float(function())
        processors.append(time.process_time() - processor)
        walls.append(time.perf_counter() - wall)
    return value, 1e3 * min(walls), 1e3 * min(processors)


def bootstrap(function, arrays, rounds: int) -> float:
    """CPU nanoseconds of a row and resample, the sort taken out as what no resample costs."""
    spans = []
    for resamples in (10, 40):
        call = functools.partial(metrics.bootstrap, function, *arrays, num_resamples=resamples)
        call()
        times = []
        for _ in range(rounds):
            start = time.process_time()
            call()
            times.append(time.process_time() - start)
        spans.append(min(times))
    return 1e9 * (spans[1] - spans[0]) / 30 / len(arrays[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1e5 rows only")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--metrics", default=",".join(PAIRS), help="names, separated by commas")
    arguments = parser.parse_args()
    sizes = (10**5,) if arguments.quick else (10**5, 10**6, 10**7)
    heads = ["metric", "rows", "ms wall (CPU)", "numpy ms wall (CPU)", "numpy / ours, CPU"]
    heads += ["difference", "CPU for 10 times the rows", "bootstrap, ns"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    last: dict[str, float] = {}
    for num_rows in sizes:
        probs, answers = data(num_rows)
        arrays = jnp.asarray(probs), jnp.asarray(answers)
        for name in arguments.metrics.split(","):
            ours, theirs = PAIRS[name]
            value, wall, processor = least(functools.partial(ours, *arrays), arguments.rounds)
            peer, ratio, difference = "", "", ""
            if theirs is not None:
                expected, their_wall, theirs_processor = least(
                    functools.partial(theirs, probs, answers), arguments.rounds
                )
                peer = f"{their_wall:.1f} ({theirs_processor:.1f})"
                ratio = f"{theirs_processor / processor:.1f}"
                difference = f"{abs(value - expected):.0e}"
            growth = f"{processor / last[name]:.1f}" if name in last else ""
            last[name] = processor
            drawn = f"{bootstrap(ours, arrays, 2):.1f}" if num_rows <= 10**6 else ""
            print(
                f"| {name} | {num_rows:.0e} | {wall:.1f} ({processor:.1f}) | {peer} | {ratio} "
                f"| {difference} | {growth} | {drawn} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
