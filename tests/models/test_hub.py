"""The hub: weights once and no code; revisions; caches without a network; one remedy an error."""

import json
import shutil
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import errors
from huggingface_hub.utils import filter_repo_objects
from safetensors.numpy import load_file, save_file

from calib_jax import load_model
from calib_jax.errors import UserError
from calib_jax.models import hub

OLD, NEW = "0" * 39 + "1", "0" * 39 + "2"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache; the tests run with the hub switched off."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def cached(cache, files, commit, refs=(), repository="models--owner--model"):
    """Lays out a snapshot as the hub's client does: links to blobs. ``files``: name -> bytes."""
    for place in ("blobs", "refs", f"snapshots/{commit}"):
        (cache / repository / place).mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (cache / repository / "blobs" / f"{commit}-{name}").write_bytes(data)
        link = cache / repository / "snapshots" / commit / name
        link.symlink_to(f"../../blobs/{commit}-{name}")
    for ref in refs:
        (cache / repository / "refs" / ref).write_text(commit)


def model_files(folder, tmp_path, factor=1.0):
    """The tiny model's files, its embedding multiplied."""
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"] *= np.float32(factor)
    save_file(tensors, tmp_path / "x.safetensors")
    return {**files, "model.safetensors": (tmp_path / "x.safetensors").read_bytes()}


def test_revisions_of_a_filled_cache(cache, tiny_model, tmp_path):
    cached(cache, model_files(tiny_model, tmp_path), OLD, ["step1000", "v1"])
    cached(cache, model_files(tiny_model, tmp_path, 2.0), NEW, ["main"])
    weights = {
        revision: np.asarray(load_model("owner/model", revision=revision).params["embed"])
        for revision in (None, "main", "step1000", "v1", OLD, NEW)
    }
    original = np.asarray(load_model(tiny_model).params["embed"])
    for revision in ("step1000", "v1", OLD):
        np.testing.assert_array_equal(weights[revision], original)
    for revision in (None, "main", NEW):
        np.testing.assert_array_equal(weights[revision], 2 * original)
    assert np.abs(original).max() > 0


def test_a_revision_that_the_cache_lacks(cache, tiny_model, tmp_path):
    cached(cache, model_files(tiny_model, tmp_path), OLD, ["main"])
    for revision in ("step7", NEW):
        with pytest.raises(UserError, match=rf"owner/model.*switched off.*'{revision}'.*local"):
            hub.fetch("owner/model", revision)


def test_links_from_the_cache_into_another_repository(cache, tiny_model, tmp_path):
    cached(cache, model_files(tiny_model, tmp_path), OLD, ["main"])
    cached(cache, {"x": b""}, NEW, repository="models--other--model")
    weights = cache / "models--owner--model" / "snapshots" / OLD / "model.safetensors"
    shutil.move(weights.resolve(), cache / "models--other--model" / "blobs" / "w")
    weights.unlink()
    weights.symlink_to("../../../models--other--model/blobs/w")
    with pytest.raises(UserError, match="links out of its folder"):
        load_model("owner/model")


def test_a_cached_snapshot_with_a_shard_missing(cache, golden):
    files = {path.name: path.read_bytes() for path in (golden / "llama2").iterdir()}
    del files["model-00003-of-00004.safetensors"]
    cached(cache, files, OLD, ["main"])
    with pytest.raises(UserError, match="model-00003-of-00004.safetensors: named by .* missing"):
        load_model("owner/model")


def test_adapter_from_the_cache(cache):
    files = {"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"}
    cached(cache, files, OLD, ["main"])
    folder = hub.fetch("owner/model", adapter=True)
    assert {path.name for path in folder.iterdir()} == set(files)
    with pytest.raises(UserError, match="It is an adapter: give its base"):
        hub.fetch("owner/model")


# What is chosen of a repository's files.

BESIDE = ["config.json", "generation_config.json", "merges.txt", "tokenizer.json", "vocab.json"]
SAFE = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
SAFE_INDEX = "model.safetensors.index.json"
BIN = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
BIN_INDEX = "pytorch_model.bin.index.json"
FLAX = ["flax_model-00001-of-00002.msgpack", "flax_model-00002-of-00002.msgpack"]
FLAX_INDEX = "flax_model.msgpack.index.json"
NEVER = [
    "modeling_evil.py", "README.md", ".gitattributes", "original/consolidated.00.pth",
    "onnx/model.safetensors", "consolidated.safetensors", "training_args.bin", "optimizer.bin",
    "tf_model.h5", "rust_model.ot", "model.gguf", "original/params.json", "pytorch_model.py",
    "adapter_model.safetensors", "trainer_state.json", "consolidated.00.pth", ".model.safetensors",
]  # fmt: skip  # names, several on a line


@pytest.mark.parametrize(
    "weights, expected",
    [
        ([*SAFE, SAFE_INDEX, *BIN, BIN_INDEX, "flax_model.msgpack"], [SAFE_INDEX, *SAFE]),
        (["model.safetensors", "pytorch_model.bin"], ["model.safetensors"]),
        (["model.safetensors", *SAFE, SAFE_INDEX], ["model.safetensors"]),
        (["model.safetensors", "model.fp16.safetensors"], ["model.safetensors"]),
        (
            [*SAFE, SAFE_INDEX, "model.fp16-00001-of-00001.safetensors", "fp16.safetensors"],
            [SAFE_INDEX, *SAFE],
        ),
        (["weights.safetensors"], ["weights.safetensors"]),
        ([*BIN, BIN_INDEX, "flax_model.msgpack"], [BIN_INDEX, *BIN]),
        (["pytorch_model.bin", "flax_model.msgpack"], ["pytorch_model.bin"]),
        (["flax_model.msgpack"], ["flax_model.msgpack"]),
        ([*FLAX, FLAX_INDEX], [FLAX_INDEX, *FLAX]),
    ],
)
def test_one_format_of_the_weights(weights, expected):
    chosen = hub.choose([*NEVER, *BESIDE, *weights], "owner/model")
    assert sorted(chosen) == sorted([*BESIDE, *expected])


@pytest.mark.parametrize(
    "files, message",
    [
        (["README.md"], "owner/model: the repository has no config.json"),
        (["a.gguf", "b.gguf"], "no config.json. Download one of its .gguf files"),
        (["a.GGUF"], "no config.json. Download one of its .gguf files"),
        (["config.json", "tf_model.h5"], "no weights that are read .*it has config.json, tf_model"),
        (["config.json", "consolidated.safetensors"], "no weights that are read"),
    ],
)
def test_repositories_without_a_model(files, message):
    with pytest.raises(UserError, match=message):
        hub.choose(files, "owner/model")


def test_what_says_that_the_weights_are_not_all_is_fetched_too():
    files = ["config.json", "model.safetensors", "quantize_config.json", "adapter_config.json"]
    assert sorted(hub.choose(files, "owner/model")) == sorted(files)


def test_files_of_an_adapter():
    files = [*NEVER, "adapter_config.json", "tokenizer.json", "model.safetensors"]
    chosen = hub.choose(files, "owner/model", adapter=True)
    assert chosen == ["adapter_config.json", "adapter_model.safetensors"]
    with pytest.raises(UserError, match="no adapter_config.json"):
        hub.choose(["config.json"], "owner/model", adapter=True)


# With a network.


@pytest.fixture
def online(monkeypatch, golden):
    """A hub with one repository; returns what was asked of it. ``asked["error"]`` is raised."""
    asked = {}
    names = [path.name for path in (golden / "llama2").iterdir()]

    class Api:
        def model_info(self, name, revision=None):
            asked["info"] = (name, revision)
            if "error" in asked:
                raise asked["error"]
            siblings = [SimpleNamespace(rfilename=name) for name in [*NEVER, *names]]
            return SimpleNamespace(siblings=siblings)

    def download(name, *, revision=None, allow_patterns=None, local_files_only=False):
        if local_files_only:
            raise errors.LocalEntryNotFoundError("not cached")
        if "broken" in asked:
            raise asked["broken"]
        asked["download"] = (name, revision)
        asked["files"] = list(filter_repo_objects([*NEVER, *names], allow_patterns=allow_patterns))
        return str(golden / "llama2")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return asked


def test_download(online, golden):
    assert load_model("owner/model", revision="step1000").config.num_heads == 4
    assert online["info"] == online["download"] == ("owner/model", "step1000")
    index = json.loads((golden / "llama2" / SAFE_INDEX).read_text())["weight_map"]
    assert {"config.json", SAFE_INDEX, *index.values()} <= set(online["files"])
    assert not set(online["files"]) & set(NEVER)


def http_error(kind, code):
    return kind(f"{code} Client Error", response=SimpleNamespace(headers={}, request=None))


@pytest.mark.parametrize(
    "error, message",
    [
        (http_error(errors.RepositoryNotFoundError, 404), "no such repository.*private"),
        (http_error(errors.GatedRepoError, 403), "gated.*terms.*hf auth login"),
        (http_error(errors.RevisionNotFoundError, 404), "no revision 'v9'.*model.revision"),
        (http_error(errors.HfHubHTTPError, 503), "503 Client Error.*network"),
        (ConnectionError("Name or service not known"), "service not known.*network"),
        (OSError(), r"\(OSError: \).*local folder"),
    ],
)
@pytest.mark.parametrize("when", ["error", "broken"])
def test_one_remedy_an_error(online, error, message, when):
    online[when] = error
    with pytest.raises(UserError, match=f"^owner/model: .*{message}") as caught:
        hub.fetch("owner/model", "v9")
    assert "\n" not in str(caught.value)


def test_no_network_but_a_filled_cache(cache, tiny_model, tmp_path, monkeypatch):
    cached(cache, model_files(tiny_model, tmp_path), OLD, ["main"])

    def unreachable(self, *args, **kwargs):
        raise ConnectionError("Name or service not known")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", unreachable)
    assert hub.fetch("owner/model").name == OLD


def test_a_download_that_broke_off_is_not_taken(cache, tiny_model, tmp_path, monkeypatch):
    files = model_files(tiny_model, tmp_path)
    info = SimpleNamespace(siblings=[SimpleNamespace(rfilename=name) for name in files])
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *_, **__: info)
    del files["tokenizer.json"]
    cached(cache, files, OLD, ["main"])
    with pytest.raises(UserError, match="cannot be fetched"):
        hub.fetch("owner/model")


@pytest.mark.parametrize("name", ["model", "a/b/c", "../x", "a/b c", ""])
def test_what_is_no_hub_id(name):
    with pytest.raises(UserError, match="not a hub id"):
        hub.fetch(name)
