"""Hugging Face folders: what cannot be read faithfully is refused by file and tensor."""

import json
import shutil
import tracemalloc

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from calib_jax import load_model
from calib_jax.errors import UserError
from calib_jax.models.formats.safetensors import SafetensorsSource


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A copy of the tiny model to damage."""
    return shutil.copytree(tiny_model, tmp_path / "model")


@pytest.fixture
def rewrite(folder):
    """``rewrite(change)``: applies ``change`` to the tensors in place and saves them."""

    def apply(change):
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")
        return folder

    return apply


Q = "model.layers.1.self_attn.q_proj.weight"


def refusal(folder):
    with pytest.raises(UserError) as error:
        load_model(folder)
    return str(error.value)


def test_missing_tensor(rewrite):
    message = refusal(rewrite(lambda t: t.pop(Q)))
    assert Q in message and "missing" in message and "model" in message


def test_misshapen_tensor(rewrite):
    message = refusal(rewrite(lambda t: t.update({Q: t[Q][:-1]})))
    assert "model.safetensors" in message and Q in message
    assert "(31, 32)" in message and "(32, 32)" in message


def test_transposed_tensor_of_the_same_size(rewrite):
    name = "model.layers.0.mlp.down_proj.weight"
    message = refusal(rewrite(lambda t: t.update({name: np.ascontiguousarray(t[name].T)})))
    assert name in message and "(64, 32)" in message and "(32, 64)" in message


@pytest.mark.parametrize(
    "name", ["model.layers.0.self_attn.q_proj.bias", "model.layers.2.mlp.up_proj.weight", "score"]
)
def test_unexpected_tensor(rewrite, name):
    message = refusal(rewrite(lambda t: t.update({name: np.zeros(32, np.float32)})))
    assert "model.safetensors" in message and name in message and "wrong" in message


def test_tensors_that_the_computation_does_not_use_are_let_pass(rewrite):
    def add(tensors):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()  # tied
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.zeros(4, np.float32)

    assert "lm_head" not in load_model(rewrite(add)).params


def test_untied_head_is_asked_for(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    assert "lm_head.weight" in refusal(folder)


@pytest.mark.parametrize("dtype", [np.int32, np.int8, np.bool_])
def test_integer_weights_are_refused(rewrite, dtype):
    message = refusal(rewrite(lambda t: t.update({Q: t[Q].astype(dtype)})))
    assert "model.safetensors" in message and Q in message and "stored as" in message


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_stored_float_dtypes(rewrite, dtype):
    saved = {}

    def cast(tensors):
        tensors.update({name: value.astype(dtype) for name, value in tensors.items()})
        saved.update(tensors)

    params = load_model(rewrite(cast)).params
    assert params["layers"]["q_proj"].dtype == np.float32
    expected = saved[Q].astype(np.float32).T
    np.testing.assert_array_equal(np.asarray(params["layers"]["q_proj"][1]), expected)


@pytest.mark.parametrize("part", ["empty", "4 bytes", "in the header", "in the data", "last byte"])
def test_truncated_file(folder, part):
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    cut = {
        "empty": 0,
        "4 bytes": 4,
        "in the header": header // 2,
        "in the data": (header + len(whole)) // 2,
        "last byte": len(whole) - 1,
    }[part]
    path.write_bytes(whole[:cut])
    message = refusal(folder)
    assert str(path) in message and "Download it again" in message


def test_folder_without_safetensors(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no \\*.safetensors file"):
        SafetensorsSource(folder)


def test_file_named_by_the_index_is_missing(golden, tmp_path):
    folder = shutil.copytree(golden / "llama2", tmp_path / "llama2")
    (folder / "model-00002-of-00004.safetensors").unlink()
    message = refusal(folder)
    assert "model-00002-of-00004.safetensors" in message and "missing" in message
    assert "model.safetensors.index.json" in message


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"weight_map": [1]}', '{"weight_map": {"a":1}}']
)
def test_broken_index(golden, tmp_path, text):
    folder = shutil.copytree(golden / "llama2", tmp_path / "llama2")
    (folder / "model.safetensors.index.json").write_text(text)
    message = refusal(folder)
    assert "model.safetensors.index.json" in message
    assert "not valid JSON" in message or "not an index of weights" in message


def test_only_files_of_the_index_are_read(golden, tmp_path):
    """Some repositories hold the same weights a second time under another name."""
    folder = shutil.copytree(golden / "llama2", tmp_path / "llama2")
    (folder / "consolidated.safetensors").write_bytes(b"another layout")
    names = [path.name for path in SafetensorsSource(folder).files]
    assert names == [f"model-0000{i}-of-00004.safetensors" for i in range(1, 5)]


def test_two_checkpoints_in_one_folder(folder):
    shutil.copy(folder / "model.safetensors", folder / "other.safetensors")
    message = refusal(folder)
    assert "mixes two checkpoints" in message and "other.safetensors" in message


def test_adapter_weights_beside_the_model_are_not_the_model(folder):
    save_file({"a": np.zeros(2, np.float32)}, folder / "adapter_model.safetensors")
    load_model(folder)


DTYPES = [np.float32, np.float16, ml_dtypes.bfloat16, np.float64]


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_slices_equal_the_librarys(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("st")
    shapes = data.draw(st.lists(st.lists(st.integers(0, 6), max_size=3), min_size=1, max_size=4))
    rng = np.random.default_rng(0)
    tensors = {
        f"t{i}": rng.standard_normal(shape).astype(data.draw(st.sampled_from(DTYPES)))
        for i, shape in enumerate(shapes)
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    source = SafetensorsSource(folder)
    theirs = safe_open(folder / "model.safetensors", framework="numpy")
    assert source.names() == set(theirs.keys())
    read = 0
    for name, tensor in tensors.items():
        assert source.shape(name) == tensor.shape and source.dtype(name) == tensor.dtype
        whole = source.read(name, (slice(None),) * tensor.ndim)
        np.testing.assert_array_equal(whole, theirs.get_tensor(name))
        index = tuple(
            slice(*sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2)))) for n in tensor.shape
        )
        piece = source.read(name, index)
        assert piece.dtype == tensor.dtype
        np.testing.assert_array_equal(piece, tensor[index])
        read += whole.nbytes + piece.nbytes
    assert source.bytes_read <= 2 * read


def test_opening_reads_headers_only(golden):
    source = SafetensorsSource(golden / "llama2")
    assert len(source.files) == 4 and source.bytes_read == 0
    name = "model.embed_tokens.weight"
    source.read(name, (slice(3, 5), slice(None)))
    assert source.bytes_read == 2 * source.shape(name)[1] * source.dtype(name).itemsize


def damaged(folder, header, data=b"\0" * 16):
    """The refusal of a file with this header (a dict, or the header's bytes)."""
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    (folder / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + data)
    with pytest.raises(UserError) as error:
        SafetensorsSource(folder)
    message = str(error.value)
    assert str(folder / "model.safetensors") in message and len(message) < 1000
    return message


def entry(dtype="F32", shape=(4,), offsets=(0, 16), **more):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


@pytest.mark.parametrize(
    "header",
    [
        b"[]", b"3", b"{", b"\xff\xfe", b"[" * 5000, b"",
        {"a": 3}, {"a": {}}, {"a": entry(extra=1)}, {"x" * 5000: entry()},
        {"a": entry("F31")}, {"a": entry(7)}, {"a": entry(None)}, {"a": entry(["F32"])},
        {"a": entry(shape=None)}, {"a": entry(shape=[-4])}, {"a": entry(shape=[4.0])},
        {"a": entry(shape=[True] * 4)}, {"a": entry(shape=["4"])}, {"a": entry(shape=[2, 3])},
        {"a": entry(shape=[2**63])}, {"a": entry(shape=[0, 2**62], offsets=[0, 0])},
        {"a": entry(shape=[1] * 100)}, {"a": entry(shape=[2**40, 2**40])},
        {"a": entry(offsets=[0, 17])}, {"a": entry(offsets=[16, 0])}, {"a": entry(offsets=[0])},
        {"a": entry(offsets=[-16, 0])}, {"a": entry(offsets=[4, 20])}, {"a": entry(offsets=9)},
        {"a": entry(offsets=[0.0, 16.0])}, {"a": entry(offsets=[2**70, 2**70 + 16])},
        {"a": entry(shape=[3], offsets=[4, 16])},  # a hole before
        {"a": entry(shape=[3], offsets=[0, 12])},  # a hole behind
        {"a": entry(shape=[3], offsets=[0, 12]), "b": entry(shape=[2], offsets=[8, 16])},
        b'{"a": {"dtype":"F32","shape":[4],"data_offsets":[0,16]},'
        b' "a": {"dtype":"F32","shape":[4],"data_offsets":[0,16]}}',
        {"__metadata__": {"format": "flax"}, "a": entry()},
        {"a": entry("F4", [31])},
    ],
)  # fmt: skip  # a case on a line
def test_damaged_headers(tmp_path, header):
    damaged(tmp_path, header)


def test_header_longer_than_the_file_allocates_nothing(tmp_path):
    for length in (17, 1 << 26, 1 << 62, (1 << 64) - 1):
        (tmp_path / "model.safetensors").write_bytes(length.to_bytes(8, "little") + b"{" * 16)
        tracemalloc.start()
        with pytest.raises(UserError, match="a header of"):
            SafetensorsSource(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()


def test_the_index_cannot_name_files_elsewhere(golden, tmp_path):
    folder = shutil.copytree(golden / "llama2", tmp_path / "llama2")
    shutil.move(folder / "model-00002-of-00004.safetensors", tmp_path / "outside.safetensors")
    index = folder / "model.safetensors.index.json"
    text = index.read_text()
    for name in ("../outside.safetensors", str(tmp_path / "outside.safetensors")):
        index.write_text(text.replace("model-00002-of-00004.safetensors", name))
        assert "does not stay in the folder" in refusal(folder)
    index.write_text(text)
    (folder / "model-00002-of-00004.safetensors").symlink_to("../outside.safetensors")
    assert "links out of its folder" in refusal(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_links_out_of_the_folder(folder, tmp_path, name):
    shutil.move(folder / name, tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    assert "links out of its folder" in refusal(folder)


def test_single_file_beside_an_index(golden, tmp_path):
    folder = shutil.copytree(golden / "llama2", tmp_path / "llama2")
    save_file({"a": np.zeros(2, np.float32)}, folder / "model.safetensors")
    assert "mixes two checkpoints" in refusal(folder)
