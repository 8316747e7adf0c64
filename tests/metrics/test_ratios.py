import numpy as np
import pytest

from calib_jax import metrics


def test_against_plain_resampling():
    """Values exactly, intervals against an independent bootstrap to sampling error."""
    rng = np.random.default_rng(0)
    loss, after = rng.gamma(2, 10, 80), rng.gamma(2, 9, 80)
    size = rng.integers(5, 50, 80)
    found = metrics.bootstrap_ratios(
        {
            "mean": [(loss, np.ones(80))],
            "token": [(loss, size)],
            "change": [(loss, size), (after, size)],
        },
        num_resamples=10000,
    )
    draws = np.random.default_rng(9).integers(0, 80, (10000, 80))
    values = {
        "mean": (loss.mean(), loss[draws].mean(axis=1)),
        "token": (loss.sum() / size.sum(), loss[draws].sum(axis=1) / size[draws].sum(axis=1)),
        "change": (
            (after.sum() - loss.sum()) / size.sum(),
            (after - loss)[draws].sum(axis=1) / size[draws].sum(axis=1),
        ),
    }
    for name, (value, drawn) in values.items():
        assert found[name][0] == pytest.approx(value, rel=1e-12)
        ends = np.quantile(drawn, [0.025, 0.975])
        np.testing.assert_allclose(found[name][1:], ends, atol=0.15 * np.std(drawn))


def test_what_two_models_share_cancels():
    rng = np.random.default_rng(1)
    loss, size = rng.gamma(2, 10, 50), np.ones(50)
    change = metrics.bootstrap_ratios({"x": [(loss, size), (loss + 3, size)]})["x"]
    assert change == pytest.approx((3, 3, 3))


def test_infinite_losses_stay_infinite_and_nan_is_nan():
    found = metrics.bootstrap_ratios(
        {"inf": [([np.inf, 1.0], [1, 1])], "nan": [([np.nan, 1.0], [1, 1])]}, num_resamples=50
    )
    assert found["inf"][0] == np.inf and np.isnan(found["nan"][0])


def test_what_cannot_be_is_refused():
    for ratios in (
        {},
        {"x": []},
        {"x": [([1.0], [1.0, 2.0])]},
        {"x": [([], [])]},
        {"x": [([[1.0]], [[1.0]])]},
    ):
        with pytest.raises(ValueError, match="expected"):
            metrics.bootstrap_ratios(ratios)
    with pytest.raises(ValueError, match="num_resamples"):
        metrics.bootstrap_ratios({"x": [([1.0], [1.0])]}, num_resamples=0)
