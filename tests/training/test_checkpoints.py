"""Checkpoints that are damaged, that find no room, and that change their devices."""

import json
import resource
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from calib_jax.errors import UserError, UserNotice
from calib_jax.parallel.mesh import make_mesh
from calib_jax.training import manifest
from calib_jax.training.checkpoints import Checkpoints
from calib_jax.training.interrupt import Stopped
from tests.training.conftest import tiny_config


def open_folder(folder, **options):
    return Checkpoints(folder, **{"keep": 2, "fingerprint": "base", **options})


def state_of(step, rows=64):
    values = np.random.default_rng(step).normal(size=(rows, 64)).astype(np.float32)
    return {"trainable": {"w": jnp.asarray(values)}, "step": jnp.int32(step)}


AUX = {"targets": np.arange(12, dtype=np.float32)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "checkpoints"
    checkpoints = open_folder(folder)
    for step in (1, 2, 3):
        checkpoints.save(step, state_of(step), AUX, {"epoch": 0, "batch": step})
    checkpoints.close()
    assert {path.name for path in folder.iterdir()} == {"2", "3"}
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "checkpoints")


def arrays_file(step):
    """The file that holds the numbers: the largest."""
    return max((p for p in step.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


DAMAGES = {
    "flipped bit in the arrays": lambda step: flip(arrays_file(step)),
    "arrays cut short": lambda step: cut(arrays_file(step)),
    "arrays missing": lambda step: arrays_file(step).unlink(),
    "position is no JSON": lambda step: (step / "position" / "metadata").write_text("{"),
    "metadata is no JSON": lambda step: (step / "_CHECKPOINT_METADATA").write_text('{"item'),
    "metadata of other items": lambda step: (step / "_CHECKPOINT_METADATA").write_text("{}"),
    "no manifest": lambda step: (step / manifest.NAME).unlink(),
    "manifest of nothing": lambda step: (step / manifest.NAME).write_text("{}"),
    "manifest of another kind": lambda step: (step / manifest.NAME).write_text('{"a": 3}'),
    "half of it deleted": lambda step: shutil.rmtree(step / "state"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_one_before_a_damaged_one_is_taken(damage, copied):
    DAMAGES[damage](copied / "3")
    left = sorted(str(p.relative_to(copied / "3")) for p in (copied / "3").rglob("*"))
    with pytest.warns(UserNotice) as notices:
        checkpoints = open_folder(copied)
    (notice,) = [str(n.message) for n in notices if n.category is UserNotice]
    assert f"{copied / '3'}: the checkpoint is damaged (" in notice and "3.corrupt" in notice
    assert checkpoints.latest_step() == 2
    state, aux, position = checkpoints.restore(state_of(0), AUX)
    np.testing.assert_array_equal(state["trainable"]["w"], state_of(2)["trainable"]["w"])
    np.testing.assert_array_equal(aux["targets"], AUX["targets"])
    assert position["batch"] == 2
    # Set aside with what there is of it; the step can be saved again, and be damaged again.
    aside = copied / "3.corrupt"
    assert sorted(str(p.relative_to(aside)) for p in aside.rglob("*")) == left
    checkpoints.save(3, state_of(3), AUX, {"epoch": 0, "batch": 3})
    checkpoints.close()
    assert {path.name for path in copied.iterdir()} == {"2", "3", "3.corrupt"}


def test_no_good_one_is_the_start(copied):
    for step in ("2", "3"):
        flip(arrays_file(copied / step))
    with pytest.warns(UserNotice):
        checkpoints = open_folder(copied)
    assert checkpoints.latest_step() is None
    with pytest.raises(UserError, match="no checkpoint"):
        checkpoints.restore(state_of(0), AUX)
    checkpoints.close()
    assert {path.name for path in copied.iterdir()} == {"2.corrupt", "3.corrupt"}


def test_a_reader_changes_nothing_and_takes_no_older_one(copied):
    killed = copied / "4.orbax-checkpoint-tmp"
    killed.mkdir()
    reader = open_folder(copied, keep=1, read_only=True)
    assert reader.latest_step() == 3
    reader.close()
    flip(arrays_file(copied / "3"))
    with pytest.raises(UserError, match=r"3: the newest checkpoint is damaged \(.*summary.json"):
        open_folder(copied, read_only=True)
    assert {path.name for path in copied.iterdir()} == {"2", "3", killed.name}
    with pytest.warns(UserNotice):  # the run itself clears both away
        open_folder(copied).close()
    assert {path.name for path in copied.iterdir()} == {"2", "3.corrupt"}


def test_trained_parameters_alone_and_no_others(copied):
    def abstract(name):
        return {name: jax.ShapeDtypeStruct((64, 64), jnp.float32, sharding=one)}

    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    reader = open_folder(copied, read_only=True)
    found = reader.restore_trainable(abstract("w"))
    np.testing.assert_array_equal(found["w"], state_of(3)["trainable"]["w"])
    with pytest.raises(UserError, match=r"holds no \['v'\]"):
        reader.restore_trainable(abstract("v"))
    reader.close()


def test_a_save_without_room_says_so_and_leaves_the_others(copied):
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN  # so writing fails instead
    checkpoints = open_folder(copied)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        with pytest.raises(UserError) as error:
            checkpoints.save(4, state_of(4, rows=1000), AUX, {"epoch": 0, "batch": 4})
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    message = f"{copied / '4'}: the checkpoint could not be saved: File too large."
    assert str(error.value).startswith(message)
    assert {path.name for path in copied.iterdir()} == {"2", "3"}
    assert [manifest.fault(copied / step) for step in ("2", "3")] == [None, None]
    again = open_folder(copied)
    again.save(4, state_of(4, rows=1000), AUX, {"epoch": 0, "batch": 4})
    again.close()
    assert {path.name for path in copied.iterdir()} == {"3", "4"}


def test_a_save_that_never_ended_is_cleared_away(copied):
    (copied / "4.orbax-checkpoint-tmp" / "state.orbax-checkpoint-tmp").mkdir(parents=True)
    open_folder(copied).close()
    assert {path.name for path in copied.iterdir()} == {"2", "3"}


def test_eight_devices_then_four_then_one(tmp_path):
    def sharded(shape, devices):
        mesh = make_mesh(shape, jax.devices()[:devices])
        rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("fsdp", "tensor"))
        return jax.tree.map(
            lambda x: jax.device_put(x, rows if x.ndim else jax.sharding.NamedSharding(mesh, P())),
            state_of(7),
        )

    P = jax.sharding.PartitionSpec
    state = sharded((2, 2, 2), 8)
    for step, (shape, devices) in enumerate([((1, 2, 2), 4), ((1, 1, 1), 1), ((1, 8, 1), 8)], 1):
        before = open_folder(tmp_path / "checkpoints")
        before.save(step, state, AUX, {"epoch": 0, "batch": 0})
        before.close()
        after = open_folder(tmp_path / "checkpoints")
        wanted = sharded(shape, devices)
        state, _, _ = after.restore(jax.tree.map(jnp.zeros_like, wanted), AUX)
        after.close()
        assert len(state["trainable"]["w"].sharding.device_set) == devices
        np.testing.assert_array_equal(state["trainable"]["w"], state_of(7)["trainable"]["w"])


def test_training_from_the_one_before_ends_the_same(start):
    config = tiny_config()
    config.checkpoint.every_steps = 2
    whole = start(config, "whole").run()
    with pytest.raises(Stopped):
        start(config, "parts").run(stop_at=4)
    parts = start(config, "parts")
    steps = sorted(int(p.name) for p in parts.folder.iterdir() if p.name.isdigit())
    assert len(steps) == 2
    flip(arrays_file(parts.folder / str(steps[1])))
    with pytest.warns(UserNotice, match="damaged"):
        parts.run()
    assert parts.terms == [terms for terms in whole.terms if terms[0] > steps[0]]
    for ours, expected in zip(
        jax.tree.leaves(parts.training.state), jax.tree.leaves(whole.training.state), strict=True
    ):
        np.testing.assert_array_equal(ours, expected)


def test_the_manifest_lists_every_file(copied):
    content = json.loads((copied / "3" / manifest.NAME).read_text())
    there = {p.relative_to(copied / "3").as_posix() for p in (copied / "3").rglob("*")}
    files = {name for name in there if (copied / "3" / name).is_file()}
    assert set(content) == files - {manifest.NAME, "commit_success.txt"}
