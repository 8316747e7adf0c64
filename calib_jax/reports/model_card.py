"""README.md of an export: what the model is, what was done to it, what was measured, how to load.

Every figure comes from the run's summary.json; where nothing was measured, the card says so.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from calib_jax.models.lora import LoraConfig
from calib_jax.reports import table

# What stands for the export's own folder, and for a base that lies on a disk, in the snippets.
HERE = "path/to/this/folder"


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


def identity_line(identity: str) -> str:
    """The line by which an export is known again."""
    return f"calib_jax_export: {identity}\n"


def text(facts: Facts) -> str:
    """The whole card in Markdown, with the hub's metadata on top."""
    parts = [_front_matter(facts), _title(facts), _base(facts)]
    if facts.config is not None and facts.summary is not None:
        parts += [_method(facts), _data(facts), _measured(facts)]
    else:
        parts.append(
            "## Calibration\n\nNothing was trained and nothing was measured: the weights are the "
            "base's" + (", with the adapter merged in" if _merges(facts) else "") + ".\n"
        )
    return "\n".join([*parts, _loading(facts), _versions(facts)])


def _front_matter(facts: Facts) -> str:
    lines = ["---"]
    if facts.on_hub:
        lines.append(f"base_model: {facts.name}")
        if facts.format == "merged" and facts.config is not None:
            lines.append("base_model_relation: finetune")
    lines.append(f"library_name: {'peft' if facts.format == 'adapter' else 'transformers'}")
    lines.append("pipeline_tag: text-generation")
    lines.append("tags:")
    tags = ["calibration", "calib_jax"] if facts.config is not None else ["calib_jax"]
    if facts.format == "adapter":
        tags.append("lora")
    lines += [f"- {tag}" for tag in tags]
    return "\n".join(lines) + "\n" + identity_line(facts.identity) + "---\n"


def _title(facts: Facts) -> str:
    name = facts.name.removeprefix("offline:").rstrip("/").rpartition("/")[2]
    if facts.config is None:
        what = "a PEFT adapter" if facts.format == "adapter" else "a Hugging Face checkpoint"
        return f"# {name}\n\nConverted to {what} by calib_jax.\n"
    method = str(facts.config["method"]).upper().replace("_", " ")
    what = "A LoRA adapter for" if facts.format == "adapter" else "The weights of"
    return (
        f"# {name}, calibrated by {method}\n\n{what} {facts.name} after calibration-aware "
        "fine-tuning on multiple-choice questions with calib_jax. The goal is a confidence that "
        "agrees with the accuracy; the figures below say how far it was reached.\n"
    )


def _merges(facts: Facts) -> bool:
    return facts.format == "merged" and bool(facts.adapter)


def _base(facts: Facts) -> str:
    name = f"[{facts.name}](https://huggingface.co/{facts.name})" if facts.on_hub else facts.name
    lines = ["## Base", "", f"- model: {name} ({facts.architecture})"]
    if facts.revision:
        lines.append(f"- revision: {facts.revision}")
    lines.append(f"- fingerprint of its files: `{facts.fingerprint}`")
    if facts.adapter:
        role = "merged into it first" if facts.lora is None else "the adapter that went in"
        lines.append(f"- adapter: {facts.adapter} ({role})")
    lines += [f"- dtype of the tensors here: {facts.dtype}", "- licence: that of the base"]
    return "\n".join(lines) + "\n"


def _method(facts: Facts) -> str:
    train, em = facts.config["train"], facts.config["em"]
    sft = {
        "sft1": "SFT1 (the answer's token)",
        "sft2": "SFT2 (question and answer tokens)",
        "none": "none",
    }[train["sft"]]
    rows = {
        "supervised term": sft,
        "weight of the calibration term": train["ece_weight"],
        "confidence bins": f"{em['num_bins']}, closed on the {em['edges']}",
        "epochs (EM iterations)": train["epochs"],
        "optimiser steps": facts.summary.get("training", {}).get("steps", "not recorded"),
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
    if facts.config["model"].get("quantize"):
        rows["base during training"] = f"{facts.config['model']['quantize']}; unquantised here"
    lines = [f"| {table.escape(key)} | {table.escape(str(value))} |" for key, value in rows.items()]
    return "\n".join(["## Method", "", "| | |", "|---|---|", *lines]) + "\n"


def _data(facts: Facts) -> str:
    data = facts.config["data"]
    counts = {name: row["n"] for name, row in facts.summary.get("after", {}).items()}
    trained = facts.summary.get("training", {}).get("questions", "an unrecorded number of")
    lines = [
        "## Data",
        "",
        f"- trained on {trained} questions from: {data['train']}",
        f"- measured on: {data['eval']}",
    ]
    lines += [f"  - {name}: {n} questions" for name, n in counts.items()]
    removed = facts.summary.get("data", {}).get("removed_overlap_total")
    if removed is not None:
        lines.append(
            f"- questions left out of training because a measured split has them: {removed}"
        )
    template = facts.config["prompt"]["template"]
    prompt = "calib_jax's default" if not template else f"`{json.dumps(template)}`"
    lines.append(f"- prompt: {prompt}; the confidence is that of the option's letter")
    return "\n".join(lines) + "\n"


def _measured(facts: Facts) -> str:
    beside = ", with adapters beside the base and in its own precision" if facts.lora else ""
    return (
        "## Calibration before and after\n\n"
        + table.markdown(facts.summary)
        + f"\nMeasured by the run{beside}. Other prompts, "
        "tasks and quantised copies were not measured.\n"
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
    if facts.name.startswith("offline:") or facts.name.endswith(".gguf"):
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
