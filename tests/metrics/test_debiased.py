import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.metrics.kernels import kernels as metrics

VALUES = st.one_of(
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0]),
    st.floats(0, 1, width=32, allow_subnormal=False),
)
ROWS = hnp.arrays(np.float32, (24, 3), elements=VALUES)
ANSWERS = hnp.arrays(np.int32, 24, elements=st.integers(0, 2))
WEIGHTS = hnp.arrays(np.int32, 24, elements=st.integers(0, 3))
MASKS = hnp.arrays(bool, (24, 3)).map(lambda mask: mask | (np.arange(3) == 1))
EDGES = st.sampled_from(["right", "left"])


@functools.partial(jax.jit, static_argnames="edges")
def evaluate(probs, answers, mask, weights, edges="right"):
    """All errors of this module at once: one compilation."""
    rows, args = (probs, answers, mask), {"edges": edges, "weights": weights}
    return {
        "debiased_rmsce": metrics.debiased_rmsce(*rows, num_bins=5, **args),
        "cw_debiased_rmsce": metrics.cw_debiased_rmsce(*rows, num_bins=5, **args),
        "debiased_ece": metrics.debiased_ece(*rows, num_bins=5, binning="mass", **args),
        "bins": metrics.sweep_num_bins(*rows, max_bins=12, **args),
        "sweep_ece": metrics.sweep_ece(*rows, max_bins=12, **args),
    }


def square(bins):
    """Kumar et al.'s debiased square of [(n, hits, total)]."""
    found = 0.0
    for n, hits, total in bins:
        if n >= 2:
            found += n * ((hits / n - total / n) ** 2 - hits / n * (1 - hits / n) / (n - 1))
    return found / sum(n for n, _, _ in bins)


def folded_mean(mean, deviation):
    """E|mean + deviation Z| by quadrature."""
    z = np.linspace(-9, 9, 40_001)
    density = np.exp(-z * z / 2) / np.sqrt(2 * np.pi)
    return np.trapezoid(np.abs(mean + deviation * z) * density, z)


def l1(bins):
    found = 0.0
    for n, hits, total in bins:
        gap, accuracy = hits / n - total / n, hits / n
        noise = np.sqrt(accuracy * (1 - accuracy) / n)
        found += n * (2 * abs(gap) - folded_mean(gap, noise))
    return max(0.0, found / sum(n for n, _, _ in bins))


def sweep(bins_of, limit):
    """Roelofs et al.'s Algorithm 1, one number of bins after the other."""
    chosen = 1
    for num_bins in range(2, limit + 1):
        # Accuracies in the values' order; equal fractions must compare equal.
        ordered = sorted(bins_of(num_bins), key=lambda b: b[2] / b[0])
        if any(a[1] * b[0] > b[1] * a[0] for a, b in zip(ordered, ordered[1:], strict=False)):
            break
        chosen = num_bins
    return chosen


@settings(max_examples=30, deadline=None)
@given(probs=ROWS, answers=ANSWERS, mask=MASKS, weights=WEIGHTS, edges=EDGES)
def test_equals_the_definition(mass_bins, probs, answers, mask, weights, edges):
    weights[0] = max(weights[0], 1)
    found = evaluate(probs, answers, mask, weights, edges)
    inside = np.where(mask, probs, -1)
    right = inside.argmax(axis=1) == answers
    top = functools.partial(mass_bins, inside.max(axis=1), right, weights, edges=edges)
    classes = [
        (here.sum(), mass_bins(probs[:, k], answers == k, here, 5, edges))
        for k in range(3)
        if (here := np.where(mask[:, k], weights, 0)).any()
    ]
    expected = {
        "debiased_rmsce": max(square(top(5)), 0),
        "cw_debiased_rmsce": sum(n * max(square(bins), 0) for n, bins in classes)
        / sum(n for n, _ in classes),
        "debiased_ece": l1(top(5)),
    }
    for name, value in expected.items():
        error = found[name] if name == "debiased_ece" else found[name] ** 2
        np.testing.assert_allclose(error, value, atol=3e-6, err_msg=name)
    num_bins = sweep(top, min(12, weights.sum()))
    assert int(found["bins"]) == num_bins
    expected = sum(abs(hits - total) for _, hits, total in top(num_bins)) / weights.sum()
    np.testing.assert_allclose(found["sweep_ece"], expected, atol=2e-6)


@settings(max_examples=15, deadline=None)
@given(probs=ROWS, answers=ANSWERS, mask=MASKS, weights=WEIGHTS, seed=st.integers(0, 99))
def test_function_of_the_multiset_of_rows(probs, answers, mask, weights, seed):
    order = np.random.default_rng(seed).permutation(24)
    value = evaluate(probs, answers, mask, weights)
    permuted = evaluate(probs[order], answers[order], mask[order], weights[order])
    junk = np.where(mask & (weights[:, None] > 0), probs, np.nan).astype(np.float32)
    masked = evaluate(junk, answers, mask, weights)
    for name, error in value.items():
        if name != "bins":
            assert np.isnan(error) if not weights.sum() else 0 <= error <= 1 + 1e-6, name
        for other in (permuted[name], masked[name]):
            # Squared: near 0 a root turns roundings of 1e-8 into 1e-4.
            np.testing.assert_allclose(other**2, error**2, atol=3e-6, err_msg=name)


def test_set_a_golden_values(set_a):
    """uncertainty-calibration 0.1.4, get_calibration_error(debias=True) and its parts."""
    for value, golden in (
        (metrics.debiased_rmsce(*set_a, num_bins=15), 0.162602892112),
        (metrics.debiased_rmsce(*set_a, num_bins=15, binning="width"), 0.161340246798),
        (metrics.cw_debiased_rmsce(*set_a, num_bins=15), 0.096219664197),
        (metrics.cw_debiased_rmsce(*set_a, num_bins=15, binning="width"), 0.094803598245),
    ):
        assert float(value) == pytest.approx(golden, abs=1e-6)
    # The L1 there is a Monte Carlo estimate: the mean of 20 runs, standard error 3e-5.
    value = metrics.debiased_ece(*set_a, num_bins=15, binning="mass")
    assert float(value) == pytest.approx(0.153326, abs=1e-4)


def test_edge_set_golden_values(edge_set):
    """uncertainty-calibration 0.1.4, equal mass, with 10 bins and its default of 15."""
    for value, golden in (
        (metrics.debiased_rmsce(*edge_set), 0.166198300232),
        (metrics.debiased_rmsce(*edge_set, num_bins=15), 0.0),
        (metrics.debiased_rmsce(*edge_set, binning="width"), 0.074865620355),
        (metrics.cw_debiased_rmsce(*edge_set), 0.104126797926),
        (metrics.cw_debiased_rmsce(*edge_set, num_bins=15), 0.068834403857),
    ):
        assert float(value) == pytest.approx(golden, abs=1e-6)


def test_less_bias_than_the_plug_in_on_calibrated_data(draw):
    """200 draws of 200 perfectly calibrated rows: the estimates' means, the truth being 0."""
    probs, _ = draw(200, 4)
    uniform = np.random.default_rng(5).random((200, 200, 1))
    answers = (probs.cumsum(axis=1)[None] < uniform).sum(axis=2).clip(max=3).astype(np.int32)

    def mean(metric):
        return float(jax.vmap(metric, in_axes=(None, 0))(jnp.asarray(probs), answers).mean())

    plug_in, root = mean(metrics.conf_ece), mean(metrics.rmsce)
    assert mean(metrics.debiased_ece) < 0.8 * plug_in
    assert mean(functools.partial(metrics.debiased_rmsce, binning="width")) < 0.5 * root
    assert mean(metrics.sweep_ece) < plug_in


def test_a_bin_of_one_row():
    """No variance can be seen in it: L2 leaves it out, L1 keeps its gap."""
    assert float(metrics.debiased_rmsce([[0.75, 0.25]], [1])) == 0
    assert float(metrics.debiased_ece([[0.75, 0.25]], [1])) == 0.75
    assert int(metrics.sweep_num_bins([[0.75, 0.25]], [1])) == 1
    assert np.isnan(metrics.sweep_ece(np.ones((0, 2)), np.zeros(0, int)))


def test_sweep_stops_at_max_bins_and_ignores_ties(draw):
    rising = np.repeat(np.linspace(0.55, 0.95, 5, dtype=np.float32), 8)
    probs = np.stack([rising, 1 - rising], axis=1)
    answers = np.zeros(40, int)
    answers[:2] = 1
    # Rising accuracies 6/8, 1, 1, 1, 1 of five values: never a fall, however many bins.
    assert int(metrics.sweep_num_bins(probs, answers)) == 40
    assert int(metrics.sweep_num_bins(probs, answers, max_bins=7)) == 7
    expected = metrics.adaptive_ece(probs, answers, num_bins=5)
    assert float(metrics.sweep_ece(probs, answers)) == pytest.approx(float(expected), abs=1e-6)
    assert int(metrics.sweep_num_bins(probs, answers, max_bins=1)) == 1
    gap = metrics.mean_confidence(probs) - metrics.accuracy(probs, answers)
    value = metrics.sweep_ece(probs, answers, max_bins=1)
    assert float(value) == pytest.approx(abs(float(gap)), abs=1e-6)


def test_sweep_keeps_certain_rows_in_the_last_of_its_bins():
    """Two bins are refused, so there is one: rows of confidence 1 with all the others."""
    probs = np.array([[0.5, 0.5]] * 3 + [[1.0, 0.0]] * 3)
    for edges in ("right", "left"):
        value = metrics.sweep_ece(probs, [0, 0, 0, 1, 1, 1], edges=edges)
        assert float(value) == pytest.approx(0.25)


def test_gradients_are_finite(draw):
    probs, answers = draw(60, 3, sharpness=3.0)
    for metric in (metrics.debiased_rmsce, metrics.debiased_ece, metrics.sweep_ece):
        grad = np.asarray(jax.grad(metric)(jnp.asarray(probs), answers))
        assert np.isfinite(grad).all() and np.abs(grad).max() > 0
    calibrated = jnp.full((4, 2), 0.5)
    grad = jax.grad(metrics.debiased_rmsce)(calibrated, jnp.array([0, 0, 1, 1]))
    assert np.array_equal(grad, np.zeros((4, 2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (functools.partial(metrics.debiased_rmsce, binning="equal"), "binning must be"),
        (functools.partial(metrics.sweep_ece, edges="both"), "edges must be"),
        (functools.partial(metrics.sweep_ece, max_bins=0), "max_bins must be an integer >= 1"),
        (functools.partial(metrics.sweep_ece, norm="l3"), "norm must be"),
    ],
)
def test_unknown_options_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.full((4, 2), 0.5), np.zeros(4, int))
