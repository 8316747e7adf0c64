import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from tests.metrics.kernels import kernels as metrics

NAMES = ["calibration", "resolution", "uncertainty", "within_variance", "within_covariance"]


def by_loops(ref, probs, answers, mask=None, num_bins=10, edges="right", weights=None):
    """The five parts from their definitions, float64."""
    probs = np.asarray(probs, np.float32)
    num_rows, num_options = probs.shape
    mask = np.ones(probs.shape, bool) if mask is None else mask
    weights = np.ones(num_rows) if weights is None else np.asarray(weights, float)
    total = weights.sum()
    parts = dict.fromkeys(NAMES, 0.0)
    for k in range(num_options):
        rows = [i for i in range(num_rows) if mask[i, k] and weights[i] > 0]
        if not rows:
            continue
        p, y = probs[rows, k].astype(float), (answers[rows] == k).astype(float)
        w = weights[rows]
        bins = np.array([ref.bin_of(value, num_bins, edges) for value in probs[rows, k]])
        base = (w * y).sum() / w.sum()
        parts["uncertainty"] += w.sum() * base * (1 - base) / total
        for m in set(bins.tolist()):
            inside = bins == m
            n = w[inside].sum()
            forecast = (w * p)[inside].sum() / n
            frequency = (w * y)[inside].sum() / n
            parts["calibration"] += n * (forecast - frequency) ** 2 / total
            parts["resolution"] += n * (frequency - base) ** 2 / total
            off = p[inside] - forecast
            parts["within_variance"] += (w[inside] * off**2).sum() / total
            covariance = (w[inside] * off * (y[inside] - frequency)).sum()
            parts["within_covariance"] += 2 * covariance / total
    return parts


def assert_parts(found, expected):
    for name in NAMES:
        assert float(getattr(found, name)) == pytest.approx(expected[name], abs=1e-6), name


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    num_bins=st.sampled_from([1, 10]),
    edges=st.sampled_from(["right", "left"]),
)
def test_against_loops(ref, seed, num_bins, edges):
    rng = np.random.default_rng(seed)
    mask = np.ones((40, 4), bool)
    mask[:10, 3] = False
    probs = rng.dirichlet(np.full(4, 0.5), 40) * mask
    probs = (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32)
    answers, weights = rng.integers(0, 3, 40), rng.integers(0, 3, 40)
    weights[0] = 1
    kwargs = {"num_bins": num_bins, "edges": edges, "weights": weights}
    found = metrics.brier_decomposition(probs, answers, mask, **kwargs)
    assert_parts(found, by_loops(ref, probs, answers, mask, **kwargs))
    brier = float(metrics.brier(probs, answers, mask, weights=weights))
    assert float(found.brier) == pytest.approx(brier, abs=1e-6)
    repeated = np.repeat(np.arange(40), weights)
    again = by_loops(ref, probs[repeated], answers[repeated], mask[repeated], num_bins, edges)
    assert_parts(found, again)


def test_set_a_against_scikit_learn(set_a, ref):
    probs, answers = set_a
    parts = metrics.brier_decomposition(probs, answers, num_bins=15)
    # scikit-learn 1.9.1, multi-class, sum over classes.
    assert float(parts.brier) == pytest.approx(0.543255500887, abs=1e-6)
    # The binned forecast, class by class, by scikit-learn's binary score.
    binned = 0.0
    for k in range(4):
        p = probs[:, k].astype(np.float32)
        index = np.array(metrics.bin_index(p, 15))
        sums = np.bincount(index, p.astype(float), 15) / np.maximum(np.bincount(index), 1)
        binned += brier_score_loss(answers == k, sums[index])
    assert float(parts.binned) == pytest.approx(binned, abs=1e-6)
    assert_parts(parts, by_loops(ref, probs, answers, num_bins=15))


def test_edge_set(edge_set, ref):
    parts = metrics.brier_decomposition(*edge_set)
    assert float(parts.brier) == pytest.approx(0.653977777778, abs=1e-6)
    assert_parts(parts, by_loops(ref, *edge_set))
    left = metrics.brier_decomposition(*edge_set, edges="left")
    assert float(left.brier) == pytest.approx(0.653977777778, abs=1e-6)
    assert abs(float(left.calibration) - float(parts.calibration)) > 1e-3


def test_known_forecasts():
    answers = np.arange(80) % 4
    constant = metrics.brier_decomposition(np.full((80, 4), 0.25), answers)
    assert float(constant.uncertainty) == float(constant.brier) == 0.75
    assert float(constant.calibration) == float(constant.resolution) == 0
    perfect = metrics.brier_decomposition(np.eye(4)[answers], answers)
    assert float(perfect.resolution) == 0.75
    assert float(perfect.brier) == pytest.approx(0, abs=1e-7)
    assert float(perfect.refinement) == 0


def test_calibrated_forecasts_have_almost_no_calibration_term(draw):
    probs, answers = draw(20_000, 4, seed=9)
    parts = metrics.brier_decomposition(probs, answers)
    assert 0 <= float(parts.calibration) < 2e-3
    sharpened = draw(20_000, 4, seed=9, sharpness=3.0)
    assert float(metrics.brier_decomposition(*sharpened).calibration) > 0.02


def test_permutation_padding_no_rows_and_low_precision(draw):
    probs, answers = draw(50, 3)
    whole = metrics.brier_decomposition(probs, answers)
    order = np.random.default_rng(0).permutation(50)
    shuffled = metrics.brier_decomposition(probs[order], answers[order])
    junk = np.concatenate([probs, np.full((5, 3), np.nan, np.float32)])
    labels = np.concatenate([answers, np.full(5, 99, np.int32)])
    for dtype in (np.int32, np.float32):
        padded = metrics.brier_decomposition(
            junk, labels, weights=(np.arange(55) < 50).astype(dtype)
        )
        for name in NAMES:
            expected = pytest.approx(float(getattr(whole, name)), abs=1e-6)
            assert float(getattr(padded, name)) == expected
            assert float(getattr(shuffled, name)) == expected
    for empty in (
        metrics.brier_decomposition(np.ones((0, 3)), np.zeros(0, int)),
        metrics.brier_decomposition(probs, answers, weights=np.zeros(50, int)),
    ):
        assert all(np.isnan(getattr(empty, name)) for name in NAMES)
    spoilt = metrics.brier_decomposition(junk, labels)
    assert np.isnan(spoilt.brier) and np.isnan(spoilt.calibration)
    one = metrics.brier_decomposition(probs[:1], answers[:1])
    assert float(one.brier) == pytest.approx(float(metrics.brier(probs[:1], answers[:1])), abs=1e-6)
    low = jnp.asarray(probs, jnp.bfloat16)
    assert float(metrics.brier_decomposition(low, answers).brier) == float(
        metrics.brier_decomposition(low.astype(jnp.float32), answers).brier
    )


def test_bootstrap_and_gradient(draw):
    probs, answers = draw(200, 3)

    def calibration(probs, answers, mask=None, weights=None):
        return metrics.brier_decomposition(probs, answers, mask, weights=weights).calibration

    low, high = metrics.bootstrap(calibration, probs, answers, num_resamples=100)
    assert low < high
    # The parts' gradients add up to that of the Brier score.
    whole = jax.grad(lambda p: metrics.brier_decomposition(p, answers).brier)(jnp.asarray(probs))
    expected = jax.grad(lambda p: metrics.brier(p, answers))(jnp.asarray(probs))
    np.testing.assert_allclose(whole, expected, atol=1e-6)
