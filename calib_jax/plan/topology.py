"""Hardware that programs can be compiled for without having it."""

import dataclasses
import importlib.util
import os
import re
from typing import Any

import jax

from calib_jax.errors import UserError

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Topology:
    """Chips of one kind and what each of them has.

    Attributes:
      name: as users call it.
      kind: "tpu", "gpu" or "cpu".
      chips: how many, each of them one device.
      hbm: bytes that programs can have of a chip's memory.
      flops: bfloat16 operations a second of a chip, dense; None where it is not known.
      hbm_bandwidth: bytes a second between a chip and its memory; None where it is not known.
      ici_bandwidth: bytes a second that a chip sends to its neighbours, over all links; None where
        it is not known.
      compiler: libtpu's name of the slice, and its further settings.
    """

    name: str
    kind: str
    chips: int
    hbm: int
    flops: float | None = None
    hbm_bandwidth: float | None = None
    ici_bandwidth: float | None = None
    compiler: tuple[str, tuple[tuple[str, Any], ...]] | None = None


def _tpu(
    name: str,
    chips: int,
    hbm_gib: float,
    rates: tuple[float, float, float],
    slice_: str,
    **settings: Any,
) -> Topology:
    tflops, hbm_gb, ici_gbit = rates
    return Topology(
        name,
        "tpu",
        chips,
        int(hbm_gib * GIB),
        tflops * 1e12,
        hbm_gb * 1e9,
        ici_gbit / 8 * 1e9,
        (slice_, tuple(settings.items())),
    )


# TFLOP/s, GB/s of HBM and Gbit/s between chips as Google's data sheets have them
# (cloud.google.com/tpu/docs); the memory is what the compiler allows a program.
_V5E, _V6E, _V4, _V5P = (197, 819, 1600), (918, 1640, 3584), (275, 1228, 2400), (459, 2765, 4800)
TOPOLOGIES = {
    t.name: t
    for t in (
        _tpu("v5e-8", 8, 15.75, _V5E, "v5e:2x4"),
        _tpu("v5e-16", 16, 15.75, _V5E, "v5e:4x4"),
        _tpu("v6e-8", 8, 31.25, _V6E, "v6e:2x4"),
        # These two are called by their cores, of which a chip has two.
        _tpu("v4-8", 4, 30.75, _V4, "v4:2x2x1", chip_config_name="megacore"),
        _tpu("v5p-8", 4, 95.74, _V5P, "v5p:2x2x1"),
    )
}


def find(name: str) -> Topology:
    """The hardware of that name: a TPU slice, or one GPU or CPU by its memory (gpu-80gib).

    Raises:
      UserError: an unknown name.
    """
    if name in TOPOLOGIES:
        return TOPOLOGIES[name]
    if found := re.fullmatch(r"(gpu|cpu)-(\d+)gib", name):
        if int(found[2]):
            return Topology(name, found[1], 1, int(found[2]) * GIB)
    raise UserError(
        f"config.plan.topology is {name!r}; choose from: {', '.join(TOPOLOGIES)}; or name one GPU "
        "or CPU by its memory, such as gpu-80gib or cpu-16gib."
    )


def devices(topology: Topology) -> list[jax.Device]:
    """Devices to compile for; nothing can be run on those of a TPU.

    A GPU's programs are compiled by the CPU's compiler: close in memory, not the same.

    Raises:
      UserError: libtpu, which compiles for TPUs, is missing or does not start.
    """
    if topology.kind != "tpu":
        return jax.local_devices(backend="cpu")[:1]
    if importlib.util.find_spec("libtpu") is None:
        raise UserError(
            f"config.plan.topology {topology.name} needs TPUs' compiler, libtpu, which is not "
            "installed. Run: pip install 'calib_jax[tpu]'"
        )
    from jax.experimental import topologies

    # No hardware is used: it need not be looked for, nor be free.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    assert topology.compiler is not None  # of a TPU
    slice_, settings = topology.compiler
    try:
        found = topologies.get_topology_desc(
            platform="tpu", topology_name=slice_, **dict(settings)
        ).devices
    except (RuntimeError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"config.plan.topology {topology.name}: libtpu does not start ({reason}). Run with "
            "JAX_PLATFORMS=cpu and a libtpu that fits jax: pip install -U 'calib_jax[tpu]'"
        ) from None
    if len(found) != topology.chips:
        raise UserError(
            f"config.plan.topology {topology.name}: libtpu gives {len(found)} devices where "
            f"{topology.chips} were expected."
        )
    return list(found)
