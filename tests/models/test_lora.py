"""Adapters: nothing when fresh, the merged weights when trained."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax.errors import UserError
from calib_jax.models.decoder import Decoder
from calib_jax.models.lora import LoraConfig, check_lora, init_lora, lora_shapes, merge_lora

TOKENS = np.arange(18, dtype=np.int32).reshape(2, 9)
ALL = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


# Compiled as wholes, and each once: piece by piece they would take most of the time.
apply = jax.jit(lambda decoder, *args, **kw: decoder.apply(*args, **kw), static_argnums=0)
fresh = jax.jit(init_lora, static_argnums=(1, 2))
merge = jax.jit(merge_lora, static_argnums=2)


def run(config, params, lora=None, adapters=None, train=False, rngs=None):
    decoder = Decoder(config, lora=lora, train=train, remat=False)
    variables = {"params": params, **({"lora": {"layers": adapters}} if adapters else {})}
    return np.asarray(apply(decoder, variables, TOKENS, rngs=rngs))


def trained(config, lora):
    """Adapters with a random B."""
    rng = np.random.default_rng(1)
    return {
        name: {"a": ab["a"], "b": rng.normal(0, 0.3, ab["b"].shape).astype(np.float32)}
        for name, ab in fresh(jax.random.key(0), config, lora).items()
    }


def test_fresh_adapters_compute_the_base_bit_for_bit(small):
    config, params = small("llama")
    lora = LoraConfig(rank=3, alpha=6.0)
    adapters = fresh(jax.random.key(0), config, lora)
    np.testing.assert_array_equal(run(config, params, lora, adapters), run(config, params))


@pytest.mark.parametrize("targets", [("q_proj", "down_proj"), ()], ids=["two", "all"])
def test_merging_computes_what_the_adapters_compute(targets, small):
    config, params = small("llama")
    lora = LoraConfig(rank=3, alpha=6.0, targets=targets)
    adapters = trained(config, lora)
    beside = run(config, params, lora, adapters)
    merged = merge(params, adapters, lora)
    np.testing.assert_allclose(run(config, merged), beside, rtol=0, atol=2e-4)
    assert np.abs(beside - run(config, params)).max() > 0.1
    for name, value in params["layers"].items():
        same = np.array_equal(value, merged["layers"][name])
        assert same == (name not in (targets or ALL))


def test_merge_by_hand(small):
    config, params = small("llama")
    lora = LoraConfig(rank=2, alpha=5.0, targets=("k_proj",))
    ab = trained(config, lora)["k_proj"]
    merged = merge(params, {"k_proj": ab}, lora)["layers"]["k_proj"]
    for i in range(config.num_layers):
        a, b = np.asarray(ab["a"][i], np.float64), np.asarray(ab["b"][i], np.float64)
        expected = np.asarray(params["layers"]["k_proj"][i]) + 2.5 * a @ b
        np.testing.assert_allclose(merged[i], expected, atol=1e-6)


def test_merge_keeps_the_dtype(small):
    config, params = small("llama")
    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    lora = LoraConfig(rank=3, alpha=6.0)
    merged = merge(half, fresh(jax.random.key(0), config, lora), lora)
    for a, b in zip(jax.tree.leaves(half), jax.tree.leaves(merged), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)


def test_targets_and_shapes(small):
    config, _ = small("llama")
    assert set(lora_shapes(config, LoraConfig(rank=4, alpha=4.0))) == ALL
    lora = LoraConfig(rank=4, alpha=4.0, targets=("v_proj", "down_proj"))
    adapters = fresh(jax.random.key(3), config, lora)
    assert set(adapters) == {"v_proj", "down_proj"}
    assert adapters["v_proj"]["a"].shape == (2, 16, 4)
    assert adapters["v_proj"]["b"].shape == (2, 4, 8)
    assert adapters["down_proj"]["a"].shape == (2, 24, 4)
    for ab in adapters.values():
        assert ab["a"].dtype == jnp.float32 and not ab["b"].any()
        bound = ab["a"].shape[1] ** -0.5
        assert 0.8 * bound < np.abs(ab["a"]).max() <= bound
    assert not np.array_equal(adapters["v_proj"]["a"][0], adapters["v_proj"]["a"][1])


def test_only_adapters_have_dropout_and_only_in_training(small):
    config, params = small("llama")
    lora = LoraConfig(rank=3, alpha=6.0, dropout=0.5)
    adapters = trained(config, lora)
    evaluated = run(config, params, lora, adapters)
    rngs = [{"dropout": jax.random.key(i)} for i in (0, 0, 1)]
    one, again, other = (run(config, params, lora, adapters, train=True, rngs=rng) for rng in rngs)
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 1e-3 and np.abs(one - evaluated).max() > 1e-3
    zero = fresh(jax.random.key(0), config, lora)
    dropped = run(config, params, lora, zero, train=True, rngs=rngs[0])
    np.testing.assert_allclose(dropped, run(config, params), atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"targets": ("q_proj", "qkv")}, "'qkv'"),
        ({"targets": ("attn_norm",)}, "'attn_norm'"),
        ({"rank": 0}, "rank is 0"),
        ({"dropout": 1.0}, "dropout is 1.0"),
        ({"dropout": -0.1}, "dropout is -0.1"),
    ],
)
def test_settings_that_make_no_adapter(settings, words, small):
    config, _ = small("llama")
    with pytest.raises(UserError, match="config.train.lora") as error:
        check_lora(config, LoraConfig(**{"rank": 4, "alpha": 8.0, **settings}))
    assert words in str(error.value)
    check_lora(config, LoraConfig(rank=4, alpha=8.0, dropout=0.1, targets=("q_proj",)))
