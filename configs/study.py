"""What alignment changes in calibration: base <-> aligned pairs x tasks x methods (Oh, Hwang 2024).

python -m calib_jax.main --config=configs/study.py \\
    --config.study.pairs="name=base->aligned,name2=base2->aligned2"

A model is what --config.model.name takes, model@revision, model+adapter (a folder in PEFT's
format), or run:FOLDER for a finished run of configs/evaluate.py. Each is measured once, in
WORKDIR/models/, with the same plain prompt on both sides; the same command continues an interrupted
study. A pair that can be made offline, SmolLM2-135M-Instruct as shipped and after CFT:

python -m calib_jax.main --config=configs/cft.py
python -m calib_jax.main --config=configs/export.py --config.export.run=runs/cft \\
    --config.export.format=adapter --workdir=cft-adapter
python -m calib_jax.main --config=configs/study.py --config.study.pairs=\\
"smollm2=offline:smollm2-135m-instruct->offline:smollm2-135m-instruct+cft-adapter"

The authors' own figures, without any model, from their three CSV files (datas/ of their
repository, github.com/abzb1/alingment_calibration):

python -m calib_jax.main --config=configs/study.py \\
    --config.study.published=choice.csv,sum.csv,min.csv

Their SCE is read as the one-vs-rest form, which it fits; csv/sce/ of a study of ours says in its
headers that it is class-wise. sce=FILE (class-wise) and sce_ovr=FILE say it for any other file.
What a file cannot mean is refused: a change and a ratio of opposite signs, values outside [0, 1].

  preset       hardware                what it does
  (default)    2 CPU cores, 3 GiB      three tasks, three methods, 200 questions each
  debug        2 CPU cores, 2 GiB      two tasks, 16 questions each: does everything run?
  paper        8 accelerators          the paper's seven pairs, 7B to 72B, on its seven tasks, every
                                       question, options in the data sets' own order (of SciQ
                                       alone they are shuffled: its right answer always stands
                                       last). Not run by us. The paper has no continuation_min for
                                       the two largest.

Figure 1's changes are read by continuation_sum, in which the paper names the decreases; by the
first of config.confidence.methods where that was not measured.

Written: summary.json, report.html, tables/ (Table 1 and every change), figures/ (Figures 1 and 2),
csv/ in the authors' layout, and models/, a run of the job "evaluate" for each model.
"""

from calib_jax import config as base_config
from calib_jax.errors import UserError

# The paper names no versions of Mistral; these are the first.
PAIRS = {
    "Llama-2-7b": ("meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-7b-chat-hf"),
    "Llama-3-8B": ("meta-llama/Meta-Llama-3-8B", "meta-llama/Meta-Llama-3-8B-Instruct"),
    "Mistral-7B": ("mistralai/Mistral-7B-v0.1", "mistralai/Mistral-7B-Instruct-v0.1"),
    "OLMo-7B": ("allenai/OLMo-7B-hf", "allenai/OLMo-7B-Instruct-hf"),
    "gemma-7b": ("google/gemma-7b", "google/gemma-7b-it"),
    "Llama-3-70B": ("meta-llama/Meta-Llama-3-70B", "meta-llama/Meta-Llama-3-70B-Instruct"),
    "Qwen2-72B": ("Qwen/Qwen2-72B", "Qwen/Qwen2-72B-Instruct"),
}
TASKS = "arc_challenge,arc_easy,hellaswag,medmcqa,mmlu,piqa,sciq"


def get_config(preset: str = ""):
    if preset not in ("", "debug", "paper"):
        raise UserError(f"no preset {preset!r}; there is debug, paper, or none for the default.")
    config = base_config.base()
    config.job = "study"
    config.method = "study"
    config.confidence.methods = "choice,continuation_sum,continuation_min"
    config.data.train = ""
    config.data.eval = "arc_easy,openbookqa,piqa"
    config.data.eval_size = 200
    config.batch.token_budget = 0
    # Prompts longer than a model's own length are cut at the left, and counted.
    config.prompt.max_length = 0
    if preset == "debug":
        config.data.eval = "arc_easy,openbookqa"
        config.data.eval_size = 16
        config.report.num_resamples = 100
    if preset == "paper":
        config.study.pairs = ",".join(f"{n}={base}->{it}" for n, (base, it) in PAIRS.items())
        config.data.eval = TASKS
        config.data.eval_size = 0
        # Options as the data sets have them; SciQ's right answer always stands last.
        config.data.shuffle_tasks = "sciq"
        config.mesh.shape = (1, 1, -1)
    return config
