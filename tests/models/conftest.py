"""Golden models, loaded once, and a builder of small decoders with random parameters."""

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax.api import load_model, make_mesh
from calib_jax.models.hf_config import parse_config
from calib_jax.models.table import build_tree, stacked_shape

SMALL = {
    "llama": {
        "model_type": "llama",
        "vocab_size": 24,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
    }
}
SMALL["mistral"] = {**SMALL["llama"], "model_type": "mistral", "sliding_window": 3}
SMALL["olmo2"] = {**SMALL["llama"], "model_type": "olmo2"}


def random_params(config, seed=0, dtype=jnp.float32):
    """Random parameters, the norms' too: ones would hide a norm that is left out."""
    rng = np.random.default_rng(seed)

    def leaf(row):
        values = rng.normal(0, 0.4, stacked_shape(config, row))
        return jnp.asarray(1 + values if row.kind == "norm" else values, dtype)

    return build_tree(config, leaf)


@pytest.fixture(scope="session")
def small():
    """``small("mistral", sliding_window=5)`` -> (config, params)."""

    @functools.cache
    def build(family, **changes):
        config = parse_config({**SMALL[family], **changes}, "config.json")
        return config, random_params(config)

    return build


@pytest.fixture(scope="session")
def load_golden(golden):
    """``load_golden("olmo2", mesh=(2, 2, 2), dtype="bfloat16")`` -> Model, cached."""

    @functools.cache
    def load(family, mesh=None, dtype="float32"):
        return load_model(golden / family, dtype, mesh and make_mesh(mesh))

    return load


@pytest.fixture(scope="session")
def golden_tokens(golden):
    """[2, 160] int32, of 256; to be taken modulo the size of a golden's vocabulary."""
    return np.load(golden / "tokens.npy")


@pytest.fixture(scope="session")
def golden_logits(load_golden, golden_tokens):
    """``golden_logits(family, mesh, dtype)`` -> [2, 160, V] float32 of ours, cached."""

    @functools.cache
    def compute(family, mesh=None, dtype="float32"):
        model = load_golden(family, mesh, dtype)
        return np.asarray(model.logits(golden_tokens % model.config.vocab_size))

    return compute
