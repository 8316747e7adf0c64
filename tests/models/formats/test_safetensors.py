"""Hugging Face folders: what cannot be read faithfully is refused by file and tensor."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest
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
    path = folder / "model.safetensors"
    path.unlink()
    assert "no *.safetensors file" in refusal(folder)
    (folder / "pytorch_model.bin").write_bytes(b"x")
    message = refusal(folder)
    assert "pytorch_model.bin" in message and "Convert" in message


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
    assert "model.safetensors.index.json" in message and "not a safetensors index" in message


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
