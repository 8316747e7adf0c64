"""A full report from any predictions file: no model, no training, seconds on a CPU.

python -m calib_jax.main --config=configs/report.py --config.report.predictions=predictions.csv
python -m calib_jax.main --config=configs/report.py --workdir=runs/mine \\
    --config.report.predictions=before=a.jsonl,after=b.jsonl

Files: .parquet, .jsonl, .csv or one JSON list, with a row per question and the columns
  probs        a list of K probabilities, or {name: probability}; or probs_<method>; or a column per
               option (prob_0, prob_1, ... or p_A, p_B, ... or prob_Billing, prob_Technical, ... or
               the names alone); or log_scores or logits, whose softmax is taken
  answer       the right option: its text or name, a letter, or a 0-based index (of numbers that
               may count from 1, --config.report.answer_base says which)
or, of free answers in text,
  confidence   a number from 0 to 1 (or a column confidence_<method>, with config.report.method)
  correct      whether the answer is right: true or false, 1 or 0
and, where there are any, id, split, subject, task, question, choices and cluster (or passage_id,
passage, context): rows of one value depend on each other. Any other layout:
  --config.report.columns=Billing,Technical,Sales,answer=truth,id=ticket    a column per option
  --config.report.columns=probs=output.probabilities,answer=target          a column of lists
  --config.report.columns=score,answer=label       the probability of "1" of a yes/no question
  --config.report.ordered=True             options in an order, lowest first: stars, severities
Options with the same names in every row are classes: tables and page name them, and hold a table of
classes where they else have letters.

Samples of lm-evaluation-harness (--log_samples) and the predictions/*.parquet of any run are read
as they are. A folder stands for its .parquet files or its samples, also those one level down, as in
the folder given to the harness's --output_path; a file there that cannot be read, such as the
samples of a task that generates text, is named and left out. Of several right answers
(truthfulqa_mc2) the likeliest counts.

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
