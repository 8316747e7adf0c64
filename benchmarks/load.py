"""Loading a checkpoint: time, memory beyond the parameters, bytes read per process.

Writes a bfloat16 checkpoint of random numbers in the shape of a Llama (4.3 GiB by default), loads
it in fresh processes, and prints what each took: ours, and beside it safetensors' own ``load_file``
with the layers stacked by ``jnp.stack``, and transformers in PyTorch where that is installed.
"Beyond" is the peak of resident memory less what the process held before loading and less the
bytes of the parameters; it should stay below S / 4 + 2 GiB for a checkpoint of S bytes.

With --processes 2, two processes load halves (fsdp over both), and each prints what it read: by our
count, and by the kernel's.

    python benchmarks/load.py [--gib 4.3] [--dtypes bfloat16,float32] [--peers ours,torch]
    python benchmarks/load.py --processes 2 [--devices 2]
"""

import argparse
import importlib.util
import json
import math
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

GIB = 1 << 30
LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_attention_heads": 24,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-5,
    "rope_theta": 500000.0,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}


def write_checkpoint(folder: Path, gib: float) -> int:
    """Random bfloat16 tensors in shards of at most 1 GiB, with an index; returns their bytes."""
    import numpy as np

    from calib_jax.models.hf_config import parse_config
    from calib_jax.models.table import parameter_table

    def tensors(layers: int) -> list[tuple[str, tuple[int, ...]]]:
        config = parse_config({**LLAMA, "num_hidden_layers": layers}, "config.json")
        return [
            (row.hf_name.format(i=i), row.hf_shape)
            for row in parameter_table(config)
            for i in range(config.num_layers if row.stacked else 1)
        ]

    def size(layers: int) -> int:
        return sum(2 * math.prod(shape) for _, shape in tensors(layers))

    layers = max(1, round((gib * GIB - size(1)) / (size(2) - size(1))) + 1)
    raw = {**LLAMA, "num_hidden_layers": layers, "torch_dtype": "bfloat16"}
    (folder / "config.json").write_text(json.dumps(raw))
    shards: list[list[tuple[str, tuple[int, ...]]]] = [[]]
    filled = 0
    for name, shape in tensors(layers):
        if filled + 2 * math.prod(shape) > GIB:
            shards.append([])
            filled = 0
        shards[-1].append((name, shape))
        filled += 2 * math.prod(shape)
    rng, weight_map = np.random.default_rng(0), {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        header, offset = {}, 0
        for name, shape in shard:
            end = offset + 2 * math.prod(shape)
            header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, end]}
            weight_map[name], offset = file, end
        text = json.dumps(header).encode()
        with (folder / file).open("wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for _, shape in shard:
                left = math.prod(shape)
                while left:  # sign, an exponent near 2^-6, any fraction
                    bits = rng.integers(0, 1 << 16, min(left, 1 << 24), np.uint16)
                    (bits & 0x80FF | 0x3C00).tofile(out)
                    left -= len(bits)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": size(layers)}, "weight_map": weight_map})
    )
    return size(layers)


# --- In the child processes --------------------------------------------------------------------


def memory() -> int:
    """Resident bytes now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def kernel_bytes() -> int:
    """Bytes that this process has asked the kernel to read."""
    return int(Path("/proc/self/io").read_text().split()[1])


def load_ours(folder: Path, dtype: str) -> Callable[[], tuple[int, dict]]:
    import jax

    from calib_jax.models.formats.safetensors import SafetensorsSource
    from calib_jax.models.hf_config import parse_config, read_config
    from calib_jax.models.weights import load_params
    from calib_jax.parallel.mesh import join_pod, make_mesh
    from calib_jax.parallel.shards import row_sharding

    join_pod()
    layout = row_sharding(make_mesh((1, -1, 1)))
    config = parse_config(read_config(folder), "config.json")
    jax.block_until_ready(jax.jit(lambda: 1.0)())

    def load() -> tuple[int, dict]:
        source = SafetensorsSource(folder)
        before = kernel_bytes()
        params = load_params(source, config, dtype, layout)
        jax.block_until_ready(params)
        held = sum(s.data.nbytes for x in jax.tree.leaves(params) for s in x.addressable_shards)
        return held, {"read": source.bytes_read, "kernel": kernel_bytes() - before}

    return load


def load_safetensors(folder: Path, dtype: str) -> Callable[[], tuple[int, dict]]:
    import jax
    import jax.numpy as jnp
    from safetensors.numpy import load_file

    from calib_jax.models.hf_config import parse_config, read_config
    from calib_jax.models.table import build_tree

    config = parse_config(read_config(folder), "config.json")
    jax.block_until_ready(jax.jit(lambda: 1.0)())

    def load() -> tuple[int, dict]:
        tensors = {}
        for path in sorted(folder.glob("*.safetensors")):
            tensors |= load_file(path)

        def leaf(row):
            count = config.num_layers if row.stacked else 1
            values = [tensors.pop(row.hf_name.format(i=i)) for i in range(count)]
            values = [jnp.asarray(v.T if row.transposed else v, dtype) for v in values]
            return jnp.stack(values) if row.stacked else values[0]

        params = jax.block_until_ready(build_tree(config, leaf))
        return sum(x.nbytes for x in jax.tree.leaves(params)), {}

    return load


def load_torch(folder: Path, dtype: str) -> Callable[[], tuple[int, dict]]:
    import torch
    import transformers

    def load() -> tuple[int, dict]:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype)
        )
        for parameter in model.parameters():
            parameter.data = parameter.data.clone()  # out of the mapped file, as ours are
        return sum(p.nbytes for p in model.parameters()), {}

    return load


PEERS = {"ours": load_ours, "safetensors": load_safetensors, "torch": load_torch}


def child(peer: str, folder: Path, dtype: str) -> None:
    """Loads once and prints a line of JSON."""
    load = PEERS[peer](folder, dtype)
    before, high = memory(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    started = time.monotonic()
    held, more = load()
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    assert peak > high, "the peak was reached before loading"
    result = {"seconds": seconds, "held": held, "peak": peak - before - held, **more}
    print("RESULT " + json.dumps(result))


# --- In the parent ------------------------------------------------------------------------------


def start(peer: str, folder: Path, dtype: str, **environment: str) -> subprocess.Popen:
    root = Path(__file__).resolve().parents[1]
    path = os.pathsep.join(p for p in (str(root), os.environ.get("PYTHONPATH")) if p)
    return subprocess.Popen(
        [sys.executable, __file__, "--child", peer, str(folder), dtype],
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu", **environment},
        stdout=subprocess.PIPE,
        text=True,
    )


def result_of(process: subprocess.Popen) -> dict:
    output, _ = process.communicate()
    lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
    if process.returncode or not lines:
        raise SystemExit(f"a child process failed:\n{output}")
    return json.loads(lines[-1].removeprefix("RESULT "))


def alone(folder: Path, size: int, dtypes: list[str], peers: list[str], rounds: int) -> None:
    bound = size / 4 + 2 * GIB
    print(f"{'':12} {'dtype':9} {'seconds':>8} {'GB/s':>6} {'held GiB':>9} {'beyond':>7} bound")
    for dtype in dtypes:
        for peer in peers:
            for _ in range(rounds):
                r = result_of(start(peer, folder, dtype))
                print(
                    f"{peer:12} {dtype:9} {r['seconds']:8.1f} {size / 1e9 / r['seconds']:6.2f} "
                    f"{r['held'] / GIB:9.2f} {r['peak'] / GIB:7.2f} {bound / GIB:5.2f}",
                    flush=True,
                )


def together(folder: Path, size: int, dtype: str, processes: int, devices: int) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    running = [
        start(
            "ours",
            folder,
            dtype,
            XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}",
            JAX_COORDINATOR_ADDRESS=f"127.0.0.1:{port}",
            JAX_NUM_PROCESSES=str(processes),
            JAX_PROCESS_ID=str(i),
        )
        for i in range(processes)
    ]
    results = [result_of(process) for process in running]
    print(
        f"{processes} processes of {devices} devices, {dtype}, S / {processes} = "
        f"{size / processes / 1e9:.3f} GB"
    )
    for i, r in enumerate(results):
        print(
            f"process {i}: read {r['read'] / 1e9:.3f} GB ({r['read'] / size:.4f} S), by the kernel "
            f"{r['kernel'] / 1e9:.3f} GB ({r['kernel'] / size:.4f} S), {r['seconds']:.1f} s, held "
            f"{r['held'] / GIB:.2f} GiB, beyond {r['peak'] / GIB:.2f} GiB"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gib", type=float, default=4.3)
    parser.add_argument("--dtypes", default="bfloat16,float32")
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--devices", type=int, default=2, help="of each of several processes")
    parser.add_argument("--folder", default=None, help="where the checkpoint is written")
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        peer, folder, dtype = args.child
        child(peer, Path(folder), dtype)
        return
    dtypes, peers = args.dtypes.split(","), args.peers.split(",")
    if "torch" in peers and importlib.util.find_spec("torch") is None:
        peers.remove("torch")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        size = write_checkpoint(Path(folder), args.gib)
        print(f"S = {size / GIB:.2f} GiB in bfloat16 ({size / 1e9:.2f} GB)")
        for dtype in dtypes if args.processes > 1 else ():
            together(Path(folder), size, dtype, args.processes, args.devices)
        if args.processes == 1:
            alone(Path(folder), size, dtypes, peers, args.rounds)


if __name__ == "__main__":
    main()
