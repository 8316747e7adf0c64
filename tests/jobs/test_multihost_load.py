"""Two processes load one checkpoint: each reads its own half, by our count and the kernel's."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import write_tiny_model
from tests.devices import xla_flags
from tests.jobs.conftest import ROOT, CommandLine
from tests.jobs.test_multihost import free_port

pytestmark = pytest.mark.slow

PROGRAM = """
import json, sys
from pathlib import Path
from calib_jax.parallel.mesh import join_pod, make_mesh
join_pod()
import jax, numpy as np
from calib_jax.models import weights
from calib_jax.models.formats.safetensors import SafetensorsSource
from calib_jax.models.hf_config import parse_config, read_config
from calib_jax.parallel.shards import row_sharding

weights.CHUNK_BYTES = 1  # layer by layer
folder = Path(sys.argv[1])
config = parse_config(read_config(folder), "config.json")
layout = row_sharding(make_mesh((1, -1, 1)))
jax.block_until_ready(jax.jit(lambda: 1.0)())
for quantize in (None, "int8", None, "int8"):  # the first round imports and compiles
    source = SafetensorsSource(folder)
    kernel = lambda: int(Path("/proc/self/io").read_text().split()[1])
    before = kernel() if Path("/proc/self/io").exists() else None
    told = []
    params = weights.load_params(
        source, config, "float32", layout, on_bytes=lambda n, _: told.append(n), quantize=quantize
    )
    read = None if before is None else kernel() - before
    norms = jax.jit(lambda tree: jax.tree.map(lambda x: (x.astype("float32") ** 2).sum(), tree))
    leaves = {
        jax.tree_util.keystr(path): float(value)
        for path, value in jax.tree_util.tree_leaves_with_path(norms(params))
    }
    print("RESULT", json.dumps([source.bytes_read, sum(told), read, leaves]))
"""


def load_in_processes(folder: Path, count: int) -> list[list]:
    """What each process printed, for its second plain load and its second quantised one."""
    port = free_port()
    pod = {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{port}",
        "JAX_NUM_PROCESSES": str(count),
        "XLA_FLAGS": xla_flags(2),
    }
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder)],
            cwd=ROOT,
            env={**CommandLine.environment(), **pod, "JAX_PROCESS_ID": str(i)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(count)
    ]
    results = []
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        lines = [line for line in out.splitlines() if line.startswith("RESULT")]
        results.append([json.loads(line.removeprefix("RESULT")) for line in lines[2:]])
    return results


def test_each_process_reads_its_half_once(tmp_path):
    pytest.importorskip("qwix")
    folder = write_tiny_model(tmp_path / "model", hidden_size=256, intermediate_size=512)
    stored = load_file(folder / "model.safetensors")
    norms = sum(x.nbytes for x in stored.values() if x.ndim == 1)
    matrices = sum(x.nbytes for x in stored.values() if x.ndim == 2)
    assert matrices > 50 * norms
    one, two = load_in_processes(folder, 2)
    for process in (one, two):
        for read, told, kernel, _ in process:
            # Gaps between short runs are read along with them, on this small model only.
            assert told == matrices // 2 + norms
            assert told <= read <= 1.1 * told
            if os.path.exists("/proc/self/io"):
                assert read <= kernel <= read + (1 << 16)
    # The values are those of the files, the same on both.
    assert [result[3] for result in one] == [result[3] for result in two]
    for i in range(2):  # plain, int8
        embed = (stored["model.embed_tokens.weight"].astype(np.float64) ** 2).sum()
        assert one[i][3]["['embed']"] == pytest.approx(embed, rel=1e-4)
    down = [stored[f"model.layers.{i}.mlp.down_proj.weight"].astype(np.float64) for i in range(2)]
    plain = one[0][3]["['layers']['down_proj']"]
    assert plain == pytest.approx(sum((x**2).sum() for x in down), rel=1e-4)
    # Scales are maxima over inputs that the two hold between them.
    scales = sum(((np.abs(x).max(axis=1) / 127.5) ** 2).sum() for x in down)
    assert one[1][3]["['layers']['down_proj'].scale"] == pytest.approx(scales, rel=1e-4)
