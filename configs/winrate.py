"""Win rates out of judges' files: plain, with length controlled, with intervals.

python -m calib_jax.main --config=configs/winrate.py \\
    --config.winrate.judgements=before/annotations.json,after/annotations.json
python -m calib_jax.main --config=configs/winrate.py \\
    --config.winrate.judgements=model_judgment/gpt-4.1/ours.jsonl \\
    --config.winrate.answers=model_answer/ours.jsonl,model_answer/baseline.jsonl

The judging itself is AlpacaEval's and Arena-Hard's own: give them what configs/generate.py writes.

  annotations.json   AlpacaEval: preference from 1 (output_1, the baseline) to 2 (output_2)
  <model>.jsonl      Arena-Hard v0.1 and v2.0: games with scores such as A>>B, two a question with
                     the answers in both orders; a clear verdict (>>) counts 3
  rows.jsonl         win from 0 to 1 and, where known, id, model, baseline, category, length,
                     baseline_length

A question without a verdict (in one of its games) is left out and counted. AlpacaEval's mean,
standard error and counts are the official ones. Its length-controlled number is not: ours has
neither the difficulty of each instruction nor the two gamed baselines that the official fit
downloads, and a fixed small ridge for its cross-validated L1 penalty; see
calib_jax/metrics/winrate.py. Arena-Hard's mean is the official one; its interval is 95 % over
questions here and 90 % over single games there. Its length control here is AlpacaEval's, by
characters.

Written: winrate.md and summary.json. Hardware: one CPU core, seconds.
"""

from calib_jax import config as base_config
from calib_jax.errors import UserError


def get_config(preset: str = ""):
    if preset:
        raise UserError(f"no preset {preset!r}; configs/winrate.py has none.")
    config = base_config.base()
    config.job = "winrate"
    config.method = "winrate"
    return config
