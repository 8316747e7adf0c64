"""Pairs of models as they are written, and the folders of their runs."""

from pathlib import Path

import pytest

from calib_jax.errors import UserError
from calib_jax.runs import pairs


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=x", "'a=x' is not a pair; write name=base->aligned"),
        ("x->y", "'x->y' is not a pair"),
        ("a=x->", "'a=x->' is not a pair"),
        ("a=x->y->z", "is not a pair"),
        ("a=x->x", "'a' has x on both sides"),
        ("a=x->y,a=x->z", "the name 'a' appears twice"),
        ("a=x->y,b=x->y", "'a' and 'b' are the same pair"),
        ('a"=x->y', "holds a quote"),
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


def test_a_path_that_exists_is_taken_whole(tmp_path):
    for name in ("a@b+c", "plain"):
        (tmp_path / name).mkdir()
    side = pairs.parse_side(f"{tmp_path}/a@b+c")
    assert (side.name, side.revision, side.adapter) == (f"{tmp_path}/a@b+c", "", "")
    side = pairs.parse_side(f"{tmp_path}/plain+x@y")
    assert (side.name, side.revision, side.adapter) == (f"{tmp_path}/plain", "", "x@y")
    side = pairs.parse_side("owner/m@main")
    assert (side.name, side.revision, side.adapter) == ("owner/m", "main", "")


def test_folders_have_names_of_their_own():
    sides = [pairs.parse_side(text) for text in ("o/m@1", "o/m_1", "o_m_1")]
    folders = pairs.model_folders(sides, Path("models"))
    assert [f.name for f in folders.values()] == ["o_m_1", "o_m_1-2", "o_m_1-3"]
