"""Streaming into sharded arrays: the same values on every mesh, and each slice read alone."""

import dataclasses
import math
import threading
import time
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from calib_jax import load_model, make_mesh
from calib_jax.errors import UserError
from calib_jax.models import weights
from calib_jax.models.formats.safetensors import SafetensorsSource
from calib_jax.models.hf_config import parse_config, read_config
from calib_jax.models.table import parameter_table, stacked_shape
from calib_jax.models.weights import check_tensors, load_params
from calib_jax.parallel.shards import row_sharding
from tests.conftest import write_tiny_model


def test_layout_of_the_tree(tiny_model):
    params, stored = load_model(tiny_model).params, load_file(tiny_model / "model.safetensors")
    np.testing.assert_array_equal(params["embed"], stored["model.embed_tokens.weight"])
    for i in range(2):  # layers on axis 0, projections [in, out]
        down = stored[f"model.layers.{i}.mlp.down_proj.weight"]
        np.testing.assert_array_equal(params["layers"]["down_proj"][i], down.T)


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 4, 1), (2, 2, 2)], ids=str)
def test_sharded_load_equals_the_unsharded_one(load_golden, shape):
    alone, spread = load_golden("olmo2").params, load_golden("olmo2", shape).params
    assert jax.tree.structure(alone) == jax.tree.structure(spread)
    for a, b in zip(jax.tree.leaves(alone), jax.tree.leaves(spread), strict=True):
        assert len(a.sharding.device_set) == 1 and len(b.sharding.device_set) == 8
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_bfloat16_load_rounds_the_stored_values(load_golden):
    wide, narrow = load_golden("llama2").params, load_golden("llama2", None, "bfloat16").params
    for a, b in zip(jax.tree.leaves(wide), jax.tree.leaves(narrow), strict=True):
        np.testing.assert_array_equal(np.asarray(a.astype(jnp.bfloat16)), np.asarray(b))


def test_param_dtype_differs_from_the_computation(tiny_model):
    model = load_model(tiny_model, "bfloat16", param_dtype="float32")
    assert model.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(model.params)} == {jnp.dtype("float32")}


class Spy:
    """A source that notes what each read asks for."""

    def __init__(self, source):
        self.source, self.files, self.reads = source, source.files, []
        self.names, self.where, self.shape = source.names, source.where, source.shape
        self.dtype = source.dtype

    def read(self, name, index):
        shape = self.source.shape(name)
        asked = [len(range(n)[piece]) for n, piece in zip(shape, index, strict=True)]
        value = self.source.read(name, index)
        assert list(value.shape) == asked
        self.reads.append((name, math.prod(asked)))
        return value


@pytest.fixture
def opened(golden):
    """``opened("llama2")`` -> (source, config)."""

    def open_golden(family):
        folder = golden / family
        return Spy(SafetensorsSource(folder)), parse_config(read_config(folder), "config.json")

    return open_golden


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (2, 2, 2)], ids=str)
def test_a_process_reads_what_its_devices_hold_and_that_once(opened, shape):
    source, config = opened("llama2")
    layout = row_sharding(make_mesh(shape))
    params = load_params(source, config, jnp.float32, layout)
    assert len(jax.tree.leaves(params)) == len(parameter_table(config))
    count, sizes = {}, {}
    for name, size in source.reads:
        count[name] = count.get(name, 0) + 1
        sizes.setdefault(name, set()).add(size)
    for row in parameter_table(config):
        whole = stacked_shape(config, row)
        part = math.prod(layout(row).shard_shape(whole))
        ways = shape[1] * shape[2] if row.kind != "norm" else 1
        assert part * ways == math.prod(whole)
        layers = config.num_layers if row.stacked else 1
        for i in range(layers):
            name = row.hf_name.format(i=i)
            assert (sizes[name], count[name]) == ({part // layers}, ways)


@pytest.mark.parametrize("mesh", [None, (2, 2, 2)], ids=str)
@pytest.mark.parametrize("limit", [1, 7000], ids=["a layer at a time", "several layers"])
def test_filled_in_parts_equals_the_whole(tmp_path, monkeypatch, mesh, limit):
    folder = write_tiny_model(tmp_path, num_hidden_layers=3)
    source = SafetensorsSource(folder)
    config = parse_config(read_config(folder), "config.json")
    layout = mesh and row_sharding(make_mesh(mesh))
    whole = load_params(source, config, jnp.bfloat16, layout)
    monkeypatch.setattr(weights, "CHUNK_BYTES", limit)
    # Bands of one strip, and room for one chunk between disk and devices.
    monkeypatch.setattr(weights, "_BAND_BYTES", 1)
    monkeypatch.setattr(weights, "_AHEAD_BYTES", 1)
    told = []
    parts = load_params(source, config, jnp.bfloat16, layout, on_bytes=lambda *n: told.append(n))
    assert len(told) > len(parameter_table(config))
    assert {total for _, total in told} == {sum(count for count, _ in told)}
    for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(parts), strict=True):
        assert a.sharding.is_equivalent_to(b.sharding, a.ndim) and a.dtype == b.dtype
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_bytes_told_are_the_bytes_of_the_files(golden):
    folder, told = golden / "olmo2", []
    config = parse_config(read_config(folder), "config.json")
    load_params(SafetensorsSource(folder), config, "bfloat16", on_bytes=lambda *n: told.append(n))
    stored = [load_file(path).values() for path in folder.glob("*.safetensors")]
    assert sum(count for count, _ in told) == sum(x.nbytes for file in stored for x in file)


@pytest.mark.parametrize("limit", [0, 1 << 20])
def test_what_waits_for_the_devices_is_bounded(monkeypatch, limit):
    """No more than the limit lies between disk and devices, and the threads do read ahead."""

    class Chunk:
        host_bytes = 300_000
        held = most = 0
        lock = threading.Lock()

        def read(self, source):
            with Chunk.lock:
                Chunk.held += self.host_bytes
                Chunk.most = max(Chunk.most, Chunk.held)
            return {}

    monkeypatch.setattr(weights, "_AHEAD_BYTES", limit)
    chunks, came = [Chunk() for _ in range(20)], []
    for chunk, _ in weights._read_ahead(None, chunks):
        came.append(chunk)
        time.sleep(0.002)
        with Chunk.lock:
            Chunk.held -= chunk.host_bytes
    assert came == chunks
    assert Chunk.most == max(1, limit // Chunk.host_bytes) * Chunk.host_bytes


def test_host_arrays_alive_while_loading(tmp_path, monkeypatch):
    """Beyond the arrays on the devices, one chunk and one band at a time, whatever the layers."""
    monkeypatch.setattr(weights, "CHUNK_BYTES", 1)
    monkeypatch.setattr(weights, "_AHEAD_BYTES", 1)
    folder = write_tiny_model(tmp_path, num_hidden_layers=24, hidden_size=128)
    config = parse_config(read_config(folder), "config.json")
    source = SafetensorsSource(folder)
    load_params(source, config, jnp.float32)  # compiled
    # numpy tells tracemalloc of its buffers; XLA's are not counted.
    tracemalloc.start()
    params = load_params(source, config, jnp.float32)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    sizes = [x.nbytes for x in jax.tree.leaves(params)]
    assert max(sizes) > 500_000 and sum(sizes) > 5_000_000
    # The embedding becomes the device's array as it is; what is read into it is a copy of it.
    embedding = params["embed"].nbytes
    # Python's own objects take some 200 kB; a whole stack beside them would be seen.
    assert peak < 2 * embedding + max(sizes)


def test_stored_dtypes_are_kept(tmp_path):
    folder = write_tiny_model(tmp_path)
    tensors = load_file(folder / "model.safetensors")
    kept = {"q_proj": "bfloat16", "k_proj": "float16", "input_layernorm": "float64"}
    for name, value in tensors.items():
        for part, dtype in kept.items():
            if part in name:
                tensors[name] = value.astype(dtype)
    odd = "model.layers.1.self_attn.v_proj.weight"  # one of two layers
    tensors[odd] = tensors[odd].astype("bfloat16")
    save_file(tensors, folder / "model.safetensors")
    config = parse_config(read_config(folder), "config.json")
    layers = load_params(SafetensorsSource(folder), config, "stored")["layers"]
    assert layers["q_proj"].dtype == jnp.bfloat16 and layers["k_proj"].dtype == jnp.float16
    for name in ("v_proj", "attn_norm", "o_proj"):
        assert layers[name].dtype == jnp.float32
    np.testing.assert_array_equal(
        np.asarray(layers["q_proj"][0]).T, tensors["model.layers.0.self_attn.q_proj.weight"]
    )
    np.testing.assert_array_equal(np.asarray(layers["v_proj"][1]).T, tensors[odd].astype("float32"))


@pytest.mark.parametrize("mesh", [None, (2, 2, 2)], ids=str)
def test_a_stored_head_that_is_not_the_embedding_is_refused(tmp_path, mesh):
    """Versions of transformers differ in which of the two they take."""
    folder = write_tiny_model(tmp_path / "model")  # tied
    tensors = load_file(folder / "model.safetensors")
    plain = np.asarray(load_model(folder).params["embed"])
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()
    save_file(tensors, folder / "model.safetensors")
    mesh = mesh and make_mesh(mesh)
    np.testing.assert_array_equal(load_model(folder, mesh=mesh).params["embed"], plain)
    tensors["lm_head.weight"][7, 9] += 1e-3
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UserError, match="lm_head.weight.*tie_word_embeddings to false"):
        load_model(folder, mesh=mesh)


def test_buffers_of_old_checkpoints_are_passed_over(tmp_path):
    """Cos, sin and mask tables that PyTorch once saved; a parameter by a like name is not one."""
    folder = write_tiny_model(tmp_path)
    file = folder / "model.safetensors"
    config = parse_config(read_config(folder), "config.json")
    tensors = load_file(file)

    def check(name, family=config):
        save_file({**tensors, name: np.zeros(4, np.float32)}, file)
        check_tensors(SafetensorsSource(folder), family)

    check("model.layers.0.self_attn.rotary_emb.inv_freq")
    neox = dataclasses.replace(config, family="gpt_neox", fused_qkv=True, gated=False)
    for name in ("attention.bias", "attention.masked_bias"):
        with pytest.raises(UserError, match=f"'model.layers.0.{name}' is not part of a 'llama'"):
            check(f"model.layers.0.{name}")
    tensors = {name: np.zeros(row.hf_shape, np.float32) for row, name in _tensors(neox)}
    for name in ("bias", "masked_bias", "rotary_emb.inv_freq"):
        check(f"gpt_neox.layers.0.attention.{name}", neox)
    with pytest.raises(UserError, match="attention.dense.scale' is not part of a 'gpt_neox'"):
        check("gpt_neox.layers.0.attention.dense.scale", neox)


def _tensors(config):
    for row in parameter_table(config):
        for i in range(config.num_layers if row.stacked else 1):
            yield row, row.hf_name.format(i=i)
