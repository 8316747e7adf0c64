"""The variational error: against scikit-learn fold by fold, and in worlds of known accuracy."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from calib_jax import metrics

# P(right | c), for c uniform in [0.3, 1]; the true parts over and under, by hand.
WORLDS = {
    "calibrated": (lambda c: c, 0.0, 0.0),
    "over": (lambda c: c - 0.15, 0.15, 0.0),
    "under": (lambda c: c + 0.2 * (1 - c), 0.0, 0.07),  # 0.2 (1 - 0.65)
    # The slope 1/2 about 0.65: the mean of |c - 0.65| / 2, 0.175 / 2, half of it on either side.
    "both": (lambda c: 0.65 + (c - 0.65) / 2, 0.04375, 0.04375),
}


def sample(rng, world, rows):
    """Four options, the first of which is predicted; another one is right where it is not."""
    confidence = rng.uniform(0.3, 1, rows)
    right = rng.random(rows) < WORLDS[world][0](confidence)
    probs = np.repeat((1 - confidence)[:, None] / 3, 4, axis=1)
    probs[:, 0] = confidence
    return probs, np.where(right, 0, 1)


def by_sklearn(confidence, right, weights, fold):
    over = under = 0.0
    for f in np.unique(fold):
        rest = fold != f
        model = IsotonicRegression(out_of_bounds="clip")
        model.fit(confidence[rest], right[rest], sample_weight=weights[rest])
        for i in np.flatnonzero(fold == f):
            g = model.predict(confidence[i : i + 1])[0]
            gain = weights[i] * np.sign(g - confidence[i]) * (right[i] - confidence[i])
            over, under = (over + gain, under) if g < confidence[i] else (over, under + gain)
    return over / weights.sum(), under / weights.sum()


@pytest.mark.parametrize("clustered", [False, True])
def test_equals_scikit_learn_with_weights_and_clusters(clustered):
    rng = np.random.default_rng(0)
    probs, answers = sample(rng, "over", 60)
    probs[:, 0] = probs[:, 0].round(1)  # ties
    probs[:, 1:] = (1 - probs[:, :1]) / 3
    weights = rng.integers(1, 4, 60).astype(float)
    clusters = rng.integers(0, 20, 60) if clustered else np.arange(60)
    numbers = np.random.default_rng([3, 0]).permutation(len(np.unique(clusters))) % 5
    fold = numbers[np.unique(clusters, return_inverse=True)[1]]
    found = metrics.variational_ece(
        probs, answers, weights=weights, repeats=1, seed=3, clusters=clusters
    )
    expected = by_sklearn(probs[:, 0], answers == 0, weights, fold)
    assert (found.over, found.under) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("world", WORLDS)
def test_many_rows_give_the_true_parts(world):
    probs, answers = sample(np.random.default_rng(1), world, 20_000)
    found = metrics.variational_ece(probs, answers, repeats=2)
    assert found.over == pytest.approx(WORLDS[world][1], abs=0.01)
    assert found.under == pytest.approx(WORLDS[world][2], abs=0.01)
    assert found.error == pytest.approx(found.over + found.under, abs=1e-12)


@pytest.mark.parametrize("world", WORLDS)
def test_few_rows_give_no_more_than_the_truth_on_average(world):
    rng = np.random.default_rng(2)
    true = sum(WORLDS[world][1:])
    found = [metrics.variational_ece(*sample(rng, world, 200), repeats=2).error for _ in range(60)]
    noise = np.std(found) / np.sqrt(len(found))
    assert true - 0.04 < np.mean(found) < true + 3 * noise
    if world == "calibrated":  # the binned error is far from 0 then
        plain = np.mean([metrics.conf_ece(*sample(rng, world, 200)) for _ in range(20)])
        assert plain > 0.05 and abs(np.mean(found)) < 0.01


def test_all_right_all_wrong_and_masked_options():
    rng = np.random.default_rng(4)
    probs, _ = sample(rng, "over", 50)
    right = metrics.variational_ece(probs, np.zeros(50, int))
    assert right.under == pytest.approx(1 - probs[:, 0].mean()) and right.over == 0
    wrong = metrics.variational_ece(probs, np.ones(50, int))
    assert wrong.over == pytest.approx(probs[:, 0].mean()) and wrong.under == 0
    wide = np.concatenate([probs, np.zeros((50, 1))], axis=1)
    mask = np.arange(5) < np.full((50, 1), 4)
    assert metrics.variational_ece(wide, np.zeros(50, int), mask) == right


def test_rows_of_weight_0_and_too_few_rows():
    probs, answers = sample(np.random.default_rng(5), "both", 40)
    weights = (np.arange(40) < 25).astype(float)
    assert metrics.variational_ece(probs, answers, weights=weights) == (
        metrics.variational_ece(probs[:25], answers[:25])
    )
    for rows in (0, 1):
        assert np.isnan(metrics.variational_ece(probs[:rows], answers[:rows]).error)
    assert np.isnan(metrics.variational_ece(probs, answers, clusters=["one"] * 40).over)
    assert np.isfinite(metrics.variational_ece(probs[:2], answers[:2]).error)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": 1}, "folds must be at least 2"),
        ({"repeats": 0}, "repeats 1 or more"),
        ({"weights": [1.0]}, "weights must have shape"),
        ({"weights": [-1.0] * 40}, "not negative"),
        ({"clusters": [1]}, "clusters must have shape"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        metrics.variational_ece(*sample(np.random.default_rng(6), "both", 40), **arguments)
