"""Readings of confidence with and without jit; shapes that do not fit are refused."""

import chex
import jax.numpy as jnp
import numpy as np
from absl.testing import parameterized

from calib_jax.confidence import choice, continuation

N, K, T, V = 5, 3, 4, 11


def tokens(seed=0):
    rng = np.random.default_rng(seed)
    log_probs = -rng.exponential(size=(N, K, T)).astype(np.float32)
    return log_probs, np.arange(T) < rng.integers(1, T + 1, (N, K, 1))


class WithAndWithoutJit(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_letters(self):
        logits = np.random.default_rng(1).normal(size=(N, V)).astype(np.float32)
        ids, mask = np.array([2, 5, 7]), np.ones((N, K), bool)
        scores = self.variant(choice.choice_log_scores)(logits, ids, mask)
        whole = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        np.testing.assert_allclose(scores, whole[:, ids], rtol=1e-5)
        probs = self.variant(choice.renormalise)(scores, mask)
        np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-6)

    @chex.variants(with_jit=True, without_jit=True)
    def test_continuations(self):
        log_probs, mask = tokens()
        for name in ("sum_log_probs", "min_log_probs", "mean_log_probs"):
            found = self.variant(getattr(continuation, name))(log_probs, mask)
            kind = getattr(np, name.split("_")[0])
            expected = [[kind(log_probs[n, k][mask[n, k]]) for k in range(K)] for n in range(N)]
            np.testing.assert_allclose(found, expected, rtol=1e-5, err_msg=name)

    @parameterized.parameters(
        lambda x, m: choice.choice_log_scores(jnp.ones((N, V)), jnp.arange(2), m[:, :, 0]),
        lambda x, m: choice.choice_log_scores(jnp.ones((N, V)), jnp.ones(K), m[:, :, 0]),
        lambda x, m: choice.renormalise(x[:, :, 0], m[:1, :, 0]),
        lambda x, m: choice.permuted_log_scores(jnp.ones((N, 2, K)), m[:, :, 0]),
        lambda x, m: choice.content_free_prior(jnp.ones((N, 2, K + 1)), m[:, :, 0]),
        lambda x, m: continuation.sum_log_probs(x, m[:, :, :2]),
        lambda x, m: continuation.min_log_probs(x[0], m[0]),
        lambda x, m: continuation.sum_log_probs(x, m.astype(np.float32)),
        lambda x, m: continuation.log_probs_per_length(x, m, jnp.ones((N, 1))),
        lambda x, m: continuation.pmi(x, m, x[:2], m[:2]),
    )
    def test_wrong_shapes_and_types_are_refused_and_never_broadcast(self, call):
        with self.assertRaises(AssertionError):
            call(*tokens())
