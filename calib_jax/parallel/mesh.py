"""The device mesh, joining a pod, and moving host arrays onto devices and back."""

import contextlib
import importlib.util
import math
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from calib_jax.errors import UserError
from calib_jax.parallel.shards import RULES, sharding

AXES = ("data", "fsdp", "tensor")

# Seconds after which a process that is heard of no more counts as dead, and the others end too.
HEARTBEAT_TIMEOUT = 60

# Variables that cluster launchers set; each means that there is a pod to join.
_POD_VARIABLES = ("JAX_COORDINATOR_ADDRESS", "COORDINATOR_ADDRESS", "MEGASCALE_COORDINATOR_ADDRESS")


def join_pod() -> None:
    """Joins the other processes of this run, where there are any; call before anything else.

    One process of several is recognised by JAX's own variables (``JAX_COORDINATOR_ADDRESS`` with
    ``JAX_NUM_PROCESSES`` and ``JAX_PROCESS_ID``), by a TPU pod's worker list, by SLURM with more
    than one task, or, on a machine with a TPU, by what JAX learns from its metadata server. On a
    single machine this does nothing. When one process dies, JAX ends the others with a message.
    """
    if jax.distributed.is_initialized():
        return
    workers = os.environ.get("TPU_WORKER_HOSTNAMES", "").split(",")
    tasks = int(os.environ.get("SLURM_NTASKS", "1"))
    if "JAX_NUM_PROCESSES" in os.environ:
        names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        if missing := [name for name in names if name not in os.environ]:
            raise UserError(f"{names[1]} is set, but {missing[0]} is not; set all of {names}.")
        address, count, index = (os.environ[name] for name in names)
        _initialize(address, int(count), int(index))
    elif len(workers) > 1 or tasks > 1 or any(name in os.environ for name in _POD_VARIABLES):
        _initialize()
    elif os.environ.get("JAX_PLATFORMS", "tpu") == "tpu" and _has_tpu():
        with contextlib.suppress(ValueError):  # "no coordinator": JAX found no pod around it
            _initialize()


def _initialize(*pod: Any) -> None:
    settings: Any = {"heartbeat_timeout_seconds": HEARTBEAT_TIMEOUT}
    jax.distributed.initialize(*pod, **settings)


def leave_pod(status: int) -> None:
    """Ends this process of a pod at once, because it failed; does nothing where there is no pod.

    An ordinary exit waits for the other processes, and they may be waiting for this one.
    """
    if not jax.distributed.is_initialized():
        return
    if jax.process_index() == 0:
        time.sleep(2)  # the others hear of its end at once: let them say first what they have to
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _has_tpu() -> bool:
    devices = [*Path("/dev").glob("accel*"), *Path("/dev/vfio").glob("[0-9]*")]
    return bool(devices) and importlib.util.find_spec("libtpu") is not None


def check_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """The sizes of a mesh's axes; raises UserError for what is none, whatever devices there are."""
    if not all(isinstance(size, (int, np.integer)) for size in shape):
        raise UserError(
            f"config.mesh.shape is {shape!r}; expected three whole numbers such as '(1,-1,1)'."
        )
    shape = tuple(int(size) for size in shape)
    if len(shape) != 3 or any(size == 0 or size < -1 for size in shape) or shape.count(-1) > 1:
        raise UserError(
            f"config.mesh.shape is {shape}; expected three positive sizes for {AXES}, one of "
            "which may be -1."
        )
    return shape


def make_mesh(
    shape: Sequence[int] = (1, -1, 1), devices: Sequence[jax.Device] | None = None
) -> jax.sharding.Mesh:
    """A ``data × fsdp × tensor`` mesh.

    Args:
      shape: the sizes of the three axes; one of them may be -1 for "the rest".
      devices: all of them by default.

    Raises:
      UserError: the shape does not use exactly the devices that exist.
    """
    devices = list(jax.devices() if devices is None else devices)
    shape = check_shape(shape)
    known = math.prod(size for size in shape if size > 0)
    if len(devices) % known or (-1 not in shape and known != len(devices)):
        raise UserError(
            f"config.mesh.shape {shape} does not fit {len(devices)} devices; the product of the "
            "sizes must equal the number of devices (-1 takes the rest)."
        )
    shape = tuple(len(devices) // known if size == -1 else size for size in shape)
    auto = (jax.sharding.AxisType.Auto,) * 3
    return jax.make_mesh(shape, AXES, axis_types=auto, devices=devices)


def default_mesh() -> jax.sharding.Mesh:
    """One device, the first of this process: a mesh on which every program runs."""
    return make_mesh((1, 1, 1), devices=jax.local_devices()[:1])


@contextlib.contextmanager
def use(mesh: jax.sharding.Mesh) -> Iterator[None]:
    """Puts the mesh and the logical axis rules in force, for tracing and running programs."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield


def batch_shards(mesh: jax.sharding.Mesh) -> int:
    """How many ways a batch is split: its rows must be a multiple of this."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def put_batch(batch: Any, mesh: jax.sharding.Mesh, *, microbatched: bool = False) -> Any:
    """Host arrays with rows on axis 0 (on axis 1, if microbatched), split over the mesh.

    Every process holds the whole batch (questions are small) and gives its devices their rows.
    """
    layout = sharding(mesh, (None, "batch") if microbatched else ("batch",))

    def put(x: np.ndarray) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, layout, lambda index: x[index])

    return jax.tree.map(put, batch)


def replicated(mesh: jax.sharding.Mesh) -> jax.sharding.NamedSharding:
    """The layout of what every device, and so every process, holds whole."""
    return jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
