"""The losses against the plainest computation of the same thing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax.training import losses


def test_sft1_is_the_negative_log_probability_of_the_answer():
    logits = np.random.default_rng(0).normal(size=(3, 11)).astype(np.float32)
    ids = np.array([4, 0, 10])
    log_p = logits - np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
    np.testing.assert_allclose(losses.sft1(logits, ids), -log_p[np.arange(3), ids], rtol=1e-5)


def test_calibration_is_a_squared_distance_to_constant_targets():
    probs, targets = np.array([[0.7, 0.2, 0.1]]), np.array([[0.3, 0.4, 0.3]])
    assert losses.calibration(probs, targets)[0] == pytest.approx(0.16 + 0.04 + 0.04)
    gradient = jax.grad(lambda t: losses.calibration(jnp.array(probs), t).sum())(jnp.array(targets))
    assert (gradient == 0).all(), "no gradient flows through a target"


@pytest.mark.parametrize(("vocab", "shards"), [(96, 1), (96, 2), (97, 1), (20000, 1), (20000, 2)])
def test_chunked_loss_and_gradients_equal_the_unchunked_ones(vocab, shards):
    rng = np.random.default_rng(0)
    hidden = jnp.array(rng.normal(size=(2, 3, 8)), jnp.float32)
    head = jnp.array(rng.normal(size=(vocab, 8)), jnp.float32)
    targets = jnp.array(rng.integers(0, vocab, (2, 3)))

    def plain(hidden, head):
        logits = jnp.einsum("bld,vd->blv", hidden, head)
        picked = jnp.take_along_axis(logits, targets[..., None], -1)[..., 0]
        return jax.nn.logsumexp(logits, axis=-1) - picked

    def chunked(hidden, head):
        return losses.next_token_loss(hidden, head, targets, shards=shards)

    np.testing.assert_allclose(chunked(hidden, head), plain(hidden, head), rtol=2e-5, atol=2e-5)
    for ours, expected in zip(
        jax.grad(lambda *a: chunked(*a).sum(), (0, 1))(hidden, head),
        jax.grad(lambda *a: plain(*a).sum(), (0, 1))(hidden, head),
        strict=True,
    ):
        np.testing.assert_allclose(ours, expected, atol=3e-5)


def test_the_vocabulary_is_really_chunked():
    """No array of the compiled program is as large as [B, L, V]."""
    B, L, D, V = 2, 16, 8, 40960
    shapes = (jnp.zeros((B, L, D)), jnp.zeros((V, D)), jnp.zeros((B, L), jnp.int32))
    gradient = jax.jit(jax.grad(lambda h, w, t: losses.next_token_loss(h, w, t).sum()))
    memory = gradient.lower(*shapes).compile().memory_analysis()
    assert memory.temp_size_in_bytes < B * L * V * 4


@pytest.mark.parametrize("over_letters", [False, True])
def test_label_smoothing_is_a_cross_entropy_with_smoothed_labels(over_letters):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(6, 11)).astype(np.float32)
    letters = np.array([7, 2, 9])
    mask = np.array([[True, True, True]] * 3 + [[True, True, False]] * 3)
    answers, eps = np.array([0, 1, 2, 0, 1, 0]), 0.3
    labels = np.zeros((6, 11))
    for i in range(6):
        spread = letters[mask[i]] if over_letters else np.arange(11)
        labels[i, spread] = eps / len(spread)
        labels[i, letters[answers[i]]] += 1 - eps
    wide = logits.astype(np.float64)
    log_p = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    over = (letters, mask) if over_letters else ()
    ours = losses.sft1(jnp.asarray(logits), letters[answers], eps, *over)
    np.testing.assert_allclose(ours, -(labels * log_p).sum(axis=1), rtol=1e-5)
