"""The confidences of one answer against closed forms and a tree that is walked by hand."""

import itertools

import numpy as np
import pytest

from calib_jax.confidence import free


def test_probabilities_of_a_sequence():
    p = np.array([0.9, 0.5, 0.2])
    logs = np.log(p).astype(np.float32)
    assert free.sequence_probability(logs) == pytest.approx(0.09, rel=1e-6)
    assert free.length_normalised(logs) == pytest.approx(0.09 ** (1 / 3), rel=1e-6)
    assert free.length_normalised(logs[:1]) == free.sequence_probability(logs[:1])


def test_self_consistency_matches_as_answers_are_graded():
    samples = ["paris", "The Paris!", "Paris, France", "Lyon", ""]
    assert free.self_consistency("Paris.", samples) == 2 / 5
    assert free.self_consistency("Rome", samples) == 0


def digits(number):
    return tuple(map(int, str(number)))


def model(prefix):
    """P of the next of 11 tokens (10: no digit) after digits: arbitrary, but always the same."""
    rng = np.random.default_rng([7, *prefix])
    return rng.dirichlet(np.ones(11))


def test_numbers_of_several_tokens_are_those_that_go_on_with_no_other():
    """0 to 100 by digits: every way to write up to three digits and then what is none of them."""
    paths = [digits(k) for k in free.PERCENT]
    logs = [np.log([model(path[:t])[path[t]] for t in range(len(path))]) for path in paths]
    found = free.number_probabilities(paths, logs)
    # By walking: what is written is the longest of the numbers that the digits begin with.
    expected = np.zeros(101)
    inner = {path[:t] for path in paths for t in range(len(path) + 1)}
    for k, path in enumerate(paths):
        reach = np.prod([model(path[:t])[path[t]] for t in range(len(path))])
        stay = sum(p for token, p in enumerate(model(path)) if (*path, token) not in inner)
        expected[k] = reach * stay
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.sum() == pytest.approx(1 - model(())[10], rel=1e-6)  # what begins with no digit


def test_numbers_of_one_token_each_are_the_tokens():
    p = np.random.default_rng(0).dirichlet(np.ones(140))[:101]
    found = free.number_probabilities([(k,) for k in range(101)], [np.log([x]) for x in p])
    np.testing.assert_allclose(found, p, rtol=1e-6)


def test_an_inner_node_that_is_no_number_ends_none():
    """(1) is a number, which goes on to (1, 5, 6) by way of (1, 5), which is none."""
    logs = [np.log([0.5]), np.log([0.5, 0.4, 1.0])]
    found = free.number_probabilities([(1,), (1, 5, 6)], logs)
    np.testing.assert_allclose(found, [0.5 * 0.6, 0.2], rtol=1e-6)


def test_equal_numbers_are_refused():
    with pytest.raises(ValueError, match="same tokens"):
        free.number_probabilities([(1,), (1,)], [np.zeros(1), np.zeros(1)])


def test_the_stated_confidence_is_an_expectation():
    p = np.array([0.1, 0.2, 0.1])
    c, mass = free.verbalised(p, [0.0, 0.5, 1.0])
    assert (c, mass) == (pytest.approx(0.5), pytest.approx(0.4))
    for shares in itertools.permutations(p):
        assert 0 <= free.verbalised(np.array(shares), [0.0, 0.5, 1.0])[0] <= 1
    assert np.isnan(free.verbalised(np.zeros(3), [0.0, 0.5, 1.0])[0])
