"""E-step throughput: calib_jax against Hugging Face transformers in PyTorch.

Both score the letters of the same questions with the same weights on the same cores, in turn, and
their probabilities are compared. The peer runs at its best settings: inference mode, SDPA,
logits_to_keep=1, batches sorted by length, and the fastest of several batch sizes.

    pip install torch
    python benchmarks/e_step.py [--questions 256] [--rounds 3]
"""

import argparse
import os
import statistics
import time

import jax
import numpy as np
import torch
import transformers
from torch_twin import torch_twin

import calib_jax
from calib_jax.confidence.engine import Engine
from calib_jax.confidence.letter_scores import score_encoded
from calib_jax.questions import load, sample
from calib_jax.questions.encoder import Encoded, Encoder


@torch.inference_mode()
def score_torch(twin: torch.nn.Module, encoded: Encoded, batch_size: int) -> np.ndarray:
    """[N, K] letter probabilities; left padding, so that the last position is the answer's."""
    order = np.argsort(-encoded.lengths, kind="stable")
    letters = torch.from_numpy(encoded.letter_ids).long()
    probs = np.zeros(encoded.mask.shape, np.float32)
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        longest = int(encoded.lengths[rows].max())
        tokens = torch.zeros(len(rows), longest, dtype=torch.long)
        mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for i, row in enumerate(rows):
            n = len(encoded.tokens[row])
            tokens[i, longest - n :] = torch.from_numpy(encoded.tokens[row]).long()
            mask[i, longest - n :] = 1
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        out = twin(
            tokens, attention_mask=mask, position_ids=positions, logits_to_keep=1, use_cache=False
        )
        logits = out.logits[:, -1, letters].float()
        logits = logits.masked_fill(~torch.from_numpy(encoded.mask[rows]), -torch.inf)
        probs[rows] = torch.softmax(logits, -1).numpy()
    return probs


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--questions", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    args = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))

    model = calib_jax.load_model("offline:smollm2-135m-instruct", args.dtype)
    questions = sample(load("offline:openbookqa/train"), args.questions, seed=0)
    encoded = Encoder(model.tokenizer, num_options=4).encode(questions)
    engine = Engine(model)
    twin = torch_twin(model, getattr(torch, args.dtype))

    def ours() -> np.ndarray:
        return score_encoded(engine, encoded).probs

    def seconds(function) -> float:
        start = time.perf_counter()
        function()
        return time.perf_counter() - start

    ours()  # compiles
    sizes = (4, 8, 16, 32)
    quickest = {size: seconds(lambda size=size: score_torch(twin, encoded, size)) for size in sizes}
    best = min(quickest, key=quickest.get)
    difference = np.abs(ours() - score_torch(twin, encoded, best)).max()

    pairs = [
        (seconds(ours), seconds(lambda: score_torch(twin, encoded, best)))
        for _ in range(args.rounds)
    ]
    mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(b / a for a, b in pairs)
    N = len(encoded)
    print(
        f"jax {jax.__version__}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, {args.dtype}, {N} questions, "
        f"{encoded.lengths.mean():.0f} tokens each"
    )
    print(f"calib_jax      {N / mine:7.1f} questions/s")
    print(f"transformers   {N / theirs:7.1f} questions/s (batch size {best}, of {sizes})")
    print(f"ratio          {ratio:7.2f}   (median of {args.rounds} pairs)")
    print(f"largest difference of a probability: {difference:.1e}")


if __name__ == "__main__":
    main()
