"""A full report from any predictions file: no model, no training, seconds on a CPU.

python -m calib_jax.main --config=configs/report.py --config.report.predictions=predictions.csv
python -m calib_jax.main --config=configs/report.py --workdir=runs/mine \\
    --config.report.predictions=before=a.jsonl,after=b.jsonl

Files: .parquet, .jsonl or .csv with a row per question and the columns
  probs        a list of K probabilities; or probs_<method>; or a column per option (prob_0, prob_1,
               ... or p_A, p_B, ...); or log_scores or logits, whose softmax is taken
  answer       the right option: a 0-based index or a letter (--config.report.answer_base)
and, where there are any, id, split, subject, task, question, choices. Samples of
lm-evaluation-harness (--log_samples) and the predictions/*.parquet of any run are read as they are;
a folder stands for its .parquet files.

Several files of the same questions are columns of one table (name=file); "before" and "after" are
also compared question by question. Other questions are named by split: name:split=file.
Written: summary.json, report.html, figures, tables/ and predictions/. Hardware: any CPU; 10,000
questions take about half a minute, most of it compilation.
"""

from calib_jax import config as base_config


def get_config(preset: str = ""):
    if preset:
        raise ValueError(f"configs/report.py has no presets; got {preset!r}")
    config = base_config.base()
    config.job = "report"
    config.method = "report"
    return config
