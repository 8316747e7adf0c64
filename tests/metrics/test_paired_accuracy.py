"""Changes of accuracy: against a likelihood maximised by scipy, exact sums, and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import binom, multinomial, norm

from calib_jax.metrics.paired_accuracy import accuracy_change


def rows(gained, lost, count):
    before, after = np.zeros((2, count), int)
    after[:gained] = before[gained : gained + lost] = 1
    return before, after


def of(gained, lost, count, level=0.95):
    return accuracy_change(*rows(gained, lost, count), level)


def score(difference, gained, lost, count):
    """The score statistic, its nuisance parameter found by a search."""

    def loss(q):
        shares = q + difference, q, 1 - 2 * q - difference
        counts = gained, lost, count - gained - lost
        return -sum(k * math.log(max(p, 1e-300)) for k, p in zip(counts, shares, strict=True) if k)

    ends = max(0.0, -difference), (1 - difference) / 2
    q = minimize_scalar(loss, bounds=ends, method="bounded", options={"xatol": 1e-13}).x
    variance = count * (2 * q + difference * (1 - difference))
    return (gained - lost - count * difference) / math.sqrt(max(variance, 1e-300))


@pytest.mark.parametrize("level", [0.9, 0.95])
@pytest.mark.parametrize(
    ("gained", "lost", "count"),
    [(0, 2, 100), (3, 1, 100), (10, 2, 50), (13, 7, 20), (0, 0, 30), (40, 37, 200), (25, 25, 50)],
)
def test_ends_and_p_value_against_scipy(gained, lost, count, level):
    found, z = of(gained, lost, count, level), norm.ppf((1 + level) / 2)
    middle = (gained - lost) / count
    ends = (
        brentq(lambda d: score(d, gained, lost, count) - z, -1 + 1e-9, middle - 1e-9),
        brentq(lambda d: score(d, gained, lost, count) + z, middle + 1e-9, 1 - 1e-9),
    )
    flips, fewer = gained + lost, min(gained, lost)
    mid = min(1, 2 * binom.cdf(fewer, flips, 0.5) - binom.pmf(fewer, flips, 0.5))
    mcnemar = 2 * norm.sf(abs(gained - lost) / math.sqrt(flips)) if flips else 1
    assert found.p_value == pytest.approx(max(mid, mcnemar))
    if max(mid, mcnemar) > 1 - level:  # drawn to 0
        ends = min(ends[0], 0), max(ends[1], 0)
    assert (found.low, found.high) == pytest.approx(ends, abs=1e-7)
    assert (found.difference, found.gained, found.lost) == (middle, gained, lost)


@given(st.integers(1, 300), st.data(), st.sampled_from([0.8, 0.9, 0.95, 0.99]))
def test_interval_and_p_value_agree(count, data, level):
    gained = data.draw(st.integers(0, count))
    lost = data.draw(st.integers(0, count - gained))
    found, turned = of(gained, lost, count, level), of(lost, gained, count, level)
    assert -1 <= found.low <= found.difference <= found.high <= 1 and found.low < found.high
    assert (found.low <= 0 <= found.high) == (found.p_value > 1 - level)
    assert (turned.low, turned.high) == pytest.approx((-found.high, -found.low))
    assert turned.p_value == pytest.approx(found.p_value)


def test_without_flips_and_all_flips():
    found, z2 = of(0, 0, 40), norm.ppf(0.975) ** 2
    assert found.p_value == 1 and found.high == -found.low == pytest.approx(z2 / (40 + z2))
    every = of(40, 0, 40)
    # Nothing stays: Wilson's interval of a share of 1, stretched to -1..1.
    assert every.high == 1 and every.low == pytest.approx(2 * 40 / (40 + z2) - 1)
    assert every.p_value < 1e-8
    many = of(30_000, 30_500, 100_000)
    assert 0.04 < many.p_value < 0.05 and many.high < 0
    assert np.isnan(accuracy_change([], [])[:4]).all()


@pytest.mark.parametrize(("gained", "lost"), [(0.0, 0.02), (0.02, 0.02), (0.03, 0.01)])
@pytest.mark.parametrize("count", [50, 200])
def test_coverage_and_size_summed_over_all_outcomes(gained, lost, count):
    most = 20
    law = multinomial(count, [gained, lost, 1 - gained - lost])
    covered = rejected = total = 0.0
    for g in range(most if gained else 1):
        for k in range(most):
            weight, found = law.pmf([g, k, count - g - k]), of(g, k, count)
            total += weight
            covered += weight * (found.low <= gained - lost <= found.high)
            rejected += weight * (found.p_value <= 0.05)
    assert total > 0.999 and covered > 0.93
    if gained == lost:
        assert rejected <= 0.05


@pytest.mark.parametrize(
    ("before", "after", "level"),
    [([1, 0], [1], 0.95), ([0.5], [1], 0.95), ([1], [1], 1.0), ([[1]], [[1]], 0.95)],
)
def test_bad_arrays(before, after, level):
    with pytest.raises(ValueError):
        accuracy_change(before, after, level)
