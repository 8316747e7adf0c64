"""Byte ranges: exactly the slice, checked before it is read; names that stay in their folder."""

import math
import os
import shlex
import subprocess
import threading
import tracemalloc
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib_jax.errors import UserError
from calib_jax.models.formats.files import ByteFile, array_bytes, parse_json, safe_path


def write(path, array, offset=0):
    path.write_bytes(b"\xee" * offset + array.tobytes())
    return ByteFile(path)


slices = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(lambda p: slice(*p))


@settings(max_examples=200, deadline=None)
@given(data=st.data(), shape=st.lists(st.integers(0, 7), max_size=4), order=st.sampled_from("CF"))
def test_slices_are_numpys(tmp_path_factory, data, shape, order):
    index = tuple(data.draw(slices) for _ in shape)
    dtype = data.draw(st.sampled_from([np.float32, ml_dtypes.bfloat16, np.float64]))
    array = np.arange(math.prod(shape)).astype(dtype).reshape(shape)
    file = write(tmp_path_factory.mktemp("a") / "x", array.T if order == "F" else array, offset=3)
    piece = file.read_slice(3, shape, dtype, index, order)
    assert piece.dtype == dtype
    np.testing.assert_array_equal(piece, array[index])
    assert file.bytes_read <= 2 * piece.nbytes


@pytest.mark.parametrize(
    "index, count",
    [
        ((slice(10, 20), slice(None)), 10 * 4096 * 4),  # rows: one run
        ((slice(None), slice(2048, 4096)), 64 * 2048 * 4),  # long runs: exactly these
        ((slice(5, 6), slice(7, 8)), 4),
        ((slice(None), slice(0, 16)), 64 * 16 * 4),  # tiny runs far apart: exactly these
    ],
)
def test_bytes_read_are_the_slices(tmp_path, index, count):
    array = np.random.default_rng(0).standard_normal((64, 4096)).astype(np.float32)
    file = write(tmp_path / "x", array)
    np.testing.assert_array_equal(file.read_slice(0, array.shape, np.float32, index), array[index])
    assert file.bytes_read == count


def test_gaps_are_read_only_where_they_at_most_double_the_bytes(tmp_path):
    array = np.arange(1000 * 16, dtype=np.float32).reshape(1000, 16)
    for columns, count in ((8, 2 * 32 * 1000 - 32), (7, 28 * 1000)):
        file = write(tmp_path / "x", array)
        piece = file.read_slice(0, array.shape, np.float32, (slice(None), slice(16 - columns, 16)))
        np.testing.assert_array_equal(piece, array[:, -columns:])
        assert file.bytes_read == count


def test_spans_wider_than_the_buffer(tmp_path, monkeypatch):
    monkeypatch.setattr("calib_jax.models.formats.files._SPAN_BUFFER", 100)
    array = np.arange(5 * 50 * 6, dtype=np.float32).reshape(5, 50, 6)
    file = write(tmp_path / "x", array)
    index = (slice(1, 4), slice(3, 50), slice(2, 6))
    np.testing.assert_array_equal(file.read_slice(0, array.shape, "<f4", index), array[index])


def test_ranges_outside_the_file_allocate_nothing(tmp_path):
    file = write(tmp_path / "x", np.zeros(100, np.uint8))
    whole = (slice(None), slice(None))
    tracemalloc.start()
    for attempt in (
        lambda: file.pread(0, 1 << 45),
        lambda: file.pread(-1, 10),
        lambda: file.pread(101, 0),
        lambda: file.read_slice(0, (1 << 20, 1 << 20), np.float32, whole),
        lambda: file.read_slice(0, (1 << 40, 1 << 40), np.float32, (slice(0, 1), slice(0, 1))),
        lambda: file.read_slice(0, (0, 1 << 62), np.float32, whole),
        lambda: file.read_slice(4, (5, 5), np.float32, (slice(0, 1), slice(0, 1))),
    ):
        with pytest.raises(UserError, match=str(tmp_path / "x")):
            attempt()
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert file.bytes_read == 0
    assert file.pread(100, 0) == b""


@pytest.mark.parametrize("shape", [(-1,), (2.0,), (True,), ("a",), (1,) * 40, (1 << 61, 4)])
def test_shapes_of_no_array(shape):
    with pytest.raises(UserError, match="here: no shape"):
        array_bytes(shape, np.dtype(np.float32), "here")


def test_file_that_shrinks_after_it_was_opened(tmp_path):
    file = write(tmp_path / "x", np.zeros(100, np.uint8))
    os.truncate(tmp_path / "x", 50)
    with pytest.raises(UserError, match="truncated while"):
        file.pread(0, 100)


def test_only_regular_files(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        ByteFile(tmp_path / "x")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(UserError, match="not a regular file"):
            ByteFile(path)


def test_threads_count_every_byte(tmp_path):
    file = write(tmp_path / "x", np.zeros(1000, np.uint8))
    threads = [
        threading.Thread(target=lambda: [file.pread(i, 1) for i in range(1000)]) for _ in range(8)
    ]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert file.bytes_read == 8000


def test_closed_when_dropped(tmp_path):
    fd = write(tmp_path / "x", np.zeros(1, np.uint8))._fd  # the object is gone after this line
    with pytest.raises(OSError):
        os.fstat(fd)


@pytest.mark.parametrize(
    "name",
    ["/etc/passwd", "../x", "a/../../x", "..", "", "a\0b", "C:\\x", "..\\x", "\ud800", 3, None],
)
def test_names_that_leave_the_folder(tmp_path, name):
    with pytest.raises(UserError, match="file name"):
        safe_path(tmp_path, name)


def test_links(tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret").write_text("x")
    (folder / "out").symlink_to(tmp_path / "secret")
    (folder / "out2").symlink_to("../secret")
    (folder / "chain").symlink_to("out")
    (folder / "dir").symlink_to(tmp_path)
    (folder / "loop").symlink_to("loop")
    (folder / "real").write_text("x")
    (folder / "in").symlink_to("real")
    for name in ("out", "out2", "chain", "dir/secret"):
        with pytest.raises(UserError, match="links out"):
            safe_path(folder, name)
    with pytest.raises(UserError, match="cannot be followed|cannot be opened"):
        ByteFile(safe_path(folder, "loop"))
    for name in ("real", "in", "absent", "sub/absent"):
        assert safe_path(folder, name) == folder / name
    (tmp_path / "alias").symlink_to(folder)  # the folder itself may be a link
    assert safe_path(tmp_path / "alias", "real").read_text() == "x"


def test_links_of_the_hubs_cache(tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "abc"
    for place in (snapshot, tmp_path / "models--a--b/blobs", tmp_path / "models--c--d/blobs"):
        place.mkdir(parents=True)
    for repository in ("models--a--b", "models--c--d"):
        (tmp_path / repository / "blobs" / "123").write_text("x")
    (snapshot / "own").symlink_to("../../blobs/123")
    (snapshot / "others").symlink_to("../../../models--c--d/blobs/123")
    assert safe_path(snapshot, "own").read_text() == "x"
    with pytest.raises(UserError, match="links out"):
        safe_path(snapshot, "others")


def test_a_folder_of_links_into_one_owners_part_of_the_cache(tmp_path):
    cache, folder = tmp_path / "hub", tmp_path / "model"
    folder.mkdir()
    for repository in ("models--a--b", "models--a--b2", "models--c--d"):
        for place in ("blobs", "snapshots/abc"):
            (cache / repository / place).mkdir(parents=True)
        (cache / repository / "blobs" / "123").write_text(repository)
        (cache / repository / "snapshots" / "abc" / "link").symlink_to("../../blobs/123")
        (cache / repository / "snapshots" / "abc" / "file").write_text("x")  # a disk without links
        (cache / repository / "token").write_text("secret")
    (folder / "one").symlink_to(cache / "models--a--b" / "blobs" / "123")
    (folder / "two").symlink_to(cache / "models--a--b2" / "snapshots" / "abc" / "link")
    (folder / "three").symlink_to(cache / "models--a--b" / "snapshots" / "abc" / "file")
    (folder / "own").write_text("x")
    (folder / "in").symlink_to("own")
    assert safe_path(folder, "one").read_text() == "models--a--b"
    assert safe_path(folder, "two").read_text() == "models--a--b2"
    assert [safe_path(folder, name).read_text() for name in ("three", "own", "in")] == ["x"] * 3
    # A link elsewhere, or to another owner, and none is followed.
    for target in (
        cache / "models--c--d" / "blobs" / "123",
        cache / "models--a--b" / "token",
        tmp_path / "models--a--b" / "blobs" / "123",
        tmp_path / "secret",
    ):
        (folder / "four").symlink_to(target)
        for name in ("one", "two", "four"):
            with pytest.raises(UserError, match="links out of its folder"):
                safe_path(folder, name)
        (folder / "four").unlink()


def test_the_remedy_for_links_works(tmp_path):
    folder = tmp_path / "a model"
    folder.mkdir()
    (tmp_path / "store").write_text("x")
    (folder / "weights").symlink_to(tmp_path / "store")
    with pytest.raises(UserError, match="links out of its folder") as error:
        safe_path(folder, "weights")
    command = shlex.split(str(error.value).partition("give the copy: ")[2])
    subprocess.run(command, check=True)
    assert safe_path(Path(command[-1]), "weights").read_text() == "x"


@pytest.mark.parametrize("text", [b"{", b"[" * 100000, b"\xff", b'{"a": ' + b"1" * 9999 + b"}"])
def test_damaged_json(text):
    with pytest.raises(UserError, match="here: not valid JSON") as error:
        parse_json(text, "here")
    assert len(str(error.value)) < 400


def test_json_with_a_key_twice(tmp_path):
    with pytest.raises(UserError, match="here: the key 'a' appears twice"):
        parse_json(b'{"b": {"a": 1, "a": 2}}', "here")
