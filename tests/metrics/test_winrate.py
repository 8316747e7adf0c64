"""Win rates against counting, against sklearn, and against the truth that drew them."""

import numpy as np
import pytest
from scipy.optimize import minimize, minimize_scalar
from scipy.stats import chi2
from sklearn.linear_model import LogisticRegression

from calib_jax.metrics.shares import wilson_interval
from calib_jax.metrics.winrate import (
    effective_games,
    length_controlled,
    length_controlled_interval,
    standard_error,
    win_rate,
    win_rate_interval,
)


def drawn(count, theta, phi, seed=0, ties=False):
    """Wins of a model whose answers are longer on the whole, and lengths."""
    rng = np.random.default_rng(seed)
    lengths, baseline = rng.integers(200, 3000, count), rng.integers(200, 1500, count)
    d = (lengths - baseline).astype(float)
    p = 1 / (1 + np.exp(-(theta + phi * np.tanh(d / d.std(ddof=1)))))
    wins = (rng.random(count) < p).astype(float)
    if ties:
        wins = np.where(rng.random(count) < 0.3, rng.random(count), wins)
    return wins, lengths, baseline


def test_rate_and_error_by_hand():
    wins = np.array([1, 0, 0.5, 1, 0.25])
    assert win_rate(wins) == wins.mean()
    assert standard_error(wins) == pytest.approx(wins.std(ddof=1) / np.sqrt(5))
    # Weighted games: 3 of 3 and 1 of 1 won, then 0 of 3 and half of 1.
    assert win_rate([4, 0.5], [4, 4]) == 4.5 / 8
    assert win_rate([3, 0], [3, 1]) == 0.75
    assert np.isnan(standard_error([1.0]))


@pytest.mark.parametrize("ties", [False, True])
def test_the_fit_against_sklearn(ties):
    """Fractional wins as sklearn takes them: every row twice, as a win and as a loss, weighted."""
    wins, lengths, baseline = drawn(300, 0.4, 1.1, ties=ties)
    games = np.random.default_rng(1).integers(1, 4, 300).astype(float)
    d = (lengths - baseline).astype(float)
    x = np.stack([np.ones(300), np.tanh(d / d.std(ddof=1))], axis=1)
    theirs = LogisticRegression(C=100, fit_intercept=False, tol=1e-10, max_iter=1000).fit(
        np.concatenate([x, x]),
        np.repeat([1, 0], 300),
        sample_weight=np.concatenate([wins * games, (1 - wins) * games]),
    )
    ours = length_controlled(wins * games, lengths, baseline, games)
    np.testing.assert_allclose([ours.theta, ours.phi], theirs.coef_[0], atol=1e-5)
    assert ours.win_rate == pytest.approx(theirs.predict_proba([[1.0, 0.0]])[0, 1], abs=1e-6)


def test_length_is_taken_out():
    """Two equal models, of which one writes more before a judge that likes that."""
    wins, lengths, baseline = drawn(4000, 0.0, 2.0)
    assert win_rate(wins) > 0.6
    assert length_controlled(wins, lengths, baseline).win_rate == pytest.approx(0.5, abs=0.04)
    low, high = length_controlled_interval(wins, lengths, baseline)
    assert 0.44 < low < 0.5 < high < 0.56
    # Where length plays no part, taking it out changes nothing.
    wins, lengths, baseline = drawn(4000, 0.6, 0.0)
    assert length_controlled(wins, lengths, baseline).win_rate == pytest.approx(
        win_rate(wins), abs=0.03
    )


def test_extremes_are_finite():
    lengths, baseline = np.arange(20) * 10, np.full(20, 95)
    every = length_controlled(np.ones(20), lengths, baseline)
    assert 0.95 < every.win_rate < 1 and np.isfinite(every.phi)
    same = length_controlled([1, 0, 1, 1], [5] * 4, [5] * 4)
    assert same.win_rate == pytest.approx(0.75, abs=0.01) and same.phi == 0
    # The longer answer wins always: lengths explain everything.
    split = length_controlled((lengths > baseline).astype(float), lengths, baseline)
    assert np.isfinite([split.theta, split.phi]).all() and split.phi > 5


def test_single_games_have_wilsons_interval():
    for won, lost in ((20, 0), (0, 7), (13, 4), (1, 0)):
        wins = np.repeat([1.0, 0.0], [won, lost])
        assert effective_games(wins) == pytest.approx(won + lost)
        wilson = [float(end) for end in wilson_interval(won, won + lost)]
        assert win_rate_interval(wins) == pytest.approx(wilson)
        # The weight of a game is a unit.
        assert win_rate_interval(3 * wins, np.full(len(wins), 3.0)) == pytest.approx(wilson)


def test_ties_tell_more_and_weights_less():
    wins = np.tile([1.0, 0.5, 0.5, 0.0], 50)
    n, rate, variance = len(wins), wins.mean(), wins.var()
    assert effective_games(wins) == pytest.approx(rate * (1 - rate) / variance * n, rel=0.02)
    weights = np.tile([3.0, 1.0], 100)
    # Of won-or-lost games of weights w: (sum w)^2 / sum w^2.
    won = np.random.default_rng(0).random(200) < 0.5
    kish = weights.sum() ** 2 / (weights**2).sum()
    assert effective_games(won * weights, weights) == pytest.approx(kish, rel=0.03)
    # Ties alone are no proof of anything.
    low, high = win_rate_interval([0.5] * 10)
    assert low < 0.42 and high > 0.58


def test_no_interval_is_a_point():
    lengths, baseline = np.arange(20) * 10, np.full(20, 95)
    for wins in (np.ones(20), np.zeros(20), np.full(20, 0.5)):
        for low, high in (
            win_rate_interval(wins),
            length_controlled_interval(wins, lengths, baseline),
        ):
            assert low - 1e-6 <= wins[0] <= high + 1e-6 and high - low > 0.1


def test_the_profile_likelihood_by_scipy():
    wins, lengths, baseline = drawn(60, 0.7, 1.0)
    d = (lengths - baseline).astype(float)
    x = np.tanh(d / d.std(ddof=1))

    def loss(theta, phi):
        z = theta + phi * x
        return (np.logaddexp(0, z) - wins * z).sum() + 0.005 * (theta**2 + phi**2)

    least = minimize(lambda at: loss(*at), [0, 0]).fun
    for end in length_controlled_interval(wins, lengths, baseline):
        theta = np.log(end / (1 - end))
        profile = minimize_scalar(lambda phi, theta=theta: loss(theta, phi)).fun
        assert 2 * (profile - least) == pytest.approx(chi2.ppf(0.95, 1), abs=1e-4)


def test_intervals_cover_as_often_as_they_say():
    covered = [0, 0]
    for seed in range(60):
        wins, lengths, baseline = drawn(60, 2.0, 1.0, seed)
        low, high = length_controlled_interval(wins, lengths, baseline)
        covered[0] += low <= 1 / (1 + np.exp(-2.0)) <= high
        coins = np.random.default_rng(seed).random(50) < 0.95
        low, high = win_rate_interval(coins.astype(float))
        covered[1] += low <= 0.95 <= high
    assert all(53 <= c <= 60 for c in covered), covered


def test_a_questions_games_stay_together():
    """Both games of a question agree always: an interval over games would be too narrow."""
    wins = np.tile([2.0, 0.0], 50)
    low, high = win_rate_interval(wins, np.full(100, 2.0))
    assert (low, high) == pytest.approx(win_rate_interval(wins / 2))
    assert standard_error(wins, np.full(100, 2.0)) == pytest.approx(standard_error(wins / 2))


@pytest.mark.parametrize(
    "wins, games", [([], None), ([2.0], None), ([np.nan], None), ([1.0], [0.0]), ([1.0], [1, 1])]
)
def test_bad_arrays(wins, games):
    with pytest.raises(ValueError):
        win_rate(wins, games)
