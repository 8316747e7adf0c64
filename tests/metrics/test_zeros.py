"""Probabilities of exactly 0: counted, and the unit that they were rounded to."""

import numpy as np
import pytest

from calib_jax.metrics.zeros import find_zeros


def logs(probs):
    with np.errstate(divide="ignore"):
        return np.log(probs).astype(np.float32)


@pytest.mark.parametrize("decimals", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("num_options", [2, 5, 77])
def test_decimals_are_found_also_where_rows_no_longer_sum_to_one(decimals, num_options):
    rng = np.random.default_rng(decimals)
    probs = np.round(rng.dirichlet(np.full(num_options, 0.05), size=300), decimals)
    found = find_zeros(logs(probs), np.ones(probs.shape, bool), np.zeros(300, int))
    assert found.unit == pytest.approx(10.0**-decimals) and found.highest == found.unit / 2
    assert found.rows == (probs == 0).any(axis=1).sum() and found.total == 300
    assert found.answers == (probs[:, 0] == 0).sum()
    assert f"{found.rows} of 300 rows" in str(found) and str(decimals) in str(found)


def test_shares_of_eight_are_a_unit():
    probs = np.array([[7, 1, 0], [3, 5, 0], [8, 0, 0], [2, 3, 3]]) / 8
    found = find_zeros(logs(probs), np.ones(probs.shape, bool))
    assert found.unit == 1 / 8 and "multiples of 1/8" in str(found)


def test_unrounded_zeros_and_logits_have_no_unit():
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.full(4, 0.5), size=50)
    probs[:5, 0] = 0
    probs /= probs.sum(axis=1, keepdims=True)
    found = find_zeros(logs(probs), np.ones(probs.shape, bool))
    assert found.unit is None and found.rows == 5
    assert found.highest == pytest.approx(probs[probs > 0].min(), rel=1e-5)
    logits = np.where(probs == 0, -np.inf, 3.0)  # e^3 is no probability
    assert find_zeros(logits, np.ones(probs.shape, bool)).unit is None


def test_masked_options_are_no_zeros():
    mask = np.array([[True, True, False]])
    assert find_zeros(logs(np.array([[0.5, 0.5, 0.0]])), mask) is None
