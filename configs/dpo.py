"""DPO: preference pairs to an aligned model, with its collapse and overconfidence watched.

python -m calib_jax.main --config=configs/dpo.py

  preset       hardware                 what it does, and what to expect
  (default)    2 CPU cores, 5 GiB       SmolLM2-135M-Instruct, LoRA, offline, minutes: 128 pairs of
                                        letters made of OpenBookQA, of which people prefer the right
                                        one 80 % of the time. On 128 test questions conf-ECE 0.426
                                        -> 0.623, mean confidence 0.684 -> 0.872, accuracy 0.258 ->
                                        0.250; of held-out pairs mean confidence 0.78 -> 0.91 at an
                                        accuracy of 0.46 -> 0.48. Measured, seed 0.
  debug        2 CPU cores, 3 GiB       the same on 16 pairs: does everything run?
  tulu3_8b     8 accelerators           Llama-3.1-Tulu-3-8B-SFT on its own preference mixture, LoRA;
                                        not run by us.

Pairs (--config.align.train): questions:<source>[@rate], a .jsonl, .json or .parquet file, or
hf:<owner>/<name>[:<config>]:<split>, in the layouts of UltraFeedback (binarized or with the ratings
of its aspects), HelpSteer3, hh-rlhf, the Tulu mixtures, ShareGPT with "chosen" and "rejected", or
AlpacaEval's annotations. Pairs to measure on
are --config.align.eval; of one file, --config.align.eval=train:200 holds 200 out. At most 128 of
either are taken; --config.align.train_size=0 --config.align.eval_size=0 takes all.

The reference is the model as it starts: its log-probabilities are computed once and kept with the
checkpoints, so that no second copy of any weights is needed, with LoRA or without
(--config.train.method=full). Letters (data.eval) are measured before and after, pairs after every
epoch too: "ratio less rate" above 0 is preference collapse.

A run that was stopped or killed continues with the same command. Written: summary.json,
report.html, tables/preferences.md, predictions/*.parquet. The adapter alone:
--config=configs/export.py --config.export.run=FOLDER --config.export.format=adapter.
"""

from calib_jax import presets


def get_config(preset: str = ""):
    config = presets.aligned(preset, "dpo")
    config.method = "dpo"
    config.train.learning_rate = 1e-3
    config.train.epochs = 4
    if preset == "":
        config.data.eval_size = 128
        config.align.train_size = 128
        config.align.eval_size = 128
    elif preset == "debug":
        config.train.epochs = 1
    elif preset == "tulu3_8b":
        config.model.name = "allenai/Llama-3.1-Tulu-3-8B-SFT"
        config.align.train = "hf:allenai/llama-3.1-tulu-3-8b-preference-mixture:train"
        config.align.eval = "train:1000"
        config.align.eval_size = 1000
        # Tulu 3 (Lambert et al. 2024) takes the length-normalised loss with β 5; this is DPO's own.
        config.align.beta = 0.1
        config.train.learning_rate = 5e-6
        config.train.epochs = 1
        config.train.microbatches = 32
    return config
