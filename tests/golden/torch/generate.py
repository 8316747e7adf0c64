"""Writes the PyTorch files beside this script: `python tests/golden/torch/generate.py`.

Environment: torch 2.13 (CPU), numpy 2. A state dict in two shards with what real ones contain: tied
tensors in one storage, views, parameters, buffers, several dtypes. ``expected.npz`` holds the same
values as float64, so that the tests need no torch.
"""

import json
from pathlib import Path

import numpy as np
import torch

here = Path(__file__).parent
torch.manual_seed(0)
embedding = torch.nn.Parameter(torch.randn(6, 4))
base = torch.randn(5, 8)
first = torch.nn.Linear(4, 3)
shards = {
    "pytorch_model-00001-of-00002.bin": {
        "embed.weight": embedding,
        "head.weight": embedding,  # tied: one storage
        "transposed": base.T,
        "rows": base[1:4],  # begins within its storage
        "columns": base[:, 2:5],  # has gaps: refused when used
        "expanded": base[:1].expand(5, 8),  # repeats: refused when used
        "one": torch.randn(1, 3, 1).permute(2, 1, 0),
    },
    "pytorch_model-00002-of-00002.bin": {
        **{f"linear.{name}": value for name, value in first.state_dict().items()},
        "float16": torch.randn(3, 4).half(),
        "bfloat16": torch.randn(3, 4).bfloat16(),
        "float64": torch.randn(3, 4).double(),
        "scalar": torch.tensor(1.5),
        "empty": torch.zeros(0, 4),
        "position_ids": torch.arange(3),  # integers: refused when used
        "mask": torch.ones(2, 2, dtype=torch.bool),
    },
}
tensors = {name: value for shard in shards.values() for name, value in shard.items()}
for file, shard in shards.items():
    torch.save(shard, here / file)
index = {
    "metadata": {},
    "weight_map": {name: file for file, shard in shards.items() for name in shard},
}
(here / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=1) + "\n")
np.savez(here / "expected.npz", **{k: v.detach().double().numpy() for k, v in tensors.items()})

# A single file with the attributes that Module.state_dict() leaves on its result.
(here / "single").mkdir(exist_ok=True)
torch.save(first.state_dict(), here / "single" / "pytorch_model.bin")
# The format before PyTorch 1.6, which is refused.
(here / "legacy").mkdir(exist_ok=True)
torch.save(
    {"a": torch.ones(2)},
    here / "legacy" / "pytorch_model.bin",
    _use_new_zipfile_serialization=False,
)
