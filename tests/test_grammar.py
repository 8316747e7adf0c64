"""The small languages of fields: lists, labels, settings of a part, names and numbers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_jax import UserError, grammar


@given(st.lists(st.text("ab,= @+", min_size=1).filter(lambda s: s.strip())))
def test_a_list_comes_back_as_it_was_written(entries):
    text = ",".join(entry.replace(",", r"\,") for entry in entries)
    assert grammar.split_list(text) == tuple(entry.strip() for entry in entries)


@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, unique=True))
def test_numbers_come_back_as_they_were_written(values):
    assert grammar.numbers(", ".join(map(str, values)), "config.x") == values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "'a' is not understood; write label=model. A label consists of"),
        ("a=", "'a=' is not understood"),
        ("=m", "'=m' is not understood"),
        ("-a=m", "'-a=m' is not understood"),
        ("a=m,A=n", "the label 'A' appears twice; choose another"),
        ("before=m", "the label 'before' is taken; choose another"),
    ],
)
def test_labelled_entries_that_are_refused(text, message):
    with pytest.raises(UserError) as error:
        grammar.labelled(text, "config.x.models", "label=model", taken=("before",))
    assert str(error.value).startswith("config.x.models: ") and message in str(error.value)


def test_labelled_entries_keep_their_order_and_their_equals_signs():
    text = r"b = run:a=b@2, a=o/m+x\,y"
    assert grammar.labelled(text, "f", "label=model") == {"b": "run:a=b@2", "a": "o/m+x,y"}
    assert list(grammar.labelled(text, "f", "label=model")) == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cft.train.epochs=2", "write stage:field=value, such as dpo:train.learning_rate=1e-4"),
        ("cft:train.epochs", "write stage:field=value"),
        (":train.epochs=2", "write stage:field=value"),
        ("dop:train.epochs=2", "config.x names 'dop'; choose from: dpo, cft. Did you mean 'dpo'?"),
        ("cft:train.epochs=2", "'cft:train.epochs=2' belongs to a stage that the chain does not"),
        ("dpo:a=2,dpo:a=3", "dpo:a appears twice"),
    ],
)
def test_settings_of_a_part_that_are_refused(text, message):
    with pytest.raises(UserError) as error:
        grammar.settings(text, "config.x", "stage", ["dpo"], ["dpo", "cft"], "the chain")
    assert message in str(error.value)


def test_cut_at_the_first_mark_or_at_the_last():
    assert grammar.cut(" a + b + c ", "+") == ("a", "+", "b + c")
    assert grammar.cut(" a + b + c ", "+", last=True) == ("a + b", "+", "c")
