import jax.numpy as jnp
import numpy as np
import pytest

from tests.metrics.kernels import kernels as metrics

PROBS = np.array([[0.95, 0.03, 0.02], [0.4, 0.4, 0.2], [0.05, 0.9, 0.05], [0.1, 0.0, 0.9]])


def test_letter_counts():
    counts = metrics.letter_counts(PROBS)
    assert counts.dtype == jnp.int32 and counts.tolist() == [2, 1, 1]
    assert metrics.letter_counts(PROBS, weights=[0, 1, 2, 3]).tolist() == [1, 2, 3]
    assert metrics.letter_counts(PROBS, weights=jnp.full(4, 0.5)).tolist() == [1.0, 0.5, 0.5]
    mask = np.ones((4, 3), bool)
    mask[0, 0] = False
    mask[3] = False  # no option: predicts nothing
    assert metrics.letter_counts(PROBS, mask).tolist() == [1, 2, 0]


def test_counts_sum_to_the_rows(draw):
    probs, answers = draw(123, 5)
    assert int(metrics.letter_counts(probs).sum()) == 123
    np.testing.assert_array_equal(
        metrics.letter_counts(probs), np.bincount(probs.argmax(axis=1), minlength=5)
    )
    np.testing.assert_array_equal(
        metrics.answer_counts(answers, 5), np.bincount(answers, minlength=5)
    )


def test_answer_counts():
    assert metrics.answer_counts(np.array([0, 2, 2]), 4).tolist() == [1, 0, 2, 0]
    assert metrics.answer_counts([], 2).tolist() == [0, 0]
    assert metrics.answer_counts([0, 1, 1], 2, weights=[1, 0, 1]).tolist() == [1, 1]


def test_top_letter_share():
    assert metrics.top_letter_share(PROBS) == 0.5
    assert metrics.top_letter_share(PROBS, [0, 0, 0, 0], weights=[0, 1, 2, 3]) == 0.5
    assert metrics.top_letter_share(np.tile([0.9, 0.1], (7, 1))) == 1.0


def test_letter_entropy(draw):
    counts = np.array([2, 1, 1]) / 4
    assert metrics.letter_entropy(PROBS) == pytest.approx(
        -(counts * np.log(counts)).sum(), abs=1e-6
    )
    assert metrics.letter_entropy(PROBS, weights=[0, 1, 0, 1]) == pytest.approx(np.log(2), abs=1e-6)
    one_letter = metrics.letter_entropy(np.tile([0.9, 0.1], (7, 1)))
    assert one_letter == 0 and not np.signbit(one_letter)
    every = metrics.letter_entropy(np.eye(26)[np.arange(260) % 26])
    assert every == pytest.approx(np.log(26), abs=1e-6)
    assert np.isnan(metrics.letter_entropy(np.ones((0, 3))))
    assert np.isnan(metrics.letter_entropy(PROBS, weights=[0, 0, 0, 0]))
    low, high = metrics.bootstrap(metrics.letter_entropy, *draw(100, 4), num_resamples=50)
    assert low < high


def test_share_above_is_strict():
    assert metrics.share_above(PROBS) == 0.25
    assert metrics.share_above(PROBS, threshold=0.89) == 0.75
    assert metrics.share_above(PROBS, weights=[3, 1, 0, 0]) == 0.75
    assert metrics.share_above(np.ones((3, 1)), threshold=1.0) == 0


def test_a_mask_in_the_place_of_the_answers_is_refused():
    for metric in (metrics.top_letter_share, metrics.share_above, metrics.letter_entropy):
        with pytest.raises(ValueError, match="mask is passed by name"):
            metric(PROBS, np.ones((4, 3), bool))
