"""Training on from an adapter: it is what the first step starts from, and it is not consumed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax.api import load_model, make_mesh
from calib_jax.models import peft
from calib_jax.models.lora import LoraConfig, lora_shapes
from calib_jax.questions.encoder import Encoder
from calib_jax.training.em import EmTraining
from tests.conftest import make_questions
from tests.training.conftest import tiny_config

LORA = LoraConfig(2, 5.0, 0.25, ("v_proj", "up_proj"), rank_stabilised=True)
TOKENS = np.arange(24, dtype=np.int32).reshape(2, 12)


@pytest.fixture
def adapter(tiny_model, tmp_path):
    config = load_model(tiny_model).config
    rng = np.random.default_rng(0)
    tree = {
        name: {k: jnp.asarray(rng.normal(0, 0.3, s), jnp.float32) for k, (s, _) in ab.items()}
        for name, ab in lora_shapes(config, LORA).items()
    }
    peft.write_adapter(tmp_path, tree, LORA, config, base=str(tiny_model))
    return tmp_path


@pytest.fixture
def begin(tiny_model, adapter):
    def build(**train):
        mesh = make_mesh((1, 2, 1), jax.devices()[:2])
        model = load_model(tiny_model, mesh=mesh, adapter=adapter)
        expected = np.asarray(model.logits(TOKENS))
        encoded = Encoder(model.tokenizer, num_options=5).encode(make_questions(8))
        training = EmTraining(tiny_config(**train), model, encoded)
        return model, training, expected

    return build


def current_logits(model, training):
    from calib_jax.models.model import _logits

    return np.asarray(_logits(training.decoder, training.variables, TOKENS))


def test_lora_goes_on_with_the_adapters_settings(begin):
    model, training, expected = begin(method="lora", lora__rank=7, lora__dropout=0.5)
    lora = training.decoder.lora
    assert (lora.rank, lora.alpha, lora.rank_stabilised) == (2, 5.0, True)
    assert set(lora.targets) == {"v_proj", "up_proj"} and lora.dropout == 0.5
    np.testing.assert_array_equal(current_logits(model, training), expected)
    for leaf in jax.tree.leaves(training.state.trainable):
        leaf.delete()  # as a step does, which consumes its input
    np.testing.assert_array_equal(np.asarray(model.logits(TOKENS)), expected)


def test_full_fine_tuning_starts_from_the_merged_weights(begin, tiny_model):
    model, training, expected = begin(method="full")
    assert training.decoder.lora is None
    np.testing.assert_allclose(current_logits(model, training), expected, rtol=0, atol=1e-4)
    assert np.abs(expected - np.asarray(load_model(tiny_model).logits(TOKENS))).max() > 0.1
