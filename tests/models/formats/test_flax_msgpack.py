"""Flax checkpoints of transformers 4: PyTorch's logits, and damaged files refused."""

import shutil
import tracemalloc
from pathlib import Path

import flax.serialization
import jax.numpy as jnp
import ml_dtypes
import msgpack
import numpy as np
import pytest

from calib_jax import load_model
from calib_jax.errors import UserError
from calib_jax.models.formats.flax_msgpack import FlaxSource

GOLDEN = Path(__file__).parents[2] / "golden" / "flax"
KERNEL = "model.layers.1.mlp.up_proj.weight"


def whole(source, name):
    return source.read(name, (slice(None),) * len(source.shape(name)))


def flat(tree, path=()):
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from flat(value, (*path, key))
        else:
            yield "/".join((*path, key)), value


@pytest.mark.parametrize("name, bound", [("llama", 5e-5), ("mistral", 5e-5), ("gemma", 1e-4)])
def test_logits_are_pytorchs(name, bound):
    """The sequences are longer than Mistral's window, whose weights are stored in bfloat16."""
    logits = load_model(GOLDEN / name).logits(np.load(GOLDEN / "tokens.npy"))
    expected = np.load(GOLDEN / name / "logits.npy")
    assert np.abs(expected).max() > 5
    np.testing.assert_allclose(logits, expected, rtol=0, atol=bound)


@pytest.mark.parametrize("name", ["llama", "mistral", "gemma"])
def test_every_tensor_equals_flaxs_own_reading(name):
    source = FlaxSource(GOLDEN / name)
    assert source.bytes_read == 0
    theirs = {}
    for path in source.files:
        tree = flax.serialization.msgpack_restore(path.read_bytes())
        theirs.update(dict(flat(tree)))
    assert len(theirs) == len(source.names()) > 10
    for key, value in theirs.items():
        ours = key.replace("/", ".").replace(".kernel", ".weight").replace(".embedding", ".weight")
        value = value.T if key.endswith("/kernel") else value
        assert source.dtype(ours) == value.dtype and source.shape(ours) == value.shape
        np.testing.assert_array_equal(whole(source, ours), value)


def test_shards_and_dtypes():
    llama, mistral = FlaxSource(GOLDEN / "llama"), FlaxSource(GOLDEN / "mistral")
    assert len(llama.files) == 2 and len(mistral.files) == 1
    assert llama.dtype(KERNEL) == np.float32 and mistral.dtype(KERNEL) == ml_dtypes.bfloat16


def test_slices_of_a_kernel_read_their_bytes():
    source = FlaxSource(GOLDEN / "llama")
    expected = whole(source, KERNEL)
    assert expected.shape == (24, 16)
    for index, most in (
        ((slice(0, 24), slice(3, 5)), 24 * 2 * 4),  # two input channels: adjacent in Flax's layout
        ((slice(2, 3), slice(0, 16)), 16 * 4),
        ((slice(5, 20), slice(4, 9)), 2 * 15 * 5 * 4),
    ):
        before = source.bytes_read
        np.testing.assert_array_equal(source.read(KERNEL, index), expected[index])
        assert source.bytes_read - before <= most


def write(folder, tree):
    (folder / "flax_model.msgpack").write_bytes(flax.serialization.msgpack_serialize(tree))
    return FlaxSource(folder)


@pytest.mark.parametrize("layout", ["kernel", "embedding"])
def test_arrays_in_pieces(tmp_path, monkeypatch, layout):
    """Flax divides arrays beyond 1 GiB; here beyond 100 bytes."""
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 100)
    array = np.random.default_rng(0).standard_normal((13, 17)).astype(np.float32)
    source = write(tmp_path, {"a": {layout: array}})
    assert b"__msgpack_chunked_array__" in (tmp_path / "flax_model.msgpack").read_bytes()
    expected = array.T if layout == "kernel" else array
    np.testing.assert_array_equal(whole(source, "a.weight"), expected)
    rows, columns = expected.shape
    for index in ((slice(2, 7), slice(3, 9)), (slice(4, 5), slice(None)), (slice(None), slice(1))):
        before = source.bytes_read
        piece = source.read("a.weight", index)
        np.testing.assert_array_equal(piece, expected[index])
        assert piece.nbytes <= source.bytes_read - before <= 2 * piece.nbytes


def test_what_flax_can_store(tmp_path):
    tree = {
        "n": {"scale": np.ones(3, np.float32), "bias": np.zeros(3, np.float16)},
        "scalar": np.float32(3),
        "b": jnp.ones((2, 2), jnp.bfloat16),
        "ints": np.arange(3),
        "empty": np.zeros((0, 4), np.float32),
        "long": np.ones(70_000, np.float64),
    }
    source = write(tmp_path, tree)
    assert source.names() == {"n.weight", "n.bias", "scalar", "b", "ints", "empty", "long"}
    assert whole(source, "scalar") == 3 and source.dtype("b") == ml_dtypes.bfloat16
    np.testing.assert_array_equal(whole(source, "long"), tree["long"])
    with pytest.raises(UserError, match=r"flax_model.msgpack: tensor 'ints' is stored as int64"):
        source.shape("ints")


def refusal(folder, data):
    (folder / "flax_model.msgpack").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(UserError) as error:
        FlaxSource(folder)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()
    message = str(error.value)
    assert str(folder / "flax_model.msgpack") in message and len(message) < 600
    return message


def array(shape, dtype="float32", data=None, kind=1):
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize if data is None else 0
    return msgpack.ExtType(kind, msgpack.packb((shape, dtype, data or bytes(size))))


BAD_TREES = {
    "no table": [1],
    "a number": {"a": 3},
    "a text": {"a": "b"},
    "nothing": {"a": None},
    "a list": {"a": [1, 2]},
    "bytes": {"a": b"x"},
    "a float": {"a": 0.5},
    "complex": {"a": msgpack.ExtType(2, b"\x92\x01\x01")},
    "another extension": {"a": array((2,), kind=9)},
    "too little data": {"a": array((3,), data=bytes(8))},
    "too much data": {"a": array((1,), data=bytes(8))},
    "negative": {"a": array((-1, -2), data=bytes(8))},
    "not counts": {"a": array((1.0, 2.0), data=bytes(8))},
    "truth as count": {"a": array((True,), data=bytes(4))},
    "huge": {"a": array((2**62, 2**62), data=bytes(8))},
    "huge and empty": {"a": array((0, 2**63), data=b"")},
    "axes": {"a": array((1,) * 40, data=bytes(4))},
    "a kernel that is no matrix": {"a": {"kernel": array((4,))}},
    "an extension that is no array": {"a": msgpack.ExtType(1, b"\xc0")},
    "rest in the extension": {"a": msgpack.ExtType(1, array((1,)).data + b"\0")},
    "name twice": {"a": {"kernel": array((1, 1)), "embedding": array((1, 1))}},
    "path twice": {"a": {"b": array((1,))}, "a/b": array((1,))},
    "long name": {"x" * 5000: array((1,))},
    "number as key": {3: array((1,))},
    "pieces without shape": {"a": {"__msgpack_chunked_array__": True}},
    "pieces without data": {"a": {"__msgpack_chunked_array__": True, "shape": {}, "chunks": {}}},
    "pieces of a wrong sum": {
        "a": {
            "__msgpack_chunked_array__": True,
            "shape": {"0": 5},
            "chunks": {"0": array((2,)), "1": array((2,))},
        }
    },
    "pieces of two dtypes": {
        "a": {
            "__msgpack_chunked_array__": True,
            "shape": {"0": 4},
            "chunks": {"0": array((2,)), "1": array((2,), "float64")},
        }
    },
}


@pytest.mark.parametrize("kind", BAD_TREES)
def test_trees_that_are_no_parameters(tmp_path, kind):
    refusal(tmp_path, msgpack.packb(BAD_TREES[kind]))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xdf\xff\xff\xff\xff",
        b"\xde\xff\xff",
        b"\x81\xdb\xff\xff\xff\xffa",
        b"\x81\xa1a\xc9\xff\xff\xff\xff\x01\x93",
        b"\x81" + b"\xa1a\x81" * 3000,
        b"\xc1",
        b"\x82\xa1a\x80\xa1a\x80",
        b"\x81\xa2\xff\xfe\x80",
        b"\x80\x00",
        b"\x81\xa1a\xc7\x05\x01\x93\xdd\xff\xff\xff",
        b"\x81\xa1a\xc9\0\0\0\x10\x01\x93\x91\xcf" + b"\xff" * 8 + b"\xa7float32",
        b"\xde\xff\xff" + b"".join(b"\xda\x03\xe8%01000d\x01" % i for i in range(2200)),
        b"version https://git-lfs.github.com/spec/v1\n",
    ],
)
def test_damaged_bytes(tmp_path, data):
    refusal(tmp_path, data)


def test_index(tmp_path):
    folder = shutil.copytree(GOLDEN / "llama", tmp_path / "llama")
    index = folder / "flax_model.msgpack.index.json"
    text = index.read_text()
    index.write_text(text.replace("flax_model-00001", "../flax_model-00001"))
    with pytest.raises(UserError, match="does not stay in the folder"):
        FlaxSource(folder)
    index.write_text(text)
    (folder / "flax_model-00001-of-00002.msgpack").unlink()
    with pytest.raises(UserError, match="00001-of-00002.msgpack: named by .* but missing"):
        FlaxSource(folder)
    with pytest.raises(UserError, match="no flax_model.msgpack"):
        FlaxSource(tmp_path)
