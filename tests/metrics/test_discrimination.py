import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from tests.metrics.kernels import kernels as metrics


def test_golden_values(set_a, edge_set):
    assert metrics.auroc(*set_a) == pytest.approx(0.700186487514, abs=1e-6)
    assert metrics.auroc(*edge_set) == pytest.approx(0.575, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**31), levels=st.sampled_from([2, 5, 1000]))
def test_against_pairs_with_ties_and_weights(ref, seed, levels):
    rng = np.random.default_rng(seed)
    top = (0.5 + rng.integers(0, levels, 40) / (2 * levels)).astype(np.float32)
    probs = np.stack([top, 1 - top], axis=1)
    answers, weights = rng.integers(0, 2, 40), rng.integers(0, 3, 40)
    assert metrics.auroc(probs, answers) == pytest.approx(ref.auroc(probs, answers), abs=1e-6)
    assert metrics.auroc(probs, answers, weights=weights) == pytest.approx(
        ref.auroc(probs, answers, weights=weights), abs=1e-6, nan_ok=True
    )


def test_against_scikit_learn(draw):
    probs, answers = draw(3000, 4, seed=4)
    probs = np.round(probs, 2)  # ties
    weights = np.random.default_rng(0).random(3000).astype(np.float32)
    right = probs.argmax(axis=1) == answers
    expected = roc_auc_score(right, probs.max(axis=1))
    assert metrics.auroc(probs, answers) == pytest.approx(expected, abs=1e-6)
    expected = roc_auc_score(right, probs.max(axis=1), sample_weight=weights)
    assert metrics.auroc(probs, answers, weights=weights) == pytest.approx(expected, abs=1e-5)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31), levels=st.sampled_from([1, 3, 1000]))
def test_auprc_against_scikit_learn(seed, levels):
    rng = np.random.default_rng(seed)
    top = (0.5 + rng.integers(0, levels, 40) / (2 * levels)).astype(np.float32)
    probs = np.stack([top, 1 - top], axis=1)
    answers, weights = rng.integers(0, 2, 40), rng.integers(0, 3, 40)
    right = probs.argmax(axis=1) == answers
    weights[[right.argmax(), right.argmin()]] = 1
    order = rng.permutation(40)
    for positive, hit, score in (("correct", right, top), ("wrong", ~right, -top)):
        for w in (None, weights):
            if not hit.any():
                continue
            found = metrics.auprc(probs, answers, positive=positive, weights=w)
            expected = average_precision_score(hit, score, sample_weight=w)
            assert found == pytest.approx(expected, abs=1e-6)
            again = metrics.auprc(
                probs[order],
                answers[order],
                positive=positive,
                weights=None if w is None else w[order],
            )
            assert again == pytest.approx(float(found), abs=1e-6)


def test_auprc_limits(draw):
    probs = [[0.9, 0.1], [0.6, 0.4], [0.8, 0.2]]
    assert np.isnan(metrics.auprc(probs, [1, 1, 1]))
    assert np.isnan(metrics.auprc(probs, [0, 0, 0], positive="wrong"))
    assert metrics.auprc(probs, [0, 0, 0]) == 1
    assert metrics.auprc(np.full((10, 2), 0.5), np.arange(10) % 2) == 0.5
    assert np.isnan(metrics.auprc(np.ones((0, 2)), np.zeros(0, int)))
    with pytest.raises(ValueError, match="positive must be"):
        metrics.auprc(probs, [0, 0, 0], positive="right")
    junk = np.array([[np.nan, np.nan], [0.9, 0.1], [0.6, 0.4]])
    for positive in ("correct", "wrong"):
        assert np.isnan(metrics.auprc(junk, [0, 0, 1], positive=positive))
        assert metrics.auprc(junk, [0, 0, 1], positive=positive, weights=[0, 1, 1]) == 1
    low, high = metrics.bootstrap(metrics.auprc, *draw(200, 3), num_resamples=50)
    assert low < high


def test_nan_when_one_class_is_absent():
    probs = [[0.9, 0.1], [0.6, 0.4], [0.8, 0.2]]
    assert np.isnan(metrics.auroc(probs, [0, 0, 0]))
    assert np.isnan(metrics.auroc(probs, [1, 1, 1]))
    assert np.isnan(metrics.auroc(probs, [0, 0, 1], weights=[1, 1, 0]))
    assert metrics.auroc(probs, [0, 0, 1]) == 0.5


def test_constant_confidence_tells_nothing():
    assert metrics.auroc(np.full((10, 2), 0.5), np.arange(10) % 2) == 0.5


def test_nan_counts_only_where_the_row_counts():
    probs = np.array([[0.9, 0.1], [0.6, 0.4], [np.nan, np.nan]])
    assert np.isnan(metrics.auroc(probs, [0, 1, 0]))
    assert metrics.auroc(probs, [0, 1, 0], weights=[1, 1, 0]) == 1.0
