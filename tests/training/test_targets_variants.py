"""Targets and losses with and without jit, on arrays of the right shapes, and of wrong ones."""

import chex
import jax.numpy as jnp
import numpy as np
from absl.testing import parameterized

from calib_jax.training import losses, targets
from tests.models.raw_configs import parse


def arrays(n=6, options=4, seed=0):
    rng = np.random.default_rng(seed)
    mask = np.arange(options) < rng.integers(2, options + 1, n)[:, None]
    logits = np.where(mask, rng.normal(size=(n, options)), -np.inf)
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probs.astype(np.float32), rng.integers(0, 2, n).astype(np.int32), mask


class WithAndWithoutJit(chex.TestCase):
    @chex.variants(with_jit=True, without_jit=True)
    def test_targets_are_distributions(self):
        probs, _, mask = arrays()
        found = self.variant(targets.target_distribution)(probs, jnp.full(6, 0.3), mask)
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)
        assert (np.asarray(found)[~mask] == 0).all()

    @chex.variants(with_jit=True, without_jit=True)
    def test_an_e_step_counts_every_question_once(self):
        probs, answers, mask = arrays()
        found = self.variant(targets.e_step)(probs, answers, mask)
        assert found.bin_counts.sum() == 6
        chex.assert_tree_all_finite(found.targets)

    @chex.variants(with_jit=True, without_jit=True)
    def test_losses_are_those_of_the_rows(self):
        probs, answers, mask = arrays()
        logits = np.where(mask, np.log(np.maximum(probs, 1e-30)), -30).astype(np.float32)
        rows = self.variant(losses.sft1)(logits, answers)
        expected = -np.log(probs[np.arange(6), answers])
        np.testing.assert_allclose(rows, expected, rtol=1e-5)
        pulled = self.variant(losses.calibration)(logits, probs, mask)
        np.testing.assert_allclose(pulled, 0, atol=1e-10)

    @parameterized.parameters(
        lambda p, a, m: targets.target_distribution(p, jnp.ones(5), m),
        lambda p, a, m: targets.e_step(p, a[:5], m),
        lambda p, a, m: targets.e_step(p, a, m[:, :3]),
        lambda p, a, m: targets.shrunk_accuracy(jnp.ones(3), jnp.ones(4), 0.0),
        lambda p, a, m: losses.sft1(p, a[:5]),
        lambda p, a, m: losses.calibration(p, p[:, :3], m),
        lambda p, a, m: losses.next_token_loss(
            parse(), jnp.ones((2, 3, 4)), jnp.ones((5, 4)), jnp.ones((2, 2), jnp.int32)
        ),
    )
    def test_wrong_shapes_are_refused_and_never_broadcast(self, call):
        with self.assertRaises(AssertionError):
            call(*arrays())
