"""The ranked probability score against float64 loops, and what it must obey."""

import numpy as np
import pytest

from calib_jax import metrics
from tests.metrics.kernels import kernels


def by_loops(probs, answers, mask, weights):
    """A sum over the thresholds between a row's own options."""
    total = 0.0
    for p, y, valid, w in zip(probs, answers, mask, weights, strict=True):
        options = np.flatnonzero(valid)
        score = 0.0
        for j in options[:-1]:
            forecast = sum(float(p[k]) for k in options if k <= j)
            score += (forecast - (y <= j)) ** 2
        total += w * (score / (len(options) - 1) if len(options) > 1 else 0.0)
    return total / sum(weights)


@pytest.mark.parametrize("seed", range(3))
def test_equals_the_definition_with_mask_and_weights(seed):
    rng = np.random.default_rng(seed)
    mask = rng.random((40, 6)) < 0.6
    answers = rng.integers(0, 6, 40)
    mask[np.arange(40), answers] = True
    mask[0] = np.arange(6) == answers[0]  # a row of one option
    probs = np.where(mask, rng.dirichlet(np.ones(6), 40), 0)
    probs /= probs.sum(axis=1, keepdims=True)
    weights = rng.integers(0, 3, 40)
    garbage = np.where(mask, probs, 0.9)  # under the mask, not read
    value = kernels.rps(garbage, answers, mask, weights=weights)
    assert value == pytest.approx(by_loops(probs, answers, mask, weights), rel=1e-5)


def test_two_options_give_half_the_brier_score(draw):
    probs, answers = draw(60, 2)
    np.testing.assert_allclose(
        metrics.row_rps(probs, answers), metrics.row_brier(probs, answers) / 2, atol=1e-6
    )


def test_it_is_the_mean_brier_score_of_the_cumulated_options(draw):
    probs, answers = draw(60, 5, seed=1)
    below = np.cumsum(probs.astype(np.float64), axis=1)[:, :-1]
    two = np.stack([below, 1 - below], axis=-1)
    scores = [
        ((two[:, j] - np.eye(2)[(answers > j).astype(int)]) ** 2).sum(axis=1) / 2 for j in range(4)
    ]
    np.testing.assert_allclose(metrics.row_rps(probs, answers), np.mean(scores, axis=0), atol=1e-6)


def test_it_is_proper():
    """No forecast has a lower expectation than the true probabilities."""
    rng = np.random.default_rng(3)
    true = rng.dirichlet(np.ones(4))
    forecasts = np.concatenate([[true], rng.dirichlet(np.ones(4), 200)])
    every = np.repeat(forecasts, 4, axis=0)
    scores = np.asarray(metrics.row_rps(every, np.tile(np.arange(4), 201))).reshape(201, 4)
    expected = scores.astype(np.float64) @ true
    assert expected.argmin() == 0 and np.sort(expected)[1] - expected[0] > 1e-4


def test_reversing_the_order_changes_nothing_and_another_order_does(draw):
    probs, answers = draw(60, 4, seed=2)
    value = float(metrics.rps(probs, answers))
    assert float(metrics.rps(probs[:, ::-1], 3 - answers)) == pytest.approx(value, abs=1e-6)
    order = np.array([1, 0, 2, 3])
    moved = float(metrics.rps(probs[:, order], np.argsort(order)[answers]))
    assert abs(moved - value) > 1e-3


def test_extremes():
    assert metrics.row_rps([[1, 0, 0], [0, 0, 1.0], [0, 0, 1.0]], [0, 2, 0]).tolist() == [0, 0, 1]
    assert np.isnan(kernels.rps(np.ones((0, 3)), np.zeros(0, int)))
