"""Adapters in PEFT's format: others' are computed as PEFT computes them, ours are read by PEFT."""

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from calib_jax import load_model
from calib_jax.errors import UserError
from calib_jax.models import peft
from calib_jax.models.lora import LoraConfig, lora_shapes
from tests.models.test_parity import GOLDEN, ONE_EACH

ADAPTERS = Path(__file__).parents[1] / "golden" / "adapters"
NAMES = ("llama32", "gpt_neox", "qwen3")


def random_adapters(config, lora, seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: {
            key: jnp.asarray(rng.normal(0, 0.2, shape), jnp.float32)
            for key, (shape, _) in ab.items()
        }
        for name, ab in lora_shapes(config, lora).items()
    }


@pytest.fixture
def copy(tmp_path):
    """A copy of the adapter on llama32, for tests that damage it."""
    shutil.copytree(ADAPTERS / "llama32", tmp_path / "adapter")
    return tmp_path / "adapter"


def change(folder, **settings):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def change_tensors(folder, edit):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)


@pytest.fixture(scope="module")
def config(golden):
    return load_model(golden / "llama32").config


@pytest.mark.parametrize("name", NAMES)
def test_adapters_written_by_peft_give_its_logits(name, golden, golden_tokens, golden_logits):
    model = load_model(golden / name, adapter=ADAPTERS / name)
    expected = np.load(ADAPTERS / name / "logits.npy")
    logits = np.asarray(model.logits(golden_tokens % model.config.vocab_size))
    np.testing.assert_allclose(logits[:, 7::8], expected, rtol=0, atol=1e-4)
    assert np.abs(logits - golden_logits(name)).max() > 0.1
    assert model.fingerprint != load_model(golden / name).fingerprint


def test_settings_are_those_of_the_file(config, golden):
    lora = peft.read_adapter(ADAPTERS / "llama32", config).lora
    assert lora == LoraConfig(4, 6.0, 0.1, ("q_proj", "down_proj"), rank_stabilised=True)
    assert lora.scale == 3.0
    neox = peft.read_adapter(ADAPTERS / "gpt_neox", load_model(golden / "gpt_neox").config)
    assert set(neox.tree) == {"qkv_proj", "o_proj", "up_proj", "down_proj"}
    assert neox.lora.scale == 2.0


@pytest.mark.parametrize("name", GOLDEN)
def test_writing_and_reading_changes_no_bit(name, golden, tmp_path):
    base = load_model(golden / name).config
    targets = ("qkv_proj", "down_proj") if base.fused_qkv else ("k_proj", "up_proj")
    lora = LoraConfig(3, 4.5, 0.25, targets, rank_stabilised=name == "qwen3")
    adapters = random_adapters(base, lora)
    peft.write_adapter(tmp_path, adapters, lora, base, base="some/base")
    read = peft.read_adapter(tmp_path, base)
    assert read.lora == lora and read.base == "some/base"
    assert set(read.tree) == set(adapters)
    for module, ab in adapters.items():
        for key, value in ab.items():
            np.testing.assert_array_equal(read.tree[module][key], value)


@pytest.mark.parametrize("name", ONE_EACH)
def test_peft_gives_our_logits(name, golden, golden_tokens, tmp_path):
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("peft")

    base = load_model(golden / name)
    lora = LoraConfig(3, 4.5, rank_stabilised=name == "qwen3")
    adapters = random_adapters(base.config, lora)
    peft.write_adapter(tmp_path, adapters, lora, base.config, base=str(golden / name))
    tokens = golden_tokens % base.config.vocab_size
    ours = np.asarray(load_model(golden / name, adapter=tmp_path).logits(tokens))
    model = theirs.AutoPeftModelForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens).long()).logits.numpy()
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"peft_type": "LOHA"}, "'LOHA'"),
        ({"task_type": "SEQ_CLS"}, "'SEQ_CLS'"),
        ({"use_dora": True}, "'use_dora'"),
        ({"bias": "all"}, "'bias'"),
        ({"lora_bias": True}, "'lora_bias'"),
        ({"fan_in_fan_out": True}, "'fan_in_fan_out'"),
        ({"modules_to_save": ["lm_head"]}, "'modules_to_save'"),
        ({"rank_pattern": {"q_proj": 8}}, "'rank_pattern'"),
        ({"alpha_pattern": {"q_proj": 8}}, "'alpha_pattern'"),
        ({"layers_to_transform": [0]}, "'layers_to_transform'"),
        ({"layer_replication": [[0, 2]]}, "'layer_replication'"),
        ({"init_lora_weights": "pissa_niter_4"}, "'pissa_niter_4'"),
        ({"init_lora_weights": "olora"}, "'olora'"),
        ({"use_something_new": True}, "'use_something_new'"),
        ({"r": 0}, "'r' is 0"),
        ({"r": True}, "'r' is True"),
        ({"lora_alpha": float("nan")}, "'lora_alpha' is nan"),
        ({"lora_dropout": 1.0}, "'lora_dropout' is 1.0"),
        ({"r": 10**12}, "ask for"),
        ({"target_modules": ["q_proj"]}, "mlp.down_proj"),
        ({"target_modules": ["q_proj", "k_proj", "down_proj"]}, "self_attn.k_proj"),
        ({"target_modules": "all-linear"}, "say otherwise"),
        ({"target_modules": None}, "'target_modules' is None"),
    ],
)
def test_settings_that_are_not_computed_are_refused_by_name(settings, words, copy, config):
    change(copy, **settings)
    with pytest.raises(UserError, match=words):
        peft.read_adapter(copy, config)


def test_options_that_are_off_change_nothing(copy, config):
    before = peft.read_adapter(copy, config)
    change(copy, use_tomorrows_variant=False, another=None, third={}, init_lora_weights="gaussian")
    after = peft.read_adapter(copy, config)
    assert after.lora == before.lora and after.fingerprint != before.fingerprint


PREFIX = "base_model.model.model.layers."


def remove_layer(tensors):
    del tensors[f"{PREFIX}1.mlp.down_proj.lora_B.weight"]


def add_unknown(tensors):
    tensors["base_model.model.lm_head.weight"] = np.zeros((2, 2), np.float32)


def add_bias(tensors):
    tensors[f"{PREFIX}0.mlp.down_proj.lora_B.bias"] = np.zeros(2, np.float32)


def add_layer(tensors):
    tensors[f"{PREFIX}7.mlp.down_proj.lora_A.weight"] = np.zeros((4, 48), np.float32)


def misshape(tensors):
    name = f"{PREFIX}0.self_attn.q_proj.lora_A.weight"
    tensors[name] = np.ascontiguousarray(tensors[name].T)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (remove_layer, "layers.1.mlp.down_proj.lora_B.weight' is missing"),
        (add_unknown, "lm_head.weight' adapts the embedding or the LM head"),
        (add_bias, "lora_B.bias' adapts nothing"),
        (add_layer, "layers.7.mlp.down_proj"),
        (misshape, "q_proj.lora_A.weight' has shape"),
    ],
)
def test_tensors_that_do_not_fit_are_named(edit, words, copy, config):
    change_tensors(copy, edit)
    with pytest.raises(UserError, match=words):
        peft.read_adapter(copy, config)


def test_folders_that_hold_no_adapter(copy, config, tmp_path):
    weights = copy / "adapter_model.safetensors"
    weights.rename(copy / "adapter_model.bin")
    with pytest.raises(UserError, match="adapter_model.bin: adapters are read from safetensors"):
        peft.read_adapter(copy, config)
    (copy / "adapter_model.bin").unlink()
    with pytest.raises(UserError, match="adapter_model.safetensors: no such file"):
        peft.read_adapter(copy, config)
    (copy / "adapter_config.json").write_text("[1")
    with pytest.raises(UserError, match="adapter_config.json: not valid JSON"):
        peft.read_adapter(copy, config)
    weights.symlink_to(ADAPTERS / "llama32" / "adapter_model.safetensors")
    shutil.copy(ADAPTERS / "llama32" / "adapter_config.json", copy)
    with pytest.raises(UserError, match="links out of its folder"):
        peft.read_adapter(copy, config)


def test_another_base_is_said_once(golden, copy):
    with pytest.warns(UserWarning, match="trained on someone/else, and the base here is .*llama32"):
        change(copy, base_model_name_or_path="someone/else")
        load_model(golden / "llama32", adapter=copy)
    adapter = peft.Adapter(LoraConfig(1, 1.0), {}, "", "meta-llama/Llama-3.1-8B")
    assert peft.other_base(adapter, "models/llama-3.1-8b/") is None
    assert peft.other_base(adapter, "models/llama-3.1-8b-instruct")


def test_half_precision_adapters(copy, config):
    exact = peft.read_adapter(copy, config).tree["q_proj"]["a"]

    def halve(tensors):
        for name in tensors:
            tensors[name] = tensors[name].astype(jnp.bfloat16)

    change_tensors(copy, halve)
    read = peft.read_adapter(copy, config).tree["q_proj"]["a"]
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, exact.astype(jnp.bfloat16).astype(np.float32))
