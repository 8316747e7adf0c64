import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.metrics.kernels import kernels as metrics


def reference(confidence, right, temperature, num_bins=10, weights=None, norm="l1"):
    """Eq. 11 of Karandikar et al. in float64."""
    weights = np.ones(len(right)) if weights is None else weights
    centres = (np.arange(num_bins) + 0.5) / num_bins
    score = -((np.asarray(confidence, np.float64)[:, None] - centres) ** 2) / temperature
    share = np.exp(score - score.max(axis=1, keepdims=True))
    share *= (weights / share.sum(axis=1))[:, None]
    size, gap = share.sum(axis=0), ((right - confidence)[:, None] * share).sum(axis=0)
    if norm == "l1":
        return np.abs(gap).sum() / weights.sum()
    return np.sqrt((gap**2 / np.maximum(size, 1e-300)).sum() / weights.sum())


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_equals_the_definition(draw, norm):
    probs, answers = draw(300, 4, sharpness=2.0)
    weights = np.random.default_rng(0).integers(0, 3, 300)
    confidence, right = probs.max(axis=1), (probs.argmax(axis=1) == answers) * 1.0
    for temperature in (1e-1, 1e-2, 1e-3, 1e-4):
        value = metrics.soft_ece(probs, answers, temperature=temperature, norm=norm)
        expected = reference(confidence, right, temperature, norm=norm)
        assert float(value) == pytest.approx(expected, abs=2e-6)
        value = metrics.soft_ece(
            probs, answers, temperature=temperature, weights=weights, norm=norm
        )
        expected = reference(confidence, right, temperature, weights=weights, norm=norm)
        assert float(value) == pytest.approx(expected, abs=2e-6)


def test_many_rows_are_taken_block_by_block(set_a):
    probs, answers = set_a
    right = (probs.argmax(axis=1) == answers) * 1.0
    value = metrics.soft_ece(*set_a, temperature=1e-3)
    assert float(value) == pytest.approx(reference(probs.max(axis=1), right, 1e-3), abs=1e-6)
    grad = jax.grad(metrics.soft_ece)(jnp.asarray(probs, jnp.float32), answers)
    assert np.isfinite(grad).all()


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_converges_to_conf_ece_as_the_temperature_falls(draw, norm):
    probs, _ = draw(500, 4)
    # Under- and overconfident by turns: with gaps of one sign the L1 value is the same for all T.
    right = np.floor(probs.max(axis=1) * 10) % 2 == 0
    answers = np.where(right, probs.argmax(axis=1), probs.argmin(axis=1))
    hard = float(metrics.conf_ece(probs, answers, norm=norm))
    away = [
        abs(float(metrics.soft_ece(probs, answers, temperature=t, norm=norm)) - hard)
        for t in (1e-1, 1e-2, 1e-3, 1e-4, 1e-8)
    ]
    assert away == sorted(away, reverse=True) and away[0] > 0.1 and away[-1] < 1e-6


def test_a_confidence_on_an_edge_is_shared():
    """0.75 lies between [0.5, 0.75] and [0.75, 1]: half in each, and the gap is the same."""
    value = metrics.soft_ece([[0.75, 0.25]] * 2, [0, 1], num_bins=4, temperature=1e-6)
    assert float(value) == pytest.approx(0.25)


@pytest.mark.parametrize("temperature", [1e-2, 1e-3])
@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_gradient_equals_finite_differences(draw, norm, temperature):
    """In the confidences, rows near an edge included, where the hard ECE has no gradient."""
    probs, answers = draw(40, 2, sharpness=2.0)
    probs[:4, 0] = 0.7 + np.float32([-1e-3, -1e-5, 1e-5, 1e-3])
    probs[:, 1] = 1 - probs[:, 0]
    grad = np.asarray(
        jax.grad(functools.partial(metrics.soft_ece, norm=norm))(
            jnp.asarray(probs), answers, temperature=temperature
        )
    )
    confidence = probs.max(axis=1).astype(np.float64)
    right = (probs.argmax(axis=1) == answers) * 1.0
    numeric = np.zeros(40)
    for i in range(40):
        step = np.eye(40)[i] * 1e-6
        numeric[i] = (
            np.diff(
                [reference(confidence + s, right, temperature, norm=norm) for s in (-step, step)]
            )[0]
            / 2e-6
        )
    top = probs.argmax(axis=1)
    np.testing.assert_allclose(grad[np.arange(40), top], numeric, atol=2e-4, rtol=2e-3)
    assert np.array_equal(grad[np.arange(40), 1 - top], np.zeros(40))


def test_descending_the_gradient_in_a_temperature_calibrates(draw):
    """Overconfident by sharpness 3: minimising the soft ECE over one scale finds about 1/3."""
    probs, answers = draw(2000, 4, sharpness=3.0)
    logits = jnp.log(jnp.asarray(probs) + 1e-9)

    @jax.jit
    def step(scale):
        slope = jax.grad(
            lambda s: metrics.soft_ece(jax.nn.softmax(s * logits), answers, temperature=1e-2)
        )(scale)
        return scale - 0.3 * slope

    scale = jnp.float32(1.0)
    for _ in range(60):
        scale = step(scale)
    assert float(scale) == pytest.approx(1 / 3, abs=0.06)


def test_rows_that_do_not_count_leave_the_gradient_finite(draw):
    probs, answers = draw(20, 3)
    probs[5] = np.nan
    weights = (np.arange(20) != 5).astype(np.int32)
    grad = jax.grad(metrics.soft_ece)(jnp.asarray(probs), answers, weights=weights)
    assert np.isfinite(grad).all()


def test_options_and_empty_input():
    assert np.isnan(metrics.soft_ece(np.ones((0, 3)), np.zeros(0, int)))
    with pytest.raises(ValueError, match='norm must be "l1" or "l2"'):
        metrics.soft_ece([[0.5, 0.5]], [0], norm="max")
