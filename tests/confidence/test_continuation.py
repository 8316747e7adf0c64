"""Scores of continuations from their tokens' log-probabilities, against float64 loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax.confidence.choice import renormalise
from calib_jax.confidence.continuation import (
    log_probs_per_length,
    mean_log_probs,
    min_log_probs,
    pmi,
    sum_log_probs,
)

METHODS = {
    "sum": jax.jit(sum_log_probs),
    "min": jax.jit(min_log_probs),
    "mean": jax.jit(mean_log_probs),
}
pmi_of = jax.jit(pmi)
REFERENCE = {"sum": np.sum, "min": np.min, "mean": np.mean}


def case(seed=0, N=6, K=4, T=9):
    """Ragged: the last question has one option only, the one before an option without tokens."""
    rng = np.random.default_rng(seed)
    log_probs = -rng.gamma(1.0, 2.0, (N, K, T)).astype(np.float32)
    counts = rng.integers(1, T + 1, (N, K))
    counts[-1, 1:] = counts[-2, 2] = 0
    mask = np.arange(T) < counts[:, :, None]
    # What stands beyond the tokens must not matter.
    return np.where(mask, log_probs, rng.choice([np.nan, 7.0, -np.inf], (N, K, T))), mask


def looped(log_probs, mask, of):
    rows = [
        [of(p[m].astype(np.float64)) if m.any() else -np.inf for p, m in zip(ps, ms, strict=True)]
        for ps, ms in zip(log_probs, mask, strict=True)
    ]
    return np.array(rows)


@pytest.mark.parametrize("method", METHODS)
def test_against_loops(method):
    log_probs, mask = case()
    scores = METHODS[method](log_probs, mask)
    assert scores.dtype == jnp.float32
    np.testing.assert_allclose(scores, looped(log_probs, mask, REFERENCE[method]), rtol=1e-5)


def test_per_length():
    log_probs, mask = case()
    lengths = np.random.default_rng(1).integers(1, 50, mask.shape[:2])
    expected = looped(log_probs, mask, np.sum) / lengths
    scores = jax.jit(log_probs_per_length)(log_probs, mask, lengths)
    np.testing.assert_allclose(scores, expected, rtol=1e-5)


def test_pmi():
    (log_probs, mask), (prior, prior_mask) = case(0), case(1, T=5)
    expected = looped(log_probs, mask, np.sum)
    expected = np.where(
        np.isfinite(expected), expected - np.nan_to_num(looped(prior, prior_mask, np.sum)), -np.inf
    )
    np.testing.assert_allclose(pmi_of(log_probs, mask, prior, prior_mask), expected, rtol=1e-4)
    zero = pmi_of(log_probs, mask, log_probs, mask)  # the context says nothing
    assert set(np.unique(zero)) == {-np.inf, 0}


def test_an_option_without_tokens_is_no_certainty():
    """Its sum would be 0, the log of probability 1."""
    log_probs, mask = case()
    for function in METHODS.values():
        scores = function(log_probs, mask)
        assert np.isneginf(scores[-2, 2]) and np.isfinite(scores[-2, [0, 1, 3]]).all()
        probs = jax.jit(renormalise)(scores, np.ones(scores.shape, bool))
        assert probs[-2, 2] == 0
        np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-6)


def test_shared_tokens_weigh_less_in_the_minimum():
    """Two options that share their unlikely token differ in sum and not in min."""
    log_probs = np.array([[[-9.0, -1.0], [-9.0, -3.0]]])
    mask = np.ones(log_probs.shape, bool)
    assert METHODS["min"](log_probs, mask).tolist() == [[-9, -9]]
    assert METHODS["sum"](log_probs, mask).tolist() == [[-10, -12]]
