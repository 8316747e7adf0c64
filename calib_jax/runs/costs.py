"""What a run cost and what it ran on: time, memory, versions."""

import importlib.metadata
import platform
import resource
import sys
import time
from typing import Any

import jax

_PACKAGES = ("calib_jax", "jax", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")


def costs(started: float) -> dict[str, Any]:
    """Wall time in s since ``started`` (``time.monotonic()``), memory in GiB, and versions."""
    return {
        "wall_time_s": round(time.monotonic() - started, 1),
        "peak_memory_gib": round(peak_memory_gib(), 2),
        "peak_device_memory_gib": peak_device_memory_gib(),
        "versions": versions(),
    }


def versions() -> dict[str, Any]:
    """What the run ran on: Python, packages, platform and kind and number of devices."""
    result: dict[str, Any] = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            result[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            result[name] = None  # calib_jax itself, run from its source folder
    device = jax.devices()[0]
    result["platform"] = device.platform
    result["device_kind"] = device.device_kind
    result["device_count"] = jax.device_count()
    result["process_count"] = jax.process_count()
    result["system"] = f"{platform.system()} {platform.machine()}"
    return result


def peak_memory_gib() -> float:
    """The most main memory that this process has held so far, in GiB (2^30 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kibibytes, macOS bytes.
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def peak_device_memory_gib() -> float | None:
    """The most memory that any local device has held so far, in GiB; None where unknown (CPU)."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [s["peak_bytes_in_use"] for s in stats if "peak_bytes_in_use" in s]
    return max(peaks) / 2**30 if peaks else None
