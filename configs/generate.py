"""Answers to prompts, in the files that AlpacaEval's and Arena-Hard's judges read.

python -m calib_jax.main --config=configs/generate.py --config.generate.prompts=alpaca_eval.json
python -m calib_jax.main --config=configs/generate.py:arena_hard \\
    --config.generate.prompts=question.jsonl --config.model.name=... --config.model.adapter=...

A run's adapter is exported first (configs/export.py, --config.export.format=adapter) and given as
config.model.adapter; a run with all weights trained is exported whole and given as the model.

Prompts: a .jsonl, .json or .parquet file or hf:<owner>/<name>[:<config>]:<split>, with a column
instruction, turns, messages, prompt or question. They are put into the tokenizer's chat template
(--config.prompt.chat=False: plain text) and never cut. An answer ends at EOS or the end of the
turn, as generation_config.json, the tokenizer or the template has it, or at
config.generate.max_new_tokens or the model's length; cut ones are counted. An answer depends on the
prompt, its id, the seed and the settings, not on what is in its batch. The same command continues
where it was stopped.

  preset        hardware               what it does
  (default)     2 CPU cores, 3 GiB     AlpacaEval's layout, greedy, up to 1,024 tokens: a list of
                                       instruction, output, generator (dataset) in
                                       WORKDIR/<name>.json, for alpaca_eval --model_outputs
  arena_hard    the same               Arena-Hard's, v2.0 (uid, prompt) or v0.1 (question_id,
                                       turns), up to 4,096 tokens, in
                                       WORKDIR/model_answer/<name>.jsonl; copy it to
                                       data/<bench>/model_answer/. Its token_len is by the model's
                                       own tokenizer; the benchmark's add_markdown_info.py counts
                                       anew
  debug         2 CPU cores, 2 GiB     four prompts, 16 tokens each: does everything run?

SmolLM2-135M on 1 core in float32: 35 to 54 tokens/s in batches of 8.
"""

from calib_jax import config as base_config
from calib_jax.errors import UserError


def get_config(preset: str = ""):
    if preset not in ("", "arena_hard", "debug"):
        raise UserError(
            f"no preset {preset!r}; there is arena_hard, debug, or none for AlpacaEval."
        )
    config = base_config.base()
    config.job = "generate"
    config.method = "generate"
    config.prompt.chat = True
    # The model's own length.
    config.prompt.max_length = 0
    if preset == "arena_hard":
        config.generate.format = "arena_hard"
        config.generate.max_new_tokens = 4096
    if preset == "debug":
        config.generate.size = config.generate.batch_size = 4
        config.generate.max_new_tokens = 16
    return config
