"""Calibration after every stage of alignment, as in Figure 1 of Xiao et al. 2025.

python -m calib_jax.main --config=configs/stages.py

A chain of stages, --config.stages.chain=sft,dpo,cft by default: "sft" (on demonstrations) and "dpo"
(on preference pairs) are runs of the job "align", and cft, rcft, sft2, ece_only, label_smoothing,
released of the job "finetune". Every stage is a run with LoRA in WORKDIR/<i>-<stage>/, continues
from the adapter of the one before, and leaves its own, in PEFT's format, in
WORKDIR/<i>-<stage>/adapter. What a stage has otherwise is said with
--config.stages.settings=dpo:train.epochs=8,dpo:align.beta=0.05. After every stage is measured, on
the same questions and pairs:

  letters   conf-ECE, cw-ECE, accuracy, mean confidence, letters chosen, share of confidences above
            0.9 (letter collapse)
  pairs     preference collapse: the policy's ratio pi(chosen) / (pi(chosen) + pi(rejected)) against
            the rate at which people prefer the chosen answer; on held-out pairs, and on those that
            DPO has learnt from. Beside it the ratio per token: of long answers nearly every ratio
            is 0 or 1. The rate is what a row says, or the share of several judges whose scores it
            holds: UltraFeedback's four aspects, HelpSteer3's people. Pairs without a rate have no
            collapse

The figure shows splits pooled by domain, as in the comparison of methods: in-domain is what a stage
has learnt from, or with --config.stages.models what config.data.train names.

Models that went through the stages already are measured with --config.stages.models=
label=model[+adapter],label=run:FOLDER[@EPOCH],... and nothing is trained then.

  preset       hardware                what it does
  (default)    2 CPU cores, 5 GiB      SmolLM2-135M-Instruct, offline: SFT and DPO on letters of
                                       ARC-Easy, the right one preferred with rate 0.8; CFT on
                                       OpenBookQA. At beta = 0.1 DPO's own optimum for a rate of 0.8
                                       is log-odds of ln(4) / 0.1 = 13.9 beyond the reference:
                                       collapse is what it asks for. Expect conf-ECE to fall with
                                       SFT, to rise far above the instruct model's with DPO, and to
                                       fall with CFT. Measured on 64 pairs (8 epochs of DPO), 96
                                       questions for CFT and 100 to measure: 0.390 (instruct),
                                       0.057 (sft), 0.745 (dpo), 0.181 (cft), accuracy at chance
                                       throughout.
  debug        2 CPU cores, 3 GiB      the same on 16 of everything: does everything run?
  tulu3_8b     4 or 8 accelerators     Llama-3.1-8B and its Tulu 3 SFT and DPO checkpoints on the
                                       paper's tasks, and 1,000 prompts of UltraFeedback with the
                                       ratings of its own answers (one judge's, GPT-4; people's are
                                       in hf:nvidia/HelpSteer3:preference:validation); after CFT add
                                       ",cft=run:runs/cft-tulu3_8b" to --config.stages.models. Not
                                       run by us.

A run that was stopped or killed continues with the same command. Written: summary.json,
report.html, figures/stages.png and .svg, tables/stages.md and .csv, models/<label>/predictions/.
"""

from calib_jax import config as base_config
from calib_jax import presets
from calib_jax.errors import UserError

TULU = "allenai/Llama-3.1-Tulu-3-8B"


def get_config(preset: str = ""):
    if preset not in ("", "debug", "tulu3_8b"):
        raise UserError(f"no preset {preset!r}; there is debug, tulu3_8b, or none for the default.")
    config = presets.get(preset) if preset == "tulu3_8b" else base_config.base()
    config.job = "stages"
    config.method = "stages"
    if preset == "tulu3_8b":
        config.stages.models = f"pretrained=meta-llama/Llama-3.1-8B,sft={TULU}-SFT,dpo={TULU}-DPO"
        # The binarised sets keep one score of each answer, and so no rate.
        config.align.eval = "hf:openbmb/UltraFeedback:train"
        config.align.eval_size = 1000
        config.align.max_length = 2048
        return config
    # Every stage learns from other questions than those that are measured, and CFT from others
    # than DPO: what DPO has learnt by heart looks calibrated.
    config.align.train = "questions:offline:arc_easy/train@0.8"
    config.align.eval = "questions:offline:arc_easy/test@0.8"
    config.align.train_size = 96
    config.align.eval_size = 150
    config.data.train = "offline:openbookqa/train"
    config.data.train_size = 192
    config.data.eval = "offline:openbookqa/test"
    config.data.eval_size = 200
    config.train.method = "lora"
    config.train.learning_rate = 1e-3
    config.train.batch_size = 8
    config.train.remat = False
    config.checkpoint.every_steps = 12
    config.stages.start = "instruct"
    config.stages.settings = "sft:train.epochs=2,dpo:train.epochs=4,cft:train.epochs=2"
    if preset == "debug":
        for section in (config.align, config.data):
            section.train_size = section.eval_size = 16
        config.batch.max_buckets = 2
        config.stages.settings = ""
        config.report.num_resamples = 100
    return config
