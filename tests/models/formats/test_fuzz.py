"""Damaged checkpoints of every format: read, or refused with a UserError; bounded time and memory.

Each case is a valid file with a truncation, flipped bytes, absurd numbers, or pieces cut, doubled
and moved, mostly where its structure lies. ``FUZZ_CASES=20000 python -m pytest -s <file>`` runs
more cases a format and prints how they ended.
"""

import collections
import os
import re
import signal
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import flax.serialization
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save

from calib_jax.errors import UserError
from calib_jax.models.formats.flax_msgpack import FlaxSource
from calib_jax.models.formats.gguf import GgufSource
from calib_jax.models.formats.safetensors import SafetensorsSource
from calib_jax.models.formats.torch_bin import TorchBinSource
from calib_jax.models.gguf_tokenizer import from_gguf
from tests.models.formats.gguf_files import add_vocabulary, write_gguf

CASES = int(os.environ.get("FUZZ_CASES", 600))
SECONDS = 2
# Far above what these files of a few KiB need, far below what their false sizes claim.
MEMORY = 16 << 20
TORCH = Path(__file__).parents[2] / "golden" / "torch" / "pytorch_model-00001-of-00002.bin"
ABSURD = (
    *(0, 1, 2, 127, 128, 255, 256, 65535, 1 << 20, 1 << 31, (1 << 31) - 1, (1 << 32) - 1, 1 << 40),
    *(1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1, (1 << 64) - 8),
)


def read_all(source):
    """Everything that a model folder's weights are asked for."""
    for name in sorted(source.names()):
        try:
            shape, dtype = source.shape(name), source.dtype(name)
        except UserError:
            continue  # a tensor of another type is refused when it is used
        assert source.where(name)
        value = source.read(name, (slice(None),) * len(shape))
        assert value.shape == shape and value.dtype == dtype
        source.read(name, tuple(slice(n // 3, n // 2 + 1) for n in shape))


def open_gguf(path):
    source = GgufSource(path)
    read_all(source)
    from_gguf(source)


def array(*shape, dtype=np.float32):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def safetensors_file(_):
    tensors = {
        "model.embed_tokens.weight": array(6, 8),
        "model.norm.weight": array(8, dtype=ml_dtypes.bfloat16),
        "a": array(2, 3, 4, dtype=np.float16),
        "b": np.arange(5),
        "c": array(),
    }
    data = save(tensors, metadata={"format": "pt"})
    length = int.from_bytes(data[:8], "little")
    return data, [(0, 8 + length)], length


def torch_file(_):
    data = TORCH.read_bytes()
    with zipfile.ZipFile(TORCH) as archive:
        infos = archive.infolist()
    program = next(info for info in infos if info.filename.endswith("data.pkl"))
    begin = program.header_offset + 30 + len(program.filename)
    directory = data.index(b"PK\x01\x02")
    # Twice each what matters more: the pickle and the zip's directory.
    pickle, listing = (begin, begin + 64 + program.file_size), (directory, len(data))
    heads = [(info.header_offset, info.header_offset + 64) for info in infos]
    return data, [pickle, pickle, pickle, listing, listing, *heads[:2]], 0


def flax_file(_):
    tree = {
        "model": {
            "embed_tokens": {"embedding": array(6, 8)},
            "layers": {"0": {"up_proj": {"kernel": array(2, 4)}, "norm": {"weight": array(2)}}},
            "big": {
                "__msgpack_chunked_array__": True,
                "shape": {"0": 2, "1": 3},
                "chunks": {"0": array(4), "1": array(2)},
            },
        },
        "lm_head": {"kernel": np.asarray(jnp.ones((2, 3), jnp.bfloat16))},
        "ints": np.arange(3),
        "one": np.float32(3),
    }
    data = flax.serialization.msgpack_serialize(tree)
    return data, [(0, len(data))], 0


def gguf_file(folder):
    raw = {
        "model_type": "llama",
        "vocab_size": 5,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "rms_norm_eps": 1e-5,
        "max_position_embeddings": 64,
    }
    layer = "model.layers.0."
    tensors = {
        "model.embed_tokens.weight": array(5, 32),
        f"{layer}self_attn.q_proj.weight": array(32, 32),
        f"{layer}self_attn.k_proj.weight": array(16, 32),
        f"{layer}mlp.up_proj.weight": array(32, 32),
        "model.norm.weight": array(32),
    }
    kinds = {f"{layer}self_attn.q_proj.weight": "Q8_0", f"{layer}mlp.up_proj.weight": "Q4_1"}
    vocabulary = {
        "model": "gpt2",
        "pre": "gpt-2",
        "tokens": ["a", "b", "ab", "c", "<s>"],
        "token_type": [1, 1, 1, 1, 3],
        "merges": ["a b"],
        "bos_token_id": 4,
    }
    path = write_gguf(
        folder / "v.gguf", raw, tensors, kinds, lambda writer: add_vocabulary(writer, vocabulary)
    )
    data = path.read_bytes()
    return data, [(0, 24), (0, data.index(array(5, 32).tobytes()[:8]))], 0


FORMATS = {
    "safetensors": (
        "model.safetensors",
        safetensors_file,
        lambda path: read_all(SafetensorsSource(path.parent)),
    ),
    "torch": (
        "pytorch_model.bin",
        torch_file,
        lambda path: read_all(TorchBinSource(path.parent)),
    ),
    "flax": ("flax_model.msgpack", flax_file, lambda path: read_all(FlaxSource(path.parent))),
    "gguf": ("model.gguf", gguf_file, open_gguf),
}


def damage(data, regions, sealed, rng):
    """The kind of damage and the damaged bytes.

    ``regions`` are where the structure lies; ``sealed`` is a header's length that stands in the
    first 8 bytes, 0 where there is none.
    """
    begin, end = regions[rng.integers(len(regions))]
    if rng.random() < 0.15:
        begin, end = 0, len(data)
    at = int(rng.integers(begin, min(end, len(data))))
    out = bytearray(data)
    kind = ("truncate", "flip", "bytes", "number", "digits", "cut", "double", "move")[
        rng.integers(8)
    ]
    length = int(rng.integers(1, 40))
    if kind == "truncate":
        del out[at:]
    elif kind == "flip":
        for _ in range(rng.integers(1, 9)):
            out[rng.integers(begin, min(end, len(data)))] ^= 1 << rng.integers(8)
    elif kind == "bytes":
        out[at : at + length % 8 + 1] = rng.bytes(length % 8 + 1)
    elif kind == "number":
        size = (1, 2, 4, 8)[rng.integers(4)]
        value = ABSURD[rng.integers(len(ABSURD))] % (1 << 8 * size)
        out[at : at + size] = value.to_bytes(size, ("little", "big")[rng.integers(2)])
    elif kind == "digits":  # numbers written out, as in JSON
        found = list(re.finditer(rb"\d+", data[begin:end]))
        if found:
            match = found[rng.integers(len(found))]
            value = (*ABSURD, -1, -(1 << 63), 10**30, 0.5, 1e300)[rng.integers(len(ABSURD) + 5)]
            out[begin + match.start() : begin + match.end()] = str(value).encode()
    elif kind == "cut":
        del out[at : at + length]
    elif kind == "double":
        out[at:at] = out[at : at + length] * int(rng.integers(1, 30))
    else:
        piece = out[at : at + length]
        del out[at : at + length]
        to = int(rng.integers(0, len(out) + 1))
        out[to:to] = piece
    if sealed and rng.random() < 0.5:  # the header's length follows the change
        grown = sealed + len(out) - len(data)
        out[:8] = struct.pack("<Q", max(0, grown))
    return kind, bytes(out)


class Hang(BaseException):
    """No Exception, so that no reader can catch it."""


def attempt(opener, path):
    """How one case ends: "read", "refused", or a description of what must not happen."""

    def ring(*_):
        raise Hang

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 2 * SECONDS)
    tracemalloc.reset_peak()
    held = tracemalloc.get_traced_memory()[0]
    started = time.perf_counter()
    try:
        opener(path)
        outcome = "read"
    except UserError as error:
        message = str(error)
        outcome = "refused"
        if not message or len(message) > 3000 or "\n" in message:
            outcome = f"no one clear line: {message[:200]!r}"
    except (Exception, Hang) as error:
        outcome = f"{type(error).__name__}: {error}"[:200]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    seconds = time.perf_counter() - started
    memory = tracemalloc.get_traced_memory()[1] - held
    if seconds > SECONDS:
        outcome = f"{seconds:.1f} seconds"
    if memory > MEMORY:
        outcome = f"{memory} bytes allocated"
    return outcome


@pytest.fixture
def traced():
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # damaged scales: not numbers
@pytest.mark.parametrize("format", FORMATS)
def test_damaged_files(format, tmp_path, traced):
    name, build, opener = FORMATS[format]
    data, regions, sealed = build(tmp_path)
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / name
    path.write_bytes(data)
    opener(path)  # the undamaged file, errors and all
    ends, failures = collections.Counter(), []
    for seed in range(CASES):
        kind, damaged = damage(data, regions, sealed, np.random.default_rng(seed))
        path.write_bytes(damaged)
        outcome = attempt(opener, path)
        ends[kind, outcome] += 1
        if outcome not in ("read", "refused"):
            failures.append(f"seed {seed} ({kind}): {outcome}")
    read, refused = (
        sum(count for (_, end), count in ends.items() if end == what)
        for what in ("read", "refused")
    )
    print(f"\n{format}: {CASES} cases, {read} read, {refused} refused, {len(failures)} otherwise")
    assert not failures, "\n".join(failures[:20])
    # The damage is neither harmless nor all caught at the first byte.
    assert refused > CASES / 5 and read > CASES / 50


@pytest.mark.parametrize("format", FORMATS)
def test_truncation_at_every_byte_of_the_structure(format, tmp_path, traced):
    name, build, opener = FORMATS[format]
    data, regions, _ = build(tmp_path)
    folder = tmp_path / "model"
    folder.mkdir()
    end = max(end for _, end in regions)
    step = max(1, end // 120)
    for length in (*range(0, end, step), *range(len(data) - 40, len(data))):
        (folder / name).write_bytes(data[:length])
        assert attempt(opener, folder / name) == "refused", f"{length} bytes of {len(data)}"


@pytest.mark.parametrize(
    "fault, outcome",
    [
        (lambda path: {}["x"], "KeyError"),
        (lambda path: np.zeros(1 << 26, np.uint8), "bytes allocated"),
        (lambda path: bytearray(1 << 26), "bytes allocated"),
        (lambda path: [1][2:3][0], "IndexError"),
        (lambda path: time.sleep(60), "seconds"),
    ],
)
def test_the_harness_sees_faults(fault, outcome, monkeypatch, traced):
    if outcome == "seconds":
        monkeypatch.setattr(f"{__name__}.SECONDS", 0.05)
    assert outcome in attempt(fault, None)
