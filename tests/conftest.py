"""Eight fake devices for every test, and a tiny model that any test can train."""

import os
import tempfile

from tests.devices import xla_flags

if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # One cache for all processes of a test session: workers and commands inherit the name.
    CACHE = tempfile.TemporaryDirectory()
    os.environ["JAX_COMPILATION_CACHE_DIR"] = CACHE.name
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["XLA_FLAGS"] = f"{xla_flags(8)} {os.environ.get('XLA_FLAGS', '')}"

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import settings
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from calib_jax.models.hf_config import parse_config
from calib_jax.models.table import parameter_table
from calib_jax.questions.record import LETTERS, Question

collect_ignore_glob = ["golden/generate.py", "golden/*/generate.py"]  # they need torch

# The same examples in every run; --hypothesis-profile=explore draws new ones.
settings.register_profile("fixed", derandomize=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile("fixed")

TINY = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
}


@pytest.fixture(scope="module", autouse=True)
def free_compiled_programs():
    """Every compiled program holds memory maps, of which a process may have some 65,000."""
    yield
    jax.clear_caches()


def tiny_tokenizer() -> Tokenizer:
    """Byte-level BPE: 256 bytes, and a token for every letter after a space."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate(alphabet)}
    merges = [("Ġ", letter) for letter in LETTERS]
    vocab |= {"".join(pair): len(vocab) + i for i, pair in enumerate(merges)}
    tokenizer = Tokenizer(models.BPE(vocab, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def write_tiny_model(folder: Path, seed: int = 0, **changes) -> Path:
    """A Hugging Face folder with random float32 weights; ``changes`` go into config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    raw = {**TINY, **changes}
    (folder / "config.json").write_text(json.dumps(raw))
    config = parse_config(raw, "config.json")
    rng = np.random.default_rng(seed)
    tensors = {}
    for row in parameter_table(config):
        for i in range(config.num_layers if row.stacked else 1):
            norm = row.kind == "norm"
            value = np.ones(row.hf_shape) if norm else rng.normal(0, 0.15, row.hf_shape)
            tensors[row.hf_name.format(i=i)] = value.astype(np.float32)
    save_file(tensors, folder / "model.safetensors")
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"})
    )
    return folder


def make_questions(count: int, seed: int = 0, options: tuple[int, int] = (2, 5)) -> list[Question]:
    """Invented questions of different lengths and numbers of options."""
    rng = np.random.default_rng(seed)
    questions = []
    for i in range(count):
        K = int(rng.integers(options[0], options[1] + 1))
        text = f"Which number is item {i}" + "?" * int(rng.integers(1, 20))
        choices = [f"{i}-{k}-{rng.integers(100)}" for k in range(K)]
        questions.append(Question(f"q{i}", text, choices, int(rng.integers(K)), task="invented"))
    return questions


def write_questions(path: Path, questions: list[Question]) -> Path:
    rows = [
        {"id": q.id, "question": q.question, "choices": list(q.choices), "answer": q.answer}
        for q in questions
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory) -> Path:
    """A folder that ``load_model`` reads; do not write into it."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def bos_model(tmp_path_factory) -> Path:
    """Likewise, with a BOS token, which is what stands before a text without context."""
    folder = write_tiny_model(tmp_path_factory.mktemp("bos"))
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens(["<s>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    return Path(__file__).parent / "golden"
