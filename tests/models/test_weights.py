"""Streaming into sharded arrays: the same values on every mesh, and each slice read alone."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from calib_jax import load_model, make_mesh
from calib_jax.models.formats.safetensors import SafetensorsSource
from calib_jax.models.hf_config import parse_config, read_config
from calib_jax.models.table import parameter_table, stacked_shape
from calib_jax.models.weights import load_params
from calib_jax.parallel.sharding import row_sharding


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
    """A source that notes how many values each read asks for."""

    def __init__(self, source):
        self.source, self.files, self.reads = source, source.files, []
        self.names, self.where, self.shape = source.names, source.where, source.shape

    def read(self, name, index):
        shape = self.source.shape(name)
        asked = [len(range(n)[piece]) for n, piece in zip(shape, index, strict=True)]
        value = self.source.read(name, index)
        assert list(value.shape) == asked
        self.reads.append((name, math.prod(asked)))
        return value


@pytest.mark.parametrize("shape", [(1, 8, 1), (2, 2, 2)], ids=str)
def test_each_device_reads_only_its_slice(golden, shape):
    source = Spy(SafetensorsSource(golden / "llama2"))
    config = parse_config(read_config(golden / "llama2"), "config.json")
    layout = row_sharding(make_mesh(shape))
    params = load_params(source, config, jnp.float32, layout)
    assert len(jax.tree.leaves(params)) == len(parameter_table(config))
    sizes = {}
    for name, size in source.reads:
        sizes.setdefault(name, set()).add(size)
    for row in parameter_table(config):
        whole = stacked_shape(config, row)
        part = math.prod(layout(row).shard_shape(whole))
        if row.kind != "norm":
            assert part * shape[1] * shape[2] == math.prod(whole)
        layers = config.num_layers if row.stacked else 1
        for i in range(layers):
            assert sizes[row.hf_name.format(i=i)] == {part // layers}
