"""Our logits beside those of PyTorch transformers, a line for each golden checkpoint.

    python benchmarks/parity.py

Needs no torch: tests/golden holds transformers' float32 logits. Columns: the greatest difference
in float32 on one device and on a (2, 2, 2) mesh of eight fake CPU devices, and how often the first
token is the same; for bfloat16 the root-mean-square error in per cent of the logits' spread, and
how often the first token is the same.
"""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

from pathlib import Path

import numpy as np

from calib_jax import load_model
from calib_jax.api import make_mesh

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"


def main():
    tokens = np.load(GOLDEN / "tokens.npy")
    print(f"{'golden':20} {'f32':>8} {'2x2x2':>8} {'same':>7} {'bf16':>7} {'same':>7}")
    for folder in sorted(path.parent for path in GOLDEN.glob("*/config.json")):
        reference = np.load(folder / "logits.npy")

        def compare(dtype, mesh, folder=folder, reference=reference):
            """The greatest difference, the relative error, the share of same first tokens."""
            model = load_model(folder, dtype, mesh and make_mesh(mesh))
            ours = np.asarray(model.logits(tokens % model.config.vocab_size))[:, 7::8]
            error = ours - reference
            relative = np.sqrt(np.mean(error**2)) / reference.std()
            return np.abs(error).max(), relative, np.mean(ours.argmax(-1) == reference.argmax(-1))

        one, _, same = compare("float32", None)
        meshed, _, same_meshed = compare("float32", (2, 2, 2))
        _, relative, same_16 = compare("bfloat16", None)
        print(
            f"{folder.name:20} {one:8.1e} {meshed:8.1e} {min(same, same_meshed):7.1%} "
            f"{relative:7.2%} {same_16:7.1%}"
        )


if __name__ == "__main__":
    main()
