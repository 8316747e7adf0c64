"""Few shapes, little padding, every question exactly once."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib_jax.errors import UserError
from calib_jax.questions.batching import (
    bucket_of,
    choose_buckets,
    make_batch,
    rows_per_batch,
    training_order,
)
from calib_jax.questions.encoding import Encoded
from calib_jax.questions.record import Question

lengths_lists = st.lists(st.integers(1, 90), min_size=1, max_size=40)


def encoded_of(lengths, K=4):
    """Questions whose tokens are their own row's number + 1."""
    N = len(lengths)
    return Encoded(
        questions=tuple(Question(f"q{i}", "x?", ["a", "b"], 0) for i in range(N)),
        tokens=tuple(np.full(n, i + 1, np.int32) for i, n in enumerate(lengths)),
        letter_ids=np.arange(K, dtype=np.int32),
        mask=np.arange(K) < (2 + np.arange(N) % 3)[:, None],
        answers=(np.arange(N) % 2).astype(np.int32),
    )


def padded_tokens(lengths, buckets):
    return sum(bucket_of(length, buckets) for length in lengths)


@settings(deadline=None, max_examples=60)
@given(lengths_lists, st.integers(1, 4), st.sampled_from([1, 8]))
def test_buckets_are_optimal(lengths, most, multiple):
    """Against every set of at most ``most`` rounded lengths."""
    buckets = choose_buckets(lengths, most, multiple)
    rounded = sorted({-(-n // multiple) * multiple for n in lengths})
    assert 1 <= len(buckets) <= most and list(buckets) == sorted(set(buckets))
    assert set(buckets) <= set(rounded) and buckets[-1] == rounded[-1]
    if len(rounded) > 14:
        return  # too many sets to try them all
    best = min(
        padded_tokens(lengths, (*subset, rounded[-1]))
        for size in range(most)
        for subset in itertools.combinations(rounded[:-1], min(size, len(rounded) - 1))
    )
    assert padded_tokens(lengths, buckets) == best


def test_at_most_five_buckets_by_default():
    assert len(choose_buckets(range(1, 1000))) == 5
    assert choose_buckets([3, 9, 17]) == (8, 16, 24)
    assert choose_buckets([3, 9, 17], multiple=128) == (128,)


def test_bucket_of():
    assert [bucket_of(n, (8, 16)) for n in (1, 8, 9, 16)] == [8, 8, 16, 16]
    with pytest.raises(UserError, match="17 tokens fits none"):
        bucket_of(17, (8, 16))


def check_row(batch, i, encoded, row):
    n = len(encoded.tokens[row])
    assert (batch.tokens[i, :n] == encoded.tokens[row]).all()
    assert (batch.tokens[i, n:] == 0).all() and batch.last[i] == n - 1
    assert (batch.mask[i] == encoded.mask[row]).all()
    assert batch.answers[i] == encoded.answers[row] and batch.weights[i] == 1


def test_ragged_rows_have_weight_zero_and_a_valid_mask():
    encoded = encoded_of([3, 5])
    batch = make_batch(encoded, np.array([1, 0]), 8, 4)
    check_row(batch, 0, encoded, 1)
    check_row(batch, 1, encoded, 0)
    assert batch.weights.tolist() == [1, 1, 0, 0]
    assert batch.mask[2:].all() and (batch.last[2:] == 0).all() and (batch.tokens[2:] == 0).all()


def test_no_questions_no_buckets():
    assert choose_buckets([]) == ()


def test_rows_per_batch():
    assert rows_per_batch(100, 1024, 1) == 10
    assert rows_per_batch(100, 1024, 8) == 8
    assert rows_per_batch(2000, 1024, 1) == 1  # one prompt is longer than the budget
    assert rows_per_batch(2000, 1024, 8) == 8


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.integers(1, 90), min_size=1, max_size=150),
    st.integers(1, 9),
    st.integers(0, 5),
    st.integers(0, 3),
)
def test_training_order_is_a_permutation(lengths, batch_size, seed, epoch):
    lengths = np.array(lengths)
    batches = training_order(lengths, batch_size, seed, epoch, window=3)
    assert sorted(np.concatenate(batches)) == list(range(len(lengths)))
    sizes = [len(rows) for rows in batches]
    assert max(sizes) <= batch_size
    assert sum(size < batch_size for size in sizes) == (len(lengths) % batch_size > 0)
    again = training_order(lengths, batch_size, seed, epoch, window=3)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


def test_training_order_differs_across_epochs_and_seeds():
    lengths = np.random.default_rng(0).integers(20, 90, 512)  # four windows
    orders = [
        np.concatenate(training_order(lengths, 8, seed, epoch)).tolist()
        for seed, epoch in ((0, 0), (0, 1), (1, 0), (1, 1))
    ]
    assert all(a != b for a, b in itertools.combinations(orders, 2))
    # Which questions share a batch changes too, not only the order of the batches.
    first, second = (
        {frozenset(rows.tolist()) for rows in training_order(lengths, 8, 0, epoch)}
        for epoch in (0, 1)
    )
    assert not first & second


def test_training_batches_hold_questions_of_like_length():
    lengths = np.random.default_rng(0).integers(20, 200, 512)
    batches = training_order(lengths, 8, 0, 0)
    sorted_waste = sum(len(r) * lengths[r].max() - lengths[r].sum() for r in batches)
    rows = np.random.default_rng(1).permutation(512).reshape(-1, 8)
    random_waste = sum(8 * lengths[r].max() - lengths[r].sum() for r in rows)
    assert sorted_waste < 0.25 * random_waste
    longest = [lengths[rows].max() for rows in batches]
    assert longest != sorted(longest) and longest != sorted(longest, reverse=True)


def test_every_batch_holds_the_strata_in_proportion():
    rng = np.random.default_rng(0)
    lengths, strata = rng.integers(30, 150, 512), rng.permutation(np.repeat(np.arange(4), 128))
    for rows in training_order(lengths, 16, 0, 0, strata=strata):
        counts = np.bincount(strata[rows], minlength=4)
        assert counts.min() >= 3 and counts.max() <= 5
