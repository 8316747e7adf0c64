"""README.md of an export: what the model is, what was done to it, what was measured, how to load.

Every figure comes from the run's summary.json; where nothing was measured, the card says so.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from calib_jax.models.lora import LoraConfig
from calib_jax.reports import table

# Methods of the job "align", as readers know them.
ALIGNED = {
    "sft": "supervised fine-tuning (SFT) on demonstrations",
    "dpo": "direct preference optimisation (DPO) on preference pairs",
}
# What stands for the export's own folder, and for a base that lies on a disk, in the snippets.
HERE = "path/to/this/folder"


@dataclasses.dataclass(frozen=True)
class Stage:
    """A run whose adapter the next one went on from.

    Attributes:
      folder: of the run.
      config, summary: of the run.
    """

    folder: str
    config: Mapping[str, Any]
    summary: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Facts:
    """What the card states.

    Attributes:
      name, revision: of the base, as it was named ("" for no revision).
      on_hub: whether that name is a hub id, which the card links to.
      fingerprint: of the base's files (and of an adapter's that was beside them).
      adapter: name of the adapter that the run started from, or that was merged in; "" for none.
      architecture: the model's class in transformers.
      format: "merged" or "adapter".
      dtype: of the tensors in the files.
      identity: a hash of what was exported and how.
      lora: settings of the adapters, None after full fine-tuning and for a plain conversion.
      config: the run's config, None for a plain conversion.
      summary: the run's summary.json, None for a plain conversion.
      versions: of the packages that wrote the export.
      earlier: the runs that the adapter came from, first to last, as far as they are known.
    """

    name: str
    revision: str
    on_hub: bool
    fingerprint: str
    adapter: str
    architecture: str
    format: str
    dtype: str
    identity: str
    lora: LoraConfig | None
    config: Mapping[str, Any] | None
    summary: Mapping[str, Any] | None
    versions: Mapping[str, Any]
    earlier: tuple[Stage, ...] = ()


def identity_line(identity: str) -> str:
    """The line by which an export is known again."""
    return f"calib_jax_export: {identity}\n"


def text(facts: Facts) -> str:
    """The whole card in Markdown, with the hub's metadata on top."""
    parts = [_front_matter(facts), _title(facts), _base(facts)]
    if facts.config is not None and facts.summary is not None:
        rows = _aligning(facts) if _aligned(facts.config) else _calibrating(facts)
        data = _aligning_data(facts) if _aligned(facts.config) else _calibrating_data(facts)
        parts += [_stages(facts), _method(facts, rows), _data(facts, data), _measured(facts)]
    else:
        parts.append(
            "## Calibration\n\nNothing was trained and nothing was measured: the weights are the "
            "base's" + (", with the adapter merged in" if _merges(facts) else "") + ".\n"
        )
    return "\n".join([*filter(None, parts), _loading(facts), _versions(facts)])


def _front_matter(facts: Facts) -> str:
    lines = ["---"]
    if facts.on_hub:
        lines.append(f"base_model: {facts.name}")
        if facts.format == "merged" and facts.config is not None:
            lines.append("base_model_relation: finetune")
    lines.append(f"library_name: {'peft' if facts.format == 'adapter' else 'transformers'}")
    lines.append("pipeline_tag: text-generation")
    lines.append("tags:")
    tags = ["calib_jax"]
    if facts.config is not None:
        aligned = _aligned(facts.config)
        tags.insert(0, facts.config["align"]["method"] if aligned else "calibration")
    if facts.format == "adapter":
        tags.append("lora")
    lines += [f"- {tag}" for tag in tags]
    return "\n".join(lines) + "\n" + identity_line(facts.identity) + "---\n"


def _title(facts: Facts) -> str:
    name = facts.name.removeprefix("offline:").rstrip("/").rpartition("/")[2]
    if facts.config is None:
        what = "a PEFT adapter" if facts.format == "adapter" else "a Hugging Face checkpoint"
        return f"# {name}\n\nConverted to {what} by calib_jax.\n"
    what = "A LoRA adapter for" if facts.format == "adapter" else "The weights of"
    what += f" {facts.name} after"
    if _aligned(facts.config):
        method = facts.config["align"]["method"]
        return (
            f"# {name}, trained by {method.upper()}\n\n{what} {ALIGNED[method]} with calib_jax. "
            "There was no calibration term; the figures below say how well confidence agrees "
            "with accuracy.\n"
        )
    method = str(facts.config["method"]).upper().replace("_", " ")
    if not facts.config["train"]["ece_weight"]:
        return (
            f"# {name}, fine-tuned by {method}\n\n{what} supervised fine-tuning on "
            "multiple-choice questions with calib_jax, without a calibration term. The figures "
            "below say how well confidence agrees with accuracy.\n"
        )
    return (
        f"# {name}, calibrated by {method}\n\n{what} calibration-aware "
        "fine-tuning on multiple-choice questions with calib_jax. The goal is a confidence that "
        "agrees with the accuracy; the figures below say how far it was reached.\n"
    )


def _aligned(config: Mapping[str, Any]) -> bool:
    return config["job"] == "align"


def _merges(facts: Facts) -> bool:
    return facts.format == "merged" and bool(facts.adapter)


def _base(facts: Facts) -> str:
    name = f"[{facts.name}](https://huggingface.co/{facts.name})" if facts.on_hub else facts.name
    lines = ["## Base", "", f"- model: {name} ({facts.architecture})"]
    if facts.revision:
        lines.append(f"- revision: {facts.revision}")
    lines.append(f"- fingerprint of its files: `{facts.fingerprint}`")
    if facts.adapter:
        role = "merged into it first" if facts.lora is None else "training went on from it"
        lines.append(f"- adapter: {facts.adapter} ({role})")
    lines += [f"- dtype of the tensors here: {facts.dtype}", "- licence: that of the base"]
    return "\n".join(lines) + "\n"


def _stages(facts: Facts) -> str:
    """What the adapter went through before this run; "" where that is not known."""
    if not facts.earlier:
        return ""
    lines = [
        f"{i}. {_stage(stage.config, stage.summary)} (run {stage.folder})"
        for i, stage in enumerate(facts.earlier, 1)
    ]
    last = f"{len(lines) + 1}. {_stage(facts.config, facts.summary)} (this run, told below)"
    return "\n".join(["## Stages", "", *lines, last]) + "\n"


def _stage(config: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """One training run in a line: method, what was learnt, and how much of it."""
    if _aligned(config):
        return f"{config['align']['method'].upper()} on {_learnt(config, found)}"
    method = str(config["method"]).upper().replace("_", " ")
    count = found.get("training", {}).get("questions", "an unrecorded number of")
    return f"{method} on {count} questions from: {config['data']['train']}"


def _learnt(config: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """What a run of the job "align" has learnt, with number and source."""
    count = found.get("training", {}).get("examples", "an unrecorded number of")
    what = "preference pairs" if config["align"]["method"] == "dpo" else "demonstrations"
    return f"{count} {what} from: {config['align']['train']}"


def _calibrating(facts: Facts) -> dict[str, Any]:
    """What the job "finetune" did: what is not the default is stated, the rest where it matters."""
    train, em = facts.config["train"], facts.config["em"]
    rows: dict[str, Any] = {
        "supervised term": {
            "sft1": "SFT1 (the answer's token)",
            "sft2": "SFT2 (question and answer tokens)",
            "none": "none",
        }[train["sft"]]
    }
    if train["label_smoothing"]:
        over = {"vocabulary": "the vocabulary", "letters": "the options' letters"}
        rows["label smoothing"] = f"{train['label_smoothing']} over {over[train['smooth_over']]}"
    rows["weight of the calibration term"] = train["ece_weight"]
    iterations = ""
    if train["ece_weight"]:
        rows["confidence bins"] = f"{em['num_bins']}, closed on the {em['edges']}"
        if em["binning"] == "mass":
            rows["confidence bins"] = f"{em['num_bins']}, with as many questions in each"
        if em["shrinkage"]:
            rows["shrinkage of a bin's accuracy to the overall one"] = (
                f"as by {em['shrinkage']:g} questions"
            )
        if em["refresh"] == "epoch":
            iterations = " (EM iterations)"
        else:
            rows["bins and targets made anew"] = {
                "steps": f"every {em['refresh_steps']} steps",
                "online": "online, from the training batches (no E-step)",
            }[em["refresh"]]
    return rows | _extent(facts, iterations)


def _aligning(facts: Facts) -> dict[str, Any]:
    """What the job "align" did."""
    align = facts.config["align"]
    if align["method"] == "sft":
        rows = {"loss": "cross-entropy of the responses' tokens, none of the prompts'"}
    else:
        start = f"base with {facts.adapter}" if facts.adapter else "base"
        rows = {
            "loss": "sigmoid loss of DPO",
            "β": align["beta"],
            "label smoothing (cDPO)": align["label_smoothing"] or "none",
            "reference": f"the model at the start ({start})",
        }
    if not align["chat"]:
        rows["messages"] = "as plain text, without the chat template"
    rows["longest prompt and response, in tokens"] = align["max_length"]
    return rows | _extent(facts, "")


def _extent(facts: Facts, iterations: str) -> dict[str, Any]:
    """How long and of what was trained: the same for every method."""
    train, done = facts.config["train"], facts.summary.get("training", {})
    asked, trained = train["epochs"], done.get("epochs_trained")
    stops = bool(train["early_stopping"])
    # Runs of an older version do not say what early stopping left out.
    most = "at most " if stops and trained is None else ""
    epochs = f"{most}{asked if trained is None else trained}"
    rows = {
        f"epochs{iterations}": epochs + (f" of {asked}" if stops and trained is not None else ""),
        "optimiser steps": f"{most}{done['steps']}" if "steps" in done else "not recorded",
    }
    if stops:
        rounds = train["early_stopping"]
        rows["early stopping"] = (
            f"after {rounds} epoch{'s' * (rounds > 1)} without a lower "
            f"{train['early_stopping_metric']} on {facts.config['data']['validation']}"
        )
        if done.get("best_epoch"):
            rows["the model here"] = f"that after epoch {done['best_epoch']}, the best"
    rows |= {
        "batch size": train["batch_size"],
        "peak learning rate": train["learning_rate"],
        "warm-up ratio": train["warmup_ratio"],
        "weight decay": train["weight_decay"],
        "gradient norm clipped at": train["clip_norm"] or "never",
        "seed": facts.config["seed"],
    }
    if facts.lora is None:
        rows["trained"] = "all parameters"
    else:
        lora = facts.lora
        rows["trained"] = (
            f"LoRA of rank {lora.rank}, alpha {lora.alpha:g}"
            + (" (rank-stabilised)" if lora.rank_stabilised else "")
            + f", dropout {lora.dropout:g}, on {', '.join(lora.targets) or 'all projections'}"
        )
    if kind := facts.config["model"].get("quantize"):
        here = "; unquantised here" if facts.format == "merged" else ""
        rows["base during training"] = f"quantised as {kind}{here}"
    return rows


def _method(facts: Facts, rows: Mapping[str, Any]) -> str:
    lines = [f"| {table.escape(key)} | {table.escape(str(value))} |" for key, value in rows.items()]
    return "\n".join(["## Method", "", "| | |", "|---|---|", *lines]) + "\n"


def _calibrating_data(facts: Facts) -> list[str]:
    data, found = facts.config["data"], facts.summary.get("data", {})
    trained = facts.summary.get("training", {}).get("questions", "an unrecorded number of")
    lines = [f"- trained on {trained} questions from: {data['train']}"]
    if facts.config["train"]["early_stopping"]:
        count = found.get("n", {}).get("validation", "an unrecorded number of")
        lines.append(f"- chosen among epochs by {count} questions from: {data['validation']}")
    removed = found.get("removed_overlap_total")
    if removed is not None:
        lines.append(
            f"- questions left out of training because a measured split has them: {removed}"
        )
    return lines


def _aligning_data(facts: Facts) -> list[str]:
    lines = [f"- trained on {_learnt(facts.config, facts.summary)}"]
    train = facts.summary.get("data", {}).get("align", {}).get("train", {})
    reasons = {
        "removed_overlap": "their prompts stand in what is measured",
        "skipped_too_long": "longer than the limit",
    }
    without = [f"{train[key]} ({why})" for key, why in reasons.items() if train.get(key)]
    without += [
        f"{count} ({reason.replace('_', ' ')})"
        for reason, count in train.get("left_out", {}).items()
        if count
    ]
    if without:
        lines.append(f"- left out of them: {', '.join(without)}")
    held_out = facts.summary.get("preferences", {}).get("held_out", {}).get("pairs")
    if held_out:
        before, after = held_out["before"], held_out["after"]
        lines.append(
            f"- held-out preference pairs: {after['n']} from {facts.config['align']['eval']}; the "
            f"chosen answer is the likelier one in {before['accuracy']:.1%} of them before and in "
            f"{after['accuracy']:.1%} after"
        )
    return lines


def _data(facts: Facts, learnt: list[str]) -> str:
    counts = {name: row["n"] for name, row in facts.summary.get("after", {}).items()}
    lines = ["## Data", "", *learnt, f"- measured on: {facts.config['data']['eval']}"]
    lines += [f"  - {name}: {n} questions" for name, n in counts.items()]
    template = facts.config["prompt"]["template"]
    prompt = "calib_jax's default" if not template else f"`{json.dumps(template)}`"
    which = "prompt of these" if _aligned(facts.config) else "prompt"
    lines.append(f"- {which}: {prompt}; the confidence is that of the option's letter")
    return "\n".join(lines) + "\n"


def _measured(facts: Facts) -> str:
    beside = ""
    if facts.lora:
        kind = facts.config["model"].get("quantize")
        base = f"a base quantised as {kind}" if kind else "the base and in its own precision"
        beside = f", with adapters beside {base}"
    return (
        "## Calibration before and after\n\n"
        + table.markdown(facts.summary)
        + f"\nMeasured by the run{beside}. Other prompts, tasks and "
        + ("precisions of the base" if "quantised" in beside else "quantised copies")
        + " were not measured.\n"
    )


def _loading(facts: Facts) -> str:
    if facts.format == "merged":
        return (
            "## Loading\n\n```python\nfrom transformers import AutoModelForCausalLM\n\n"
            f'model = AutoModelForCausalLM.from_pretrained("{HERE}", dtype="auto")\n```\n\n'
            f'```python\nimport calib_jax\n\nmodel = calib_jax.load_model("{HERE}")\n```\n'
        )
    base = json.dumps(facts.name, ensure_ascii=False)
    revision = f", revision={json.dumps(facts.revision)}" if facts.revision else ""
    theirs, note = base, ""
    if facts.name.startswith("offline:") or facts.name.lower().endswith(".gguf"):
        theirs = '"path/to/the/base"'
        note = (
            "# The base as a Hugging Face folder: python -m calib_jax.main "
            "--config=configs/export.py \\\n"
            f"#     --config.model.name={facts.name} --workdir=path/to/the/base\n"
        )
    return (
        "## Loading\n\n```python\nfrom peft import PeftModel\n"
        f"from transformers import AutoModelForCausalLM\n\n{note}"
        f"base = AutoModelForCausalLM.from_pretrained({theirs}{revision})\n"
        f'model = PeftModel.from_pretrained(base, "{HERE}")\n```\n\n'
        "```python\nimport calib_jax\n\n"
        f'model = calib_jax.load_model({base}{revision}, adapter="{HERE}")\n```\n'
    )


def _versions(facts: Facts) -> str:
    trained = (facts.summary or {}).get("versions", {})
    lines = ["## Versions", ""]
    for what, versions in (("trained with", trained), ("exported with", facts.versions)):
        if versions:
            names = ("calib_jax", "jax", "flax", "optax", "transformers")
            stated = [f"{name} {versions[name]}" for name in names if versions.get(name)]
            lines.append(f"- {what}: {', '.join(stated)}")
    return "\n".join(lines) + "\n"
