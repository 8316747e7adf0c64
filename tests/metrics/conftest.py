"""Data and an independent float64 reference (plain loops) for the metric tests."""

import types

import numpy as np
import pytest

# (confidence of option 0, which is always predicted; whether it is right): values on tenths, ties
# and exact ones.
EDGE_ROWS = [
    (0.25, 0), (0.3, 1), (0.3, 0), (0.35, 1), (0.4, 0), (0.5, 1), (0.5, 1), (0.55, 0),
    (0.6, 1), (0.62, 0), (0.7, 0), (0.7, 1), (0.75, 1), (0.8, 1), (0.83, 0), (0.9, 0),
    (0.9, 1), (0.93, 1), (0.95, 1), (0.97, 1), (1.0, 0), (1.0, 1), (1.0, 1), (1.0, 0),
]  # fmt: skip  # pairs, several on a line


@pytest.fixture(scope="session")
def edge_set():
    """(probs [24, 4], answers [24])."""
    confidence, right = np.array(EDGE_ROWS).T
    probs = np.repeat((1 - confidence)[:, None] / 3, 4, axis=1)
    probs[:, 0] = confidence
    return probs, np.where(right == 1, 0, 1 + np.arange(24) % 3)


@pytest.fixture(scope="session")
def set_a():
    """(probs [10000, 4] float64, answers): overconfident by a temperature of exactly 2."""
    uniform = np.random.Generator(np.random.PCG64(20261120)).random((10_000, 9))
    normal = np.sqrt(-2 * np.log1p(-uniform[:, :4])) * np.cos(2 * np.pi * uniform[:, 4:8])

    def softmax(x):
        x = np.exp(x - x.max(axis=1, keepdims=True))
        return x / x.sum(axis=1, keepdims=True)

    true = np.cumsum(softmax(1.5 * normal), axis=1)
    answers = np.minimum((true < uniform[:, 8:]).sum(axis=1), 3)
    return softmax(3.0 * normal), answers


@pytest.fixture(scope="session")
def draw():
    """draw(num_rows, num_options, seed=0, sharpness=1.0) -> (probs float32, answers int32).

    Answers are drawn from the probabilities: calibrated for sharpness 1.
    """

    def draw(num_rows, num_options, seed=0, sharpness=1.0):
        rng = np.random.default_rng(seed)
        true = rng.dirichlet(np.full(num_options, 0.7), size=num_rows)
        limits = np.cumsum(true, axis=1)
        answers = (limits < rng.random((num_rows, 1))).sum(axis=1).clip(max=num_options - 1)
        probs = true**sharpness
        probs /= probs.sum(axis=1, keepdims=True)
        return probs.astype(np.float32), answers.astype(np.int32)

    return draw


@pytest.fixture(scope="session")
def ref():
    """Metrics by float64 loops over rows, from their definitions."""

    def bin_of(value, num_bins, edges):
        for m in range(num_bins):
            low, high = np.float32(m / num_bins), np.float32((m + 1) / num_bins)
            if edges == "right" and value <= high and (value > low or m == 0):
                return m
            if edges == "left" and value >= low and (value < high or m == num_bins - 1):
                return m
        raise AssertionError(value)

    def rows(probs, answers, mask, weights):
        probs = np.asarray(probs, np.float32)
        mask = np.ones(probs.shape, bool) if mask is None else mask
        weights = np.ones(len(probs)) if weights is None else weights
        for p, y, valid, w in zip(probs, answers, mask, weights, strict=True):
            if w == 0:
                continue
            options = [k for k in range(len(p)) if valid[k]]
            yield p, int(y), float(w), options, max(options, key=lambda k: (p[k], -k))

    def binned(items, num_bins, edges):
        """items: (group, value, label, weight) -> {(group, bin): [n, labels, values]}."""
        table = {}
        for group, value, label, w in items:
            cell = table.setdefault((group, bin_of(value, num_bins, edges)), [0.0, 0.0, 0.0])
            cell[0] += w
            cell[1] += w * label
            cell[2] += w * float(value)
        return table

    def error(table):
        if not table:
            return np.nan
        gaps = [n * abs(labels / n - values / n) for n, labels, values in table.values()]
        return sum(gaps) / sum(n for n, _, _ in table.values())

    def conf_ece(probs, answers, mask=None, num_bins=10, edges="right", weights=None):
        items = [(0, p[g], g == y, w) for p, y, w, _, g in rows(probs, answers, mask, weights)]
        return error(binned(items, num_bins, edges))

    def cw_ece(probs, answers, mask=None, num_bins=10, edges="right", weights=None, ovr=False):
        items = [
            (k, p[k], ((g == k) == (y == k)) if ovr else y == k, w)
            for p, y, w, options, g in rows(probs, answers, mask, weights)
            for k in options
        ]
        return error(binned(items, num_bins, edges))

    def sce_ovr(*args, **kwargs):
        return cw_ece(*args, **kwargs, ovr=True)

    def mean(value):
        def metric(probs, answers, mask=None, weights=None):
            found = [
                (w, value(p.astype(np.float64), y, options, g))
                for p, y, w, options, g in rows(probs, answers, mask, weights)
            ]
            return sum(w * v for w, v in found) / sum(w for w, _ in found) if found else np.nan

        return metric

    def auroc(probs, answers, mask=None, weights=None):
        found = [(p[g], g == y, w) for p, y, w, _, g in rows(probs, answers, mask, weights)]
        won = pairs = 0.0
        for c, right, w in found:
            for d, other, v in found:
                if right and not other:
                    won += w * v * (1.0 if c > d else 0.5 if c == d else 0.0)
                    pairs += w * v
        return won / pairs if pairs else np.nan

    return types.SimpleNamespace(
        bin_of=bin_of,
        conf_ece=conf_ece,
        cw_ece=cw_ece,
        sce_ovr=sce_ovr,
        auroc=auroc,
        accuracy=mean(lambda p, y, options, g: g == y),
        mean_confidence=mean(lambda p, y, options, g: p[g]),
        nll=mean(lambda p, y, options, g: -np.log(p[y])),
        brier=mean(lambda p, y, options, g: sum((p[k] - (k == y)) ** 2 for k in options)),
    )


@pytest.fixture(scope="session")
def mass_bins():
    """mass_bins(values, labels, weights, num_bins, edges) -> [(n, labels, values)], non-empty.

    Equal-mass bins by float64 loops: rows are repeated by their weights, split by rank, cut at
    the mid-points; cuts that coincide are one.
    """

    def mass_bins(values, labels, weights=None, num_bins=10, edges="right"):
        values = np.asarray(values, np.float32).astype(np.float64)
        weights = np.ones(len(values), int) if weights is None else np.asarray(weights)
        values, labels = np.repeat(values, weights), np.repeat(np.asarray(labels, float), weights)
        if not len(values):
            return []
        parts = np.array_split(np.sort(values), min(num_bins, len(values)))
        cuts = sorted({(a[-1] + b[0]) / 2 for a, b in zip(parts, parts[1:], strict=False)})
        index = np.searchsorted(cuts, values, side="left" if edges == "right" else "right")
        return [
            ((index == m).sum(), labels[index == m].sum(), values[index == m].sum())
            for m in range(len(cuts) + 1)
            if (index == m).any()
        ]

    return mass_bins
