"""What the job ``align`` fixes before a model is run: what is learnt, what is measured."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

import ml_collections

from calib_jax.config import check_config, split_list
from calib_jax.errors import UserError
from calib_jax.models.model import Model
from calib_jax.questions import domains, pipeline, preferences, sources
from calib_jax.questions.encoder import Encoded, Encoder
from calib_jax.questions.pairs import Pair
from calib_jax.questions.preferences import Loaded
from calib_jax.questions.prompts import letter_template
from calib_jax.questions.record import normalised
from calib_jax.runs import base_model, chat_prompt, results, run_setting
from calib_jax.runs.run import say
from calib_jax.training.dpo import DpoTraining
from calib_jax.training.sft import SftTraining

METHODS = {"sft": SftTraining, "dpo": DpoTraining}
# align.eval: so many pairs of align.train are held out.
_OF_TRAIN = re.compile(r"train:(?P<count>\d+)")
HELD_OUT, TRAINED_ON = "held_out", "training"
# Why a source's rows are left out (``preferences.Loaded``), in words.
_REASONS = {
    "identical_answers": "with identical answers",
    "empty_answers": "with an empty answer",
    "ties": "where neither answer is preferred",
    "without_preference": "without a preference",
    "duplicates": "that occurred before",
    "duplicate_options": "with equal options",
}


@dataclasses.dataclass
class PairSet:
    """Preference pairs that are measured: encoded, with names and known rates."""

    pairs: list[tuple[Pair, Pair]]
    ids: list[str]
    rates: list[float | None]


@dataclasses.dataclass
class Setting:
    """Everything that is fixed before a model is run.

    Attributes:
      model: on its mesh.
      groups, ids: what is learnt, encoded.
      evals, domains: questions that are measured, by split.
      pair_sets: "held_out" and, under DPO, "training" (as many of the pairs that are learnt).
      data: what was done to questions and pairs, for ``summary.json``.
    """

    model: Model
    groups: list
    ids: list[str]
    evals: dict[str, Encoded]
    domains: dict[str, str]
    pair_sets: dict[str, PairSet]
    data: dict[str, Any]


def prepare_setting(config: ml_collections.ConfigDict) -> Setting:
    """Loads questions and pairs, then the model, and encodes the ones for the other.

    Raises:
      UserError: bad input.
    """
    check_config(config)
    align, data = config.align, config.data
    eval_specs = split_list(data.eval)
    prepared = pipeline.prepare(
        [],
        eval_specs,
        eval_size=data.eval_size,
        seed=config.seed,
        shuffle=data.shuffle_options,
        shuffle_tasks=split_list(data.shuffle_tasks),
        answer_base=data.answer_base,
    )
    whole = {
        name: sources.load(spec, config.seed, data.answer_base)
        for name, spec in zip(prepared.evals, eval_specs, strict=True)
    }
    asked = {normalised(q.asked) for split in whole.values() for q in split}
    source = load_source(config)
    train, held_out, report = load_examples(config, asked, source)
    decided = domains.decide(
        domains.Origins(source.data_sets, frozenset(item.text for item in source.items)),
        pipeline.origins(eval_specs, whole),
        split_list(data.in_domain),
        split_list(data.out_of_domain),
    )

    model = base_model.load(config, config.model.quantize)
    for section, key in (("align", "max_length"), ("prompt", "max_length")):
        if config[section][key] > model.config.max_length:
            raise UserError(
                f"config.{section}.{key} is {config[section][key]}, and the model was made for "
                f"{model.config.max_length} tokens. Set --config.{section}.{key} to at most that."
            )
    encoder = Encoder(
        model.tokenizer,
        letter_template(config.prompt) or None,
        config.prompt.letter_prefix,
        config.prompt.max_length,
        num_options=max(len(q.choices) for split in prepared.evals.values() for q in split),
        chat=chat_prompt.chat_of(config, model.tokenizer),
    )
    run_setting.report_control_tokens(encoder, prepared.evals, prepared.report)
    evals = {name: encoder.encode(split, name) for name, split in prepared.evals.items()}
    results.check_folds(config, {name: len(split) for name, split in evals.items()})

    encoders: dict[str, Callable[..., tuple[list, list, int]]] = {
        "dpo": preferences.encode_preferences,
        "sft": preferences.encode_demonstrations,
    }
    encode = encoders[align.method]
    fitting = align.max_length, chat_prompt.chat_settings(config) if align.chat else None
    items, groups, too_long = encode(model.tokenizer, train, *fitting)
    report["train"] |= {"n": len(items), "skipped_too_long": too_long}
    if not items:
        raise UserError(
            f"config.align.train: none of {too_long} items fits config.align.max_length="
            f"{align.max_length} tokens; raise it."
        )
    pair_sets = {}
    if held_out:
        kept, pairs, too_long = preferences.encode_preferences(model.tokenizer, held_out, *fitting)
        report["eval"] |= {"n": len(kept), "skipped_too_long": too_long}
        if not kept:
            raise UserError(
                f"config.align.eval: none of {too_long} pairs fits config.align.max_length="
                f"{align.max_length} tokens; raise it."
            )
        pair_sets[HELD_OUT] = PairSet(pairs, [i.id for i in kept], [i.rate for i in kept])
    if align.method == "dpo":
        number = min(len(items), len(pair_sets[HELD_OUT].ids) if held_out else 200)
        drawn = {item.id for item in preferences.draw(items, number, config.seed)}
        seen = [i for i, item in enumerate(items) if item.id in drawn]
        pair_sets[TRAINED_ON] = PairSet(
            [groups[i] for i in seen], [items[i].id for i in seen], [items[i].rate for i in seen]
        )
    for line in left_out(report, align):
        say(line)
    return Setting(
        model,
        groups,
        [item.id for item in items],
        evals,
        {name: row["domain"] for name, row in decided.items()},
        pair_sets,
        prepared.report | {"domains": decided, "align": report},
    )


def load_source(config: ml_collections.ConfigDict) -> Loaded:
    """All pairs or demonstrations of config.align.train.

    Raises:
      UserError: a bad source.
    """
    dpo = config.align.method == "dpo"
    load = preferences.load_preferences if dpo else preferences.load_demonstrations
    return load(config.align.train, role="train", **_reading(config))


def _reading(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """How pairs are read that are made of questions."""
    return {
        "seed": config.seed,
        "template": letter_template(config.prompt) or None,
        "prefix": config.prompt.letter_prefix,
        "chat": config.prompt.chat,
        "answer_base": config.data.answer_base,
    }


def load_examples(
    config: ml_collections.ConfigDict, asked: set[str], source: Loaded | None = None
) -> tuple[list, list, dict[str, Any]]:
    """What is learnt, the pairs that are held out, and what was left out of each.

    Nothing is learnt whose prompt stands among the held-out pairs or the measured questions; of
    what is left, config.align.train_size and eval_size are drawn, where there are more.

    Args:
      asked: normalised texts of the measured questions.
      source: from ``load_source``; None: loaded here.

    Raises:
      UserError: a bad source, or nothing is left to learn.
    """
    align, seed = config.align, config.seed
    source = source or load_source(config)
    train, report = source.items, {"train": dict(source.report)}
    held_out: list = []
    if match := _OF_TRAIN.fullmatch(align.eval.strip()):
        train, held_out = preferences.hold_out(train, int(match["count"]), seed)
        report["eval"] = {"source": align.eval}
    elif align.eval.strip():
        loaded = preferences.load_preferences(align.eval, **_reading(config))
        held_out, report["eval"] = loaded.items, dict(loaded.report)
    total = len(train)
    train, overlap = preferences.remove_overlap(train, asked | {item.text for item in held_out})
    report["train"]["removed_overlap"] = overlap
    if not train:
        raise UserError(
            f"config.align.train leaves nothing to learn: the prompts of all {total} items stand "
            "in config.align.eval or config.data.eval. With one source of pairs, hold some out: "
            "--config.align.eval=train:200."
        )
    parts = ("train", train, align.train_size), ("eval", held_out, align.eval_size)
    drawn = {part: preferences.draw(items, size, seed) for part, items, size in parts}
    for part, items, _ in parts:
        if part in report:
            report[part] |= {"n": len(drawn[part]), "not_drawn": len(items) - len(drawn[part])}
    return drawn["train"], drawn["eval"], report


def left_out(report: dict[str, Any], align: ml_collections.ConfigDict) -> list[str]:
    """Lines on what is neither learnt nor measured of config.align, and why; none where all is.

    Args:
      report: the part "align" of ``Setting.data``.
      align: the section of the config.
    """
    lines = []
    for part, found in report.items():
        what = "answers" if part == "train" and align.method == "sft" else "pairs"
        reasons = {
            why: found["left_out"][key]
            for key, why in _REASONS.items()
            if found.get("left_out", {}).get(key)
        }
        reasons["with a prompt that is measured"] = found.get("removed_overlap", 0)
        long = found.get("skipped_too_long", 0)
        reasons[f"longer than {align.max_length} tokens (config.align.max_length)"] = long
        counts = [f"{count:,} {why}" for why, count in reasons.items() if count]
        if counts:
            rows = f" of {found['rows']:,} rows" if "rows" in found else ""
            lines.append(f"config.align.{part}: left out{rows}: {', '.join(counts)}")
        if found.get("not_drawn"):
            kept = found["n"] + long
            lines.append(
                f"config.align.{part}: {kept:,} of {kept + found['not_drawn']:,} {what} "
                f"(config.align.{part}_size)"
            )
    return lines
