"""Meshes: shapes that do not fit are refused; a single machine joins nothing."""

import jax
import numpy as np
import pytest

from calib_jax import UserError, make_mesh
from calib_jax.parallel import mesh as meshes

POD_VARIABLES = (
    *meshes._POD_VARIABLES,
    "JAX_NUM_PROCESSES",
    "JAX_PROCESS_ID",
    "TPU_WORKER_HOSTNAMES",
    "SLURM_NTASKS",
)


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        ((8, 1, 1), (8, 1, 1)),
        ((2, 2, 2), (2, 2, 2)),
        ((1, -1, 1), (1, 8, 1)),
        ((-1, 2, 2), (2, 2, 2)),
        ([2, 4, -1], (2, 4, 1)),
    ],
)
def test_shapes(shape, sizes):
    mesh = make_mesh(shape)
    assert mesh.axis_names == ("data", "fsdp", "tensor")
    assert tuple(mesh.shape.values()) == sizes
    assert set(mesh.devices.flat) == set(jax.devices())
    assert set(mesh.axis_types) == {jax.sharding.AxisType.Auto}


def test_default_is_fsdp_over_all_devices():
    assert dict(make_mesh().shape) == {"data": 1, "fsdp": 8, "tensor": 1}


def test_some_devices():
    mesh = make_mesh((1, 2, 2), jax.devices()[4:])
    assert set(mesh.devices.flat) == set(jax.devices()[4:])
    assert meshes.default_mesh().devices.tolist() == [[[jax.local_devices()[0]]]]


@pytest.mark.parametrize("shape", [(8,), (2, 4), (2, 2, 2, 1), (0, 8, 1), (-2, 4, 1), (-1, -1, 1)])
def test_shapes_that_are_none(shape):
    with pytest.raises(UserError, match="config.mesh.shape.*three positive sizes"):
        make_mesh(shape)


@pytest.mark.parametrize("shape", [(3, 1, 1), (-1, 3, 1), (4, 1, 1), (8, 8, 1), (1, 1, 16)])
def test_shapes_that_do_not_fit(shape):
    with pytest.raises(UserError, match="config.mesh.shape.*does not fit 8 devices"):
        make_mesh(shape)


@pytest.fixture
def joined(monkeypatch):
    """The calls of jax.distributed.initialize, in an environment of a single machine."""
    calls = []
    for name in POD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **_: calls.append(args))
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: False)
    return calls


@pytest.mark.parametrize(
    "environment",
    [{}, {"TPU_WORKER_HOSTNAMES": "localhost"}, {"SLURM_NTASKS": "1"}],
    ids=["nothing", "one TPU host", "one SLURM task"],
)
def test_a_single_machine_joins_nothing(joined, monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    meshes.join_pod()
    assert joined == []


@pytest.mark.parametrize(
    "environment",
    [
        {"TPU_WORKER_HOSTNAMES": "10.0.0.1,10.0.0.2"},
        {"SLURM_NTASKS": "4"},
        {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:1234"},
        {"MEGASCALE_COORDINATOR_ADDRESS": "10.0.0.1"},
    ],
    ids=lambda environment: next(iter(environment)),
)
def test_launchers_that_jax_recognises(joined, monkeypatch, environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    meshes.join_pod()
    assert joined == [()]


def test_jax_variables(joined, monkeypatch):
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setenv("JAX_PROCESS_ID", "1")
    with pytest.raises(UserError, match="JAX_COORDINATOR_ADDRESS is not"):
        meshes.join_pod()
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "10.0.0.1:1234")
    meshes.join_pod()
    assert joined == [("10.0.0.1:1234", 2, 1)]
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    meshes.join_pod()
    assert len(joined) == 1  # joined once already


def test_batches_are_split_by_rows_over_data_and_fsdp():
    mesh = make_mesh((2, 2, 2))
    assert meshes.batch_shards(mesh) == 4
    batch = {"tokens": np.arange(24).reshape(8, 3), "last": np.arange(8)}
    placed = meshes.put_batch(batch, mesh)
    for name, value in batch.items():
        np.testing.assert_array_equal(np.asarray(placed[name]), value)
        shards = placed[name].addressable_shards
        assert {s.data.shape for s in shards} == {(2, *value.shape[1:])}
        assert sorted(s.index[0].start or 0 for s in shards) == [0, 0, 2, 2, 4, 4, 6, 6]
    micro = meshes.put_batch(np.zeros((3, 8, 5)), mesh, microbatched=True)
    assert {s.data.shape for s in micro.addressable_shards} == {(3, 2, 5)}
    assert jax.device_put(np.zeros(4), meshes.replicated(mesh)).is_fully_replicated
