"""Accuracies against a reference: from the questions that flip, of one seed and of several."""

import dataclasses

import numpy as np
import pytest
from scipy.stats import norm

from calib_jax.metrics import accuracy_change
from calib_jax.reports.compare.differences import of_accuracy, of_flips
from tests.reports.compare.conftest import make_scores


def test_of_one_seed_it_is_tangos_interval_of_the_part():
    ids = [f"{'ab'[i % 3 == 0]}/q{i}" for i in range(60)]
    one, other = (make_scores(k, skill=1.0, n=60, ids=ids) for k in (0, 1))
    here = np.array([name.startswith("a/") for name in ids])
    sides = ((s.predictions == s.answers)[here] for s in (one, other))
    found = accuracy_change(*sides)
    assert of_accuracy([one], [other], {"a"}) == (found.low, found.high, found.p_value)
    # Two seeds that agree are no more than one.
    again = of_accuracy([one, one], [other, other], {"a"})
    assert again == pytest.approx((found.low, found.high, found.p_value))
    assert of_accuracy([one, one], [other, one], {"a"}) != again


def test_questions_of_one_seed_alone_count_too():
    one, other = (
        make_scores(k, skill=1.0, n=60, ids=[f"a/{i}" for i in range(60)]) for k in (0, 1)
    )
    moved = dataclasses.replace(other, ids=tuple(f"a/{i + 30}" for i in range(60)))
    base = dataclasses.replace(one, ids=moved.ids)
    low, high, p_value = of_accuracy([one, base], [other, moved], {"a"})
    change = np.mean((other.predictions == other.answers) - 1.0 * (one.predictions == one.answers))
    assert low < change < high and 0 < p_value < 1


def test_parts_of_flips_against_their_own_standard_error():
    """Of many questions the interval is the normal one of a mean."""
    rng = np.random.default_rng(0)
    moved = rng.choice([-1, 0, 1], (3, 4000), p=[0.1, 0.75, 0.15]).mean(axis=0) / 4000
    low, high, p_value = of_flips(moved, np.full(4000, 1 / 4000))
    error = (4000 * moved).std() / np.sqrt(4000)
    assert (low, high) == pytest.approx(
        (moved.sum() - 1.96 * error, moved.sum() + 1.96 * error), abs=0.02 * error
    )
    assert p_value == pytest.approx(2 * norm.sf(moved.sum() / error), rel=0.2)


@pytest.mark.parametrize("third", [0, 1, 2, 5])
def test_few_flips_are_no_point_and_interval_and_p_value_agree(third):
    moved = np.zeros(100)
    moved[:third] = 1 / 300
    moved[50] = -2 / 300
    low, high, p_value = of_flips(moved, np.full(100, 0.01))
    assert high - low > 0.02 and (low <= 0 <= high) == (p_value > 0.05)
