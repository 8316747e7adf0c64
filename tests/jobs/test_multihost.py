"""Two processes of four devices each, as on a pod, against one process."""

import json
import socket
import subprocess

import pytest

from tests.jobs.conftest import ROOT


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_two_processes_end_with_the_numbers_of_one(command, tmp_path):
    alone = command.run(f"--workdir={tmp_path / 'alone'}")
    assert alone.returncode == 0, alone.stderr

    port = free_port()
    processes = [
        subprocess.Popen(
            command.arguments(f"--workdir={tmp_path / 'pod'}", "--config.mesh.shape=(2,2,2)"),
            cwd=ROOT,
            env={
                **command.environment(),
                "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
                "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": str(i),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert "conf-ECE" in outputs[0] and "conf-ECE" not in outputs[1]

    one = json.loads((tmp_path / "alone" / "summary.json").read_text())
    two = json.loads((tmp_path / "pod" / "summary.json").read_text())
    for state in ("before", "after"):
        for name in ("nll", "brier", "mean_confidence"):
            ours, expected = two[state]["test"][name], one[state]["test"][name]
            assert ours == pytest.approx(expected, abs=1e-4), (state, name)
