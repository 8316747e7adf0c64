"""Headers of GGUF files: against the library's reader where whole, one clear refusal where not."""

import os
import struct
import time

import gguf
import numpy as np
import pytest

from calib_jax.errors import UserError
from calib_jax.models.formats.files import ByteFile
from calib_jax.models.formats.gguf_header import read_header
from tests.models.formats.gguf_files import MODELS, random_tensors, write_gguf

RAW = {**MODELS["llama"], "hidden_size": 32, "intermediate_size": 32}


def everything(writer):
    """A field of every type."""
    writer.add_int8("x.int8", -3)
    writer.add_int16("x.int16", -300)
    writer.add_int32("x.int32", -70000)
    writer.add_int64("x.int64", -(2**40))
    writer.add_uint8("x.uint8", 250)
    writer.add_uint16("x.uint16", 60000)
    writer.add_uint64("x.uint64", 2**63)
    writer.add_float64("x.float64", 0.1)
    writer.add_bool("x.bool", True)
    writer.add_array("x.floats", [0.5, -1.5])
    writer.add_array("x.flags", [True, False])
    writer.add_token_list([f"token {i} ü" for i in range(3000)])


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    folder = tmp_path_factory.mktemp("header")
    return write_gguf(folder / "m.gguf", RAW, random_tensors(RAW), "Q8_0", tokenizer=everything)


@pytest.fixture
def refusal(tmp_path):
    """``refusal(bytes)`` -> the message; also that it came soon."""

    def read(content):
        file = tmp_path / "x.gguf"
        file.write_bytes(content)
        start = time.process_time()
        with pytest.raises(UserError) as error:
            read_header(ByteFile(file))
        assert time.process_time() - start < 2 and str(file) in str(error.value)
        assert len(str(error.value)) < 1000
        return str(error.value)

    return read


def string(text):
    return struct.pack("<Q", len(text)) + text.encode()


def file_of(fields=b"", count=0, tensors=b"", tensor_count=0, version=3, data=bytes(4096)):
    head = b"GGUF" + struct.pack("<IQQ", version, tensor_count, count)
    return head + fields + tensors + data


def tensor(name="t", shape=(32,), kind=0, offset=0):
    axes = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return string(name) + axes + struct.pack("<IQ", kind, offset)


@pytest.mark.parametrize("chunk", [1 << 20, 64])
def test_equal_to_the_library(path, chunk, monkeypatch):
    monkeypatch.setattr("calib_jax.models.formats.gguf_header._CHUNK", chunk)
    header, reader = read_header(ByteFile(path)), gguf.GGUFReader(path)
    known = {k: f.contents() for k, f in reader.fields.items() if not k.startswith("GGUF.")}
    assert header.fields == known
    found = {
        name: (info.shape, info.kind, info.offset, info.num_bytes)
        for name, info in header.tensors.items()
    }
    assert found == {
        t.name: (tuple(int(n) for n in t.shape[::-1]), t.tensor_type, t.data_offset, t.n_bytes)
        for t in reader.tensors
    }


def test_little_is_read_beyond_the_header(path):
    file = ByteFile(path)
    header = read_header(file)
    end = min(info.offset for info in header.tensors.values())
    assert file.bytes_read <= end + (1 << 20)


def test_truncated_everywhere(path, refusal):
    whole = path.read_bytes()
    end = min(info.offset for info in read_header(ByteFile(path)).tensors.values())
    lengths = [*range(0, 64), *range(64, end, 997), end, end + 1, len(whole) - 1]
    for length in lengths:
        assert "Download it again" in refusal(whole[:length]), length


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04" + bytes(range(256)) * 40, "begin with 'GGUF'"),
        (b"", "truncated"),
        (file_of(version=1), "version 1 is not read"),
        (file_of(version=4), "version 4 is not read"),
        (b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(99), "big-endian"),
        (file_of(count=2**63), "metadata keys do not fit"),
        (file_of(tensor_count=2**61), "tensors do not fit"),
        (file_of(struct.pack("<Q", 2**60), 1), "do not fit"),
        (file_of(string("a") + struct.pack("<I", 13) + bytes(8), 1), "'a' has the unknown type 13"),
        (file_of(string("a") + struct.pack("<IB", 7, 2), 1), "neither true nor false"),
        (file_of(string("a") + struct.pack("<IIQ", 9, 8, 2**61), 1), "strings of metadata key"),
        (file_of(string("a") + struct.pack("<IIQ", 9, 4, 2**62), 1), "values of metadata key"),
        (file_of(string("a") + struct.pack("<IIQ", 9, 9, 1), 1), "'a' has the unknown type 9"),
        (file_of((string("a") + struct.pack("<II", 4, 1)) * 2, 2), "'a' occurs twice"),
        (
            file_of(string("a") + struct.pack("<I", 8) + struct.pack("<Q", 1) + b"\xff", 1),
            "damaged",
        ),
        (file_of(struct.pack("<Q", 1) + b"\xff", 1), "a metadata key is damaged"),
        (
            file_of(
                string("a")
                + struct.pack("<IIQ", 9, 8, 2)
                + string("b")
                + b"\1"
                + bytes(7)
                + b"\xff",
                1,
            ),
            "metadata key 'a' is damaged",
        ),
        *[
            (
                file_of(string("general.alignment") + struct.pack("<II", 4, n), 1),
                f"'general.alignment' is {n}",
            )
            for n in (0, 12, 2**31)
        ],
        (file_of(tensors=tensor(shape=()), tensor_count=1), "0 axes"),
        (file_of(tensors=tensor(shape=(1,) * 5), tensor_count=1), "5 axes"),
        (file_of(tensors=tensor(shape=(32, 0)), tensor_count=1), "shape (0, 32)"),
        (file_of(tensors=tensor(shape=(31,), kind=8), tensor_count=1), "Q8_0 has shape (31,)"),
        (file_of(tensors=tensor(shape=(2**62,) * 4), tensor_count=1), "truncated; tensor 't'"),
        (file_of(tensors=tensor(shape=(2**32, 2**32)), tensor_count=1), "truncated; tensor 't'"),
        (file_of(tensors=tensor(kind=99), tensor_count=1), "unknown type 99"),
        (file_of(tensors=tensor(offset=1), tensor_count=1), "not aligned"),
        (file_of(tensors=tensor(offset=1 << 40), tensor_count=1), "truncated; tensor 't'"),
        (file_of(tensors=tensor() * 2, tensor_count=2), "tensor 't' occurs twice"),
    ],
)
def test_refusals(content, words, refusal):
    assert words in refusal(content)


def test_endless_header(tmp_path):
    """The bytes left cannot bound a count in a file of 20 GB: the header's size does."""
    path = tmp_path / "zeros.gguf"
    with path.open("wb") as file:
        file.write(file_of(string("a") + struct.pack("<IIQ", 9, 8, 2**31), 9))
        os.truncate(file.fileno(), 20 << 30)
    with pytest.raises(UserError, match="do not fit"):
        read_header(ByteFile(path))
    with path.open("r+b") as file:
        file.write(file_of(string("a") + struct.pack("<IQ", 8, 2**30), 9))
    with pytest.raises(UserError, match="do not fit"):
        read_header(ByteFile(path))


def test_flipped_bits(path, tmp_path):
    """Every outcome is a header or a UserError, and soon."""
    rng = np.random.default_rng(0)
    whole = path.read_bytes()
    end = min(info.offset for info in read_header(ByteFile(path)).tensors.values())
    file, refused = tmp_path / "x.gguf", 0
    start = time.process_time()
    for at in [*range(200), *rng.integers(0, end, 200)]:
        broken = bytearray(whole)
        broken[at] ^= 1 << rng.integers(0, 8)
        file.write_bytes(broken)
        try:
            read_header(ByteFile(file))
        except UserError:
            refused += 1
    assert 50 < refused < 400 and time.process_time() - start < 20
