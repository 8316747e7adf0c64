"""Tokenizers rebuilt from GGUF files against transformers' and sentencepiece's own ids."""

import json
import unicodedata

import pytest

from calib_jax.errors import UserError
from calib_jax.models.formats.gguf import GgufSource
from calib_jax.models.gguf_tokenizer import from_gguf
from tests.models.formats.gguf_files import write_vocabulary


@pytest.fixture(scope="module")
def vocabularies(golden):
    return json.loads((golden / "gguf" / "tokenizers.json").read_text())


@pytest.fixture
def build(vocabularies, tmp_path):
    """``build("bpe", pre="qwen2")`` -> our tokenizer of a file with that vocabulary."""

    def build(name, architecture="llama", **changes):
        fields = {**vocabularies["vocabularies"][name], **changes}
        return from_gguf(GgufSource(write_vocabulary(tmp_path / "t.gguf", fields, architecture)))

    return build


def ids(tokenizer, texts):
    return [tokenizer(text).input_ids for text in texts]


@pytest.mark.parametrize(
    ("pre", "bos"),
    [("gpt-2", True), ("llama-bpe", True), ("tekken", True), ("deepseek-r1-qwen", True)]
    + [("qwen2", False), ("smollm", False)],
)
def test_byte_level(pre, bos, vocabularies, build):
    tokenizer = build("bpe", pre=pre, add_bos_token=bos)
    texts, expected = vocabularies["texts"], vocabularies["ids"][pre]
    if pre == "qwen2":
        # transformers forgets to compose text when it opens a GGUF file; a folder's does it.
        expected = vocabularies["ids"]["qwen2-folder"]
    assert ids(tokenizer, texts) == expected
    for text, row in zip(texts, expected, strict=True):
        text = unicodedata.normalize("NFC", text) if pre == "qwen2" else text
        assert tokenizer.decode(row[1:] if bos else row) == text


def test_splittings_differ(vocabularies):
    """The vocabulary tells every splitting from every other."""
    found = vocabularies["ids"]
    plain = {name: [row[1:] for row in found[name]] for name in ("gpt-2", "llama-bpe", "tekken")}
    plain |= {name: found[name] for name in ("qwen2", "smollm")}
    assert len({json.dumps(rows) for rows in plain.values()}) == len(plain)


@pytest.mark.parametrize("alias", ["llama3", "llama-v3", "starcoder", "refact"])
def test_aliases(alias, vocabularies, build):
    same = "llama-bpe" if "llama" in alias else "smollm"
    tokenizer = build("bpe", pre=alias, add_bos_token=same == "llama-bpe")
    assert ids(tokenizer, vocabularies["texts"]) == vocabularies["ids"][same]


def test_whole_words(build, vocabularies):
    """Llama-3's tokenizer takes a piece that is a token whole, even where no merge leads to it."""
    fields = vocabularies["vocabularies"]["bpe"]
    changes = {key: [*fields[key], new] for key, new in (("tokens", "zebra"), ("token_type", 1))}
    for pre, whole in (("llama-bpe", True), ("tekken", True), ("gpt-2", False)):
        tokenizer = build("bpe", pre=pre, add_bos_token=False, **changes)
        assert (tokenizer("zebra").input_ids == [len(fields["tokens"])]) is whole


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_sentencepiece(kind, vocabularies, build):
    tokenizer = build(kind, architecture=kind)
    texts, original = vocabularies["texts"], vocabularies["ids"][f"{kind}-sentencepiece"]
    found = ids(tokenizer, texts)
    assert found == vocabularies["ids"][kind]  # transformers'
    different = {text for text, a, b in zip(texts, found, original, strict=True) if a != b}
    # transformers finds special tokens inside text, sentencepiece does not; and transformers'
    # Llama adds no space to text that begins with one, sentencepiece does.
    expected = {"<s>hi</s> <unk>"}
    if kind == "llama":
        expected |= {text for text in texts if text.startswith(" ")}
    assert different <= expected
    for text, row in zip(texts, found, strict=True):
        if text not in different:
            assert tokenizer.decode(row[1:]) == text.replace("▁", " ")


def test_prefix_space_is_the_files(vocabularies, build):
    without = build("llama", add_space_prefix=False)
    assert without("A").input_ids[1:] != build("llama")("A").input_ids[1:]
    assert without.convert_ids_to_tokens(without("A").input_ids) == ["<s>", "A"]
    assert without.decode(without(" A").input_ids[1:]) == " A"


def test_beginning_and_end(build, vocabularies):
    def ends(**changes):
        tokenizer = build("bpe", pre="llama-bpe", **changes)
        row = tokenizer("A").input_ids
        return row[0] == tokenizer.bos_token_id, row[-1] == tokenizer.eos_token_id

    assert ends() == (True, False)  # Llama-3 files that do not say so add BOS
    assert ends(add_bos_token=False) == (False, False)
    assert ends(add_bos_token=True, add_eos_token=True) == (True, True)
    assert ends(add_bos_token=False, add_eos_token=True) == (False, True)
    assert build("bpe", pre="gpt-2")("A").input_ids != build("bpe", pre="tekken")("A").input_ids
    assert build("llama", add_bos_token=None)("A").input_ids[0] == 1


def test_special_tokens_and_template(vocabularies, tmp_path):
    fields = {**vocabularies["vocabularies"]["bpe"], "pre": "gpt-2", "padding_token_id": 2**32 - 1}
    source = GgufSource(write_vocabulary(tmp_path / "t.gguf", fields))
    source.fields["tokenizer.chat_template"] = "{{ bos_token }}"
    tokenizer = from_gguf(source)
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<s>", "</s>")
    assert tokenizer.pad_token is None and tokenizer.unk_token is None
    assert tokenizer.chat_template == "{{ bos_token }}"
    assert tokenizer.decode(tokenizer("<|im_end|>A").input_ids, skip_special_tokens=True) == "A"


def test_user_defined_tokens_are_found_whole(vocabularies, build):
    fields = vocabularies["vocabularies"]["bpe"]
    types = [*fields["token_type"][:-4], 4, 4, 3, 3]
    tokenizer = build("bpe", pre="gpt-2", token_type=types)
    row = tokenizer("<|im_start|>A").input_ids
    assert row[0] == len(types) - 4
    assert tokenizer.decode(row, skip_special_tokens=True) == "<|im_start|>A"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model": "t5"}, "tokenizer model 't5'"),
        ({"pre": "falcon"}, "pre-tokenizer 'falcon'"),
        ({"pre": None}, "pre-tokenizer None"),
        ({"merges": None}, "'tokenizer.ggml.merges' is missing"),
        ({"merges": ["Ġ_Q"]}, "damaged"),
        ({"merges": ["Ġ ŁQ"]}, "damaged"),
        ({"token_type": [1, 1]}, "2 types for"),
        ({"bos_token_id": 100_000}, "'tokenizer.ggml.bos_token_id' is 100000"),
        ({"bos_token_id": None, "add_bos_token": True}, "BOS"),
        ({"eos_token_id": None, "add_eos_token": True}, "EOS"),
        ({"add_bos_token": 1}, "'tokenizer.ggml.add_bos_token' is 1"),
        ({"add_sep_token": True}, "'tokenizer.ggml.add_sep_token' = True"),
        ({"remove_extra_whitespaces": True}, "remove_extra_whitespaces' = True"),
        ({"normalizer.lowercase": True}, "'tokenizer.ggml.normalizer.lowercase' = True"),
    ],
    ids=str,
)
def test_refusals(changes, words, build):
    with pytest.raises(UserError) as error:
        build("bpe", **{"pre": "gpt-2", **changes})
    assert words in str(error.value) and "t.gguf" in str(error.value)


def test_tokens_twice_and_too_many(vocabularies, build, tmp_path):
    fields = vocabularies["vocabularies"]["bpe"]
    with pytest.raises(UserError, match="'A' occurs twice"):
        build("bpe", pre="gpt-2", tokens=["A", *fields["tokens"][1:]])
    source = GgufSource(write_vocabulary(tmp_path / "t.gguf", {**fields, "pre": "gpt-2"}))
    source.fields["tokenizer.ggml.tokens"].append("one more")
    source.fields["tokenizer.ggml.token_type"].append(1)
    with pytest.raises(UserError, match="rows of the embedding"):
        from_gguf(source)


def test_damaged_pieces(vocabularies, build):
    fields = vocabularies["vocabularies"]["llama"]
    with pytest.raises(UserError, match="scores for"):
        build("llama", scores=fields["scores"][1:])
    with pytest.raises(UserError, match="'tokenizer.ggml.scores' is missing"):
        build("llama", scores=None)
    with pytest.raises(UserError, match="a token of 5000 characters"):
        build("llama", tokens=[*fields["tokens"][:-1], "x" * 5000])
    bytes_missing = [t if t != "<0x41>" else "<0xXX>" for t in fields["tokens"]]
    with pytest.raises(UserError, match="neither a token for every byte"):
        build("llama", tokens=bytes_missing, unknown_token_id=None)


def test_no_vocabulary(vocabularies, build):
    assert build("bpe", model="no_vocab") is None
    assert build("bpe", model=None) is None
