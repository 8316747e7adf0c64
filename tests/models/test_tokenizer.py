"""Tokenizers of folders: SentencePiece files, no code, nothing outside."""

import importlib.util
import json

import pytest

from calib_jax.errors import UserError
from calib_jax.models.tokenizer import from_folder
from tests.conftest import tiny_tokenizer


@pytest.fixture
def folder(tmp_path):
    """A folder with a tokenizer that loads."""
    folder = tmp_path / "model"
    folder.mkdir()
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    settings(folder, tokenizer_class="PreTrainedTokenizerFast")
    return folder


def settings(folder, **values):
    (folder / "tokenizer_config.json").write_text(json.dumps(values))


def refusal(folder):
    with pytest.raises(UserError) as error:
        from_folder(folder)
    assert str(folder) in str(error.value)
    return str(error.value)


def test_loads(folder):
    assert from_folder(folder)("A B").input_ids == tiny_tokenizer().encode("A B").ids


def test_no_tokenizer(tmp_path):
    assert from_folder(tmp_path) is None


def test_damaged(folder):
    (folder / "tokenizer.json").write_text("{")
    assert "cannot be read" in refusal(folder)
    (folder / "tokenizer_config.json").write_text("[1]")
    assert "tokenizer_config.json: expected a JSON object" in refusal(folder)


@pytest.mark.parametrize("tokenizer", [True, False], ids=["with", "without"])
@pytest.mark.parametrize("where", ["tokenizer_config.json", "config.json", "both"])
def test_no_code_is_run(tokenizer, where, folder, tmp_path, monkeypatch):
    """Not on request either: the terminal is not asked."""
    marker = tmp_path / "marker"
    (folder / "evil.py").write_text(f"open({str(marker)!r}, 'w').write('x')\nclass Evil: pass\n")
    named = {"AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoConfig": "evil.Evil"}
    if where != "config.json":
        settings(folder, tokenizer_class="EvilTokenizer", auto_map=named)
    if where != "tokenizer_config.json":
        (folder / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": named}))
    if not tokenizer:
        (folder / "tokenizer.json").unlink()
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked"))
    try:
        from_folder(folder)
    except UserError as error:
        assert str(folder) in str(error)
    assert not marker.exists()


def test_code_is_refused_by_name(folder):
    (folder / "tokenizer.json").unlink()
    settings(folder, tokenizer_class="Evil", auto_map={"AutoTokenizer": ["evil.Evil", None]})
    message = refusal(folder)
    assert "never run" in message and "'auto_map'" in message


@pytest.mark.parametrize("name", ["tokenizer.json", "special_tokens_map.json", "merges.txt"])
def test_links_out_of_the_folder(name, folder, tmp_path):
    outside = tmp_path / "outside.json"
    outside.write_text((folder / "tokenizer.json").read_text())
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    assert "links out of its folder" in refusal(folder)


def test_templates_out_of_the_folder(folder, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "additional_chat_templates").symlink_to(tmp_path / "elsewhere")
    assert "links out of its folder" in refusal(folder)


def test_the_hubs_cache_may_link_to_its_blobs(folder, tmp_path):
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).rename(blobs / name)
        (snapshot / name).symlink_to(blobs / name)
    assert from_folder(snapshot)("A").input_ids == tiny_tokenizer().encode("A").ids


@pytest.mark.parametrize("key", ["tokenizer_file", "vocab_file", "gguf_file"])
def test_settings_that_name_files_elsewhere(key, folder, tmp_path):
    outside = tmp_path / "outside.json"
    (folder / "tokenizer.json").rename(outside)
    settings(folder, tokenizer_class="PreTrainedTokenizerFast", **{key: str(outside)})
    assert "does not stay in the folder" in refusal(folder)
    settings(folder, tokenizer_class="PreTrainedTokenizerFast", fast_tokenizer_files=["../a.json"])
    (tmp_path / "a.json").write_text("{}")
    assert "does not stay in the folder" in refusal(folder)


def test_settings_that_name_files_of_another_time(folder):
    settings(
        folder, tokenizer_class="PreTrainedTokenizerFast", tokenizer_file="/gone/tokenizer.json"
    )
    assert from_folder(folder)("A").input_ids == tiny_tokenizer().encode("A").ids


@pytest.fixture
def sentencepiece_folder(golden, tmp_path):
    """As Llama-2 and Vicuna come: no tokenizer.json."""
    content = (golden / "gguf" / "tokenizer.model").read_bytes()
    (tmp_path / "tokenizer.model").write_bytes(content)
    settings(tmp_path, tokenizer_class="LlamaTokenizer", add_bos_token=True)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return tmp_path


def test_sentencepiece(sentencepiece_folder, golden):
    """The ids of the GGUF file with the same pieces, and so those of transformers."""
    known = json.loads((golden / "gguf" / "tokenizers.json").read_text())
    tokenizer = from_folder(sentencepiece_folder)
    assert [tokenizer(text).input_ids for text in known["texts"]] == known["ids"]["llama"]


def test_sentencepiece_package_is_missing(sentencepiece_folder, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "sentencepiece" else find(name)
    )
    message = refusal(sentencepiece_folder)
    assert "tokenizer.model" in message and "pip install sentencepiece" in message
