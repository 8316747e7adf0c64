import json
import time

from calib_jax.runs import costs


def test_time_memory_and_versions():
    found = costs.costs(time.monotonic() - 2)
    assert 2 <= found["wall_time_s"] < 10 and 0.01 < found["peak_memory_gib"] < 1000
    assert found["peak_device_memory_gib"] is None or found["peak_device_memory_gib"] >= 0
    versions = found["versions"]
    assert versions["jax"] and versions["platform"] and json.dumps(versions)
