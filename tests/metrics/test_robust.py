"""Shares and tests of rows in clusters, against numpy and by simulation."""

import itertools

import numpy as np
import pytest
from scipy import stats

from calib_jax import metrics
from calib_jax.metrics import robust


def test_share_interval_is_wilson_s_at_the_effective_number():
    rng = np.random.default_rng(2)
    code = np.repeat(np.arange(12), rng.integers(2, 7, 12))
    right = rng.random(len(code)) < rng.beta(1, 1, 12)[code]
    n, p = len(code), right.mean()
    sums = np.array([(right[code == g] - p).sum() for g in range(12)])
    design = 12 / 11 * (sums**2).sum() / (n * p * (1 - p))
    assert design > 1
    z, t = stats.norm.ppf(0.95), stats.t.ppf(0.95, 11)
    effective = n / design * (z / t) ** 2
    # The ends of Wilson's interval solve |p - x| = z sqrt(x (1 - x) / n*).
    for end in metrics.share_interval(right, code, level=0.9):
        assert abs(p - end) == pytest.approx(z * np.sqrt(end * (1 - end) / effective), rel=1e-9)


def test_share_interval_at_its_edges():
    right = np.arange(30) % 3 > 0
    alone = tuple(float(x) for x in metrics.wilson_interval(20, 30))
    assert metrics.share_interval(right) == pytest.approx(alone)
    assert metrics.share_interval(right, np.arange(30)[::-1]) == pytest.approx(alone)
    assert metrics.share_interval(right, [0] * 30) == (0.0, 1.0)
    # All right: as if each of the ten clusters were one row, and wider yet by Student's t.
    low, high = metrics.share_interval(np.ones(30), np.arange(30) // 3)
    assert high == 1 and low < metrics.wilson_interval(10, 10)[0]
    assert np.isnan(metrics.share_interval([])).all()
    # One right and one wrong in each: a design effect of 0, taken as 1.
    even = np.tile([1, 0], 20)
    rows = 40 * (stats.norm.ppf(0.975) / stats.t.ppf(0.975, 19)) ** 2
    found = metrics.share_interval(even, np.arange(40) // 2)
    assert found == pytest.approx(tuple(map(float, metrics.wilson_interval(rows / 2, rows))))


def test_several_sets_together_are_as_wide_as_their_clusters_make_them():
    rng = np.random.default_rng(3)
    right, count, ends, worth = [], [], [], []
    for size in (1, 5, 12):
        code = np.repeat(np.arange(25), size)
        rows = rng.random(len(code)) < rng.beta(1, 1, 25)[code]
        right.append(rows.sum())
        count.append(len(rows))
        ends.append(metrics.share_interval(rows, code, level=0.9))
        worth.append(metrics.effective_rows(rows, code, level=0.9))
    low, high = np.array(ends).T
    n = np.array(count)
    together = n.sum() ** 2 / (n**2 / np.array(worth)).sum()
    assert together < n.sum() / 2
    expected = metrics.wilson_interval(sum(right) / n.sum() * together, together, 0.9)
    found = metrics.pooled_interval([*right, 0], [*count, 0], [*low, np.nan], [*high, np.nan], 0.9)
    assert found == pytest.approx(tuple(map(float, expected)), rel=1e-9)
    # Of one set its own; of independent rows Wilson's; of lonely clusters as if each were a row.
    assert metrics.pooled_interval([7], [9], [0.3], [0.9]) == (0.3, 0.9)
    apart = metrics.wilson_interval([0, 5, 20], [3, 10, 20])
    whole = tuple(map(float, metrics.wilson_interval(25, 33)))
    assert metrics.pooled_interval([0, 5, 20], [3, 10, 20], *apart) == pytest.approx(whole)
    lonely = metrics.pooled_interval([4, 2], [6, 6], [0, 0], [1, 1])
    assert lonely == pytest.approx(tuple(map(float, metrics.wilson_interval(1, 2))))
    assert np.isnan(metrics.pooled_interval([], [], [], [])).all()


@pytest.mark.parametrize("splits", [1, 4])
def test_pooled_intervals_cover_where_rows_come_in_clusters(splits):
    """20 clusters of 10 at a correlation of .5 in all, in one split or in four."""
    rng = np.random.default_rng(splits)
    held, alone = 0, 0
    for _ in range(400):
        sets = []
        code = np.repeat(np.arange(20), 10)
        latent = np.sqrt(0.5) * rng.normal(size=20)[code] + np.sqrt(0.5) * rng.normal(size=200)
        for of in np.split(np.arange(200), splits):
            right = latent[of] < stats.norm.ppf(0.7)
            sets.append((right.sum(), len(of), *metrics.share_interval(right, code[of])))
        low, high = metrics.pooled_interval(*zip(*sets, strict=True))
        held += low <= 0.7 <= high
        low, high = metrics.wilson_interval(sum(s[0] for s in sets), 200)
        alone += low <= 0.7 <= high
    assert held >= 0.93 * 400 and alone <= 0.8 * 400


@pytest.fixture(scope="module")
def few():
    """Three clusters of 40 ragged rows, and every draw of the signs."""
    rng = np.random.default_rng(5)
    mask = np.ones((40, 3), bool)
    mask[::4, 2] = False
    logits = np.where(mask, rng.normal(size=mask.shape), -np.inf)
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    answers = rng.integers(0, 2, 40)
    code = rng.integers(0, 3, 40)
    found = metrics.clustered_null(probs, answers, code, mask, num_bins=5, num_draws=60)
    return probs, answers, code, mask, found


def test_draws_turn_the_residuals_of_whole_clusters(few):
    probs, answers, code, mask, found = few
    top = probs.argmax(axis=1)
    confidence, right = probs.max(axis=1), top == answers
    bins = np.ceil(confidence * 5).astype(int) - 1
    onehot = np.eye(3)[answers]
    class_bins = np.maximum(np.ceil(probs * 5).astype(int) - 1, 0)
    conf, cw = set(), set()
    for signs in itertools.product((1, -1), repeat=3):
        sign = np.array(signs)[code]
        gap = np.bincount(bins, sign * (right - confidence), 5)
        conf.add(np.abs(gap).sum() / 40)
        gaps = [
            np.bincount(class_bins[mask[:, k], k], (sign * (onehot - probs).T[k])[mask[:, k]], 5)
            for k in range(3)
        ]
        cw.add(np.abs(gaps).sum() / mask.sum())
    for values, expected in ((found["conf_ece"], conf), (found["cw_ece"], cw)):
        distance = np.abs(values[:, None] - np.array(sorted(expected)))
        assert distance.min(axis=1).max() < 1e-6  # every draw is one of them
        assert (distance.min(axis=0) < 1e-6).all()  # and each of them is drawn


def test_the_last_value_is_the_observed_one(few):
    probs, answers, _, mask, found = few
    bins = {"num_bins": 5}
    for name, function, options in (
        ("conf_ece", metrics.conf_ece, bins),
        ("cw_ece", metrics.cw_ece, bins),
        ("smooth_ece", metrics.smooth_ece, {}),
    ):
        assert found[name][-1] == pytest.approx(
            float(function(probs, answers, mask, **options)), abs=1e-6
        )


def test_the_test_keeps_its_size_where_independent_draws_do_not():
    """Calibrated rows in 50 clusters of 4, whose answers are right or wrong together."""
    rng = np.random.default_rng(0)
    code = np.repeat(np.arange(50), 4)
    rejected = np.zeros(2)
    for seed in range(200):
        confidence = rng.uniform(0.55, 0.9, 200)
        probs = np.column_stack([confidence, 1 - confidence])
        answers = (rng.random(50)[code] > confidence).astype(int)
        options = {"num_draws": 99, "seed": seed}
        alone = metrics.consistency_test(metrics.conf_ece, probs, answers, **options)
        together = metrics.cluster_consistency_test(probs, answers, code, **options)
        rejected += np.array([alone.p_value, together.p_value]) <= 0.05
    assert rejected[0] > 40 and rejected[1] <= 20  # 10 expected, standard deviation 3


def test_an_unknown_metric_and_no_draws_are_refused():
    arrays = [[0.75, 0.25]] * 4, [0, 0, 0, 1], [0, 0, 1, 1]
    with pytest.raises(ValueError, match="metric must be one of conf_ece, cw_ece, smooth_ece"):
        robust.cluster_consistency_test(*arrays, metric="mce", num_draws=2)
    with pytest.raises(ValueError, match="num_draws must be at least 1"):
        robust.clustered_null(*arrays, num_draws=0)
