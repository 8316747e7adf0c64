"""README.md of an export: what the model is, what was done to it, what was measured, how to load.

Every figure comes from the run's summary.json; where nothing was measured, the card says so.
"""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from calib_jax.models.lora import LoraConfig
from calib_jax.questions.prompts import letter_template
from calib_jax.reports import card_method, headline, reproduction, tables
from calib_jax.reports.card_method import aligned
from calib_jax.reports.states import states_of
from calib_jax.reports.views import splits, thresholds
from calib_jax.training import terms

# Methods of the job "align", as readers know them.
ALIGNED = {
    "sft": "supervised fine-tuning (SFT) on demonstrations",
    "dpo": "direct preference optimisation (DPO) on preference pairs",
}


@dataclasses.dataclass(frozen=True)
class Stage:
    """A run whose adapter the next one went on from.

    Attributes:
      folder: the run's folder.
      config, summary: the run's.
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
      loadable: whether transformers reads the base by its name.
      prompt: what prompt.json holds; None where there is none.
      epoch: of the run, whose model this is; 0 for the model that it ended with.
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
    config: Any  # a mapping, as is the summary
    summary: Any
    versions: Mapping[str, Any]
    earlier: tuple[Stage, ...] = ()
    loadable: bool = True
    prompt: Mapping[str, Any] | None = None
    epoch: int = 0

    @property
    def end(self) -> int:
        """The epoch whose model the run ended with, and measured."""
        done = self.summary.get("training", {})
        asked = self.config["train"]["epochs"]
        return done.get("best_epoch") or done.get("epochs_trained") or asked

    @property
    def measured(self) -> bool:
        """Whether the run has measured this very model."""
        return not self.epoch or self.epoch == self.end


def identity_line(identity: str) -> str:
    """The line by which an export is known again."""
    return f"calib_jax_export: {identity}\n"


def text(facts: Facts) -> str:
    """The whole card in Markdown, with the hub's metadata on top."""
    parts = [_front_matter(facts), _title(facts), _base(facts)]
    if facts.config is not None and facts.summary is not None:
        data = _aligning_data(facts) if aligned(facts.config) else _calibrating_data(facts)
        parts += [_stages(facts), _method(facts), _data(facts, data), _measured(facts)]
    else:
        parts.append(
            "## Calibration\n\nNothing was trained and nothing was measured: the weights are the "
            "base's" + (", with the adapter merged in" if _merges(facts) else "") + ".\n"
        )
    parts += [reproduction.prompt_section(facts), reproduction.loading(facts), _versions(facts)]
    return "\n".join(filter(None, parts))


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
        method = facts.config["align"]["method"]
        tags.insert(0, method if aligned(facts.config) else "calibration")
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
    if aligned(facts.config):
        method = facts.config["align"]["method"]
        told = _below(facts, "how well confidence agrees with accuracy")
        return (
            f"# {name}, trained by {method.upper()}\n\n{what} {ALIGNED[method]} with calib_jax. "
            f"There was no calibration term{told}\n"
        )
    method = str(facts.config["method"]).upper().replace("_", " ")
    train = facts.config["train"]
    if not terms.reads_bins(train):
        how = "supervised fine-tuning on multiple-choice questions with calib_jax, without a "
        how += "calibration term"
        if terms.further(train):
            how = "fine-tuning on multiple-choice questions with calib_jax. The loss was "
            how += terms.formula(train)
        return (
            f"# {name}, fine-tuned by {method}\n\n{what} {how}"
            f"{_below(facts, 'how well confidence agrees with accuracy')}\n"
        )
    return (
        f"# {name}, calibrated by {method}\n\n{what} calibration-aware "
        "fine-tuning on multiple-choice questions with calib_jax. The goal is a confidence that "
        f"agrees with the accuracy{_below(facts, 'how far it was reached')}\n"
    )


def _below(facts: Facts, what: str) -> str:
    """The end of a sentence about the figures of the card, where it has some."""
    return f"; the figures below say {what}." if facts.measured else "."


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
    if aligned(config):
        return f"{config['align']['method'].upper()} on {_learnt(config, found)}"
    method = str(config["method"]).upper().replace("_", " ")
    count = found.get("training", {}).get("questions", "an unrecorded number of")
    return f"{method} on {count} questions from: {config['data']['train']}"


def _learnt(config: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """What a run of the job "align" has learnt, with number and source."""
    count = found.get("training", {}).get("examples", "an unrecorded number of")
    what = "preference pairs" if config["align"]["method"] == "dpo" else "demonstrations"
    return f"{count} {what} from: {config['align']['train']}"


def _method(facts: Facts) -> str:
    rows = card_method.rows(facts)
    lines = [
        f"| {tables.escape(key)} | {tables.escape(str(value))} |" for key, value in rows.items()
    ]
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
        "removed_overlap": "their prompts are among those that are measured",
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
    if held_out and facts.measured:
        before, after = held_out["before"], held_out["after"]
        lines.append(
            f"- held-out preference pairs: {after['n']} from {facts.config['align']['eval']}; the "
            f"chosen answer is the likelier one in {before['accuracy']:.1%} of them before and in "
            f"{after['accuracy']:.1%} after"
        )
    return lines


def _data(facts: Facts, learnt: list[str]) -> str:
    counts = {name: row["n"] for name, row in facts.summary.get("after", {}).items()}
    lines = ["## Data", "", *learnt]
    if facts.measured:
        lines.append(f"- measured on: {facts.config['data']['eval']}")
        lines += [f"  - {name}: {n} questions" for name, n in counts.items()]
    template = letter_template(facts.config["prompt"])
    prompt = "calib_jax's default" if not template else f"`{json.dumps(template)}`"
    which = "prompt of these" if aligned(facts.config) else "prompt"
    chat = ", as a turn of the chat" if facts.config["prompt"].get("chat") else ""
    lines.append(f"- {which}: {prompt}{chat}; the confidence is that of the option's letter")
    return "\n".join(lines) + "\n"


def _measured(facts: Facts) -> str:
    if not facts.measured:
        return (
            "## Calibration\n\nThe run measured the model before training and after epoch "
            f"{facts.end}. This one, after epoch {facts.epoch}, was not measured.\n"
        )
    beside = ""
    if facts.lora:
        kind = facts.config["model"].get("quantize")
        base = f"a base quantised as {kind}" if kind else "the base and in its own precision"
        beside = f", with adapters beside {base}"
    states, change = states_of(facts.summary), facts.summary.get("change")
    said = (f"{tables.escape(text)}.\n\n" for text in headline.of_states(states, change))
    above = thresholds.tables(states)
    return (
        "## Calibration before and after\n\n"
        + "".join(said)
        + (f"{tables.markdown(above)}\n" if above else "")
        + tables.markdown(splits.results(states, change), splits.caption(bool(change)))
        + f"\nMeasured by the run{beside}. Other prompts, tasks and "
        + ("precisions of the base" if "quantised" in beside else "quantised copies")
        + " were not measured.\n"
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
