"""What is wrong between fields, or missing: found without any file, model or device.

Every function takes the config and yields messages, each of which names the fields and the remedy;
``CONFLICTS`` says for which jobs it is called.
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

import ml_collections

from calib_jax.config.field import READS, find
from calib_jax.config.table_model import MODEL
from calib_jax.config.table_train import TRAIN
from calib_jax.grammar import PAIR_SPELLINGS, PAIRS_OF_QUESTIONS, numbers, split_list

Config: TypeAlias = ml_collections.ConfigDict
_NOTHING_TO_MEASURE = "there would be nothing to measure. Name a source of questions."


def measured_questions(config: Config) -> Iterator[str]:
    """Something must be measured."""
    if not split_list(config.data.eval):
        yield f"config.data.eval names no source; {_NOTHING_TO_MEASURE}"


def training_questions(config: Config) -> Iterator[str]:
    """Something must be learnt, and one split at most held out."""
    if not split_list(config.data.train):
        yield "config.data.train names no source; there would be nothing to train on."
    validation = split_list(config.data.validation)
    if len(validation) > 1:
        yield f"config.data.validation names {len(validation)} sources; it takes one."
    if config.train.early_stopping > 0 and not validation:
        yield (
            "config.train.early_stopping looks at config.data.validation, which is empty. Name a "
            "split there that is not in config.data.eval."
        )
    if config.batch.token_budget < 1:
        yield f"config.batch.token_budget is {config.batch.token_budget}; expected 1 or more."


def training(config: Config) -> Iterator[str]:
    """What every training needs."""
    if config.prompt.max_length < 1:
        yield f"config.prompt.max_length is {config.prompt.max_length}; expected 1 or more."


def frozen_base(config: Config) -> Iterator[str]:
    """A quantised base is trained by adapters."""
    if config.model.quantize and config.train.method == "full":
        yield (
            f"config.model.quantize is {config.model.quantize!r}, which freezes the base, and "
            "config.train.method is 'full'. Set --config.train.method=lora, or leave "
            "config.model.quantize empty."
        )


def objective(config: Config) -> Iterator[str]:
    """The terms of the loss and the bins behind them must fit one another."""
    train, em = config.train, config.em
    if train.objective == "released":
        yield from _released(config)
    elif train.objective == "paper":
        if train.alpha != TRAIN["train.alpha"].default:
            yield (
                f"config.train.alpha is {train.alpha}, which weighs the terms of the released "
                "objective, and config.train.objective is 'paper', whose weight is "
                "config.train.ece_weight. Set one of the two, or --config.train.objective=released."
            )
        further = split_list(train.terms) and find("calib_jax.training.terms:active")(train)
        if train.sft == "none" and not train.ece_weight and not further:
            yield (
                "config.train.sft is 'none', config.train.ece_weight is 0 and config.train.terms "
                "has no weight above 0: no loss is left. Set one of them."
            )
    needs = find("calib_jax.training.terms:needs")(train)
    if em.refresh == "online" and "own" in needs:
        yield (
            "config.em.refresh is 'online', and config.train.terms has distil, whose own "
            "probabilities come from an E-step. Set --config.em.refresh=once or epoch."
        )
    if "levels" in needs and config.data.shuffle_options:
        yield (
            "config.train.terms has tokenised_brier, whose options stand in an order, and "
            "config.data.shuffle_options is True. Set --config.data.shuffle_options=False."
        )
    if train.label_smoothing and train.sft in ("sft2", "none"):
        yield (
            "config.train.label_smoothing smooths SFT1's answers, and config.train.sft is "
            f"{train.sft!r}. Set --config.train.sft=sft1, or label_smoothing to 0."
        )
    if train.reading != "choice":
        yield from _texts(config)
    if em.refresh == "online" and em.binning == "mass":
        yield (
            "config.em.binning is 'mass', which needs all questions at once, and config.em.refresh "
            "is 'online'. Set --config.em.binning=width or --config.em.refresh=epoch."
        )
    if em.refresh == "online" and em.held_out:
        yield (
            f"config.em.held_out is {em.held_out:g}, which needs an E-step, and config.em.refresh "
            "is 'online'. Set --config.em.held_out=0 or --config.em.refresh=epoch."
        )


def _texts(config: Config) -> Iterator[str]:
    """What is of letters alone."""
    train = config.train
    for path, value, needed, why in (
        ("objective", train.objective == "released", "paper", "its bins are those of letters"),
        ("sft", train.sft == "sft2", "sft1", "SFT2 learns prompts that a letter ends"),
        (
            "label_smoothing",
            train.label_smoothing > 0,
            0.0,
            "a letter's label is smoothed, and a text has as many as it has tokens",
        ),
    ):
        if value:
            yield (
                f"config.train.{path} is {train[path]!r}, and config.train.reading is "
                f"{train.reading!r}: {why}. Set --config.train.{path}={needed}, or "
                "--config.train.reading=choice."
            )


def _released(config: Config) -> Iterator[str]:
    train, em = config.train, config.em
    if train.sft == "none" and not train.alpha:
        yield (
            "config.train.sft is 'none' and config.train.alpha is 0: no loss is left. Set one of "
            "the two."
        )
    for path, value, needed, why in (
        ("train.ece_weight", train.ece_weight, 0.0, "config.train.alpha takes its place"),
        ("train.terms", train.terms, "", "it has no further terms"),
        ("train.divergence", train.divergence, "squared", "it has the squared error alone"),
        ("em.binning", em.binning, "width", "its bins are of equal width"),
        ("em.held_out", em.held_out, 0.0, "its accuracies are of the questions that it learns"),
    ):
        if value != needed:
            yield (
                f"config.{path} is {value!r}, and config.train.objective is 'released': {why}. Set "
                f"--config.{path}={needed}."
            )
    if em.refresh == "online":
        yield (
            "config.em.refresh is 'online', and config.train.objective is 'released', whose bins "
            "come from an E-step. Set --config.em.refresh=once, as the authors have it."
        )


def alignment_stage(config: Config) -> Iterator[str]:
    """What the job align learns and measures."""
    align = config.align
    if config.prompt.chat and not align.chat:
        yield (
            "config.prompt.chat is True and config.align.chat is False: pairs of questions would "
            "be learnt in another form than the one that is measured. Set both alike."
        )
    if not align.train.strip():
        yield (
            f"config.align.train names no source; write {PAIR_SPELLINGS}, such as "
            f"{PAIRS_OF_QUESTIONS}offline:openbookqa/train@0.8."
        )
    if align.method == "sft" and align.eval.strip().startswith("train:"):
        yield (
            "config.align.eval names pairs of config.align.train, which holds demonstrations "
            "to SFT. Name a source of pairs, or set it to ''."
        )
    if config.train.early_stopping:
        yield (
            "config.train.early_stopping belongs to the job finetune; set it to 0, and choose "
            "config.train.epochs."
        )


def one_template(config: Config) -> Iterator[str]:
    """The template for letters has two names; one of them is to be used."""
    if config.prompt.choice and config.prompt.template:
        yield (
            "config.prompt.choice and config.prompt.template are both templates for letters; set "
            "one of them."
        )


def one_method(config: Config) -> Iterator[str]:
    """Where models are compared, tasks are read by one method."""
    tasks = config.lifecycle.tasks if config.job == "lifecycle" else config.data.eval
    if split_list(tasks) and len(split_list(config.confidence.methods)) > 1:
        yield (
            f"config.confidence.methods names several methods; the job {config.job} reads tasks by "
            "one. Leave the others out."
        )


def stages(config: Config) -> Iterator[str]:
    """A chain is trained, or its models are named."""
    if split_list(config.stages.models) and split_list(config.stages.settings):
        yield (
            "config.stages.settings belongs to stages that are trained, and config.stages.models "
            "names models that were. Leave out one of the two."
        )
    if config.align.eval.strip().startswith("train:"):
        yield (
            f"config.align.eval is {config.align.eval!r}, pairs that are held out of one run's own "
            "training pairs, and every model of the job stages is asked the same. Name a source, "
            "such as --config.align.eval=questions:offline:openbookqa/test@0.8."
        )


def sweep(config: Config) -> Iterator[str]:
    """λ = 0 leaves the SFT term alone."""
    if config.train.sft == "none" and 0 in numbers(
        config.sweep.ece_weight, "config.sweep.ece_weight", float
    ):
        yield (
            "config.sweep.ece_weight holds 0, and config.train.sft is 'none': no loss would be "
            "left. Leave 0 out."
        )


def alignment(config: Config) -> Iterator[str]:
    """Models to compare, and something to compare them on."""
    asked = config.alignment
    if not split_list(asked.models):
        yield (
            "config.alignment.models names no model to compare config.model with; write "
            "label=model[@revision][+adapter] or label=run:<folder>[@<epoch>], separated by "
            "commas, such as --config.alignment.models=cft=run:runs/cft."
        )
    if not (split_list(asked.pairs) or split_list(asked.text)):
        yield (
            "config.alignment.pairs and config.alignment.text are empty; there would be nothing to "
            "measure. Set one of the two."
        )


def generation(config: Config) -> Iterator[str]:
    """Prompts; and a distribution that is cut must be drawn from."""
    asked = config.generate
    if not asked.prompts:
        yield (
            "config.generate.prompts names no source. Give a .jsonl, .json or .parquet file, or "
            "hf:<owner>/<name>[:<config>]:<split>."
        )
    if asked.temperature == 0 and (asked.top_k or asked.top_p < 1):
        yield (
            "config.generate.top_k and config.generate.top_p cut a distribution that is drawn "
            "from, and config.generate.temperature is 0 (greedy). Set a temperature, or leave them "
            "out."
        )


def lifecycle(config: Config) -> Iterator[str]:
    """Something to measure, and models that say their own revision and adapter."""
    asked = config.lifecycle
    if not (asked.text or asked.facts or split_list(asked.tasks)):
        yield (
            "config.lifecycle.text, config.lifecycle.facts and config.lifecycle.tasks are empty; "
            "there would be nothing to measure. Set one of the three."
        )
    if split_list(asked.models):
        yield from (
            f"config.model.{key} is {config.model[key]!r}, and belongs to config.model alone; with "
            "config.lifecycle.models write label=model[@revision][+adapter], separated by commas."
            for key in ("adapter", "revision")
            if config.model[key]
        )


def study(config: Config) -> Iterator[str]:
    """Pairs or published figures, whose models say their own revision and adapter."""
    yield from (
        f"config.model.{key} is {config.model[key]!r}, which a study of several models does not "
        "use. Write it into config.study.pairs: model@revision, model+adapter."
        for key in ("revision", "adapter")
        if config.model[key]
    )
    if not (split_list(config.study.pairs) or split_list(config.study.published)):
        yield (
            "config.study.pairs names no pair. Write --config.study.pairs=name=base->aligned, or "
            "name CSV files of published figures in config.study.published. configs/study.py says "
            "how a pair is made offline."
        )


def judgements(config: Config) -> Iterator[str]:
    """Files of judgements."""
    if not split_list(config.winrate.judgements):
        yield (
            "config.winrate.judgements names no file. Give AlpacaEval's annotations.json or "
            "Arena-Hard's model_judgment/<judge>/<model>.jsonl; configs/winrate.py says more."
        )


def export(config: Config) -> Iterator[str]:
    """The model is the run's or the config's, and an adapter is there to be written."""
    asked = config.export
    if asked.run:
        yield from (
            f"config.model.{key} is {value!r}, but what is exported is the model of the run "
            f"{asked.run}. Leave out one of the two."
            for key, value in config.model.items()
            if value != MODEL[f"model.{key}"].default
        )
        return
    if asked.epoch:
        yield (
            f"config.export.epoch is {asked.epoch}, and config.export.run names no run whose epoch "
            "that would be."
        )
    if asked.format == "adapter" and not config.model.adapter:
        yield (
            "config.export.format is 'adapter', but there is no adapter: config.export.run names "
            "no run and config.model.adapter is ''. Set one of the two."
        )


def order(config: Config) -> Iterator[str]:
    """Options in an order are not shuffled."""
    data = config.data
    if config.report.ordered and (data.shuffle_options or split_list(data.shuffle_tasks)):
        yield (
            "config.report.ordered is True, and config.data shuffles the options. Set "
            "--config.data.shuffle_options=False and leave config.data.shuffle_tasks empty."
        )


def hidden_states(config: Config) -> Iterator[str]:
    """What reads hidden states is asked for where they are kept."""
    known = find("calib_jax.posthoc:METHODS")
    for name in split_list(config.posthoc.methods):
        if name not in known or known[name].reads != "states":
            continue
        what = f"config.posthoc.methods names {name!r}, which reads hidden states"
        if config.job == "report":
            yield f"{what}, and a report has the scores and the answers only. Leave it out."
        elif config.job != "evaluate":
            yield (
                f"{what}, and the job {config.job!r} keeps none. Leave it out, or ask for it with "
                "--config.job=evaluate or in config.compare.methods."
            )
        elif split_list(config.confidence.methods) != ("choice",):
            yield (
                f"{what} where letters are read, and config.confidence.methods is "
                f"{config.confidence.methods!r}. Set --config.confidence.methods=choice."
            )


_OWN_RUNS = ("finetune", "compare", "sweep")
CONFLICTS: tuple[tuple[tuple[str, ...], Callable[[Config], Iterator[str]]], ...] = (
    ((*_OWN_RUNS, "align", "stages", "evaluate"), measured_questions),
    (_OWN_RUNS, training_questions),
    ((*_OWN_RUNS, "align", "plan"), training),
    (("finetune", "align"), frozen_base),
    (("finetune", "plan"), objective),
    (("align",), alignment_stage),
    (("evaluate",), order),
    (("finetune", "align", "evaluate", "report"), hidden_states),
    (READS, one_template),
    (("lifecycle", "stages"), one_method),
    (("stages",), stages),
    (("sweep",), sweep),
    (("alignment",), alignment),
    (("generate",), generation),
    (("lifecycle",), lifecycle),
    (("study",), study),
    (("winrate",), judgements),
    (("export",), export),
)
