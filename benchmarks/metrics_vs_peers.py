"""Calibration metrics against netcal, torchmetrics, scikit-learn, uncertainty-calibration, relplot.

One process, the same arrays (float32 probabilities [N, 4], int64 labels), 15 bins. Every candidate
runs once unmeasured, then the candidates take turns; a time is the median over the rounds, from
the arrays to a Python float, top label and confidence included. A ratio is the peer's time over
ours. Errors are against a float64 numpy reference.

    pip install torch netcal torchmetrics relplot uncertainty-calibration scikit-learn
    python benchmarks/metrics_vs_peers.py [--rows 10000000] [--rounds 3]
"""

import argparse
import functools
import resource
import statistics
import time
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax import metrics

NUM_BINS, NUM_OPTIONS = 15, 4


def data(num_rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Overconfident by a temperature of 2, about a third of the rows above 0.99."""
    rng = np.random.default_rng(0)
    logits = rng.normal(scale=1.5, size=(num_rows, NUM_OPTIONS)).astype(np.float32)
    answers = (logits + rng.gumbel(size=logits.shape).astype(np.float32)).argmax(axis=1)
    probs = np.exp(2 * (logits - logits.max(axis=1, keepdims=True)))
    return probs / probs.sum(axis=1, keepdims=True), answers


def reference(values, labels) -> tuple[np.ndarray, np.ndarray]:
    """float64 (rows, gap) per bin, on the edges that the metrics state."""
    edges = metrics.bin_edges(NUM_BINS)
    index = np.clip(np.searchsorted(edges, values, side="left") - 1, 0, NUM_BINS - 1)
    gap = np.bincount(index, labels - values.astype(np.float64), NUM_BINS)
    return np.bincount(index, minlength=NUM_BINS), gap


def ours(probs, answers):
    """name of the comparison -> candidate."""
    device = jnp.asarray(probs), jnp.asarray(answers.astype(np.int32))
    options = {"num_bins": NUM_BINS}
    one_pass = metrics.streams.combine(
        [
            metrics.streams.confidence_bins(**options),
            metrics.streams.class_bins(NUM_OPTIONS, **options),
        ]
    )
    two_parts = jax.jit(lambda p, y: one_pass.compute(one_pass.update(one_pass.init(), p, y)))
    return {
        "conf-ECE": lambda: float(metrics.conf_ece(*device, **options)),
        "cw-ECE": lambda: float(metrics.cw_ece(*device, **options)),
        "all binned": lambda: float(two_parts(*device)["conf_ece"]),
        "smooth ECE": lambda: float(metrics.smooth_ece(*device)),
    }


def netcal_peers(probs, answers):
    from netcal.metrics import ECE

    def classwise():
        binary = ((probs[:, k], (answers == k).astype(int)) for k in range(NUM_OPTIONS))
        return np.mean([ECE(NUM_BINS).measure(p, y) for p, y in binary])

    return {
        "conf-ECE": lambda: ECE(NUM_BINS).measure(probs, answers),
        "cw-ECE": classwise,
    }


def torchmetrics_peers(probs, answers):
    import torch
    from torchmetrics.functional import classification

    p, y = torch.from_numpy(probs), torch.from_numpy(answers)
    options = {"n_bins": NUM_BINS, "norm": "l1", "validate_args": False}

    def classwise():
        binary = classification.binary_calibration_error
        return np.mean(
            [
                float(binary(p[:, k].contiguous(), (y == k).long(), **options))
                for k in range(NUM_OPTIONS)
            ]
        )

    def confidence():
        error = classification.multiclass_calibration_error
        return float(error(p, y, num_classes=NUM_OPTIONS, **options))

    return {"conf-ECE": confidence, "cw-ECE": classwise}


def sklearn_peers(probs, answers):
    from sklearn.calibration import calibration_curve

    def binned(values, labels):
        # The library has the curve only; its bins are counted again for the weights.
        rate, mean = calibration_curve(labels, values, n_bins=NUM_BINS)
        index = np.searchsorted(np.linspace(0, 1, NUM_BINS + 1)[1:-1], values)
        count = np.bincount(index, minlength=NUM_BINS)
        return float((np.abs(rate - mean) * count[count > 0]).sum() / len(values))

    def confidence():
        return binned(probs.max(axis=1), probs.argmax(axis=1) == answers)

    def classwise():
        return np.mean([binned(probs[:, k], answers == k) for k in range(NUM_OPTIONS)])

    return {"conf-ECE": confidence, "cw-ECE": classwise}


def uncertainty_calibration_peers(probs, answers):
    import calibration

    return {
        "conf-ECE": lambda: calibration.get_ece(probs, answers, num_bins=NUM_BINS),
        "cw-ECE": lambda: calibration.get_ece(probs, answers, num_bins=NUM_BINS, mode="marginal"),
    }


def relplot_peers(probs, answers):
    import relplot

    def smooth():
        right = (probs.argmax(axis=1) == answers).astype(np.float64)
        return relplot.smECE(f=probs.max(axis=1).astype(np.float64), y=right)

    return {"smooth ECE": smooth}


PEERS = {
    "netcal": netcal_peers,
    "torchmetrics": torchmetrics_peers,
    "scikit-learn": sklearn_peers,
    "uncertainty-calibration": uncertainty_calibration_peers,
    "relplot": relplot_peers,
}


def timed(function) -> tuple[float, float]:
    start = time.perf_counter()
    value = float(function())
    return time.perf_counter() - start, value


def compare(num_rows: int, rounds: int, names: list[str]) -> None:
    probs, answers = data(num_rows)
    chosen = probs.argmax(axis=1) == answers
    _, gap = reference(probs.max(axis=1), chosen)
    exact = {"conf-ECE": np.abs(gap).sum() / num_rows}
    gaps = [reference(probs[:, k], answers == k)[1] for k in range(NUM_OPTIONS)]
    exact["cw-ECE"] = np.abs(gaps).sum() / num_rows / NUM_OPTIONS
    exact["all binned"] = exact["conf-ECE"]

    candidates = {("calib_jax", name): f for name, f in ours(probs, answers).items()}
    for peer in names:
        candidates |= {(peer, name): f for name, f in PEERS[peer](probs, answers).items()}
    values = {key: timed(function)[1] for key, function in candidates.items()}
    times = {key: [] for key in candidates}
    for _ in range(rounds):
        for key, function in candidates.items():
            times[key].append(timed(function)[0])
    median = {key: statistics.median(t) for key, t in times.items()}
    print(f"N = {num_rows:,}, K = {NUM_OPTIONS}, {NUM_BINS} bins, {rounds} rounds, {jax.devices()}")
    print(f"{'metric':12}{'library':26}{'time':>10}{'ratio':>9}  value        error")
    for name in ("conf-ECE", "cw-ECE", "all binned", "smooth ECE"):
        # The pass that yields all binned metrics is held against a peer's conf-ECE and cw-ECE each.
        against = [k for k in candidates if k[1] == name]
        for key in against:
            ratio = median[key] / median["calib_jax", name]
            error = f"{abs(values[key] - exact[name]):.1e}" if name in exact else ""
            print(
                f"{name:12}{key[0]:26}{1e3 * median[key]:8.1f}ms{ratio:8.1f}x  "
                f"{values[key]:.9f}  {error}"
            )
    one_pass = median["calib_jax", "all binned"]
    for peer in names:
        both = [median.get((peer, name)) for name in ("conf-ECE", "cw-ECE")]
        if None not in both:
            print(f"all binned in one pass against {peer}'s conf-ECE + cw-ECE: ", end="")
            print(f"{sum(both) / one_pass:.1f}x")


def bootstrap(num_rows: int, rounds: int) -> None:
    probs, answers = data(num_rows)
    arrays = jnp.asarray(probs), jnp.asarray(answers.astype(np.int32))
    metric = functools.partial(metrics.conf_ece, num_bins=NUM_BINS)
    spans = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        metrics.bootstrap(metric, *arrays, num_resamples=1000)
        spans.append(time.perf_counter() - start)
    print(
        f"1,000 bootstrap resamples of conf-ECE at N = {num_rows:,}: first call {spans[0]:.2f} s "
        f"(compilation included), then {statistics.median(spans[1:]):.2f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bootstrap_rows", type=int, default=100_000)
    parser.add_argument("--peers", default=",".join(PEERS), help="names, separated by commas")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    bootstrap(arguments.bootstrap_rows, arguments.rounds)
    compare(arguments.rows, arguments.rounds, [p for p in arguments.peers.split(",") if p])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"peak memory of the process {peak:.1f} GiB (peers included)")


if __name__ == "__main__":
    main()
