"""The losses against the plainest computation of the same thing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax.training import losses
from tests.models.raw_configs import parse


def test_sft1_is_the_negative_log_probability_of_the_answer():
    logits = np.random.default_rng(0).normal(size=(3, 11)).astype(np.float32)
    ids = np.array([4, 0, 10])
    log_p = logits - np.log(np.exp(logits.astype(np.float64)).sum(-1, keepdims=True))
    np.testing.assert_allclose(losses.sft1(logits, ids), -log_p[np.arange(3), ids], rtol=1e-5)


def divergence_by_hand(scores, targets, mask, divergence):
    """Each row's D(p, π) in float64, an option at a time."""
    found = []
    for s, p, m in zip(scores, targets, mask, strict=True):
        log_pi = s[m] - np.log(np.exp(s[m] - s[m].max()).sum()) - s[m].max()
        p = p[m]
        if divergence == "squared":
            found.append(((p - np.exp(log_pi)) ** 2).sum())
        else:
            held = p > 0
            crossed = -(p[held] * log_pi[held]).sum()
            entropy = -(p[held] * np.log(p[held])).sum()
            found.append(crossed - entropy * (divergence == "kl"))
    return np.array(found)


# Targets: any, one with a zero, one-hot; the last question has three options.
SCORES = np.array([[2.0, 0.5, -1.0, 0.1], [0.0, 3.0, 0.0, -2.0], [-4.0, 1.0, 1.5, 7.0]])
TARGETS = np.array([[0.3, 0.3, 0.2, 0.2], [0.0, 0.5, 0.25, 0.25], [0.0, 0.0, 1.0, 0.0]])
MASK = np.array([[True] * 4, [True] * 4, [True] * 3 + [False]])


@pytest.mark.parametrize("divergence", losses.DIVERGENCES)
def test_a_divergence_and_its_gradient_are_those_of_float64(divergence):
    """Values against numpy, gradients against finite differences of it; targets are constants."""
    scores = np.where(MASK, SCORES, -np.inf).astype(np.float32)

    def loss(scores, targets):
        return losses.calibration(scores, targets, jnp.asarray(MASK), divergence).sum()

    ours = losses.calibration(jnp.asarray(scores), TARGETS.astype(np.float32), MASK, divergence)
    expected = divergence_by_hand(SCORES, TARGETS, MASK, divergence)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
    gradient, of_targets = jax.grad(loss, (0, 1))(
        jnp.asarray(scores), jnp.asarray(TARGETS, jnp.float32)
    )
    assert (of_targets == 0).all(), "no gradient flows through a target"
    for row, option in np.argwhere(MASK):
        step = np.zeros_like(SCORES)
        step[row, option] = 1e-5
        up, down = (
            divergence_by_hand(SCORES + s, TARGETS, MASK, divergence) for s in (step, -step)
        )
        slope = (up - down).sum() / 2e-5
        assert float(gradient[row, option]) == pytest.approx(slope, rel=1e-4, abs=1e-6)
    assert gradient[2, 3] == 0


def test_divergences_where_the_model_is_right_or_certain():
    """KL is 0 at the target; cross-entropy is its entropy there, and has the gradient of KL."""
    p = jnp.array([[0.7, 0.2, 0.1]])
    every = jnp.ones((1, 3), bool)
    entropy = -float((p * jnp.log(p)).sum())
    for divergence, value in (("squared", 0.0), ("kl", 0.0), ("cross_entropy", entropy)):
        found = losses.calibration(jnp.log(p), p, every, divergence)
        assert float(found[0]) == pytest.approx(value, abs=1e-6)
    slopes = {}
    # A probability that rounds to 0 in float32, where the target is not 0: finite, and a pull.
    scores = jnp.array([[0.0, -200.0, -1.0]])
    for divergence in losses.DIVERGENCES:

        def loss(scores, divergence=divergence):
            return losses.calibration(scores, p, every, divergence).sum()

        value, slopes[divergence] = jax.value_and_grad(loss)(scores)
        assert np.isfinite(value) and np.isfinite(slopes[divergence]).all()
    np.testing.assert_array_equal(slopes["kl"], slopes["cross_entropy"])
    assert slopes["kl"][0, 1] == pytest.approx(-0.2, rel=1e-5)
    assert slopes["squared"][0, 1] == 0, "the squared error's pull has faded"


def softmax64(scores):
    e = np.exp(scores - scores.max())
    return e / e.sum()


def focal_by_hand(s, y, gamma, low=None):
    p = softmax64(s)[y]
    g = low if low is not None and p < 0.2 else gamma
    return -((1 - p) ** g) * np.log(p)


def catto_by_hand(s, y, target, tau=1.0):
    """With the target s(m) from outside: it is a constant."""
    return abs(softmax64(s).max() - target)


def catto_target(s, y, tau):
    return 1 / (1 + np.exp(-(s[y] - np.delete(s, y).max()) / tau))


def tokenised_brier_by_hand(s, y):
    levels = np.linspace(0, 1, len(s))
    return (softmax64(s) * (levels - (y > 0)) ** 2).sum()


ANSWERS = np.array([0, 3, 2])
RIVALS = {
    "focal": (losses.focal, {}, lambda s, y, s0: focal_by_hand(s, y, 3)),
    "cross-entropy": (losses.focal, {"gamma": 0.0}, lambda s, y, s0: focal_by_hand(s, y, 0)),
    "flsd53": (losses.focal, {"gamma_low": 5.0}, lambda s, y, s0: focal_by_hand(s, y, 3, 5)),
    "catto": (losses.catto, {}, lambda s, y, s0: catto_by_hand(s, y, catto_target(s0, y, 1))),
    "catto, sharper": (
        losses.catto,
        {"temperature": 0.3},
        lambda s, y, s0: catto_by_hand(s, y, catto_target(s0, y, 0.3)),
    ),
    "tokenised Brier": (
        losses.tokenised_brier,
        {},
        lambda s, y, s0: tokenised_brier_by_hand(s, y),
    ),
}


@pytest.mark.parametrize("name", RIVALS)
def test_a_rivals_loss_and_its_gradient_are_those_of_float64(name):
    """Values against numpy, gradients against finite differences of it; padding changes nothing."""
    function, settings, by_hand = RIVALS[name]
    scores = np.where(MASK, SCORES, -np.inf).astype(np.float32)
    ours = function(jnp.asarray(scores), ANSWERS, MASK, **settings)
    rows = [(SCORES[i][MASK[i]], ANSWERS[i]) for i in range(3)]
    np.testing.assert_allclose(ours, [by_hand(s, y, s) for s, y in rows], rtol=1e-5, atol=1e-6)
    gradient = jax.grad(lambda s: function(s, ANSWERS, MASK, **settings).sum())(jnp.asarray(scores))
    for i, (s, y) in enumerate(rows):
        for k in range(len(s)):
            step = np.zeros_like(s)
            step[k] = 1e-5
            slope = (by_hand(s + step, y, s) - by_hand(s - step, y, s)) / 2e-5
            assert float(gradient[i, k]) == pytest.approx(slope, rel=1e-3, abs=1e-6)
    assert gradient[2, 3] == 0
    wide = [
        np.pad(x, ((0, 0), (0, 2)), constant_values=v)
        for x, v in ((scores, -np.inf), (MASK, False))
    ]
    np.testing.assert_allclose(
        function(jnp.asarray(wide[0]), ANSWERS, wide[1], **settings), ours, rtol=1e-6
    )


@pytest.mark.parametrize("name", RIVALS)
def test_a_rivals_gradient_is_finite_where_the_model_is_certain(name):
    function, settings, _ = RIVALS[name]
    scores = jnp.array([[0.0, -200.0, -300.0], [-200.0, 0.0, -300.0], [0.0, 0.0, 0.0]])
    answers, mask = np.array([0, 0, 2]), np.ones((3, 3), bool)
    value, gradient = jax.value_and_grad(lambda s: function(s, answers, mask, **settings).sum())(
        scores
    )
    assert np.isfinite(value) and np.isfinite(gradient).all()


def test_catto_with_two_options_draws_at_wrong_answers_alone():
    """There σ(margin) is the confidence: rounding must not become a gradient of ±1."""
    scores = jnp.asarray(np.random.default_rng(0).normal(size=(200, 2)) * 4, jnp.float32)
    mask = np.ones((200, 2), bool)
    right = np.asarray(scores).argmax(1)
    for answers, expected in ((right, 0.0), (1 - right, None)):
        loss, gradient = jax.value_and_grad(lambda s, y=answers: losses.catto(s, y, mask).sum())(
            scores
        )
        if expected == 0.0:
            assert loss == 0 and not gradient.any()
        else:
            away = np.abs(np.diff(np.asarray(scores, np.float64), axis=1)[:, 0])
            np.testing.assert_allclose(loss, np.tanh(away / 2).sum(), rtol=1e-5)


def test_the_tokenised_brier_score_is_proper_on_its_levels():
    """In expectation the level nearest to the share of right answers is the best; and all of q on
    one level c costs (c − y)²."""
    K = 11
    only = jnp.where(jnp.eye(K, dtype=bool), 0.0, -1e4)
    mask = np.ones((K, K), bool)
    right = losses.tokenised_brier(only, np.full(K, K - 1), mask)
    wrong = losses.tokenised_brier(only, np.zeros(K, int), mask)
    np.testing.assert_allclose(right, (np.linspace(0, 1, K) - 1) ** 2, atol=1e-6)
    for share in (0.0, 0.12, 0.5, 0.68, 1.0):
        expected = share * right + (1 - share) * wrong
        assert np.argmin(expected) == round(share * 10)


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
        return losses.next_token_loss(parse(), hidden, head, targets, shards=shards)

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
    loss = functools.partial(losses.next_token_loss, parse())
    gradient = jax.jit(jax.grad(lambda *arrays: loss(*arrays).sum()))
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
