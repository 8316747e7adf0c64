"""Which tokens are left, and how often each is drawn."""

import jax
import numpy as np
import pytest

from calib_jax.errors import UserError
from calib_jax.generation.sampler import Sampling, candidates, next_tokens

LOGITS = np.log(np.array([[0.05, 0.4, 0.15, 0.3, 0.1], [0.2, 0.2, 0.2, 0.2, 0.2]], np.float32))


def left(top_k, top_p):
    return [np.flatnonzero(np.isfinite(row)).tolist() for row in candidates(LOGITS, top_k, top_p)]


def test_top_k_and_top_p():
    every = [0, 1, 2, 3, 4]
    assert left(0, 1.0) == left(5, 1.0) == left(9, 1.0) == [every, every]
    assert left(2, 1.0) == [[1, 3], every]  # ties with the last one stay
    assert left(0, 0.39)[0] == [1]
    assert left(0, 0.41)[0] == [1, 3]
    assert left(0, 0.84)[0] == [1, 2, 3]
    assert left(0, 1e-9)[0] == [1]
    # After top-k the rest is renormalised: 0.4 of 0.7 is 0.57.
    assert left(2, 0.5)[0] == [1] and left(2, 0.6)[0] == [1, 3]


def test_draws_follow_the_distribution():
    count = 20_000
    keys = jax.random.split(jax.random.key(0), count)
    logits = np.tile(LOGITS[:1], (count, 1))
    drawn = np.asarray(next_tokens(Sampling(2.0, top_k=3), logits, keys))
    expected = np.exp(LOGITS[0] / 2) * np.array([0, 1, 1, 1, 0])
    expected /= expected.sum()
    shares = np.bincount(drawn, minlength=5) / count
    assert np.abs(shares - expected).max() < 4 * np.sqrt(0.25 / count)
    assert (next_tokens(Sampling(), logits[:3], keys[:3]) == 1).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"temperature": -1.0}, "temperature is -1"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": 1.0, "top_k": -1}, "top_k is -1"),
        ({"temperature": 1.0, "top_p": 0.0}, "top_p is 0"),
        ({"temperature": 1.0, "top_p": 1.5}, "top_p is 1.5"),
        ({"top_p": 0.9}, "temperature is 0"),
    ],
)
def test_what_means_nothing_is_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        Sampling(**arguments)
