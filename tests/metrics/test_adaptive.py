import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tests.metrics.kernels import kernels as metrics

# Few distinct values: heavy ties, on edges of equal-width bins among others.
VALUES = st.one_of(
    st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0]),
    st.floats(0, 1, width=32, allow_subnormal=False),
)
ROWS = hnp.arrays(np.float32, (24, 4), elements=VALUES)
ANSWERS = hnp.arrays(np.int32, 24, elements=st.integers(0, 3))
WEIGHTS = hnp.arrays(np.int32, 24, elements=st.integers(0, 3))
MASKS = hnp.arrays(bool, (24, 4)).map(lambda mask: mask | (np.arange(4) == 1))
EDGES = st.sampled_from(["right", "left"])


@functools.partial(jax.jit, static_argnames="edges")
def evaluate(probs, answers, mask, weights, edges="right"):
    """All errors of this module at once: one compilation."""
    args = {"num_bins": 5, "edges": edges, "weights": weights}
    return {
        "adaptive_ece": metrics.adaptive_ece(probs, answers, mask, **args),
        "l2": metrics.adaptive_ece(probs, answers, mask, norm="l2", **args),
        "max": metrics.adaptive_ece(probs, answers, mask, norm="max", **args),
        "cw_adaptive_ece": metrics.cw_adaptive_ece(probs, answers, mask, **args),
        "nixon_ace": metrics.nixon_ace(probs, answers, mask, **args),
        "retained": metrics.tace(probs, answers, mask, threshold=0.2, **args),
        "all": metrics.tace(probs, answers, mask, threshold=0.2, denominator="all", **args),
    }


def close(found, expected, atol=2e-6):
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=atol, err_msg=name)


def by_definition(mass_bins, probs, answers, mask, weights, edges):
    def gaps(bins):
        return [(n, abs(hits / n - total / n)) for n, hits, total in bins]

    inside = np.where(mask, probs, -1)
    top = inside.argmax(axis=1)
    bins = gaps(mass_bins(inside.max(axis=1), top == answers, weights, 5, edges))
    classes, kept = [], []
    for k in range(probs.shape[1]):
        column, labels = probs[:, k], answers == k
        here = np.where(mask[:, k], weights, 0)
        classes.append((here.sum(), gaps(mass_bins(column, labels, here, 5, edges))))
        large = np.where(column > np.float32(0.2), here, 0)
        kept.append((here.sum(), gaps(mass_bins(column, labels, large, 5, edges))))
    pairs = sum(rows for rows, _ in classes)
    rows = weights.sum()
    return {
        "adaptive_ece": sum(n * g for n, g in bins) / rows,
        "l2": np.sqrt(sum(n * g * g for n, g in bins) / rows),
        "max": max(g for _, g in bins),
        "cw_adaptive_ece": sum(n * g for _, b in classes for n, g in b) / pairs,
        "nixon_ace": sum(r * np.mean([g for _, g in b]) for r, b in classes if r) / pairs,
        "retained": sum(r * sum(n * g for n, g in b) / sum(n for n, _ in b) for r, b in kept if b)
        / pairs,
        "all": sum(n * g for _, b in kept for n, g in b) / pairs,
    }


@pytest.mark.parametrize("edges", ["right", "left"])
@pytest.mark.parametrize("weighted", [False, True])
def test_subnormal_probabilities_stay_apart(mass_bins, edges, weighted):
    """As floats XLA takes all of them for 0; saturated logits are full of them."""
    rng = np.random.default_rng(0)
    tiny = rng.integers(0, 5000, (24, 4)).astype(np.int32).view(np.float32)
    tiny[:4, 0] = np.float32(2.0**-126) * np.array([1, 1.5, 2, 3], np.float32)
    tiny[4:8] = rng.random((4, 4), np.float32)
    answers = rng.integers(0, 4, 24).astype(np.int32)
    weights = rng.integers(1, 3, 24).astype(np.int32) if weighted else np.ones(24, np.int32)
    expected = by_definition(mass_bins, tiny, answers, np.ones((24, 4), bool), weights, edges)
    given = {"num_bins": 5, "edges": edges, "weights": weights if weighted else None}
    close(
        {
            "cw_adaptive_ece": metrics.cw_adaptive_ece(tiny, answers, None, **given),
            "nixon_ace": metrics.nixon_ace(tiny, answers, None, **given),
        },
        {name: expected[name] for name in ("cw_adaptive_ece", "nixon_ace")},
    )


@settings(max_examples=30, deadline=None)
@given(probs=ROWS, answers=ANSWERS, mask=MASKS, weights=WEIGHTS, edges=EDGES)
def test_equals_the_definition(mass_bins, probs, answers, mask, weights, edges):
    weights[0] = max(weights[0], 1)
    found = evaluate(probs, answers, mask, weights, edges)
    close(found, by_definition(mass_bins, probs, answers, mask, weights, edges))


@settings(max_examples=20, deadline=None)
@given(probs=ROWS, answers=ANSWERS, mask=MASKS, weights=WEIGHTS, seed=st.integers(0, 99))
def test_function_of_the_multiset_of_rows(probs, answers, mask, weights, seed):
    order = np.random.default_rng(seed).permutation(24)
    value = evaluate(probs, answers, mask, weights)
    close(evaluate(probs[order], answers[order], mask[order], weights[order]), value)
    # What stands under the mask, or in a row of weight 0, is not read.
    junk = np.where(mask & (weights[:, None] > 0), probs, np.nan).astype(np.float32)
    close(evaluate(junk, answers, mask, weights), value)
    for name, error in value.items():
        assert np.isnan(error) if not weights.sum() else 0 <= error <= 1 + 1e-6, name


@settings(max_examples=20, deadline=None)
@given(probs=ROWS, answers=ANSWERS, edges=EDGES)
def test_bins_hold_every_row_once_and_never_split_a_tie(probs, answers, edges):
    stats, cuts = metrics.adaptive_bin_stats(probs, answers, None, 5, edges)
    cuts, confidence = np.asarray(cuts), probs.max(axis=1)
    assert int(stats.count.sum()) == 24 and (np.diff(cuts) >= 0).all()
    assert cuts[0] == 0 and cuts[-1] == 1
    side = "left" if edges == "right" else "right"
    index = np.searchsorted(cuts[1:-1], confidence, side=side)
    np.testing.assert_array_equal(np.bincount(index, minlength=5), stats.count)
    gap = abs(float(confidence.mean() - (probs.argmax(axis=1) == answers).mean()))
    assert gap <= float(metrics.ece_from_bins(stats)) + 1e-6


def test_set_a_golden_values(set_a):
    """uncertainty-calibration 0.1.4 (get_ece_em, its L2), netcal 1.4, and a rank-split loop."""
    for value, golden in (
        (metrics.adaptive_ece(*set_a, num_bins=15), 0.153304983393),
        (metrics.adaptive_ece(*set_a, num_bins=15, edges="left"), 0.153304983393),
        (metrics.adaptive_ece(*set_a, num_bins=15, norm="l2"), 0.163562164118),
        (metrics.cw_adaptive_ece(*set_a, num_bins=15), 0.078509474717),
        (metrics.cw_adaptive_ece(*set_a, num_bins=15, norm="l2"), 0.097204801971),
        (metrics.nixon_ace(*set_a, num_bins=15), 0.078530686783),
        # robustness_metrics, thresholded SCE at 0.01.
        (metrics.tace(*set_a, num_bins=15, binning="width"), 0.103057850003),
    ):
        assert float(value) == pytest.approx(golden, abs=1e-6)


def test_edge_set_golden_values(edge_set):
    """uncertainty-calibration 0.1.4, 10 bins (L2: its default of 15)."""
    assert float(metrics.adaptive_ece(*edge_set)) == pytest.approx(0.283333333333, abs=1e-6)
    value = metrics.adaptive_ece(*edge_set, norm="l2")
    assert float(value) == pytest.approx(0.338572883176, abs=1e-6)
    value = metrics.adaptive_ece(*edge_set, num_bins=15, norm="l2")
    assert float(value) == pytest.approx(0.350706627951, abs=1e-6)
    assert float(metrics.cw_adaptive_ece(*edge_set)) == pytest.approx(0.200555555556, abs=1e-6)
    value = metrics.cw_adaptive_ece(*edge_set, norm="l2")
    assert float(value) == pytest.approx(0.269456811715, abs=1e-6)


def test_tied_rows_have_no_error_that_their_order_makes():
    """1,000 rows of confidence 0.6, 60 % right: a split by rank gives 0.02 to 0.06."""
    answers = np.arange(1000) % 5 >= 3
    probs = np.tile(np.float32([0.6, 0.4]), (1000, 1))
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(1000)
        assert float(metrics.adaptive_ece(probs, answers[order].astype(int))) < 1e-6


def test_saturated_confidences_share_the_last_bin():
    probs = np.eye(2, dtype=np.float32)[[0] * 6] * 1.0
    probs[0] = 0.75, 0.25
    stats, _ = metrics.adaptive_bin_stats(probs, [0] * 6, num_bins=3)
    # The split after the second row falls into the tie at 1, which goes below its edge.
    assert stats.count.tolist() == [6, 0, 0]
    stats, _ = metrics.adaptive_bin_stats(probs, [0] * 6, num_bins=3, edges="left")
    assert stats.count.tolist() == [1, 0, 5]


def test_more_bins_than_rows_and_many_bins(mass_bins, draw):
    probs, answers = draw(50, 3)
    right = probs.argmax(axis=1) == answers
    for num_bins in (50, 70, 200):  # beyond 64 the bin is searched for
        bins = mass_bins(probs.max(axis=1), right, None, num_bins)
        expected = sum(abs(hits - total) for _, hits, total in bins) / 50
        assert float(metrics.adaptive_ece(probs, answers, num_bins=num_bins)) == pytest.approx(
            expected, abs=1e-6
        )
    assert float(metrics.adaptive_ece(probs[:1], answers[:1])) == pytest.approx(
        abs(float(right[0] - probs[0].max())), abs=1e-6
    )


def test_edges_between_neighbouring_floats():
    """The mid-point of two adjacent floats is one of them: the rows are split all the same."""
    low = np.float32(0.7)
    high = np.nextafter(low, np.float32(1))
    probs = np.array([[low, 0], [low, 0], [high, 0], [high, 0]], np.float32)
    for edges in ("right", "left"):
        stats, _ = metrics.adaptive_bin_stats(probs, [0] * 4, num_bins=2, edges=edges)
        assert stats.count.tolist() == [2, 2]


def test_fractional_weights_are_masses(draw):
    probs, answers = draw(60, 4)
    weights = np.random.default_rng(0).random(60).astype(np.float32) + 0.1
    value = metrics.adaptive_ece(probs, answers, weights=weights)
    scaled = metrics.adaptive_ece(probs, answers, weights=weights / weights.sum())
    assert float(scaled) == pytest.approx(float(value), rel=1e-5)
    equal = metrics.adaptive_ece(probs, answers, weights=np.full(60, 0.25, np.float32))
    assert float(equal) == pytest.approx(float(metrics.adaptive_ece(probs, answers)), rel=1e-5)


def test_numbers_of_options_from_1_to_26(draw):
    """Columns that are masked everywhere change nothing."""
    weights = np.ones(40, np.int32)
    for num_options in (1, 3, 26):
        probs, answers = draw(40, num_options, seed=num_options)
        wide = np.full((40, 26), 0.5, np.float32)
        wide[:, :num_options] = probs
        mask = np.broadcast_to(np.arange(26) < num_options, (40, 26))
        found = evaluate(wide, answers, mask, weights)
        close(found, evaluate(probs, answers, np.ones(probs.shape, bool), weights))


def test_labels_drawn_from_the_probabilities_give_about_zero(draw):
    probs, answers = draw(50_000, 4)
    assert float(metrics.adaptive_ece(probs, answers)) < 0.01
    assert float(metrics.nixon_ace(probs, answers)) < 0.006


def test_one_range_above_the_threshold():
    """By hand: mean over all classes, a class with nothing above the threshold adds 0."""
    probs = np.array([[0.9, 0.08, 0.02], [0.7, 0.25, 0.05], [0.25, 0.7, 0.05], [0.1, 0.85, 0.05]])
    answers = np.array([0, 1, 1, 0])
    for threshold in (0.0, 0.06, 0.5, 0.875, 1.0):
        errors = []
        for k in range(3):
            kept = probs[:, k] > threshold
            gap = abs((answers[kept] == k).mean() - probs[kept, k].mean()) if kept.any() else 0
            errors.append((gap, gap * kept.mean()))
        for denominator, expected in zip(("retained", "all"), np.mean(errors, axis=0), strict=True):
            value = metrics.tace(
                probs, answers, num_bins=1, threshold=threshold, denominator=denominator
            )
            assert float(value) == pytest.approx(expected, abs=1e-6)
    whole = metrics.tace(probs, answers, num_bins=2, threshold=-1.0, denominator="all")
    assert float(whole) == pytest.approx(float(metrics.cw_adaptive_ece(probs, answers, num_bins=2)))


def test_gradient_is_that_of_the_mean_confidence_inside_the_bins(draw):
    probs, answers = draw(64, 4, sharpness=4.0)
    grad = np.asarray(jax.grad(metrics.adaptive_ece)(jnp.asarray(probs), answers))
    stats, cuts = metrics.adaptive_bin_stats(probs, answers)
    index = np.searchsorted(np.asarray(cuts)[1:-1], probs.max(axis=1))
    expected = -np.sign(np.asarray(stats.gap()))[index] / 64
    np.testing.assert_allclose(grad[np.arange(64), probs.argmax(axis=1)], expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (functools.partial(metrics.adaptive_ece, edges="both"), 'edges must be "right" or "left"'),
        (functools.partial(metrics.adaptive_ece, num_bins=0), "num_bins must be an integer >= 1"),
        (functools.partial(metrics.adaptive_ece, norm="l3"), 'norm must be "l1", "l2" or "max"'),
        (functools.partial(metrics.tace, denominator="some"), "denominator must be"),
        (functools.partial(metrics.tace, binning="wide"), 'binning must be "mass" or "width"'),
    ],
)
def test_unknown_options_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.full((4, 2), 0.5), np.zeros(4, int))


def test_a_million_rows_are_exact_to_1e_6():
    rng = np.random.default_rng(0)
    confidence = 1 - rng.random(1_000_000, dtype=np.float32) * np.float32(0.01)
    wrong = (rng.random(1_000_000, dtype=np.float32) > 0.9).astype(np.int32)
    value = float(metrics.adaptive_ece(confidence[:, None], wrong))
    order = np.argsort(confidence, kind="stable")
    gaps = (confidence.astype(np.float64) - (1 - wrong))[order].reshape(10, -1).sum(axis=1)
    # A few rows that tie with an edge are in the neighbouring bin: far below 1e-6 of the error.
    assert value == pytest.approx(np.abs(gaps).sum() / 1_000_000, abs=1e-6)
