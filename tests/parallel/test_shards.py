"""Parameters really lie in pieces, and a mesh that would split a head is refused."""

import jax
import numpy as np
import pytest

from calib_jax import UserError, load_model, make_mesh
from calib_jax.models.hf_config import parse_config
from calib_jax.models.lora import LoraConfig, init_lora
from calib_jax.parallel.shards import check_mesh, lora_sharding
from tests.conftest import write_tiny_model

SMOLLM2 = {
    "model_type": "llama",
    "vocab_size": 49152,
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}


def config(**changes):
    return parse_config({**SMOLLM2, **changes}, "config.json")


def shard_shapes(array):
    return {shard.data.shape for shard in array.addressable_shards}


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (2, 2, 2), (1, 4, 2)], ids=str)
def test_parameters_lie_in_pieces(tiny_model, shape):
    """Hidden axis over fsdp, the other one over tensor, layers and norms whole."""
    _, fsdp, tensor = shape
    params = load_model(tiny_model, mesh=make_mesh(shape)).params
    layers = params["layers"]
    assert shard_shapes(params["embed"]) == {(320 // tensor, 32 // fsdp)}
    assert shard_shapes(layers["q_proj"]) == {(2, 32 // fsdp, 32 // tensor)}
    assert shard_shapes(layers["k_proj"]) == {(2, 32 // fsdp, 16 // tensor)}
    assert shard_shapes(layers["o_proj"]) == {(2, 32 // tensor, 32 // fsdp)}
    assert shard_shapes(layers["gate_proj"]) == {(2, 32 // fsdp, 64 // tensor)}
    assert shard_shapes(layers["down_proj"]) == {(2, 64 // tensor, 32 // fsdp)}
    assert layers["attn_norm"].is_fully_replicated and params["final_norm"].is_fully_replicated
    held = sum(x.addressable_shards[0].data.size for x in jax.tree.leaves(params))
    whole = sum(x.size for x in jax.tree.leaves(params))
    assert held < whole / (fsdp * tensor) + 1000


def test_adapters_lie_with_what_they_adapt():
    mesh, lora = make_mesh((2, 2, 2)), LoraConfig(rank=4, alpha=8.0)
    small = config(num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    layouts = lora_sharding(mesh, small, lora)
    adapters = jax.eval_shape(lambda key: init_lora(key, small, lora), jax.random.key(0))
    assert jax.tree.structure(layouts) == jax.tree.structure(adapters)
    q = {key: layouts["q_proj"][key].shard_shape(adapters["q_proj"][key].shape) for key in "ab"}
    assert q == {"a": (2, 288, 4), "b": (2, 4, 288)}
    o = {key: layouts["o_proj"][key].shard_shape(adapters["o_proj"][key].shape) for key in "ab"}
    assert o == {"a": (2, 288, 4), "b": (2, 4, 288)}


def test_heads_that_do_not_divide_are_refused_with_the_remedy():
    with pytest.raises(UserError) as error:
        check_mesh(config(), make_mesh((2, 2, 2)))
    message = str(error.value)
    assert "9 attention heads" in message and "tensor axis of 2" in message
    assert '--config.mesh.shape="(1,-1,1)"' in message
    check_mesh(config(), make_mesh((1, -1, 1)))


def test_key_value_heads_that_do_not_divide_are_refused():
    with pytest.raises(UserError, match="2 key-value heads.*tensor axis of 1 or 2"):
        check_mesh(config(num_attention_heads=8, num_key_value_heads=2), make_mesh((2, 1, 4)))


def test_the_remedy_fits_the_devices():
    """3 would divide the heads, but not the 8 devices."""
    with pytest.raises(UserError, match=r'tensor axis of 1 and .*"\(1,-1,1\)"'):
        check_mesh(config(), make_mesh((2, 1, 4)))


@pytest.mark.parametrize(
    ("changes", "shape", "words"),
    [
        ({"vocab_size": 49153}, (4, 1, 2), "embed has an axis of 49153.*tensor axis, 2"),
        ({"hidden_size": 580, "head_dim": 64}, (1, 8, 1), "axis of 580.*fsdp axis, 8"),
        ({"intermediate_size": 1537}, (4, 1, 2), "gate_proj has an axis of 1537.*tensor axis, 2"),
    ],
)
def test_axes_that_leave_a_remainder_are_refused(changes, shape, words):
    heads = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 72}
    with pytest.raises(UserError, match=words):
        check_mesh(config(**{**heads, **changes}), make_mesh(shape))
    check_mesh(config(**heads), make_mesh(shape))


def test_load_model_refuses_before_it_reads_a_weight(tiny_model, monkeypatch):
    from calib_jax.models import model as models

    monkeypatch.setattr(models, "load", lambda *args, **kwargs: pytest.fail("weights were read"))
    with pytest.raises(UserError, match="2 key-value heads"):
        load_model(tiny_model, mesh=make_mesh((1, 2, 4)))


def test_a_single_key_head_lies_whole_on_every_device(tmp_path):
    folder = write_tiny_model(tmp_path / "model", num_key_value_heads=1)
    tokens = np.random.default_rng(0).integers(0, 282, (4, 16), dtype=np.int32)
    spread = load_model(folder, mesh=make_mesh((2, 2, 2)))
    assert shard_shapes(spread.params["layers"]["k_proj"]) == {(2, 16, 8)}
    assert shard_shapes(spread.params["layers"]["q_proj"]) == {(2, 16, 16)}
    logits = load_model(folder).logits(tokens)
    np.testing.assert_allclose(spread.logits(tokens), logits, rtol=0, atol=1e-5)


def test_logits_do_not_depend_on_the_mesh(tiny_model):
    tokens = np.random.default_rng(0).integers(0, 282, (4, 16), dtype=np.int32)
    alone = load_model(tiny_model).logits(tokens)
    spread = load_model(tiny_model, mesh=make_mesh((1, 4, 2))).logits(tokens)
    np.testing.assert_allclose(alone, spread, rtol=0, atol=1e-5)
