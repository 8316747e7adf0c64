"""A CFT step with LoRA on an 8B-shaped model with random weights: tokens/s and MFU, beside peft.

Rows of 1,024 tokens hold several invented questions each, which see themselves alone; the step is
the product's: forward, SFT1 + λ · ECE at the answers, backward, AdamW. MFU counts what the step
needs, over the chips' peak: two operations for each multiply-add of a forward pass and of input
gradients through the frozen base, a third product for the adapters, attention to a token's own
question thrice, the LM head twice where an answer is read. What is recomputed does not count.

Where torch sees a GPU, transformers and peft take the same number of tokens on it, as rows of
1,024 without packing, with the head at as many places, with the fastest of several settings.

    python benchmarks/lora_step.py [--shape 8b] [--rows 8] [--peak-tflops 989]
    JAX_PLATFORMS=cpu python benchmarks/lora_step.py --tiny      # does it run?
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
from engine_mfu import PEAKS, SHAPES, random_model

from calib_jax.confidence.shapes import Flops
from calib_jax.models.hf_config import parse_config
from calib_jax.models.lora import LoraConfig, init_lora
from calib_jax.models.quantize import SCHEMES, quantize
from calib_jax.models.table import projections
from calib_jax.questions.batches import answer_positions, asked, row_layout
from calib_jax.questions.encoder import Encoded
from calib_jax.training.objective import EmObjective, weighted
from calib_jax.training.optimizer import OptimizerConfig
from calib_jax.training.step import TrainState, train_step

RANK, ALPHA = 16, 32.0
OPTIONS = 4


def invented(rows: int, length: int, vocab: int) -> tuple[Encoded, list[list[int]]]:
    """Questions of about a twelfth to a quarter of a row, which fill every row to its end."""
    rng = np.random.default_rng(0)
    tokens, placed = [], []
    for _ in range(rows):
        placed.append([])
        left = length
        while left:
            size = int(rng.integers(max(2, length // 12), length // 4))
            size = left if left - size < length // 12 else size
            placed[-1].append(len(tokens))
            tokens.append(rng.integers(0, vocab, size).astype(np.int32))
            left -= size
    N = len(tokens)
    letters = np.arange(OPTIONS, dtype=np.int32)
    mask, answers = np.ones((N, OPTIONS), bool), rng.integers(0, OPTIONS, N).astype(np.int32)
    return Encoded((), tuple(tokens), letters, mask, answers), placed


def median_seconds(function: Callable[[], None], rounds: int) -> float:
    took = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        took.append(time.perf_counter() - start)
    return float(np.median(took))


def needed_flops(raw: dict, encoded: Encoded) -> int:
    """Of one step, see above."""
    config = parse_config(raw, "config.json")
    flops = Flops.of(config)
    adapters = sum(2 * RANK * sum(row.shape) for row in projections(config)) * config.num_layers
    lengths = [len(tokens) for tokens in encoded.tokens]
    keys = sum(n * (n + 1) // 2 for n in lengths)
    return (
        sum(lengths) * (2 * flops.token + 3 * adapters)
        + 3 * flops.key * keys
        + 2 * flops.read * len(lengths)
    )


def measure_ours(args: argparse.Namespace, raw: dict, peak: float) -> None:
    model = random_model(raw)
    params = model.params
    if args.quantize:
        for row in projections(model.config):  # the plain one is freed before the next
            weight = params["layers"].pop(row.path[-1])
            params["layers"][row.path[-1]] = jax.jit(quantize, static_argnums=1)(
                weight, args.quantize
            )
            del weight
    lora = LoraConfig(RANK, ALPHA)
    encoded, placed = invented(args.rows, args.length, model.config.vocab_size)
    slots = max(map(len, placed))
    layout = row_layout(encoded, placed, args.length)
    arrays = asked(encoded.mask, encoded.answers, placed, slots)
    del arrays["index"]
    arrays["last"] = answer_positions(encoded.lengths, placed, slots)
    arrays["targets"] = np.full((args.rows, slots, OPTIONS), 1 / OPTIONS, np.float32)
    arrays |= {name: layout[name] for name in ("tokens", "positions", "ends", "segments")}
    A = args.microbatches
    batch = {
        "rows": {name: x.reshape(A, -1, *x.shape[1:]) for name, x in arrays.items()},
        "whole": {
            "letter_ids": encoded.letter_ids,
            "num_rows": np.float32(len(encoded.tokens)),
            "num_tokens": np.float32(args.rows * args.length),
        },
    }
    optimizer = OptimizerConfig(learning_rate=1e-4, num_steps=1000)
    for remat in (False, True):
        trainable = init_lora(jax.random.key(0), model.config, lora)
        opt_state = optimizer.transformation().init(trainable)
        state = TrainState(jnp.zeros((), jnp.int32), trainable, opt_state, ())
        decoder = model.decoder().clone(lora=lora, train=True, remat=remat)

        def step(decoder=decoder) -> None:
            nonlocal state
            state, terms = train_step(
                state,
                params,
                batch,
                decoder=decoder,
                objective=EmObjective(weighted(sft1=1.0, ece=1.0)),
                optimizer=optimizer,
            )
            assert np.isfinite(float(terms["loss"]))

        name = f"calib_jax, {'layers' if remat else 'all but products'} recomputed"
        try:
            start = time.perf_counter()
            step()
            first = time.perf_counter() - start
            step()  # the first to be given a step's own arrays
            took = median_seconds(step, args.rounds)
        except jax.errors.JaxRuntimeError as error:
            print(f"{name}: {str(error).splitlines()[0][:120]}")
            continue
        report(name, args, took, needed_flops(raw, encoded), peak, f"first step {first:.0f} s")


def report(name: str, args, took: float, flops: int, peak: float, more: str) -> None:
    tokens = args.rows * args.length
    print(
        f"{name:40} {tokens / took:10,.0f} tokens/s  {took:7.3f} s/step  "
        f"MFU {flops / took / peak:6.1%}  ({more})"
    )


def measure_peft(args: argparse.Namespace, raw: dict, peak: float) -> None:
    try:
        import peft
        import torch
        import transformers
    except ModuleNotFoundError as error:
        print(f"transformers + peft: NOT RUN, {error.name} is not installed")
        return
    if not torch.cuda.is_available():
        print("transformers + peft: NOT RUN, torch sees no GPU")
        return
    encoded, _ = invented(args.rows, args.length, raw["vocab_size"])
    tokens = np.concatenate(encoded.tokens).reshape(args.rows, args.length)
    places = len(encoded.tokens) // args.rows
    whole = Encoded((), tuple(tokens), encoded.letter_ids, encoded.mask, encoded.answers)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(raw))
        config = transformers.AutoConfig.from_pretrained(folder)
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation="sdpa"
        )
    model = peft.get_peft_model(
        model, peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear")
    )
    base = model.get_base_model()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    data = torch.from_numpy(tokens).long().cuda()
    # As many scored places as ours has answers.
    at = torch.linspace(1, args.length - 1, places).long().cuda()

    def step(size: int) -> None:
        for part in data.split(size):
            hidden = base.model(part, use_cache=False).last_hidden_state
            logits = base.lm_head(hidden[:, at - 1]).float()
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), part[:, at].flatten())
            (loss * len(part) / args.rows).backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        torch.cuda.synchronize()

    quickest = {}
    for checkpointing in (False, True):
        if checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})
            base.enable_input_require_grads()
        for size in (1, 2, 4, 8, 16):
            if size > args.rows or args.rows % size:
                continue
            try:
                step(size)
                quickest[size, checkpointing] = median_seconds(lambda s=size: step(s), args.rounds)
            except torch.OutOfMemoryError:
                optimizer.zero_grad(set_to_none=True)
                torch.cuda.empty_cache()
    (size, checkpointing), took = min(quickest.items(), key=lambda item: item[1])
    places_flops = 2 * Flops.of(parse_config(raw, "config.json")).read * places * args.rows
    less = 2 * Flops.of(parse_config(raw, "config.json")).read * args.rows
    flops = needed_flops(raw, whole) - less + places_flops
    more = f"{size} rows at a time{', checkpointing' if checkpointing else ''}"
    report("transformers + peft", args, took, flops, peak, f"{more}, of {len(quickest)} settings")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, default="8b")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--microbatches", type=int, default=1)
    parser.add_argument("--quantize", choices=("", *SCHEMES), default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peak-tflops", type=float, help="of one device; needed for unknown ones")
    parser.add_argument("--tiny", action="store_true", help="a small shape, on any device")
    args = parser.parse_args()
    if args.tiny:
        args.shape, args.rows, args.length = "tiny", 2, 128
        args.peak_tflops = args.peak_tflops or 0.2
    device = jax.devices()[0]
    if device.platform == "cpu" and not args.tiny:
        print(
            "NOT RUN: there is no accelerator here, and an 8B-shaped step would take hours on a "
            "CPU. --tiny runs a small shape."
        )
        return
    peak = args.peak_tflops or PEAKS.get(device.device_kind)
    if not peak:
        parser.error(
            f"the peak of {device.device_kind!r} is not known; give --peak-tflops (dense bfloat16)."
        )
    raw = SHAPES[args.shape]
    print(
        f"{device.device_kind}, jax {jax.__version__}, {args.shape}, bfloat16"
        f"{f' on {args.quantize}' if args.quantize else ''}, LoRA r {RANK} on all projections, "
        f"{args.rows} packed rows of {args.length} tokens, peak {peak:g} TFLOP/s"
    )
    measure_ours(args, raw, peak * 1e12)
    gc.collect()
    jax.clear_caches()
    measure_peft(args, raw, peak * 1e12)


if __name__ == "__main__":
    main()
