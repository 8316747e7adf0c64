"""The model confidence set and adjusted p-values, against slow ones and against their promises."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_jax.metrics.confidence_set import model_confidence_set, step_down_p_values


def resampled(losses, R, rng):
    """[R, P]: means of questions [N, P] drawn with replacement."""
    n = len(losses)
    return rng.multinomial(n, np.full(n, 1 / n), size=R) @ losses / n


@st.composite
def families(draw):
    P, R = draw(st.integers(1, 6)), draw(st.integers(20, 60))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    losses = rng.normal(size=(30, P)) + draw(st.sampled_from([0.0, 0.5, 2.0])) * rng.random(P)
    return losses.mean(axis=0), resampled(losses, R, rng)


def slow_set(estimates, draws, direction):
    """Hansen, Lunde and Nason's T_R word by word, a pair at a time."""
    left, p_values, p = list(range(len(estimates))), np.ones(len(estimates)), 0.0

    def t_of(i, j):
        d = -direction * (draws[:, i] - draws[:, j])
        return -direction * (estimates[i] - estimates[j]) / d.std(), (d - d.mean()) / d.std()

    while len(left) > 1:
        pairs = [(i, j) for i in left for j in left if i != j]
        t = {pair: t_of(*pair) for pair in pairs}
        observed = max(value for value, _ in t.values())
        maxima = [max(noise[r] for _, noise in t.values()) for r in range(len(draws))]
        p = max(p, (1 + sum(m >= observed for m in maxima)) / (1 + len(draws)))
        worst = max(pairs, key=lambda pair: t[pair][0])[0]
        p_values[worst] = p
        left.remove(worst)
    return p_values


@given(families(), st.sampled_from([-1, 1]))
def test_the_set_against_a_slow_one(family, direction):
    estimates, draws = family
    found = model_confidence_set(estimates, draws, direction)
    np.testing.assert_allclose(found.p_values, slow_set(estimates, draws, direction), atol=1e-12)
    assert (found.members == (found.p_values > 0.05)).all()
    best = np.argmax(direction * estimates)
    assert found.p_values[best] == 1 and found.members[best]
    # A better estimate has no smaller p-value than the same method's copy that is worse.
    assert model_confidence_set(estimates, draws, direction, level=0.5).members.sum() <= (
        found.members.sum()
    )


@given(families())
def test_steps_against_slow_ones(family):
    differences, draws = family
    t = np.abs(differences) / draws.std(axis=0)
    noise = np.abs(draws - draws.mean(axis=0)) / draws.std(axis=0)
    expected, left, p = np.zeros(len(t)), list(np.argsort(-t)), 0.0
    while left:
        reached = noise[:, left].max(axis=1) >= t[left[0]]
        p = max(p, (1 + reached.sum()) / (1 + len(draws)))
        expected[left.pop(0)] = p
    np.testing.assert_allclose(step_down_p_values(differences, draws), expected)


def test_copies_stay_together_and_differences_that_never_vary_are_sure():
    rng = np.random.default_rng(3)
    losses = rng.normal([0, 0, 0.9], 1, (200, 3))[:, [0, 1, 2, 2, 0]]
    losses[:, 1] = losses[:, 0] + 0.01  # worse everywhere, by as much
    draws = resampled(losses, 200, rng)
    found = model_confidence_set(losses.mean(axis=0), draws)
    assert found.members.tolist() == [True, False, False, False, True]
    assert found.p_values[2] == found.p_values[3] and found.p_values[0] == found.p_values[4] == 1
    # What float32 rounds is no difference.
    draws[:, 1] = draws[:, 0] + 1e-9
    estimates = losses.mean(axis=0)
    estimates[1] = estimates[0] + 1e-9
    assert model_confidence_set(estimates, draws).members[1]
    adjusted = step_down_p_values(draws[0, [0, 4]] - draws[0, 0], draws[:, [0, 4]] - draws[:, :1])
    assert adjusted.tolist() == [1, 1]
    assert step_down_p_values([0.1], np.full((99, 1), 0.1)).tolist() == [0.01]


def test_what_is_not_finite():
    rng = np.random.default_rng(0)
    losses = rng.normal([0, 0, 2], 1, (100, 3))
    draws, estimates = resampled(losses, 300, rng), losses.mean(axis=0)
    whole = model_confidence_set(estimates, draws)
    wide = np.column_stack([draws, np.full(300, np.inf), np.full(300, np.nan)])
    found = model_confidence_set([*estimates, np.inf, 0.0], wide)
    np.testing.assert_array_equal(found.p_values, [*whole.p_values, np.nan, np.nan])
    assert found.members.tolist() == [*whole.members, False, False]
    # Resamples that lack a value are left out for all.
    broken = draws.copy()
    broken[::3, 1] = np.nan
    kept = np.arange(300) % 3 != 0
    np.testing.assert_array_equal(
        model_confidence_set(estimates, broken).p_values,
        model_confidence_set(estimates, draws[kept]).p_values,
    )
    assert np.isnan(step_down_p_values([np.nan, 1.0], draws[:, :2])[0])
    none = model_confidence_set([np.inf, np.nan], draws[:, :2])
    assert np.isnan(none.p_values).all() and not none.members.any()


def test_one_method_is_the_best_of_one():
    found = model_confidence_set([0.3], [[0.2], [0.4]])
    assert found.p_values.tolist() == [1] and found.members.all()
    assert step_down_p_values([], np.zeros((5, 0))).shape == (0,)


@pytest.mark.parametrize("P", [2, 8])
def test_promises(P):
    """Of equal methods none is called worse in 95 % of tables; one of 4 standard errors is."""
    rng, wrong, caught, adjusted = np.random.default_rng(1), 0, 0, 0
    for _ in range(200):
        draws = rng.normal(size=(200, P))
        estimates = rng.normal(size=P)
        wrong += not model_confidence_set(estimates, draws).members.all()
        adjusted += bool((step_down_p_values(estimates, draws) <= 0.05).any())
        estimates[0] += 4 * np.sqrt(2)
        caught += not model_confidence_set(estimates, draws).members[0]
    # 5 % of 200 is 10; beyond 22 lies 1 in 5,000.
    assert wrong <= 22 and adjusted <= 22 and caught >= 180


@pytest.mark.parametrize(
    "arguments",
    [
        ([1.0, 2.0], np.zeros((3, 3))),
        ([1.0, 2.0], np.zeros((0, 2))),
        ([[1.0]], np.zeros((3, 1))),
        ([1.0, 2.0], np.zeros((3, 2)), 0),
        ([1.0, 2.0], np.zeros((3, 2)), 1, 1.0),
    ],
)
def test_bad_arguments(arguments):
    with pytest.raises(ValueError):
        model_confidence_set(*arguments)
    if len(arguments) == 2:
        with pytest.raises(ValueError):
            step_down_p_values(*arguments)
