import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss

from tests.metrics.kernels import kernels as metrics


def test_set_a_golden_values(set_a):
    assert metrics.accuracy(*set_a) == pytest.approx(0.6211, abs=1e-6)
    assert metrics.mean_confidence(*set_a) == pytest.approx(0.774404983393, abs=1e-6)
    assert metrics.nll(*set_a) == pytest.approx(1.071633744552, abs=1e-6)
    assert metrics.brier(*set_a) == pytest.approx(0.543255500887, abs=1e-6)


def test_edge_set_golden_values(edge_set):
    assert metrics.brier(*edge_set) == pytest.approx(0.653977777778, abs=1e-6)
    # Two answers have probability 0: infinite here, 3.93 where it is clipped.
    assert metrics.nll(*edge_set) == np.inf


def test_against_scikit_learn(draw):
    probs, answers = draw(500, 5, seed=2)
    weights = np.random.default_rng(0).random(500).astype(np.float32)
    exact = probs.astype(np.float64)
    exact /= exact.sum(axis=1, keepdims=True)
    expected = log_loss(answers, exact, labels=range(5), sample_weight=weights)
    assert metrics.nll(probs, answers, weights=weights) == pytest.approx(expected, rel=1e-5)
    expected = accuracy_score(answers, probs.argmax(axis=1), sample_weight=weights)
    assert metrics.accuracy(probs, answers, weights=weights) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["accuracy", "mean_confidence", "nll", "brier"])
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**31))
def test_equals_the_definition_with_mask_and_weights(ref, name, seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((20, 5)) < 0.6
    answers = rng.integers(0, 5, 20)
    mask[np.arange(20), answers] = True
    probs = np.where(mask, rng.integers(1, 4, (20, 5)), 0)  # many ties
    probs = (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32)
    weights = rng.integers(0, 3, 20)
    garbage = np.where(mask, probs, 0.9).astype(np.float32)  # under the mask, not read
    expected = getattr(ref, name)(probs, answers, mask, weights)
    value = getattr(metrics, name)(garbage, answers, mask, weights=weights)
    assert value == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_uniform_guesser():
    probs, answers = np.full((8, 4), 0.25), np.arange(8) % 4
    assert metrics.nll(probs, answers) == pytest.approx(np.log(4))
    assert metrics.brier(probs, answers) == pytest.approx(0.75)
    assert metrics.accuracy(probs, answers) == 0.25  # ties go to the first option


def test_per_row_forms(draw):
    probs, answers = draw(10, 3)
    nll, brier = metrics.row_nll(probs, answers), metrics.row_brier(probs, answers)
    assert metrics.nll(probs, answers) == pytest.approx(float(nll.mean()))
    assert metrics.brier(probs, answers) == pytest.approx(float(brier.mean()))
    np.testing.assert_array_equal(metrics.predictions(probs), probs.argmax(axis=1))
    np.testing.assert_array_equal(metrics.confidences(probs), probs.max(axis=1))
    np.testing.assert_array_equal(
        metrics.correctness(probs, answers), (probs.argmax(axis=1) == answers).astype(np.float32)
    )


def test_masked_options_are_never_predicted_and_masked_answers_never_likely():
    probs = jnp.array([[0.7, 0.2, 0.1], [0.7, 0.2, 0.1]])
    mask = jnp.array([[False, True, True], [False, False, False]])
    assert metrics.predictions(probs, mask).tolist() == [1, -1]
    np.testing.assert_array_equal(metrics.confidences(probs, mask), np.float32([0.2, np.nan]))
    assert metrics.row_nll(probs, jnp.array([0, 1]), mask).tolist() == [np.inf, np.inf]
    assert metrics.row_nll(probs, jnp.array([3, -1])).tolist() == [np.inf, np.inf]


def test_rank_quantiles_are_numpys_over_the_rows_that_have_the_rank(draw):
    probs, _ = draw(40, 4)
    mask = np.arange(4) < np.random.default_rng(0).integers(2, 5, size=(40, 1))
    found = metrics.rank_quantiles(np.where(mask, probs, 9.0), mask)
    for rank in range(4):
        has = mask.sum(axis=1) > rank
        column = [np.sort(p[m])[::-1][rank] for p, m in zip(probs[has], mask[has], strict=True)]
        expected = np.quantile(column, [0.05, 0.25, 0.5, 0.75, 0.95])
        np.testing.assert_allclose(found[rank], expected, rtol=1e-5)
    one_option = np.arange(4) < np.ones((40, 1))
    assert np.isnan(metrics.rank_quantiles(probs, one_option)[1:]).all()
