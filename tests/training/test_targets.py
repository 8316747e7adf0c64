"""Eq. 6 against the published values, its invariants, and the E-step's bookkeeping."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib_jax.training.targets import e_step, target_distribution

FOUR = (0.7, 0.2, 0.07, 0.03)
FIVE = (0.5, 0.2, 0.15, 0.1, 0.05)

FIXTURES = [
    (FOUR, 0.0, (0, 0.41571, 0.31562, 0.26867)),
    (FOUR, 0.3, (0.3, 0.28869, 0.22590, 0.18541)),
    (FOUR, 0.6, (0.6, 0.15540, 0.13614, 0.10846)),
    (FOUR, 0.9, (0.9, 0.03374, 0.03372, 0.03254)),
    (FOUR, 1.0, (1, 0, 0, 0)),
    ((0.97, 0.02, 0.007, 0.003), 0.6, (0.6, 0.15540, 0.13614, 0.10846)),
    ((0.25, 0.25, 0.25, 0.25), 0.25, (0.25, 0.25, 0.25, 0.25)),
    ((0.4, 0.3, 0.2, 0.1), 0.25, (0.25, 0.279, 0.257, 0.214)),
    ((0.7, 0.3), 0.3, (0.3, 0.7)),
    ((0.6, 0.3, 0.1), 0.0, (0, 0.565966, 0.434034)),
    ((0.6, 0.3, 0.1), 0.3, (0.3, 0.399936, 0.300064)),
    ((0.6, 0.3, 0.1), 0.9, (0.9, 0.050245, 0.049755)),
    (FIVE, 0.3, (0.3, 0.194023, 0.188075, 0.173740, 0.144162)),
    (FIVE, 0.6, (0.6, 0.104802, 0.104328, 0.101725, 0.089145)),
]


def one(probs, q, mask=None):
    mask = None if mask is None else np.array([mask])
    return np.asarray(
        target_distribution(np.array([probs], np.float32), np.array([q], np.float32), mask)
    )[0]


@pytest.mark.parametrize(("probs", "q", "expected"), FIXTURES)
def test_fixtures(probs, q, expected):
    digits = len(str(expected[1]).split(".")[-1]) if "." in str(expected[1]) else 6
    np.testing.assert_allclose(one(probs, q), expected, atol=0.51 * 10.0 ** -max(digits, 3))


def test_matches_the_printed_form_in_float64():
    """α·tanh(γ c_j) + β with α = β = (1 − q) / (T + K − 1), as the equation is printed."""
    rng = np.random.default_rng(0)
    for K in (3, 4, 5, 8):
        c = rng.dirichlet(np.ones(K))
        q = rng.uniform(0, 0.95)
        first = int(np.argmax(c))
        second = np.sort(c)[-2]
        gamma = math.log(K - 1) / (second * (1 - q))
        total = sum(math.tanh(gamma * c[j]) for j in range(K) if j != first)
        alpha = (1 - q) / (total + K - 1)
        expected = [q if j == first else alpha * math.tanh(gamma * c[j]) + alpha for j in range(K)]
        np.testing.assert_allclose(one(c, q), expected, atol=2e-6)


def test_certain_model_and_second_probability_of_zero_are_finite():
    np.testing.assert_allclose(one((1, 0, 0, 0), 0.4), (0.4, 0.2, 0.2, 0.2), atol=1e-6)
    np.testing.assert_allclose(one((1, 0, 0, 0), 1.0), (1, 0, 0, 0))
    np.testing.assert_allclose(one((1.0, 0.0), 0.25), (0.25, 0.75))


def test_first_of_equal_largest_takes_q():
    assert one((0.4, 0.4, 0.2), 0.9)[0] == pytest.approx(0.9)


def test_mask_gives_the_same_as_fewer_options():
    narrow = one((0.6, 0.3, 0.1), 0.3)
    wide = one((0.6, 0.3, 0.1, 0.0, 0.0), 0.3, (True, True, True, False, False))
    np.testing.assert_allclose(wide[:3], narrow, atol=1e-7)
    assert (wide[3:] == 0).all()


@settings(deadline=None, max_examples=50)
@given(st.integers(2, 26), st.floats(0, 1, width=32), st.integers(0, 2**31))
def test_invariants(K, q, seed):
    c = np.sort(np.random.default_rng(seed).dirichlet(np.full(K, 0.5)))[::-1].astype(np.float32)
    p = one(c, q)
    assert np.isfinite(p).all()
    assert p.sum() == pytest.approx(1, abs=1e-5)
    assert p[0] == np.float32(q)
    rest = p[1:]
    assert (np.diff(rest) <= 1e-6).all(), "the order of the other options is kept"
    if q < 1:
        assert rest[0] <= 2.001 * rest[-1], "no other option goes to zero"


def test_e_step_bins_and_accuracies_by_hand():
    probs = np.array([[0.9, 0.1], [0.85, 0.15], [0.4, 0.6], [0.3, 0.7], [0.05, 0.95]], np.float32)
    answers = np.array([0, 1, 1, 0, 1])
    result = e_step(probs, answers, np.ones_like(probs, bool))
    # (0.8, 0.9] holds the first two, one of them right; 0.6 and 0.7 close their own bins.
    assert np.asarray(result.bins).tolist() == [8, 8, 5, 6, 9]
    assert np.asarray(result.bin_counts).tolist() == [0, 0, 0, 0, 0, 1, 1, 0, 2, 1]
    q = np.asarray(result.bin_accuracy)
    np.testing.assert_allclose(q[[5, 6, 8, 9]], [1, 0, 0.5, 1])
    assert np.isnan(q[:5]).all()
    np.testing.assert_allclose(result.targets[0], [0.5, 0.5])
    np.testing.assert_allclose(result.targets[3], [1, 0])


def test_e_step_changes_with_the_model():
    answers, mask = np.zeros(2, int), np.ones((2, 4), bool)
    sharp = np.array([[0.97, 0.01, 0.01, 0.01]] * 2, np.float32)
    flat = np.array([[0.28, 0.24, 0.24, 0.24]] * 2, np.float32)
    assert not np.array_equal(e_step(sharp, answers, mask).bins, e_step(flat, answers, mask).bins)


def test_confidence_replaced_by_bin_accuracy_is_calibrated():
    """What the target aims at: with p_(1) = q, conf-ECE on the same set is zero."""
    from calib_jax import metrics

    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.full(4, 0.3), 400).astype(np.float32)
    answers = rng.integers(0, 4, 400)
    result = e_step(probs, answers, np.ones_like(probs, bool))
    q = np.asarray(result.bin_accuracy)[np.asarray(result.bins)]
    right = (probs.argmax(1) == answers).astype(np.float32)
    # As a two-way question: "right" has probability q, and the likelier of the two comes first.
    sure = np.maximum(q, 1 - q)
    answers = np.where((q >= 0.5) == (right == 1), 0, 1)
    stats = metrics.bin_stats(np.stack([sure, 1 - sure], 1), answers)
    assert float(metrics.ece_from_bins(stats)) < 1e-6


def test_bins_of_equal_mass_hold_equally_many():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(4), 1000).astype(np.float32)
    answers = rng.integers(0, 4, 1000)
    mask = np.ones((1000, 4), bool)
    result = e_step(probs, answers, mask, num_bins=8, binning="mass")
    assert result.bin_counts.tolist() == [125] * 8
    # The oracle: ranks, cut into eight.
    ranks = np.argsort(np.argsort(probs.max(axis=1), kind="stable"), kind="stable")
    np.testing.assert_array_equal(result.bins, ranks // 125)
    right = probs.argmax(axis=1) == answers
    expected = [right[ranks // 125 == m].mean() for m in range(8)]
    np.testing.assert_allclose(result.bin_accuracy, expected, rtol=1e-6)
    confidences = np.asarray(result.targets)[np.arange(1000), probs.argmax(axis=1)]
    np.testing.assert_allclose(confidences, np.array(expected)[ranks // 125], rtol=1e-6)


def test_equal_confidences_stay_in_one_bin_of_equal_mass():
    probs = np.tile(np.float32([0.7, 0.3]), (9, 1))
    result = e_step(probs, np.zeros(9, int), np.ones((9, 2), bool), num_bins=3, binning="mass")
    assert len(set(result.bins.tolist())) == 1 and result.bin_accuracy[result.bins[0]] == 1


def test_small_bins_shrink_towards_the_overall_accuracy():
    """Nine questions at 0.95, six of them right, and one right one at 0.55: q̄ = 0.7, κ = 2."""
    probs = np.float32([[0.95, 0.05]] * 9 + [[0.55, 0.45]])
    answers = np.array([0] * 6 + [1] * 3 + [0])
    mask = np.ones((10, 2), bool)
    q = e_step(probs, answers, mask, shrinkage=2.0).bin_accuracy
    np.testing.assert_allclose(q[9], (6 + 2 * 0.7) / 11, rtol=1e-6)
    np.testing.assert_allclose(q[5], (1 + 2 * 0.7) / 3, rtol=1e-6)
    plain = e_step(probs, answers, mask).bin_accuracy
    np.testing.assert_allclose([plain[9], plain[5]], [6 / 9, 1.0], rtol=1e-6)


def test_questions_may_differ_in_their_number_of_options():
    """Each question's targets are those of its own options; bins are shared."""
    rng = np.random.default_rng(1)
    counts = rng.integers(2, 6, 200)
    mask = np.arange(5) < counts[:, None]
    probs = rng.dirichlet(np.ones(5), 200) * mask
    probs = (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32)
    answers = rng.integers(0, counts)
    result = e_step(probs, answers, mask)
    np.testing.assert_allclose(result.targets.sum(axis=1), 1.0, rtol=1e-5)
    assert (np.asarray(result.targets)[~mask] == 0).all()
    right = probs.argmax(axis=1) == answers
    bins = np.ceil(probs.max(axis=1) * 10).astype(int) - 1
    for m in np.unique(bins):
        np.testing.assert_allclose(result.bin_accuracy[m], right[bins == m].mean(), rtol=1e-6)
    for i in range(0, 200, 20):
        alone = target_distribution(
            probs[i : i + 1, : counts[i]], result.bin_accuracy[bins[i]][None]
        )
        np.testing.assert_allclose(result.targets[i, : counts[i]], alone[0], atol=1e-6)


def test_accuracies_of_held_out_questions_alone():
    """Against a loop in numpy; a bin without any takes the overall accuracy of those held out."""
    rng = np.random.default_rng(4)
    probs = rng.dirichlet(np.ones(3), 300).astype(np.float32)
    mask, answers = np.ones((300, 3), bool), rng.integers(0, 3, 300)
    held = (rng.random(300) < 0.3) & (probs.max(axis=1) < 0.8)
    result = e_step(probs, answers, mask, held)
    bins, right = np.ceil(probs.max(axis=1) * 10).astype(int) - 1, probs.argmax(axis=1) == answers
    overall = right[held].mean()
    for m in range(10):
        own = right[held & (bins == m)]
        np.testing.assert_allclose(
            result.bin_accuracy[m], (own.sum() + overall) / (len(own) + 1), rtol=1e-6
        )
        assert result.bin_counts[m] == len(own)
    assert result.bin_counts[9] == 0 and (bins == 9).any()
    first = np.asarray(result.targets)[np.arange(300), probs.argmax(axis=1)]
    np.testing.assert_allclose(first, np.asarray(result.bin_accuracy)[bins], rtol=1e-6)
