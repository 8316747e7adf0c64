"""The model of one epoch of a run, exported: what a run has kept, and what it has not."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax import UserError, command_line, load_model
from calib_jax.config import base
from calib_jax.jobs import export
from calib_jax.models import peft
from calib_jax.models.lora import LoraConfig, lora_shapes
from calib_jax.reports import result
from calib_jax.runs.run import Run, as_json
from calib_jax.training.checkpoints import kept_epochs
from calib_jax.training.interrupt import StopRequest
from tests.runs.test_subjects import finish_run

LORA = LoraConfig(2, 32.0)
ROW = {"n": 16, "domain": "out", "accuracy": 0.5, "answer_counts": [8, 8]}


@pytest.fixture
def run(tiny_model, tmp_path):
    """A run of three epochs that has kept every one, and what each had trained."""
    model = load_model(str(tiny_model))
    epochs = []
    for epoch in range(3):
        rng = np.random.default_rng(epoch)
        epochs.append(
            {
                name: {
                    k: jnp.asarray(rng.normal(0, 0.3, s), jnp.float32) for k, (s, _) in ab.items()
                }
                for name, ab in lora_shapes(model.config, LORA).items()
            }
        )
    folder = finish_run(tmp_path / "run", model, epochs[-1], "lora", "finetune")
    config = base()
    config.model.name, config.train.method, config.train.lora.rank = model.name, "lora", 2
    config.train.epochs, config.checkpoint.keep_epochs = 3, True
    (folder / "config.json").write_text(as_json(config))
    measured = {"before": {"test": ROW | {"conf_ece": 0.1234}}, "after": {"test": ROW}}
    result.write(folder / "summary.json", {"method": "cft", **measured, "versions": {}})
    kept = kept_epochs(config, folder, model.fingerprint)
    for epoch, trained in enumerate(epochs, 1):
        kept.save(epoch, {"trainable": trained}, {"targets": jnp.zeros(3)}, {"epoch": epoch - 1})
    kept.close()
    return folder, epochs, model


def ask(run, epoch, workdir=None, form="adapter"):
    """Exports as the command line does; returns the folder."""
    argv = ["x", "--config=configs/export.py", f"--config.export.format={form}"]
    argv += [f"--config.export.run={run}"] * bool(run) + [f"--config.export.epoch={epoch}"]
    config, place = command_line.parse(argv + [f"--workdir={workdir}"] * bool(workdir))
    config.mesh.shape = (1, len(jax.devices()), 1)
    export.main(Run(config, place, StopRequest()))
    return place


def test_an_epoch_is_what_had_been_trained_by_its_end(run, capsys):
    folder, epochs, model = run
    for epoch in (2, 3):
        place = ask(folder, epoch)
        assert place == folder / "export" / f"adapter-epoch{epoch}"
        tree = peft.read_adapter(place, model.config).tree
        for name, ab in epochs[epoch - 1].items():
            for key, value in ab.items():
                np.testing.assert_array_equal(tree[name][key], value)
    # What the run measured is the model of its last epoch, and no other.
    second, third = (
        (folder / "export" / f"adapter-epoch{n}" / "README.md").read_text() for n in (2, 3)
    )
    assert "This one, after epoch 2, was not measured." in second and "0.123" not in second
    assert "that after epoch 2" in second and "figures below" not in second
    assert "0.123" in third and "not measured" not in third.split("## Calibration")[0]
    capsys.readouterr()
    ask(folder, 2)
    assert "holds this export already" in capsys.readouterr().out
    with pytest.raises(UserError, match="does not hold this export"):
        ask(folder, 3, folder / "export" / "adapter-epoch2")


def test_epochs_that_are_not_there(run, tiny_model):
    folder, _, _ = run
    with pytest.raises(UserError, match=r"no model of epoch 4; .* those of epochs 1, 2, 3\."):
        ask(folder, 4)
    path = max((folder / "checkpoints/epochs/1").rglob("d/*"), key=lambda path: path.stat().st_size)
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    with pytest.raises(UserError, match=r"epochs/1: the checkpoint is damaged \(.*choose another"):
        ask(folder, 1)
    shutil.rmtree(folder / "checkpoints/epochs")
    with pytest.raises(UserError, match="epochs is gone"):
        ask(folder, 1)
    config = base()
    config.model.name, config.train.method = str(tiny_model), "lora"
    (folder / "config.json").write_text(as_json(config))
    with pytest.raises(UserError, match="kept its end alone.*keep_epochs=True"):
        ask(folder, 1)
    with pytest.raises(UserError, match=r"config.export.epoch is -1; expected 0 or more"):
        ask(folder, -1)
    with pytest.raises(UserError, match="config.export.run names no run"):
        ask("", 1, folder / "new")
    assert not (folder / "export").exists() and not (folder / "new").exists()
