import pytest

from calib_jax.atomic import atomic_path, write_text


def test_writes_whole_file_and_creates_the_folder(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "ünïcode")
    assert (tmp_path / "a" / "b.txt").read_text(encoding="utf-8") == "ünïcode"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b.txt"]


def test_failure_half_way_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_failure_half_way_leaves_no_file_where_there_was_none(tmp_path):
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "x.json") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_mode_is_that_of_an_ordinary_file(tmp_path):
    (tmp_path / "ordinary").write_text("")
    write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "ordinary").stat().st_mode
