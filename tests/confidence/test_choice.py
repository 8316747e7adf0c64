"""Choice extraction against float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax.confidence.choice import (
    choice_log_scores,
    content_free_prior,
    contextual_log_scores,
    option_mass,
    permuted_log_scores,
    renormalise,
)
from calib_jax.posthoc import ContextualCalibration

V = 61
log_scores_of = jax.jit(choice_log_scores)
probs_of = jax.jit(renormalise)
permuted_of = jax.jit(permuted_log_scores, static_argnames="mean")
prior_of = jax.jit(content_free_prior)
contextual_of = jax.jit(contextual_log_scores)


def reference(logits, letters, mask):
    """Full-vocabulary log-probabilities and renormalised probabilities, one row at a time."""
    logits = np.asarray(logits, np.float64)
    log_scores, probs = np.full(mask.shape, -np.inf), np.zeros(mask.shape)
    for b, row in enumerate(logits):
        log_z = row.max() + np.log(np.exp(row - row.max()).sum())
        valid = mask[b]
        log_scores[b, valid] = row[letters[valid]] - log_z
        weights = np.exp(row[letters[valid]] - row[letters[valid]].max())
        probs[b, valid] = weights / weights.sum()
    return log_scores, probs


def case(K, scale=5.0, B=7):
    rng = np.random.default_rng(K)
    letters = rng.permutation(V)[:K].astype(np.int32)
    mask = np.arange(K) < rng.integers(1, K + 1, (B, 1))
    mask[0] = True
    return rng.normal(0, scale, (B, V)).astype(np.float32), letters, mask


@pytest.mark.parametrize("K", [2, 3, 4, 5, 26])
def test_against_float64(K):
    logits, letters, mask = case(K)
    log_scores = log_scores_of(logits, letters, mask)
    probs = probs_of(log_scores, mask)
    expected_logs, expected_probs = reference(logits, letters, mask)
    assert log_scores.dtype == probs.dtype == jnp.float32
    np.testing.assert_allclose(log_scores, expected_logs, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(probs, expected_probs, rtol=1e-4, atol=1e-7)
    assert (np.asarray(probs)[~mask] == 0).all()
    assert np.isneginf(np.asarray(log_scores)[~mask]).all()


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4])
def test_extreme_logits_stay_finite(offset):
    """Rows far from 0, and a letter that is 200 nats below the others."""
    logits = np.zeros((1, V), np.float32) + np.float32(offset)
    logits[0, 3] -= 200
    letters, mask = np.array([1, 3], np.int32), np.ones((1, 2), bool)
    log_scores = log_scores_of(logits, letters, mask)
    np.testing.assert_allclose(log_scores[0, 1] - log_scores[0, 0], -200, rtol=1e-5)
    np.testing.assert_allclose(probs_of(log_scores, mask), [[1, 0]], atol=1e-30)


def test_letters_without_mass_are_still_renormalised():
    """The probability of all letters together may vanish; the options' shares must not."""
    logits = np.zeros((1, V), np.float32)
    logits[0, 0] = 500
    logits[0, 1:3] = [0.0, np.log(3)]
    letters, mask = np.array([1, 2], np.int32), np.ones((1, 2), bool)
    probs = probs_of(log_scores_of(logits, letters, mask), mask)
    np.testing.assert_allclose(probs, [[0.25, 0.75]], rtol=1e-3)


def test_bfloat16_logits_are_read_in_float32():
    logits, letters, mask = case(4)
    half = jnp.asarray(logits, jnp.bfloat16)
    log_scores = log_scores_of(half, letters, mask)
    expected, expected_probs = reference(half, letters, mask)
    assert log_scores.dtype == jnp.float32
    np.testing.assert_allclose(log_scores, expected, rtol=1e-5, atol=1e-5)
    probs = probs_of(log_scores, mask)
    np.testing.assert_allclose(probs, expected_probs, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(np.asarray(probs).sum(axis=1), 1, atol=1e-6)


def test_masked_options_do_not_matter():
    logits, letters, mask = case(5)
    mask[:, 3:] = False
    narrow = log_scores_of(logits, letters[:3], mask[:, :3])
    wide = log_scores_of(logits, letters, mask)
    np.testing.assert_array_equal(wide[:, :3], narrow)
    np.testing.assert_allclose(
        probs_of(wide, mask)[:, :3], probs_of(narrow, mask[:, :3]), rtol=1e-6
    )


# --- Permuted, contextual, mass -------------------------------------------------------------------


def permuted_case(N=5, K=4):
    """Letters' log-probabilities of every shift; the rest, which nobody reads, is rubbish."""
    rng = np.random.default_rng(3)
    mask = np.arange(K) < np.array([4, 2, 3, 4, 2])[:N, None]
    letters = np.log(rng.dirichlet(np.ones(K + 3), (N, K)))[:, :, :K].astype(np.float32)
    valid = mask[:, :, None] & mask[:, None, :]
    return np.where(valid, letters, rng.choice([-np.inf, 3.0], letters.shape)), mask


MEANS = {
    "geometric": lambda seen: np.mean(np.log(seen)),
    "arithmetic": lambda seen: np.log(np.mean(seen)),
}
by_mean = pytest.mark.parametrize("mean", MEANS)


@by_mean
def test_permuted_scores_are_means_over_the_shifts(mean):
    letters, mask = permuted_case()
    scores = np.asarray(permuted_of(letters, mask, mean))
    for n, valid in enumerate(mask):
        K = valid.sum()
        for option in range(K):
            seen = [np.exp(letters[n, s, (option - s) % K], dtype=np.float64) for s in range(K)]
            np.testing.assert_allclose(scores[n, option], MEANS[mean](seen), rtol=1e-5)
    assert np.isneginf(scores[~mask]).all()
    np.testing.assert_allclose(
        option_mass(scores), np.where(mask, np.exp(scores), 0).sum(1), rtol=1e-6
    )


@by_mean
def test_a_preference_for_a_letter_alone_permutes_to_no_preference(mean):
    letters, mask = permuted_case()
    always = np.broadcast_to(letters[:, :1], letters.shape)  # whatever the options
    probs = np.asarray(probs_of(permuted_of(always, mask, mean), mask))
    np.testing.assert_allclose(probs, mask / mask.sum(1, keepdims=True), rtol=1e-5)


@by_mean
def test_a_preference_for_an_option_alone_survives(mean):
    rng = np.random.default_rng(0)
    options = np.log(rng.dirichlet(np.ones(4), 3)).astype(np.float32)
    shifted = np.stack([np.roll(options, -s, axis=1) for s in range(4)], axis=1)
    scores = permuted_of(shifted, np.ones((3, 4), bool), mean)
    np.testing.assert_allclose(scores, options, rtol=1e-5)


def test_the_geometric_mean_cancels_a_letters_prior_exactly():
    """Logits that are the option's plus the letter's, among a vocabulary that takes its own share:
    what is left are the options' probabilities. The arithmetic mean changes even their order."""
    rng = np.random.default_rng(5)
    N, K = 200, 4
    counts = rng.integers(2, K + 1, N)
    mask = np.arange(K) < counts[:, None]
    belief, prior = rng.normal(0, 2, (N, K)), rng.normal(0, 3, (N, K))  # a prior for every question
    letters = np.full((N, K, K), -np.inf)
    for n, count in enumerate(counts):
        for s in range(count):
            logits = belief[n, (np.arange(count) + s) % count] + prior[n, :count]
            others = rng.normal(0, 2, 20)
            letters[n, s, :count] = logits - np.log(np.exp([*logits, *others]).sum())
    weights = np.where(mask, np.exp(belief), 0)
    expected = weights / weights.sum(axis=1, keepdims=True)
    probs = np.asarray(probs_of(permuted_of(letters.astype(np.float32), mask), mask))
    np.testing.assert_allclose(probs, expected, rtol=2e-5, atol=1e-7)
    np.testing.assert_array_equal(
        np.argsort(-probs, 1, "stable"), np.argsort(-expected, 1, "stable")
    )
    mean = permuted_of(letters.astype(np.float32), mask, "arithmetic")
    changed = np.asarray(probs_of(mean, mask)).argmax(1) != expected.argmax(1)
    assert changed.mean() > 0.02


def test_another_mean_is_refused():
    with pytest.raises(ValueError, match="geometric"):
        permuted_log_scores(*permuted_case(), "harmonic")


def test_contextual_calibration_is_that_of_posthoc():
    rng = np.random.default_rng(1)
    free = rng.normal(0, 3, (3, 4)).astype(np.float32)
    mask = np.arange(4) < np.array([4, 4, 4, 3, 4, 2])[:, None]
    prior = np.asarray(prior_of(np.where(mask[:, None], free, -np.inf), mask))
    for n, valid in enumerate(mask):
        theirs = ContextualCalibration.fit(content_free_log_scores=free[:, valid])
        np.testing.assert_allclose(prior[n, valid], theirs.log_prior, rtol=1e-4)
    scores = np.asarray(contextual_of(free[:1] + np.zeros((6, 1)), prior, mask))
    np.testing.assert_allclose(scores[mask], (free[:1] - prior)[mask], rtol=1e-4)
    assert np.isneginf(scores[~mask]).all()


def test_contextual_calibration_undoes_a_bias():
    """What is said without content is said of every question: only the rest is belief."""
    belief, bias = np.log([[0.1, 0.6, 0.3]]), np.log([0.7, 0.2, 0.1])
    mask = np.ones((1, 3), bool)
    prior = prior_of(np.tile(bias - 2, (1, 3, 1)), mask)
    probs = probs_of(contextual_of(belief + bias, prior, mask), mask)
    np.testing.assert_allclose(probs, np.exp(belief), rtol=1e-5)
