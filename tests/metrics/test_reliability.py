import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize

from calib_jax import metrics

QUANTILE = stats.chi2.ppf(0.95, 1)


def make(num_rows, seed=0, scale=2.0, levels=None):
    """probs [N, 4] of a model whose logits are ``scale`` times the true ones, and answers."""
    rng = np.random.default_rng(seed)
    logits = 1.5 * rng.normal(size=(num_rows, 4))
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    probs = np.exp(scale * logits) / np.exp(scale * logits).sum(axis=1, keepdims=True)
    answers = (true.cumsum(axis=1) < rng.random((num_rows, 1))).sum(axis=1).clip(0, 3)
    if levels:  # so many different confidences
        top = np.ceil(probs.max(axis=1, keepdims=True) * levels) / levels
        probs = np.where(np.eye(4)[probs.argmax(axis=1)] == 1, top, (1 - top) / 3)
    return probs, answers


def pooled(probs, answers):
    """Distinct confidences, and rows and right rows at each."""
    top, right = probs.max(axis=1), probs.argmax(axis=1) == answers
    found = np.unique(top)
    return found, *(np.array([x[top == c].sum() for c in found]) for x in (right, top > -1))


def isotonic(right, rows):
    """Isotonic regression by its min-max formula."""
    means = np.full((len(rows), len(rows)), np.nan)
    for start in range(len(rows)):
        means[start, start:] = right[start:].cumsum() / rows[start:].cumsum()
    return np.array(
        [max(np.min(means[start, i:]) for start in range(i + 1)) for i in range(len(rows))]
    )


def log_likelihood(right, rows, share):
    share = np.clip(share, 1e-12, 1 - 1e-12)
    return float(np.sum(right * np.log(share) + (rows - right) * np.log1p(-share)))


def constrained(confidence, right, rows, t, value):
    """The highest log-likelihood of a non-decreasing function that is ``value`` at t."""
    upper = np.where(confidence <= t, value, 1.0)
    lower = np.where(confidence >= t, value, 0.0)
    start = np.clip(isotonic(right, rows), lower, upper)
    found = minimize(
        lambda f: -log_likelihood(right, rows, f),
        start,
        method="SLSQP",
        bounds=list(zip(np.clip(lower, 1e-9, 1), np.clip(upper, 0, 1 - 1e-9), strict=True)),
        constraints={"type": "ineq", "fun": np.diff},
        options={"maxiter": 500, "ftol": 1e-12},
    )
    return -found.fun


@pytest.mark.parametrize("levels", [None, 8])
def test_the_curve_is_the_isotonic_regression(levels):
    probs, answers = make(150, levels=levels)
    confidence, right, rows = pooled(probs, answers)
    expected = isotonic(right, rows)
    curve = metrics.reliability_curve(probs, answers, at=confidence, num_draws=1)
    np.testing.assert_allclose(curve.accuracy, expected, atol=1e-12)
    middle = (confidence[1:] + confidence[:-1]) / 2
    between = metrics.reliability_curve(probs, answers, at=middle[::-1], num_draws=1)
    np.testing.assert_allclose(between.confidence, middle[::-1])
    np.testing.assert_allclose(between.accuracy[::-1], (expected[1:] + expected[:-1]) / 2)


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_the_confidence_band_ends_where_the_likelihood_ratio_rejects(level):
    """Against maximisation under constraints, on and between confidences."""
    quantile = stats.chi2.ppf(level, 1)
    probs, answers = make(60, seed=4, levels=12)
    confidence, right, rows = pooled(probs, answers)
    highest = log_likelihood(right, rows, isotonic(right, rows))
    at = np.append(confidence[1:-1], [confidence[2:4].mean()])
    curve = metrics.reliability_curve(probs, answers, at=at, level=level, num_draws=1)
    checked = 0
    for t, *ends in zip(at, curve.low, curve.high, strict=True):
        for end in ends:
            if 0 < end < 1:
                ratio = 2 * (highest - constrained(confidence, right, rows, t, end))
                assert ratio == pytest.approx(quantile, abs=2e-3)
                checked += 1
    assert checked >= 8
    assert (curve.low <= curve.accuracy).all() and (curve.accuracy <= curve.high).all()


def test_one_confidence_has_the_binomial_intervals():
    probs = np.tile([[0.75, 0.25]], (40, 1))
    answers = np.repeat([0, 1], [26, 14])
    curve = metrics.reliability_curve(probs, answers, num_draws=4000)
    for end in (curve.low[0], curve.high[0]):
        ratio = 2 * (
            log_likelihood(26, 40, np.array(26 / 40)) - log_likelihood(26, 40, np.array(end))
        )
        assert ratio == pytest.approx(QUANTILE, abs=1e-9)
    expected = stats.binom.ppf((0.025, 0.975), 40, 0.75) / 40
    found = np.array([curve.consistency_low[0], curve.consistency_high[0]])
    np.testing.assert_allclose(found, expected, atol=1.1 / 40)


def test_all_right_all_wrong_one_row_and_none():
    probs, _ = make(20)
    predicted = probs.argmax(axis=1)
    right = metrics.reliability_curve(probs, predicted, num_draws=10)
    assert (right.accuracy == 1).all() and (right.high == 1).all() and (right.low < 1).all()
    # With v at the highest confidence no row may be above v: v^20 >= exp(-q / 2).
    assert right.low[-1] == pytest.approx(np.exp(-QUANTILE / 2 / 20))
    wrong = metrics.reliability_curve(probs, (predicted + 1) % 4, num_draws=10)
    assert (wrong.accuracy == 0).all() and (wrong.low == 0).all() and (wrong.high > 0).all()
    one = metrics.reliability_curve([[0.75, 0.25]], [0])
    assert one.accuracy.tolist() == [1.0] and one.high.tolist() == [1.0]
    assert one.low[0] == pytest.approx(np.exp(-QUANTILE / 2))
    assert (one.consistency_low[0], one.consistency_high[0]) == (0, 1)
    none = np.ones((0, 2), np.float32), np.zeros(0, int)
    assert all(len(x) == 0 for x in metrics.reliability_curve(*none))
    assert all(np.isnan(x).all() for x in metrics.reliability_curve(*none, at=[0.5])[1:])


def test_points_by_default_occur_and_none_is_given_outside():
    probs, answers = make(300)
    top = probs.max(axis=1)
    curve = metrics.reliability_curve(probs, answers, num_draws=1)
    assert np.isin(curve.confidence, top).all() and (np.diff(curve.confidence) > 0).all()
    parts = np.floor(curve.confidence * 128)
    assert set(parts) == set(np.floor(top * 128).clip(max=127)) and len(set(parts)) == len(parts)
    tied, answers = make(300, levels=8)
    curve = metrics.reliability_curve(tied, answers, num_draws=1)
    np.testing.assert_array_equal(curve.confidence, np.unique(tied.max(axis=1)))
    outside = metrics.reliability_curve(tied, answers, at=[0.01, 0.5, 0.5], num_draws=1)
    assert np.isnan(np.stack(outside[1:])[:, 0]).all()
    assert not np.isnan(np.stack(outside[1:])[:, 1:]).any()
    np.testing.assert_array_equal(*np.stack(outside[1:])[:, 1:].T)


def test_order_masks_precision_and_the_seed():
    probs, answers = make(200)
    curve = metrics.reliability_curve(probs, answers, num_draws=50)
    order = np.random.default_rng(1).permutation(200)
    again = metrics.reliability_curve(probs[order], answers[order], num_draws=50)
    np.testing.assert_allclose(np.stack(curve), np.stack(again), atol=1e-12)
    wide = np.concatenate([probs, np.zeros((200, 1))], axis=1)
    mask = np.arange(5) < np.full((200, 1), 4)
    masked = metrics.reliability_curve(wide, answers, mask, num_draws=50)
    np.testing.assert_array_equal(np.stack(curve), np.stack(masked))
    other = metrics.reliability_curve(probs, answers, num_draws=50, seed=1)
    assert (other.consistency_low != curve.consistency_low).any()
    np.testing.assert_array_equal(other.low, curve.low)
    single = metrics.reliability_curve(probs.astype(np.float32), answers, num_draws=50)
    np.testing.assert_allclose(single.accuracy, curve.accuracy, atol=1e-5)


@pytest.mark.parametrize("scale", [2.0, 0.5])
def test_the_confidence_band_covers_the_true_accuracy(scale):
    """At least 90 % of 100 draws, at confidences near which at least 30 of 400 rows lie."""
    at = np.array([0.5, 0.6, 0.9] if scale > 1 else [0.4, 0.5, 0.6])
    big, _ = make(400_000, seed=99, scale=scale)
    logits = np.log(big) / scale
    true = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    top, right = big.max(axis=1), np.take_along_axis(true, big.argmax(axis=1)[:, None], 1)[:, 0]
    truth = np.array([right[np.abs(top - t) < 0.01].mean() for t in at])
    assert (np.abs(truth - at) > 0.08).all()  # far from calibrated, and from the diagonal
    held = []
    for seed in range(100):
        curve = metrics.reliability_curve(*make(400, seed, scale), at=at, num_draws=1)
        held.append((curve.low <= truth) & (truth <= curve.high))
        assert (curve.high - curve.low < 0.6).all()
    assert (np.mean(held, axis=0) >= 0.9).all()


def test_the_consistency_band_holds_calibrated_curves_and_not_others():
    at = np.array([0.5, 0.7, 0.9])
    calibrated = [
        metrics.reliability_curve(*make(400, s, 1.0), at=at, num_draws=200) for s in range(60)
    ]
    inside = [
        (c.consistency_low <= c.accuracy) & (c.accuracy <= c.consistency_high) for c in calibrated
    ]
    assert 0.88 <= np.mean(inside) <= 0.99
    over = metrics.reliability_curve(*make(400), at=at)
    assert (over.accuracy < over.consistency_low)[1:].all()
    assert np.mean([c.consistency_high - c.consistency_low for c in calibrated]) < 0.3


def test_of_many_confidences_the_consistency_band_is_that_of_pooled_neighbours():
    probs, answers = make(6000)  # more than are drawn one by one
    many = metrics.reliability_curve(probs, answers, at=[0.5, 0.7, 0.9])
    # Nearly the same rows with few enough confidences.
    few = metrics.reliability_curve(*make(6000, levels=1000), at=[0.5, 0.7, 0.9])
    for name in ("consistency_low", "consistency_high"):
        np.testing.assert_allclose(getattr(many, name), getattr(few, name), atol=0.012)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 1.0}, "level must lie strictly between 0 and 1, got 1.0"),
        ({"num_draws": 0}, "num_draws must be at least 1, got 0"),
        ({"at": 0.5}, r"at must have shape \[P\], got \(\)"),
    ],
)
def test_refuses_what_it_cannot_use(options, message):
    with pytest.raises(ValueError, match=message):
        metrics.reliability_curve([[0.75, 0.25]], [0], **options)
    with pytest.raises(ValueError, match="sums to 1.25"):
        metrics.reliability_curve([[0.75, 0.5]], [0])
