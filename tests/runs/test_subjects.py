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
from calib_jax.runs import base_model, subjects
from calib_jax.runs.run import as_json
from calib_jax.training.checkpoints import Checkpoints
from calib_jax.training.optimizer import OptimizerConfig
from calib_jax.training.step import TrainState

TOKENS = np.arange(24, dtype=np.int32).reshape(2, 12) * 11


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """Compiles faster than a mesh of eight."""
    monkeypatch.setattr(base_model, "load", lambda config, _: load_model(config.model.name))


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
    side = subjects.parse(f"run:{folder}")
    assert subjects.base_of(side) == (model.name, None)
    found = subjects.load(config, side)
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
    (side,) = subjects.parse_labelled(f"a=run:{folder}@1", "field").values()
    subjects.check(side, "field")
    first = subjects.load(config, side)
    expected = dataclasses.replace(model, lora=lora, adapters=earlier)
    np.testing.assert_array_equal(first.logits(TOKENS), expected.logits(TOKENS))
    assert first.fingerprint not in (model.fingerprint, found.fingerprint)
    with pytest.raises(UserError, match="^field: .*no model of epoch 3; .*those of epochs 1"):
        subjects.check(dataclasses.replace(side, epoch=3), "field")


def test_runs_that_cannot_be(tmp_path):
    (tmp_path / "dpo").mkdir()
    with pytest.raises(UserError, match=r"^a field, cft: .*Did you mean .*dpo\?"):
        subjects.check(subjects.parse(f"run:{tmp_path / 'dop'}"), "a field, cft")
    with pytest.raises(UserError, match="^a field, cft: .*no run's folder"):
        subjects.check(subjects.parse(f"run:{tmp_path / 'dpo'}"), "a field, cft")
    with pytest.raises(UserError, match="^a field, cft: nowhere: no such file"):
        subjects.check(subjects.parse("nowhere"), "a field, cft")


def test_labels():
    found = subjects.parse_labelled("a=owner/x@v1+y, b=run:z", "field")
    assert found["a"].revision == "v1" and found["a"].adapter == "y"
    assert str(found["b"].run) == "z"
    assert (found["b"].epoch, found["a"].epoch) == (0, 0)
    found = subjects.parse_labelled("a=run:runs/x@2, b=run:runs/x@y, c=run:runs/x@0", "field")
    assert (str(found["a"].run), found["a"].epoch) == ("runs/x", 2)
    assert (str(found["b"].run), str(found["c"].run)) == ("runs/x@y", "runs/x@0")
    for text, said in (("a", "is not understood"), ("a=x,A=y", "'A' appears twice")):
        with pytest.raises(UserError, match=said):
            subjects.parse_labelled(text, "field")


def test_a_path_that_exists_is_taken_whole(tmp_path):
    for name in ("a@b+c", "plain"):
        (tmp_path / name).mkdir()
    side = subjects.parse(f"{tmp_path}/a@b+c")
    assert (side.name, side.revision, side.adapter) == (f"{tmp_path}/a@b+c", "", "")
    side = subjects.parse(f"{tmp_path}/plain+x@y")
    assert (side.name, side.revision, side.adapter) == (f"{tmp_path}/plain", "", "x@y")
    side = subjects.parse("owner/m@main")
    assert (side.name, side.revision, side.adapter) == ("owner/m", "main", "")
    side = subjects.parse(f"{tmp_path}/a@b+c+adapter")
    assert (side.name, side.revision, side.adapter) == (f"{tmp_path}/a@b+c", "", "adapter")
    side = subjects.parse("m@a@b")  # a branch may hold the sign, a hub id does not
    assert (side.name, side.revision) == ("m", "a@b")


def test_a_home_is_spelt_out_where_it_is_looked_up(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "models" / "a+b").mkdir(parents=True)
    side = subjects.parse("~/models/a+b")
    assert (side.name, side.adapter) == ("~/models/a+b", "")
    assert side.key == subjects.parse(f"{tmp_path}/models/a+b").key


def test_what_may_be_a_hub_id_is_not_looked_for_here():
    subjects.check(subjects.parse("owner/name"), "a field")
    for name in ("./a/b", "/a/b", "~/a", "a/b/c", "name.gguf"):
        with pytest.raises(UserError, match="no such file or folder, and not a hub id"):
            subjects.check(subjects.parse(name), "a field")
