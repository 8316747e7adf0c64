"""Prefix trees: every token sees its own sequence and nothing else; nothing is lost in packing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib_jax.confidence.forest import (
    SHARING_SAVES,
    TARGETS,
    build_tree,
    find_families,
    group_prefix,
    join_trees,
    pack,
    tree_size,
)
from calib_jax.questions.pairs import Pair

tokens = st.lists(st.integers(0, 2), min_size=2, max_size=9)


@st.composite
def pair_lists(draw):
    pairs = []
    for ids in draw(st.lists(tokens, min_size=1, max_size=8)):
        pairs.append(Pair(np.array(ids, np.int32), draw(st.integers(1, len(ids) - 1))))
    return pairs


def visible(tree, i):
    """The places that place i sees, by the rule that attention applies."""
    return [j for j in range(i + 1) if i < tree.ends[j]]


def sequences(tree, pairs):
    """Checks every target of every pair; returns the number of distinct beginnings."""
    for pair, found in zip(pairs, tree.found, strict=True):
        start = len(pair.tokens) - pair.num_targets
        assert len(found) == pair.num_targets
        for t, (read, column) in enumerate(found):
            before = visible(tree, tree.reads[read])
            np.testing.assert_array_equal(tree.tokens[before], pair.tokens[: start + t])
            np.testing.assert_array_equal(tree.positions[before], np.arange(start + t))
            assert tree.targets[read, column] == pair.tokens[start + t]
    return {tuple(pair.tokens[:n]) for pair in pairs for n in range(1, len(pair.tokens))}


@settings(deadline=None, max_examples=100)
@given(st.lists(pair_lists(), min_size=1, max_size=4))
def test_joined_trees_share_nothing(groups):
    trees = [build_tree(pairs) for pairs in groups]
    joined = join_trees(trees)
    pairs = [pair for group in groups for pair in group]
    sequences(joined, pairs)
    assert len(joined) == sum(len(tree) for tree in trees)
    follow = [visible(joined, i) for i in range(len(joined))]
    chains = all(seen == list(range(seen[0], i + 1)) for i, seen in enumerate(follow))
    assert joined.branches != chains


@settings(deadline=None, max_examples=150)
@given(pair_lists())
def test_a_place_sees_exactly_its_own_beginning_and_each_beginning_stands_once(pairs):
    tree = build_tree(pairs)
    beginnings = sequences(tree, pairs)
    assert len(tree) == len(beginnings) == len(tree.positions) == len(tree.ends)
    assert ((tree.ends > np.arange(len(tree))) & (tree.ends <= len(tree))).all()
    size = tree_size(pairs)
    assert size.tokens == len(tree) <= size.room
    assert size.keys == tree.positions.sum() + len(tree)
    assert len(tree.reads) <= 2 * size.room
    assert len(set(tree.reads)) <= size.reads  # an upper bound where readings overlap in part


def test_a_small_tree():
    tree = build_tree([Pair(np.array([7, 1, 2, 3]), 2), Pair(np.array([7, 1, 4, 5, 6]), 3)])
    assert tree.tokens.tolist() == [7, 1, 2, 4, 5]
    assert tree.positions.tolist() == [0, 1, 2, 2, 3]
    assert tree.ends.tolist() == [5, 5, 3, 5, 5]
    assert tree.reads.tolist() == [1, 2, 3, 4]  # the place before the options is read once
    assert tree.targets[0, :2].tolist() == [2, 4]
    assert [f.tolist() for f in tree.found] == [[[0, 0], [1, 0]], [[0, 1], [2, 0], [3, 0]]]


def test_skipped_tokens_count_as_positions():
    pairs = [Pair(np.array([9, 8, 7, 1, 2]), 1), Pair(np.array([9, 8, 7, 3, 2]), 1)]
    tree = build_tree(pairs, skip=2)
    assert tree.tokens.tolist() == [7, 1, 3] and tree.positions.tolist() == [2, 3, 3]
    size = tree_size(pairs, skip=2)
    assert (size.tokens, size.keys, size.reads) == (3, 3 + 4 + 4, 2)


def test_many_targets_at_one_place_take_several_reads():
    pairs = [Pair(np.array([5, letter]), 1) for letter in range(26)]
    tree = build_tree(pairs)
    assert tree.tokens.tolist() == [5]
    assert tree.reads.tolist() == [0] * -(-26 // TARGETS)
    assert sorted(tree.targets.ravel()[:26].tolist()) == list(range(26))
    sequences(tree, pairs)


def test_group_prefix_ends_before_the_first_place_that_is_read():
    assert group_prefix([Pair(np.array([1, 2, 3, 4]), 1)]).tolist() == [1, 2]
    two = [Pair(np.array([1, 2, 3, 4]), 1), Pair(np.array([1, 2, 3, 5, 6]), 2)]
    assert group_prefix(two).tolist() == [1, 2]
    assert group_prefix([Pair(np.array([1, 2, 3]), 1), Pair(np.array([4, 2]), 1)]).tolist() == []
    assert group_prefix([Pair(np.array([1, 2]), 1)]).tolist() == []


@settings(deadline=None, max_examples=80)
@given(st.lists(st.integers(1, 20), max_size=60), st.integers(20, 40))
def test_packing_loses_nothing_and_overfills_nothing(sizes, capacity):
    rows = pack(sizes, capacity)
    assert sorted(i for row in rows for i in row) == list(range(len(sizes)))
    loads = [sum(sizes[i] for i in row) for row in rows]
    assert max(loads, default=0) <= capacity
    assert sum(load * 2 <= capacity for load in loads) <= 1  # two such rows would be one


def test_packing_is_best_fit():
    assert pack([6, 3, 4, 7], 10) == [[3, 1], [0, 2]]
    assert pack([], 10) == []


def test_families():
    shots = [np.array([*range(100), 200 + i]) for i in range(8)]
    short = [np.array([300, 301, 302, 303, 304 + i]) for i in range(SHARING_SAVES // 4 + 1)]
    alone = [np.array([400]), np.array([1, 2, 3, 4, 5]), np.array([1, 2, 3, 4, 6])]
    families = find_families([*shots, *short, *alone], lambda run, length: len(run) == 8)
    kept, shared, rest = sorted(families, key=lambda f: sorted(f.members))
    n = len(short)
    assert sorted(kept.members) == list(range(8)) and kept.cached
    assert kept.prefix.tolist() == list(range(100))
    assert sorted(shared.members) == list(range(8, 8 + n)) and not shared.cached
    assert shared.prefix.tolist() == [300, 301, 302, 303]
    # What saves too little to fill rows of its own goes with what has nothing in common.
    assert sorted(rest.members) == list(range(8 + n, 11 + n)) and not rest.cached
    assert not len(rest.prefix)


def test_what_is_not_worth_it_is_not_kept_beyond_a_row():
    shots = [np.array([*range(200), 200 + i]) for i in range(3)]
    asked = []
    for answer in (False, True):
        (family,) = find_families(shots, lambda *run, answer=answer: asked.append(run) or answer)
        assert family.cached == answer and len(family.prefix) == 200
    assert asked == [([0, 1, 2], 200)] * 2


@pytest.mark.parametrize("count", [1, 2])
def test_identical_pairs_stand_once(count):
    tree = build_tree([Pair(np.array([1, 2, 3]), 2)] * count)
    assert tree.tokens.tolist() == [1, 2] and len(tree.found) == count
