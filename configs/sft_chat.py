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

from calib_jax import presets


def get_config(preset: str = ""):
    config = presets.aligned(preset, "sft")
    config.method = "sft_chat"
    config.align.train = "questions:offline:openbookqa/train"
    config.train.learning_rate = 2e-4
    config.train.packing = True
    if preset == "":
        config.data.eval_size = 200
        config.align.train_size = 512
        config.align.eval_size = 200
    elif preset == "tulu3_8b":
        config.model.name = "meta-llama/Llama-3.1-8B"
        config.align.train = "hf:allenai/tulu-3-sft-mixture:train"
        config.align.eval = ""
        config.train.learning_rate = 1e-4
        config.train.epochs = 2
        config.train.microbatches = 8
    return config
