"""Logits and values of GGUF files as PyTorch transformers opens them; see the README beside."""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers.integrations.gguf.dequant import GGML_BLOCK, dequantize

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))
from tests.models.formats.gguf_files import (  # noqa: E402
    KINDS,
    MODELS,
    TOKENS,
    Kind,
    encoded,
    random_tensors,
    write_gguf,
)


def logits(folder: Path, name: str) -> np.ndarray:
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=name, dtype=torch.float32, attn_implementation="eager"
    )
    with torch.no_grad():
        return model(torch.tensor(TOKENS, dtype=torch.long)).logits[:, 3::4].numpy()


if __name__ == "__main__":
    found, values = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for architecture, raw in MODELS.items():
            tensors = random_tensors(raw)
            for kind in KINDS:
                path = write_gguf(Path(folder, f"{architecture}-{kind}.gguf"), raw, tensors, kind)
                found[f"{architecture}-{kind}"] = logits(path.parent, path.name)
                path.unlink()
    for kind in KINDS:
        if Kind[kind] in GGML_BLOCK:
            stored = encoded(np.random.default_rng(1).normal(0, 1, (2, 256)), kind)
            values[f"{kind}-bytes"] = stored
            flat = dequantize(torch.tensor(stored.reshape(-1)), int(Kind[kind]))
            values[f"{kind}-values"] = flat.numpy().reshape(2, 256)
    np.savez_compressed(HERE / "logits.npz", **found)
    np.savez_compressed(HERE / "values.npz", **values)
