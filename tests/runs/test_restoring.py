"""A model as a finished run left it, against the same parameters put together by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax import UserError, load_model
from calib_jax.config import base
from calib_jax.models.lora import LoraConfig, lora_shapes
from calib_jax.reports import result
from calib_jax.runs import measuring, restoring
from calib_jax.runs.pairs import parse_side
from calib_jax.runs.run import as_json
from calib_jax.training.checkpoints import Checkpoints
from calib_jax.training.optimizer import OptimizerConfig
from calib_jax.training.step import TrainState

TOKENS = np.arange(24, dtype=np.int32).reshape(2, 12) * 11


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """Compiles faster than a mesh of eight."""
    monkeypatch.setattr(measuring, "load", lambda config, _: load_model(config.model.name))


def finish_run(folder, model, trainable, method, job):
    config = base()
    config.job, config.model.name = job, model.name
    config.train.method = method
    config.train.lora.rank = 2
    folder.mkdir()
    (folder / "config.json").write_text(as_json(config))
    checkpoints = Checkpoints(folder / "checkpoints", keep=1, fingerprint=model.fingerprint)
    optimizer = OptimizerConfig(1e-3, 10, 0.1, 0.0, 1.0).transformation()
    state = TrainState(jnp.int32(5), trainable, optimizer.init(trainable))
    checkpoints.save(5, state, {"targets": jnp.zeros(3)}, {"epoch": 1, "batch": 0})
    checkpoints.close()
    result.write(folder / "summary.json", {})
    return folder


@pytest.mark.parametrize(("method", "job"), [("lora", "align"), ("full", "finetune")])
def test_what_a_run_has_trained(tiny_model, tmp_path, method, job):
    model = load_model(str(tiny_model))
    rng = np.random.default_rng(0)
    lora = LoraConfig(2, 32.0)
    if method == "lora":
        trainable = {
            name: {k: jnp.asarray(rng.normal(0, 0.3, s), jnp.float32) for k, (s, _) in ab.items()}
            for name, ab in lora_shapes(model.config, lora).items()
        }
        expected = dataclasses.replace(model, lora=lora, adapters=trainable)
    else:
        trainable = jax.tree.map(
            lambda x: x + rng.normal(0, 0.1, x.shape).astype(np.float32), model.params
        )
        expected = dataclasses.replace(model, params=trainable)
    folder = finish_run(tmp_path / "run", model, trainable, method, job)
    config = base()
    config.model.name = "not looked at"
    side = parse_side(f"run:{folder}")
    assert restoring.base_of(side) == (model.name, "")
    found = restoring.load(config, side)
    np.testing.assert_array_equal(found.logits(TOKENS), expected.logits(TOKENS))
    assert np.abs(found.logits(TOKENS) - model.logits(TOKENS)).max() > 0.1
    # What has been scored of the base is not taken for the run's.
    assert found.fingerprint != model.fingerprint
    if method == "full":
        return
    # An epoch of it is another model; one that was not kept is named, with those that were.
    earlier = jax.tree.map(lambda x: x / 2, trainable)
    kept = Checkpoints(folder / "checkpoints/epochs", keep=None, fingerprint=model.fingerprint)
    kept.save(1, {"trainable": earlier}, {"targets": jnp.zeros(3)}, {"epoch": 0})
    kept.close()
    (side,) = restoring.parse_labelled(f"a=run:{folder}@1", "field").values()
    restoring.check(side, "field")
    first = restoring.load(config, side)
    expected = dataclasses.replace(model, lora=lora, adapters=earlier)
    np.testing.assert_array_equal(first.logits(TOKENS), expected.logits(TOKENS))
    assert first.fingerprint not in (model.fingerprint, found.fingerprint)
    with pytest.raises(UserError, match="^field: .*no model of epoch 3; .*those of epochs 1"):
        restoring.check(dataclasses.replace(side, epoch=3), "field")


def test_runs_that_cannot_be(tmp_path):
    (tmp_path / "dpo").mkdir()
    with pytest.raises(UserError, match=r"^a field, cft: .*Did you mean .*dpo\?"):
        restoring.check(parse_side(f"run:{tmp_path / 'dop'}"), "a field, cft")
    with pytest.raises(UserError, match="^a field, cft: .*no run's folder"):
        restoring.check(parse_side(f"run:{tmp_path / 'dpo'}"), "a field, cft")
    with pytest.raises(UserError, match="^a field, cft: nowhere: no such file"):
        restoring.check(parse_side("nowhere"), "a field, cft")


def test_labels():
    found = restoring.parse_labelled("a=owner/x@v1+y, b=run:z", "field")
    assert found["a"].revision == "v1" and found["a"].adapter == "y"
    assert str(found["b"].run) == "z"
    assert (found["b"].epoch, found["a"].epoch) == (0, 0)
    found = restoring.parse_labelled("a=run:runs/x@2, b=run:runs/x@y, c=run:runs/x@0", "field")
    assert (str(found["a"].run), found["a"].epoch) == ("runs/x", 2)
    assert (str(found["b"].run), str(found["c"].run)) == ("runs/x@y", "runs/x@0")
    for text, said in (("a", "is not understood"), ("a=x,A=y", "'A' stands twice")):
        with pytest.raises(UserError, match=said):
            restoring.parse_labelled(text, "field")
