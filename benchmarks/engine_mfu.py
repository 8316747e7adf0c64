"""How much of the chip scoring uses: tokens/s and MFU of an 8B-shaped model with random weights.

Scored are invented questions of four options, in bfloat16, through the engine. MFU counts the
operations that the pairs need (every context once, every option once; two for a multiply-add, the
LM head where it is read, attention to a token's own ancestors) over the chips' peak: padding and
what is computed twice lower it. Where torch sees a GPU, transformers computes the same options at
its best batch size, context and all for every option, in its turn; its MFU counts what it feeds.

    python benchmarks/engine_mfu.py [--shape 8b] [--questions 512] [--peak-tflops 989]
    JAX_PLATFORMS=cpu python benchmarks/engine_mfu.py --shape tiny --peak-tflops 0.2
"""

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax.confidence.engine import Engine
from calib_jax.confidence.shapes import Costs, Flops
from calib_jax.models.decoder import Decoder
from calib_jax.models.hf_config import parse_config
from calib_jax.models.model import Model
from calib_jax.questions.pairs import Pair

# Dense bfloat16 peaks in TFLOP/s by ``device_kind``, from the vendors' data sheets.
PEAKS = {
    "NVIDIA A100-SXM4-40GB": 312,  # nvidia.com/en-us/data-center/a100
    "NVIDIA A100-SXM4-80GB": 312,
    "NVIDIA H100 80GB HBM3": 989,  # nvidia.com/en-us/data-center/h100, 1,979 with sparsity
    "NVIDIA H200": 989,  # nvidia.com/en-us/data-center/h200, 1,979 with sparsity
    "TPU v4": 275,  # cloud.google.com/tpu/docs/v4
    "TPU v5 lite": 197,  # cloud.google.com/tpu/docs/v5e
    "TPU v5": 459,  # cloud.google.com/tpu/docs/v5p
    "TPU v6 lite": 918,  # cloud.google.com/tpu/docs/v6e
}
LLAMA = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "rms_norm_eps": 1e-5}
SHAPES = {
    # Llama-3-8B's dimensions.
    "8b": LLAMA
    | {
        "vocab_size": 128256,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "rope_theta": 500000.0,
        "max_position_embeddings": 8192,
        "tie_word_embeddings": False,
    },
    "tiny": LLAMA
    | {
        "vocab_size": 1024,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rope_theta": 10000.0,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": False,
    },
}


def random_model(raw: dict) -> Model:
    config = parse_config(raw, "config.json")
    decoder = Decoder(config, jnp.bfloat16)

    @jax.jit
    def init(key):
        params = decoder.init(key, jnp.zeros((1, 8), jnp.int32))["params"]
        return jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)

    # "auto" as load_model has it: cuDNN on a GPU.
    attention = "cudnn" if jax.default_backend() == "gpu" else "xla"
    dtype = jnp.dtype(jnp.bfloat16)
    params = init(jax.random.key(0))
    return Model("random", config, params, None, dtype, "", attention=attention, raw_config=raw)


def invented(count: int, vocab: int) -> list[list[Pair]]:
    """Groups of four options; contexts and options about as long as HellaSwag's."""
    rng = np.random.default_rng(0)
    groups = []
    for _ in range(count):
        context = rng.integers(0, vocab, rng.integers(30, 120))
        options = [rng.integers(0, vocab, rng.integers(10, 45)) for _ in range(4)]
        groups.append(
            [Pair(np.concatenate([context, o]).astype(np.int32), len(o)) for o in options]
        )
    return groups


def median_seconds(function: Callable[[], None], rounds: int) -> float:
    took = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        took.append(time.perf_counter() - start)
    return float(np.median(took))


def measure_ours(raw: dict, groups, rounds: int, peak: float, budget: int) -> None:
    engine = Engine(random_model(raw), token_budget=budget)
    start = time.perf_counter()
    engine.score(groups)
    first = time.perf_counter() - start
    engine.costs = Costs()
    engine.score(groups)
    costs = engine.costs
    took = median_seconds(lambda: engine.score(groups), rounds)
    print(
        f"calib_jax     {costs.tokens / took:10,.0f} tokens/s  "
        f"{len(groups) / took:8.1f} questions/s  MFU {costs.least_flops / took / peak:6.1%}  "
        f"(with padding {costs.flops / took / peak:.1%}; {engine.shapes.count} shapes; first "
        f"run, with compiling, {first:.0f} s)"
    )


def measure_transformers(raw: dict, groups, rounds: int, peak: float) -> None:
    """Rows of equal padding, longest first, as the harness's hf backend feeds them."""
    try:
        import torch
        import transformers
    except ModuleNotFoundError:
        print("transformers  not measured: torch is not installed")
        return
    if not torch.cuda.is_available():
        print("transformers  not measured: torch sees no GPU")
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(raw))
        config = transformers.AutoConfig.from_pretrained(folder)
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).eval()
    flops = Flops.of(parse_config(raw, "config.json"))
    rows = sorted((p.tokens[:-1] for group in groups for p in group), key=len, reverse=True)
    spent = 0

    @torch.inference_mode()
    def run(size: int, rows: list) -> None:
        nonlocal spent
        spent = 0
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            tokens = torch.zeros(len(part), len(part[0]), dtype=torch.long)
            for b, row in enumerate(part):
                tokens[b, : len(row)] = torch.from_numpy(row)
            torch.log_softmax(model(tokens.cuda()).logits, dim=-1)
            B, L = tokens.shape
            spent += B * L * (flops.token + flops.key * L // 2 + flops.read)
        torch.cuda.synchronize()

    quickest = {}
    for size in (16, 32, 64, 128):
        try:
            run(size, rows[:size])
            quickest[size] = median_seconds(lambda size=size: run(size, rows), 1)
        except torch.OutOfMemoryError:
            break
    best = min(quickest, key=quickest.get)
    took = median_seconds(lambda: run(best, rows), rounds)
    print(
        f"transformers  {sum(map(len, rows)) / took:10,.0f} tokens/s  "
        f"{len(groups) / took:8.1f} questions/s  MFU {spent / took / peak:6.1%}  "
        f"(batch size {best} of {tuple(quickest)})"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--questions", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--token-budget", type=int, default=0)
    parser.add_argument("--peak-tflops", type=float, help="of one device; needed for unknown ones")
    args = parser.parse_args()
    device = jax.devices()[0]
    peak = args.peak_tflops or PEAKS.get(device.device_kind)
    if not peak:
        parser.error(
            f"the peak of {device.device_kind!r} is not known; give --peak-tflops (dense bfloat16)."
        )
    raw = SHAPES[args.shape]
    groups = invented(args.questions, raw["vocab_size"])
    print(
        f"{device.device_kind}, jax {jax.__version__}, {args.shape} in bfloat16, "
        f"{args.questions} questions of 4 options, peak {peak:g} TFLOP/s"
    )
    measure_ours(raw, groups, args.rounds, peak * 1e12, args.token_budget)
    gc.collect()
    jax.clear_caches()
    measure_transformers(raw, groups, args.rounds, peak * 1e12)


if __name__ == "__main__":
    main()
