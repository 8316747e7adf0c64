import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax import metrics


def test_against_float64():
    rng = np.random.default_rng(0)
    chosen, rejected = rng.normal(-30, 3, 200), rng.normal(-31, 3, 200)
    rate, weights = rng.random(200), rng.integers(0, 3, 200)
    low, high = chosen.astype(np.float32).astype(float), rejected.astype(np.float32).astype(float)
    ratio = 1 / (1 + np.exp(high - low))
    for w in (None, weights):
        found = metrics.preference_collapse(chosen, rejected, rate, weights=w)
        expected = [ratio, ratio - rate, (ratio > rate).astype(float)]
        for value, rows in zip(found, expected, strict=True):
            assert value == pytest.approx(np.average(rows, weights=w), abs=1e-6)


def test_the_ratio_of_a_token_does_not_saturate():
    rng = np.random.default_rng(2)
    lengths = rng.integers(100, 400, (2, 50))
    per_token = rng.normal(-1.5, 0.3, (2, 50))
    chosen, rejected = per_token * lengths
    rate = rng.random(50)
    plain = np.asarray(metrics.row_preference_collapse(chosen, rejected, rate)[0])
    assert (np.minimum(plain, 1 - plain) < 1e-3).mean() > 0.9
    ratio = 1 / (1 + np.exp(per_token[1] - per_token[0]))
    found = metrics.row_preference_collapse(chosen, rejected, rate, *lengths)
    for value, expected in zip(found, (ratio, ratio - rate, ratio > rate), strict=True):
        np.testing.assert_allclose(value, expected, atol=1e-5)
    mean = metrics.preference_collapse(chosen, rejected, rate, None, *lengths)
    assert mean.mean_ratio == pytest.approx(ratio.mean(), abs=1e-5)
    assert mean.mean_excess == pytest.approx((ratio - rate).mean(), abs=1e-5)
    ones = np.ones(50)
    for one, same in zip(
        metrics.row_preference_collapse(chosen, rejected, rate, ones, ones),
        metrics.row_preference_collapse(chosen, rejected, rate),
        strict=True,
    ):
        np.testing.assert_array_equal(one, same)
    with pytest.raises(ValueError, match="both answers, or of none"):
        metrics.preference_collapse(chosen, rejected, rate, None, lengths[0])


def test_stable_in_the_logs():
    found = metrics.preference_collapse([-1000.0, -2000.0], [-1001.0, -1000.0], 0.5)
    assert found.mean_ratio == pytest.approx((1 / (1 + np.exp(-1)) + 0) / 2, abs=1e-6)
    assert found.share_above == 0.5
    # A ratio that rounds to 1 still exceeds a rate that does not, and nothing exceeds 1.
    assert metrics.preference_collapse([0.0], [-50.0], 0.9999999).share_above == 1
    assert metrics.preference_collapse([0.0], [-50.0], 1.0).share_above == 0
    assert metrics.preference_collapse([0.0], [-50.0], 0.0).share_above == 1
    assert metrics.preference_collapse([-np.inf], [-5.0], 0.5).mean_ratio == 0
    assert metrics.preference_collapse([-5.0], [-np.inf], 0.5).mean_ratio == 1
    assert np.isnan(metrics.preference_collapse([-np.inf], [-np.inf], 0.5).mean_ratio)


def test_unknown_rate_no_pairs_and_weight_zero():
    found = metrics.preference_collapse([-1.0, -1.0], [-1.0, -1.0])
    assert found.mean_ratio == 0.5
    assert np.isnan(found.mean_excess) and np.isnan(found.share_above)
    assert all(np.isnan(value) for value in metrics.preference_collapse([], [], 0.5))
    kept = metrics.preference_collapse([-1.0, np.nan], [-1.0, 0.0], 0.25, weights=[1, 0])
    assert [float(value) for value in kept] == [0.5, 0.25, 1.0]
    assert all(np.isnan(x) for x in metrics.preference_collapse([np.nan], [0.0], 0.25))
    low = metrics.preference_collapse(jnp.asarray([-1.0], jnp.bfloat16), jnp.asarray([-1.0]), 0.5)
    assert low.mean_ratio.dtype == jnp.float32


def test_gradient():
    slope = jax.grad(lambda x: metrics.preference_collapse(x, jnp.zeros(2), 0.5).mean_excess)
    np.testing.assert_allclose(slope(jnp.zeros(2)), [0.125, 0.125], atol=1e-7)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match="must both have shape"):
        metrics.preference_collapse([0.0, 1.0], [0.0])
    with pytest.raises(ValueError, match="preference_rate must be"):
        metrics.preference_collapse([0.0, 1.0], [0.0, 0.0], [0.5])


def test_margins_accuracy_and_rewards_against_float64():
    rng = np.random.default_rng(1)
    chosen, rejected, ref_chosen, ref_rejected = rng.normal(-40, 6, (4, 300)).astype(np.float32)
    lengths = rng.integers(1, 30, (2, 300))
    weights = rng.integers(0, 3, 300)
    plain = chosen.astype(float) - rejected
    normalised = chosen.astype(float) / lengths[0] - rejected / lengths[1]
    np.testing.assert_allclose(metrics.preference_margins(chosen, rejected), plain, atol=1e-5)
    found = metrics.preference_margins(chosen, rejected, *lengths)
    np.testing.assert_allclose(found, normalised, atol=1e-5)
    for w in (None, weights):
        found = metrics.preference_accuracy(chosen, rejected, weights=w)
        assert found == pytest.approx(np.average(plain > 0, weights=w), abs=1e-6)
        found = metrics.preference_accuracy(chosen, rejected, *lengths, weights=w)
        assert found == pytest.approx(np.average(normalised > 0, weights=w), abs=1e-6)
    rewards = 0.3 * ((chosen.astype(float) - ref_chosen) - (rejected.astype(float) - ref_rejected))
    found = metrics.reward_margins(chosen, rejected, ref_chosen, ref_rejected, beta=0.3)
    np.testing.assert_allclose(found, rewards, atol=2e-5)
    # The reference itself has no reward.
    assert not metrics.reward_margins(chosen, rejected, chosen, rejected).any()


def test_a_tie_is_no_win_and_nan_is_no_loss():
    assert metrics.preference_accuracy([-1.0, -2.0], [-1.0, -3.0]) == 0.5
    assert np.isnan(metrics.preference_accuracy([np.nan], [-1.0]))
    assert np.isnan(metrics.preference_accuracy([], []))
    with pytest.raises(ValueError, match="of both answers"):
        metrics.preference_margins([0.0], [0.0], [1])
    with pytest.raises(ValueError, match="must be"):
        metrics.preference_margins([0.0], [0.0], [1], [1, 2])
    with pytest.raises(ValueError, match="the reference has"):
        metrics.reward_margins([0.0], [0.0], [0.0, 1.0], [0.0, 1.0])


def test_rows_are_what_is_averaged():
    chosen, rejected = [-1.0, -5.0, -2.0], [-2.0, -1.0, -2.0]
    rows = metrics.row_preference_collapse(chosen, rejected, [0.5, 0.5, 0.25])
    found = metrics.preference_collapse(chosen, rejected, [0.5, 0.5, 0.25])
    for row, mean in zip(rows, found, strict=True):
        assert mean == pytest.approx(float(np.mean(row)))
