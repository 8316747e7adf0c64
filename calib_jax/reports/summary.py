"""Names of modules that are being replaced; see measure.py, result.py and runs/costs.py."""

from calib_jax.reports.measure import MIN_INTERVAL, NO_SUBJECT, change, measure
from calib_jax.reports.result import read, write
from calib_jax.runs.costs import peak_device_memory_gib, peak_memory_gib, versions

__all__ = [
    "MIN_INTERVAL", "NO_SUBJECT", "change", "measure", "peak_device_memory_gib", "peak_memory_gib",
    "read", "versions", "write",
]  # fmt: skip
