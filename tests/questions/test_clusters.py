"""Which questions depend on each other."""

import dataclasses

import pytest

from calib_jax.errors import UserError
from calib_jax.questions.clusters import clusters_of, hold_out
from calib_jax.questions.record import Question

FIRST = Question("a", "Is it red?", ("yes", "no"), 0, context="The ball is red.")


def ask(**changes):
    return dataclasses.replace(FIRST, **changes)


def test_questions_of_one_passage_share_a_cluster_whatever_its_punctuation():
    found = clusters_of(
        [
            FIRST,
            ask(id="b", question="Is it a ball?", context="The ball  is RED"),
            ask(id="c", context="The cube is red."),
        ]
    )
    assert found[0] == found[1] is not None and found[2] is None


def test_a_stated_group_comes_before_the_passage():
    found = clusters_of([ask(group="p1"), ask(id="b", context="Other."), ask(id="c", group="p1")])
    assert found[0] == found[2] is not None and found[1] is None


def test_repeats_and_permuted_copies_share_one_and_other_options_do_not():
    bare = ask(context=None)
    copies = [
        bare,
        dataclasses.replace(bare, id="b", choices=("no", "yes"), answer=1),
        dataclasses.replace(bare, id="c", choices=("no", "never")),
    ]
    found = clusters_of(copies)
    assert found[0] == found[1] is not None and found[2] is None
    assert clusters_of(copies[1:]) == ()


def test_names_are_those_of_the_texts_in_whatever_order():
    pair = [FIRST, ask(id="b", question="Is it a ball?")]
    more = [*reversed(pair), ask(id="c", context="x")]
    assert clusters_of(pair)[0] == clusters_of(more)[0]


def test_whole_clusters_are_held_out():
    """Copies of a question are on one side; the same questions and seed give the same draw."""
    alone = [ask(id=str(i), question=f"Is it {i}?", context=None) for i in range(30)]
    copies = [ask(id=f"{i}c", question=f"Is it {i}?", context=None) for i in range(10)]
    held = hold_out([*alone, *copies], 0.25, seed=3)
    assert (held[:10] == held[30:]).all() and 10 <= held.sum() <= 11
    assert (hold_out([*alone, *copies], 0.25, seed=3) == held).all()
    assert (hold_out([*alone, *copies], 0.25, seed=4) != held).any()


@pytest.mark.parametrize("share", [0.01, 0.9])
def test_a_part_without_questions_is_refused(share):
    with pytest.raises(UserError, match="one part would be empty"):
        hold_out([ask(id="a"), ask(id="b")], share, seed=0)
