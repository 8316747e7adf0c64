import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from calib_jax import metrics


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
