"""What post-hoc calibrators keep and lose, in worlds whose truth is known. Prints Markdown tables.

Models: K = 4, true logits s ~ N(0, sd^2), answers drawn from softmax(s), reported log-scores T s.

1. Accuracy, conf-ECE, NLL and Brier of cross-fitted calibrators of the top label: with the freed
   probability given to the other options in their old proportions (the usual rule), and with a
   temperature for each row.
2. Share of draws whose cross-fitted NLL is infinite, by prior count; rows in a wrong bin where
   confidences are tied.
3. AUROC of cross-fitted scores, pooled and within the folds, and of the same fit on new rows.
4. Coverage of the temperature's 95 % interval, also where softmax(s / T) is not the truth.

    python benchmarks/top_label.py [--draws 1000] [--quick]
"""

import argparse
import time
import warnings

import numpy as np

from calib_jax import metrics, posthoc

TOP_LABEL = "platt", "beta", "histogram", "isotonic"
# name -> (sd, T)
WORLDS = {"T = 2, sd 1.5": (1.5, 2.0), "near chance, T = 6, sd .25": (0.25, 6.0)}


def softmax(logits):
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def drawn(rng, probs):
    answers = (probs.cumsum(axis=1) < rng.random((len(probs), 1))).sum(axis=1)
    return answers.clip(0, probs.shape[1] - 1).astype(np.int32)


def sample(rng, num_rows, sd, temperature):
    scores = rng.normal(0, sd, (num_rows, 4))
    return (temperature * scores).astype(np.float32), drawn(rng, softmax(scores))


def proportional(log_scores, probs):
    """The predicted option's calibrated confidence; the rest in the options' old proportions."""
    rows, top = np.arange(len(probs)), log_scores.argmax(axis=1)
    confidence = probs[rows, top].astype(np.float64)
    others = softmax(log_scores.astype(np.float64))
    others[rows, top] = 0
    found = others / others.sum(axis=1, keepdims=True) * (1 - confidence)[:, None]
    found[rows, top] = confidence
    return (found / found.sum(axis=1, keepdims=True)).astype(np.float32)


def figures(probs, answers):
    return [
        float(metric(probs, answers))
        for metric in (metrics.accuracy, metrics.conf_ece, metrics.nll, metrics.brier)
    ]


def order_and_accuracy(draws):
    print(f"\n1. Accuracy, conf-ECE, NLL, Brier; {draws} draws\n")
    print("| world | n | method | as measured | old proportions | row's temperature |")
    print("|---|---|---|---|---|---|")
    for world, (sd, temperature) in WORLDS.items():
        for size in (400, 2000):
            for method in ("temperature", *TOP_LABEL):
                found = []
                for seed in range(draws):
                    scores, answers = sample(np.random.default_rng(seed), size, sd, temperature)
                    probs = posthoc.cross_fit(method, scores, answers, seed=seed)
                    before = softmax(scores).astype(np.float32)
                    old = probs if method == "temperature" else proportional(scores, probs)
                    found.append([figures(p, answers) for p in (before, old, probs)])
                cells = [" ".join(f"{x:.3f}" for x in three) for three in np.mean(found, axis=0)]
                print(f"| {world} | {size} | {method} | {' | '.join(cells)} |", flush=True)


def infinite(draws):
    print(f"\n2. Share of draws with an infinite NLL, T = 2, sd 1.5; {draws} draws\n")
    print("| n | method | prior count 0 | prior count 1 |")
    print("|---|---|---|---|")
    for size in (100, 400, 2000):
        for method in ("histogram", "isotonic"):
            hit = {0.0: 0, 1.0: 0}
            for seed in range(draws):
                scores, answers = sample(np.random.default_rng(seed), size, 1.5, 2.0)
                for count in hit:
                    probs = posthoc.cross_fit(method, scores, answers, pseudo_count=count)
                    hit[count] += np.isinf(float(metrics.nll(probs, answers)))
            shares = " | ".join(f"{n / draws:.2f}" for n in hit.values())
            print(f"| {size} | {method} | {shares} |", flush=True)


def tied(fits):
    """Three distinct confidences in two bins of equal mass: rows that get another bin's share."""
    wrong, largest = 0, 0.0
    for seed in range(fits):
        rng = np.random.default_rng(seed)
        kinds = rng.normal(size=(3, 4)).astype(np.float32)
        kind = rng.integers(0, 3, 60)
        scores, answers = kinds[kind], rng.integers(0, 4, 60).astype(np.int32)
        fitted = posthoc.HistogramBinning.fit(
            scores, answers, num_bins=2, equal_mass=True, pseudo_count=0
        )
        confidence = softmax(kinds.astype(np.float64)).max(axis=1)
        order = np.argsort(confidence)
        total = np.cumsum(np.bincount(kind, minlength=3)[order])
        cut = int(np.searchsorted(total, 30))  # the kind that holds the thirtieth row
        lower = np.isin(kind, order[: cut + 1]) if cut < 2 else np.ones(60, bool)
        right = scores.argmax(axis=1) == answers
        expected = np.where(lower, right[lower].mean(), right[~lower].mean() if cut < 2 else 0)
        off = np.abs(np.asarray(fitted(scores)).max(axis=1) - np.maximum(expected, 1 / 4))
        wrong, largest = wrong + bool((off > 1e-5).any()), max(largest, off.max())
    print(
        f"\nTied confidences: a wrong bin in {wrong} of {fits} fits; off by {largest:.1e} at most"
    )


def rankings(draws):
    print(f"\n3. AUROC of cross-fitted scores; {draws} draws\n")
    print("| scores | n | method | as measured | pooled | within folds | new rows |")
    print("|---|---|---|---|---|---|---|")
    for informative in (False, True):
        for size in (50, 200):
            for method in ("temperature", "platt", "vector"):
                found = []
                for seed in range(draws):
                    rng = np.random.default_rng(seed)
                    scores = rng.normal(0, 1.5, (size + 4000, 4)).astype(np.float32)
                    chances = softmax(scores / 2) if informative else np.full(scores.shape, 1 / 4)
                    answers = drawn(rng, chances)
                    old, new = slice(0, size), slice(size, None)
                    folds = posthoc.fold_numbers(size, 5, seed, answers[old])
                    probs = posthoc.cross_fit(method, scores[old], answers[old], seed=seed)
                    fitted = posthoc.METHODS[method].fit(scores[old], answers[old])
                    split = {"folds": folds, "num_folds": 5}
                    values = (
                        metrics.auroc(softmax(scores[old]).astype(np.float32), answers[old]),
                        metrics.auroc(probs, answers[old]),
                        metrics.within_folds(metrics.auroc, probs, answers[old], **split),
                        metrics.auroc(np.asarray(fitted(scores[new])), answers[new]),
                    )
                    found.append([float(value) for value in values])
                mean, error = np.nanmean(found, axis=0), np.nanstd(found, axis=0) / np.sqrt(draws)
                cells = " | ".join(f"{m:.3f} ± {e:.3f}" for m, e in zip(mean, error, strict=True))
                name = "informative" if informative else "uninformative"
                print(f"| {name} | {size} | {method} | {cells} |", flush=True)


def temperatures(draws):
    """World -> sampler of (log-scores, answers, clusters)."""

    def two_kinds(rng, n):
        scores, answers = sample(rng, n, 1.5, 1.0)
        return scores * np.where(rng.random((n, 1)) < 0.5, 4.0, 0.7), answers, None

    def letter_bias(rng, n):
        scores, answers = sample(rng, n, 1.5, 1.0)
        return scores + 1.5 * (np.arange(4) == 0), answers, None

    def repeated(rng, n):
        scores, answers = sample(rng, n // 5, 1.5, 2.0)
        scores, answers = np.repeat(scores, 5, axis=0), np.repeat(answers, 5)
        return scores + rng.normal(0, 0.1, scores.shape), answers, np.repeat(np.arange(n // 5), 5)

    worlds = {
        "calibrated": lambda rng, n: (*sample(rng, n, 1.5, 1.0), None),
        "T = 2": lambda rng, n: (*sample(rng, n, 1.5, 2.0), None),
        "T = .5": lambda rng, n: (*sample(rng, n, 1.5, 0.5), None),
        "near chance, T = 6": lambda rng, n: (*sample(rng, n, 0.25, 6.0), None),
        "sharp (sd 6)": lambda rng, n: (*sample(rng, n, 6.0, 1.0), None),
        "letter A + 1.5": letter_bias,
        "half of the rows 6 times as confident": two_kinds,
        "each question five times": repeated,
    }
    print(f"\n4. Coverage of the 95 % interval of T, and its mean width in ln T; {draws} draws\n")
    print("| world | T | n = 50 | n = 200 | n = 1,000 |")
    print("|---|---|---|---|---|")
    for world, of in worlds.items():
        truth = posthoc.fit_temperature(*of(np.random.default_rng(10**6), 500_000)[:2])
        cells = []
        for size in (50, 200, 1000):
            held, width = 0, 0.0
            for seed in range(draws):
                scores, answers, clusters = of(np.random.default_rng((size, seed)), size)
                low, high = posthoc.temperature_interval(scores, answers, clusters=clusters)
                held, width = held + (low <= truth <= high), width + np.log(high / low)
            cells.append(f"{held / draws:.3f} ({width / draws:.2f})")
        print(f"| {world} | {truth:.3f} | {' | '.join(cells)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=1000, help="of the fourth table")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the draws")
    args = parser.parse_args()
    share = 20 if args.quick else 1
    warnings.simplefilter("ignore", posthoc.CalibrationWarning)
    started = time.perf_counter()
    order_and_accuracy(max(12 // share, 2))
    infinite(max(20 // share, 2))
    tied(max(150 // share, 10))
    rankings(max(60 // share, 3))
    temperatures(max(args.draws // share, 10))
    print(f"\n{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
