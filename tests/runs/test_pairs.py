"""Pairs of models as they are written, and the folders of their runs."""

from pathlib import Path

import pytest

from calib_jax.errors import UserError
from calib_jax.runs import pairs, subjects


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=x", "'x' is not a pair; write name=base->aligned"),
        ("x->y", "'x->y' is not understood; write name=base->aligned"),
        ("a=x->", "'x->' is not a pair"),
        ("a=x->y->z", "is not a pair"),
        ("a=x->x", "'a' has x on both sides"),
        ("a=x->y,a=x->z", "the label 'a' appears twice"),
        ("a=x->y,b=x->y", "'a' and 'b' are the same pair"),
        ('a"=x->y', "A name holds neither a quote nor a bar"),
    ],
)
def test_pairs_that_are_refused(text, message):
    with pytest.raises(UserError) as error:
        pairs.parse_pairs(text)
    assert message in str(error.value)


def test_one_model_in_two_spellings_is_one(tmp_path, monkeypatch):
    (tmp_path / "m").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="on both sides"):
        pairs.parse_pairs(f"a=m->{tmp_path}/m")
    with pytest.raises(UserError, match="on both sides"):
        pairs.parse_pairs(f"a=run:m->run:{tmp_path}/m")
    assert len(pairs.parse_pairs("a=m->m+adapter,b=o/m@v1->o/m@v2")) == 2


def test_folders_have_names_of_their_own():
    sides = [subjects.parse(text) for text in ("o/m@1", "o/m_1", "o_m_1")]
    folders = pairs.model_folders(sides, Path("models"))
    assert [f.name for f in folders.values()] == ["o_m_1", "o_m_1-2", "o_m_1-3"]
