"""Alignment kept? Preference pairs and text, before and after fine-tuning (Xiao et al. 2025, 5).

python -m calib_jax.main --config=configs/cft.py
python -m calib_jax.main --config=configs/alignment.py --config.alignment.models=cft=run:runs/cft \\
    --config.alignment.text=my.txt

config.model is the model before. A model after is name=model[@revision][+adapter], or
name=run:FOLDER for a finished run of configs/cft.py, dpo.py and the like (run:FOLDER@2 for the
second epoch of one with --config.checkpoint.keep_epochs=True). Measured on every model:

  pairs   preference accuracy (the chosen answer is the more probable one, by the sum and by the
          mean over its tokens), margins in nats, DPO's implicit reward against the model before,
          and preference collapse where the preference rate is known: stated by the row, or the
          share of several judges (hf:openbmb/UltraFeedback:train has ratings of four aspects, its
          binarised test split one score)
  text    NLL per token, word and byte, and perplexity, of whole documents in windows

  preset       hardware                what it does
  (default)    2 CPU cores, 2 GiB      SmolLM2-135M-Instruct; 200 pairs made of OpenBookQA's test
                                       questions, the right letter preferred with rate 0.8. Give
                                       pairs of your own with --config.alignment.pairs=FILE
                                       (prompt, chosen, rejected) and text with .text=FILE
  debug        2 CPU cores, 2 GiB      16 pairs, 8 documents: does everything run?
  ultrafeedback_8b  4 or 8 accelerators   Tulu-3-8B-DPO, 1,000 pairs of UltraFeedback's test split,
                                       WikiText-103's test split. Not run by us. Name the models
                                       after CFT and RCFT in --config.alignment.models.

Written: summary.json, report.html, tables/alignment.md and .csv, figures/, and models/<label>/ with
every pair's log-probabilities and every document's loss. Generation and its judges are other jobs
(configs/generate.py, configs/winrate.py).
"""

from calib_jax import config as base_config
from calib_jax.errors import UserError


def get_config(preset: str = ""):
    if preset not in ("", "debug", "ultrafeedback_8b"):
        raise UserError(
            f"no preset {preset!r}; there is debug, ultrafeedback_8b, or none for the default."
        )
    config = base_config.base()
    config.job = "alignment"
    config.method = "alignment"
    config.alignment.pairs = "questions:offline:openbookqa/test@0.8"
    config.alignment.pairs_size = 200
    config.batch.token_budget = 0
    if preset == "debug":
        config.alignment.pairs_size = 16
        config.alignment.text_size = 8
        config.alignment.window = 64
        config.report.num_resamples = 100
    if preset == "ultrafeedback_8b":
        config.model.name = "allenai/Llama-3.1-Tulu-3-8B-DPO"
        config.alignment.pairs = "hf:HuggingFaceH4/ultrafeedback_binarized:test_prefs"
        config.alignment.pairs_size = 1000
        config.alignment.text = "hf:Salesforce/wikitext:wikitext-103-raw-v1:test"
        config.align.max_length = 2048
        config.alignment.window = 2048
        config.mesh.shape = (1, 1, -1)
    return config
