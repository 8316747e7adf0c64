"""Two processes of four devices each, as on a pod: stopped, killed, restored, against one."""

import json
import shutil
import signal
import socket
import subprocess
import time

import jax
import numpy as np
import pytest

from calib_jax.config import base
from calib_jax.jobs.export import abstract_trained
from calib_jax.models.model import open_checkpoint
from calib_jax.parallel.mesh import make_mesh
from calib_jax.reports import predictions, read_metrics
from calib_jax.training.checkpoints import Checkpoints
from calib_jax.training.loop import lora_settings
from tests.devices import xla_flags
from tests.jobs.conftest import ROOT

pytestmark = pytest.mark.slow


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


EVERY = ("--config.checkpoint.every_steps=2",)


def start_pod(command, workdir) -> list[subprocess.Popen]:
    shared = {
        "XLA_FLAGS": xla_flags(4),
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{free_port()}",
        "JAX_NUM_PROCESSES": "2",
    }
    return [
        subprocess.Popen(
            command.arguments(f"--workdir={workdir}", "--config.mesh.shape=(2,2,2)", *EVERY),
            cwd=ROOT,
            env={**command.environment(), **shared, "JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]


def wait_for_step(processes, workdir, step) -> None:
    """Returns when the log holds that step of the training."""
    path, end = workdir / "metrics.jsonl", time.monotonic() + 240
    while not path.exists() or not any(
        line["kind"] == "train" and line["step"] >= step for line in read_metrics(path)
    ):
        if any(process.poll() is not None for process in processes) or time.monotonic() > end:
            for process in processes:
                process.kill()
            raise AssertionError([process.communicate()[0] for process in processes])
        time.sleep(0.01)


def newest(workdir) -> int:
    return max(int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())


def trained_on(workdir, model, count):
    """The newest checkpoint's parameters on that many of this process's devices, as numpy."""
    step = workdir / "checkpoints" / str(newest(workdir))
    fingerprint = json.loads((step / "position" / "metadata").read_text())["fingerprint"]
    mesh = make_mesh((1, -1, 1), jax.devices()[:count])
    train = base().train
    train.update(json.loads((workdir / "config.json").read_text())["train"])
    model_config = open_checkpoint(str(model)).config
    abstract = abstract_trained(model_config, mesh, lora_settings(train, None))
    reader = Checkpoints(workdir / "checkpoints", keep=1, fingerprint=fingerprint, read_only=True)
    params = reader.restore_trainable(abstract)
    reader.close()
    assert {len(x.sharding.device_set) for x in jax.tree.leaves(params)} == {count}
    return jax.tree.map(np.asarray, params)


def test_a_pod_that_is_stopped_and_killed_ends_with_the_numbers_of_one(command, tmp_path):
    """SIGTERM to one process, then SIGKILL; the rest on one device.

    Losses, figures and scores are those of one device within 1e-4.
    """
    alone, workdir = tmp_path / "alone", tmp_path / "pod"
    done = command.run(f"--workdir={alone}")
    assert done.returncode == 0, done.stderr

    # SIGTERM to process 1: both save the same step and end cleanly.
    pod = start_pod(command, workdir)
    wait_for_step(pod, workdir, 1)
    pod[1].send_signal(signal.SIGTERM)
    outputs = [process.communicate(timeout=120)[0] for process in pod]
    assert [process.returncode for process in pod] == [143, 143], outputs
    assert all("same command continues" in output for output in outputs)
    stopped = newest(workdir)
    eight, four, one = (trained_on(workdir, command.model, count) for count in (8, 4, 1))
    for other in (four, one):
        jax.tree.map(np.testing.assert_array_equal, other, eight)

    # SIGKILL of process 1: process 0 says something and ends, soon.
    pod = start_pod(command, workdir)
    wait_for_step(pod, workdir, max(6, stopped + 1))
    pod[1].kill()
    output, _ = pod[0].communicate(timeout=90)
    assert pod[0].returncode != 0 and f"continuing from step {stopped}" in output
    assert "another process ended" in output or "another task died" in output, output
    pod[1].communicate()
    assert not (workdir / "summary.json").exists()

    # The rest on one device: what two processes wrote, one restores.
    finished = command.run(f"--workdir={workdir}", *EVERY)
    assert finished.returncode == 0, finished.stderr
    assert "continuing from step" in finished.stdout
    ours, expected = (read_metrics(folder / "metrics.jsonl") for folder in (workdir, alone))
    assert [(x["kind"], x["step"]) for x in ours] == [(x["kind"], x["step"]) for x in expected]
    for x, y in zip(ours, expected, strict=True):
        for name in ("loss", "sft", "ece", "nll", "mean_confidence"):
            assert x.get(name) == pytest.approx(y.get(name), abs=1e-4), (name, x["step"])
    for state in ("before", "after"):
        x, y = (
            predictions.read(folder / "predictions" / f"{state}-test.parquet").probs
            for folder in (workdir, alone)
        )
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-4)
    shutil.rmtree(workdir)
