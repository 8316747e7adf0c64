"""Few shapes, little padding, every question exactly once."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib_jax.errors import UserError
from calib_jax.questions.batches import (
    answer_positions,
    asked,
    bucket_of,
    choose_buckets,
    row_layout,
    rows_per_batch,
    spread,
    training_order,
)
from calib_jax.questions.encoder import Encoded
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


def test_rows_hold_whole_questions_and_nothing_else():
    encoded = encoded_of([3, 5, 2])
    rows, length, slots = [[1, 2], [0], []], 8, 2
    layout, what = (
        row_layout(encoded, rows, length),
        asked(encoded.mask, encoded.answers, rows, slots),
    )
    last = answer_positions(encoded.lengths, rows, slots)
    for b, questions in enumerate(rows):
        at = 0
        for q, question in enumerate(questions):
            ids = encoded.tokens[question]
            here = slice(at, at + len(ids))
            assert (layout["tokens"][b, here] == ids).all()
            assert layout["positions"][b, here].tolist() == list(range(len(ids)))
            assert (layout["ends"][b, here] == at + len(ids)).all()
            assert (layout["segments"][b, here] == q + 1).all()
            answer = encoded.letter_ids[encoded.answers[question]]
            assert layout["labels"][b, here].tolist() == [*ids[1:], answer]
            at += len(ids)
            assert last[b, q] == at - 1 and what["index"][b, q] == question
            assert (what["mask"][b, q] == encoded.mask[question]).all()
            assert what["answers"][b, q] == encoded.answers[question]
        assert (layout["tokens"][b, at:] == 0).all() and (layout["labels"][b, at:] == -1).all()
        assert (layout["ends"][b, at:] == np.arange(at + 1, length + 1)).all()
        assert what["weights"][b].tolist() == [1.0] * len(questions) + [0.0] * (2 - len(questions))
        assert what["mask"][b, len(questions) :].all()


@given(st.lists(st.integers(1, 90), max_size=40), st.integers(1, 8))
def test_spread_places_every_sequence_once_and_evenly(lengths, num_rows):
    rows = spread(lengths, num_rows)
    assert len(rows) == num_rows
    assert sorted(i for row in rows for i in row) == list(range(len(lengths)))
    filled = [sum(lengths[i] for i in row) for row in rows]
    # Greedy: a row that got something last was the emptiest then.
    assert max(filled) - min(filled) <= max(lengths, default=0)


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
