"""SFT on demonstrations: the answers of a chat or of preference pairs, the stage before DPO.

python -m calib_jax.main --config=configs/sft_chat.py --config.align.train=chats.jsonl

  preset       hardware                 what it does, and what to expect
  (default)    2 CPU cores, 4 GiB       SmolLM2-135M-Instruct, LoRA, offline: without a file of your
                                        own, the right letters of OpenBookQA as answers.
  debug        2 CPU cores, 3 GiB       the same on 16 answers: does everything run?
  tulu3_8b     8 accelerators           Llama-3.1-8B on Tulu 3's SFT mixture, LoRA; not run by us.

Demonstrations (--config.align.train): "messages" or "conversations" that end in an answer (which is
learnt; earlier ones are context), "prompt" or "instruction" with "response", "completion" or
"output", or preference pairs, of which the chosen answers are taken. The loss is the mean over the
answers' tokens; nothing of the prompts is learnt. Several of them share a row
(--config.train.packing), each seeing itself alone. Of a file all are learnt with
--config.align.train_size=0; 512 are, at most, without.

Multiple-choice questions are needed too (--config.data.eval, OpenBookQA's and ARC-Easy's test by
default): their letters are measured before and after, and none of them is learnt.

configs/sft.py is another thing: the letters of questions by the loss of CFT, without its
calibration term.
"""

from calib_jax import config as base_config
from calib_jax.errors import UserError

PRESETS = ("debug", "tulu3_8b")


def get_config(preset: str = ""):
    if preset and preset not in PRESETS:
        raise UserError(f"no preset {preset!r}; there is {', '.join(PRESETS)}, or none.")
    config = base_config.base()
    config.job = "align"
    config.method = "sft_chat"
    config.align.method = "sft"
    config.align.train = "questions:offline:openbookqa/train"
    config.data.train = ""
    config.data.eval_size = 200
    config.align.train_size = 512
    config.align.eval_size = 200
    config.train.method = "lora"
    config.train.learning_rate = 2e-4
    config.train.remat = False
    config.train.packing = True
    config.checkpoint.every_steps = 25
    if preset == "debug":
        config.data.eval_size = 16
        config.align.train_size = 16
        config.align.eval_size = 16
        config.train.batch_size = 8
        config.batch.max_buckets = 2
        config.report.num_resamples = 100
    elif preset == "tulu3_8b":
        config.model.name = "meta-llama/Llama-3.1-8B"
        config.data.eval = (
            "mmlu=hf:cais/mmlu:all:test,openbookqa=hf:allenai/openbookqa:main:test,"
            "arc_challenge=hf:allenai/ai2_arc:ARC-Challenge:test"
        )
        config.data.eval_size = 1000
        config.prompt.max_length = 2048
        config.align.train = "hf:allenai/tulu-3-sft-mixture:train"
        config.align.eval = ""
        config.align.train_size = 0
        config.align.max_length = 2048
        config.train.lora.rank = 128
        config.train.lora.alpha = 64.0
        config.train.learning_rate = 1e-4
        config.train.epochs = 2
        config.train.batch_size = 128
        config.train.microbatches = 8
        config.train.remat = True
        config.batch.token_budget = 65536
        config.mesh.shape = (1, 4, -1)
    return config
