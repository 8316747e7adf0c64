import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib_jax.metrics import ranks, selective
from calib_jax.metrics.selective import _harmonic_difference
from tests.metrics.kernels import kernels as metrics


def top_two(confidence):
    confidence = np.asarray(confidence, np.float32)
    return np.stack([confidence, 1 - confidence], axis=1)


def runs_by_loops(probs, answers, mask=None, weights=None):
    """[(confidence, n, errors)] of the runs of equal confidence, from the top; float64."""
    probs = np.asarray(probs, np.float32)
    probs = probs if mask is None else np.where(mask, probs, -1)
    weights = np.ones(len(probs), int) if weights is None else weights
    table = {}
    for p, y, w in zip(probs, answers, weights, strict=True):
        if w:
            n, errors = table.get(p.max(), (0, 0))
            table[p.max()] = (n + int(w), errors + int(w) * (p.argmax() != y))
    return [(c, *table[c]) for c in sorted(table, reverse=True)]


def risks(*args, **kwargs):
    """risk(k), k = 1..N, with each run's errors spread evenly."""
    shown = errors = 0
    found = []
    for _, n, wrong in runs_by_loops(*args, **kwargs):
        found += [(errors + j * wrong / n) / (shown + j) for j in range(1, n + 1)]
        shown, errors = shown + n, errors + wrong
    return np.array(found)


def test_golden_values(set_a):
    """uncertainty-calibration 0.1.4 (HELM): 1 - area, and the accuracy at a tenth."""
    assert metrics.aurc(*set_a) == pytest.approx(0.228081953235, abs=1e-6)
    assert metrics.accuracy_at_coverage(*set_a, coverage=0.1) == pytest.approx(
        0.917082917083, abs=1e-6
    )


def test_edge_set_is_the_mean_over_the_orders_of_its_ties(edge_set):
    """Libraries print what the sort left: 0.408169859622 for one order, 0.404964731417 another."""
    probs, answers = edge_set
    wrong = answers != 0
    confidence = probs[:, 0]
    rng = np.random.default_rng(0)
    draws = []
    for _ in range(4000):
        order = np.lexsort((rng.random(24), -confidence))
        draws.append((np.cumsum(wrong[order]) / np.arange(1, 25)).mean())
    found = float(metrics.aurc(*edge_set))
    assert found == pytest.approx(np.mean(draws), abs=4 * np.std(draws) / np.sqrt(4000))
    assert min(draws) < 0.408169859622 < max(draws) and min(draws) < 0.404964731417 < max(draws)
    assert found == pytest.approx(risks(*edge_set).mean(), abs=1e-6)


def test_expectation_over_all_orders_of_a_tie():
    probs, answers = top_two([0.9, 0.7, 0.7, 0.7, 0.6]), [0, 1, 0, 0, 1]
    wrong = np.array([0, 1, 0, 0, 1])
    every = [
        (np.cumsum([0, *wrong[list(order)], 1]) / np.arange(1, 6))
        for order in itertools.permutations([1, 2, 3])
    ]
    assert metrics.aurc(probs, answers) == pytest.approx(np.mean(every), abs=1e-7)
    curve = metrics.risk_coverage_curve(probs, answers)
    np.testing.assert_allclose(curve.risk, np.mean(every, axis=0), atol=1e-7)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), levels=st.sampled_from([1, 4, 1000]))
def test_against_loops_with_ties_and_weights(seed, levels):
    rng = np.random.default_rng(seed)
    probs = top_two(0.5 + rng.integers(0, levels, 40) / (2 * levels))
    answers, weights = rng.integers(0, 2, 40), rng.integers(0, 3, 40)
    weights[3] = 2
    order = rng.permutation(40)
    for w in (None, weights):
        kwargs = {"weights": w}
        expected = risks(probs, answers, **kwargs)
        total = len(expected)
        found = metrics.aurc(probs, answers, **kwargs)
        assert found == pytest.approx(expected.mean(), abs=1e-6)
        shuffled = {"weights": None if w is None else w[order]}
        again = metrics.aurc(probs[order], answers[order], **shuffled)
        assert again == pytest.approx(float(found), abs=1e-6)

        for share in (0.0, 0.1, 0.5, 1.0):
            k = min(int(np.float32(share) * total) + 1, total)
            found = metrics.accuracy_at_coverage(probs, answers, coverage=share, **kwargs)
            assert found == pytest.approx(1 - expected[k - 1], abs=1e-6)

        ends = np.cumsum([n for _, n, _ in runs_by_loops(probs, answers, **kwargs)])
        for wanted in (0.3, 0.55, 0.9):
            good = [n for n in ends if np.float32(1 - expected[n - 1]) >= np.float32(wanted) - 1e-7]
            found = metrics.coverage_at_accuracy(probs, answers, accuracy=wanted, **kwargs)
            assert found == pytest.approx(max(good, default=0) / total, abs=1e-6)

        curve = metrics.risk_coverage_curve(probs, answers, **kwargs)
        row = np.rint(np.asarray(curve.coverage) * total).astype(int)
        counted = row > 0
        np.testing.assert_allclose(curve.risk[counted], expected[row[counted] - 1], atol=1e-6)
        assert (np.diff(curve.coverage) >= 0).all()
        assert curve.coverage[-1] == pytest.approx(1, abs=1e-6)
        assert (np.diff(curve.confidence) <= 0).all()
    repeated = np.repeat(np.arange(40), weights)
    assert metrics.aurc(probs, answers, weights=weights) == pytest.approx(
        risks(probs[repeated], answers[repeated]).mean(), abs=1e-6
    )


def test_curve_ends_at_the_error_rate_and_averages_to_aurc(draw):
    probs, answers = draw(300, 4, seed=1)
    probs = np.round(probs, 1)
    curve = metrics.risk_coverage_curve(probs, answers)
    assert curve.risk[-1] == pytest.approx(1 - float(metrics.accuracy(probs, answers)), abs=1e-6)
    assert np.mean(curve.risk) == pytest.approx(float(metrics.aurc(probs, answers)), abs=1e-6)
    assert metrics.accuracy_at_coverage(probs, answers, coverage=1.0) == pytest.approx(
        float(metrics.accuracy(probs, answers)), abs=1e-6
    )


def test_constant_confidence_scores_the_error_rate():
    probs, answers = np.full((40, 2), 0.5), np.arange(40) % 4
    assert metrics.aurc(probs, answers % 2) == pytest.approx(0.5, abs=1e-6)
    assert metrics.coverage_at_accuracy(probs, answers % 2, accuracy=0.5) == 1
    assert metrics.coverage_at_accuracy(probs, answers % 2, accuracy=0.51) == 0


@jax.jit
def every(probs, answers, mask=None, weights=None):
    """One compilation per kind of input instead of one per metric."""
    scalars = (metrics.aurc, metrics.accuracy_at_coverage, metrics.coverage_at_accuracy)
    values = [metric(probs, answers, mask, weights=weights) for metric in scalars]
    return jnp.stack(
        [*values, metrics.risk_coverage_curve(probs, answers, mask, weights).risk.sum()]
    )


def test_masks_junk_rows_and_no_rows(draw):
    probs, answers = draw(50, 3)
    expected = every(probs, answers)
    assert np.isfinite(expected).all()
    wide = np.concatenate([probs, np.full((50, 2), 7.0, np.float32)], axis=1)
    mask = np.arange(5) < np.full((50, 1), 3)
    np.testing.assert_allclose(every(wide, answers, mask), expected, rtol=1e-6)
    junk = np.concatenate([probs, np.full((5, 3), np.nan, np.float32)])
    labels = np.concatenate([answers, np.full(5, 99, np.int32)])
    for dtype in (np.int32, np.float32):
        weights = (np.arange(55) < 50).astype(dtype)
        found = every(junk, labels, weights=weights)
        np.testing.assert_allclose(found[:3], expected[:3], rtol=1e-6)
        assert np.isnan(every(junk, labels, weights=weights * 0)[:3]).all()
        assert np.isnan(every(junk, labels, weights=weights * 0 + 1)).all()
    assert np.isnan(every(np.ones((0, 3)), np.zeros(0, int))[:3]).all()
    assert np.isfinite(every(probs[:1], answers[:1])).all()
    low = jnp.asarray(probs, jnp.float16)
    np.testing.assert_allclose(every(low, answers), every(low.astype(jnp.float32), answers))
    assert np.isnan(metrics.accuracy_at_coverage(probs, answers, coverage=1.5))


def test_bootstrap_and_vmap(draw):
    probs, answers = draw(200, 3)
    low, high = metrics.bootstrap(metrics.aurc, probs, answers, num_resamples=200)
    assert low < float(metrics.aurc(probs, answers)) < high
    weights = np.random.default_rng(0).integers(0, 3, (4, 200))
    many = jax.vmap(lambda w: metrics.aurc(probs, answers, weights=w))(weights)
    for found, w in zip(many, weights, strict=True):
        assert found == pytest.approx(risks(probs, answers, weights=w).mean(), abs=1e-6)


def test_harmonic_differences_at_any_size():
    pairs = [(0, 1), (0, 5), (3, 4), (7, 9), (6, 6), (100, 101), (0, 1000), (20, 400)]
    low, high = np.array(pairs).T
    expected = [sum(1 / k for k in range(a + 1, b + 1)) for a, b in pairs]
    np.testing.assert_allclose(_harmonic_difference(low, high), expected, rtol=5e-7, atol=1e-9)
    # Far out a difference of harmonic numbers would have no digits left.
    found = _harmonic_difference(jnp.int32(9_999_999), jnp.int32(10_000_000))
    assert found == pytest.approx(1e-7, rel=1e-5)


def test_covered_rows_are_counted_exactly():
    """k = floor(coverage N) + 1 of the decimal, for all N to 200 and all hundredths."""
    top = np.linspace(1, 0.6, 200, dtype=np.float32)
    probs = jnp.stack([top, 1 - top], axis=1)
    answers = np.r_[1, np.zeros(199, int)]  # only the first row is wrong: an accuracy of 1 - 1/k
    counted = jnp.asarray(np.tri(200, dtype=np.int32))
    keyed = ranks.by_confidence(probs, answers, None, None)
    of_every_number = jax.jit(jax.vmap(selective._accuracy_at, in_axes=(None, 0, None, None)))
    for hundredths in range(101):
        share = Fraction(hundredths, 100)
        digits = jnp.asarray(selective._digits(share), jnp.uint32)
        found = of_every_number(keyed, counted, hundredths / 100, digits)
        expected = [min(math.floor(share * n) + 1, n) for n in range(1, 201)]
        assert np.rint(1 / (1 - np.asarray(found, np.float64))).tolist() == expected
    for share, k in ((0.53, 54), (0.59, 60), (0.29, 30), (np.float32(0.57), 58), (1, 100), (0, 1)):
        found = metrics.accuracy_at_coverage(probs[:100], answers[:100], coverage=share)
        assert round(1 / (1 - float(found))) == k
    assert np.isnan(metrics.accuracy_at_coverage(probs, answers, coverage=np.nan))


@pytest.mark.parametrize("number", [1, 65_536, 10**7 + 1, 2**31 - 1])
def test_shares_of_large_numbers_are_exact(number):
    rng = np.random.default_rng(number)
    shares = [
        Fraction(repr(float(x))) for x in (*rng.random(40), 1e-9, 0.1, 1 / 3, 0.9999999999999999)
    ]
    shares += [Fraction(k, number) for k in (0, 1, number // 2, number)]
    for share in shares:
        digits = jnp.asarray(selective._digits(share), jnp.uint32)
        assert int(selective._whole_part(digits, jnp.uint32(number))) == math.floor(share * number)
