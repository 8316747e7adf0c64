"""Everything that is fixed before a model is trained: questions, model, domains."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import ml_collections

from calib_jax.confidence.asked import Split
from calib_jax.confidence.text_scores import TextEncoder
from calib_jax.config import check_config, split_list
from calib_jax.errors import UserError
from calib_jax.models.model import Model
from calib_jax.questions import Prepared, prepare, sample, sources
from calib_jax.questions.chat import control_counts, control_line
from calib_jax.questions.encoder import Encoder
from calib_jax.questions.pipeline import remove_overlap
from calib_jax.questions.prompts import letter_template
from calib_jax.runs import base_model, results
from calib_jax.runs.chat_prompt import chat_of
from calib_jax.runs.run import say


@dataclasses.dataclass
class Setting:
    """Everything that is fixed before a model is run.

    Attributes:
      model: on its mesh; not quantised yet where the shift from that is measured.
      train: the training set.
      validation: the split measured after every epoch, or None.
      evals: name -> split.
      domains: name -> "in" or "out".
      data: what was done to the questions, for ``summary.json``.
    """

    model: Model
    train: Split
    validation: Split | None
    evals: dict[str, Split]
    domains: dict[str, str]
    data: dict[str, Any]


def prepare_setting(config: ml_collections.ConfigDict, model: Model | None = None) -> Setting:
    """Loads questions and model (unless it is given), and encodes the ones for the other.

    Questions come first: a bad file is found before minutes are spent on weights.
    """
    check_config(config)
    prepared, validation = load_questions(config)
    # Where the shift that quantisation causes is measured, the model comes without it first.
    if model is None:
        model = base_model.load(
            config, "" if base_model.measures_quantization(config) else config.model.quantize
        )
    splits = [prepared.train, validation, *prepared.evals.values()]
    if config.prompt.max_length > model.config.max_length:
        raise UserError(
            f"config.prompt.max_length is {config.prompt.max_length}, and the model was made for "
            f"{model.config.max_length} tokens. Set --config.prompt.max_length to at most that."
        )
    encoder = _encoder(config, model, max(len(q.choices) for split in splits for q in split))
    say_left_out(prepared.report)
    report_control_tokens(
        encoder, {"config.data.train": prepared.train, **prepared.evals}, prepared.report
    )
    train = encoder.encode(prepared.train, "config.data.train")
    evals = {name: encoder.encode(split, name) for name, split in prepared.evals.items()}
    extra = encoder.encode(validation, "config.data.validation") if validation else None
    results.check_folds(config, {name: len(split) for name, split in evals.items()})
    domains = {name: row["domain"] for name, row in prepared.report["domains"].items()}
    return Setting(model, train, extra, evals, domains, prepared.report)


def _encoder(
    config: ml_collections.ConfigDict, model: Model, num_options: int
) -> Encoder | TextEncoder:
    """Of letters or of texts, as the run reads its questions."""
    prompt, chat = config.prompt, chat_of(config, model.tokenizer)
    if config.train.reading == "choice":
        return Encoder(
            model.tokenizer,
            letter_template(prompt) or None,
            prompt.letter_prefix,
            prompt.max_length,
            num_options=num_options,
            chat=chat,
        )
    return TextEncoder(
        model.tokenizer,
        config.train.reading,
        prompt.continuation,
        prompt.max_length,
        model.config.max_length,
        num_options=num_options,
        chat=chat,
    )


def report_control_tokens(
    encoder: Encoder | TextEncoder, splits: Mapping[str, list], report: dict[str, Any]
) -> None:
    """Counts, in a report and on the console, questions that hold what looks like control tokens.

    Args:
      encoder: the run's encoder.
      splits: name -> questions.
      report: what was done to the questions, for ``summary.json``.
    """
    for name, questions in splits.items():
        counts = control_counts(questions, encoder.tokenizer, encoder.prompt.chat)
        for key, count in counts.items():
            report.setdefault(key, {})[name] = count
        if line := control_line(name, counts):
            say(line)


def say_left_out(report: Mapping[str, Any]) -> None:
    """A line for the training questions that were left out, and why; none where all stayed."""
    reasons = {
        "removed_overlap_total": "stand in a split that is measured",
        "skipped_duplicate_options": "have equal options",
    }
    found = [f"{report[key]} {why}" for key, why in reasons.items() if report.get(key)]
    if found:
        say(f"Training questions left out: {', '.join(found)}")


def load_questions(config: ml_collections.ConfigDict) -> tuple[Prepared, list]:
    data = config.data
    validation = split_list(data.validation)
    spec = [
        sources.renamed(sources.for_role(text, "validation"), "validation") for text in validation
    ]
    prepared = prepare(
        split_list(data.train),
        [*split_list(data.eval), *spec],
        train_size=data.train_size,
        eval_size=data.eval_size,
        seed=config.seed,
        shuffle=data.shuffle_options,
        in_domain=split_list(data.in_domain),
        out_of_domain=split_list(data.out_of_domain),
        shuffle_tasks=split_list(data.shuffle_tasks),
        answer_base=data.answer_base,
    )
    held_out = prepared.evals.pop("validation", []) if validation else []
    if data.validation_size:
        held_out = sample(held_out, min(data.validation_size, len(held_out)), config.seed)
    if config.train.early_stopping:
        _check_held_out(held_out, prepared.evals)
    return prepared, held_out


def _check_held_out(held_out: list, evals: Mapping[str, list]) -> None:
    """Raises UserError where early stopping would choose the model by what is reported."""
    for name, split in evals.items():
        _, counts = remove_overlap(held_out, {name: split})
        if counts[name]:
            raise UserError(
                f"config.train.early_stopping would choose the model by {counts[name]} questions "
                f"of config.data.validation that are also in {name} of config.data.eval. Name "
                "another split in config.data.validation."
            )
