"""TRL's SFTTrainer with peft as a peer: an epoch of it, timed, with what it computed."""

import dataclasses
import tempfile
import time

import numpy as np

from calib_jax.confidence.shapes import Flops
from calib_jax.models.config import ModelConfig
from calib_jax.models.table import projections
from calib_jax.questions.encoder import Encoded

BATCH, RANK, ALPHA, PEAK_RATE, WARMUP = 16, 16, 32.0, 5e-4, 0.1


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
