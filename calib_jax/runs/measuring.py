"""What the jobs share: questions and model made ready, splits scored, results written."""

import contextlib
import dataclasses
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import transformers

from calib_jax.api import load_model, make_mesh
from calib_jax.confidence.scores import Scores
from calib_jax.config import check_config, split_list
from calib_jax.errors import UserError, UserNotice
from calib_jax.models.model import Model
from calib_jax.questions import Prepared, prepare, sample, sources
from calib_jax.questions.chat import Chat, ChatSettings, control_counts, control_line
from calib_jax.questions.encoding import Encoded, Encoder
from calib_jax.questions.pipeline import remove_overlap
from calib_jax.questions.prompts import letter_template
from calib_jax.reports import Progress, catalogue, measure, predictions
from calib_jax.reports.atomic import atomic_path
from calib_jax.runs import results
from calib_jax.runs.run import Run, agreed, say, settle


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
    train: Encoded
    validation: Encoded | None
    evals: dict[str, Encoded]
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
        model = load(config, "" if measures_quantization(config) else config.model.quantize)
    splits = [prepared.train, validation, *prepared.evals.values()]
    if config.prompt.max_length > model.config.max_length:
        raise UserError(
            f"config.prompt.max_length is {config.prompt.max_length}, and the model was made for "
            f"{model.config.max_length} tokens. Set --config.prompt.max_length to at most that."
        )
    encoder = Encoder(
        model.tokenizer,
        letter_template(config.prompt) or None,
        config.prompt.letter_prefix,
        config.prompt.max_length,
        num_options=max(len(q.choices) for split in splits for q in split),
        chat=chat_of(config, model.tokenizer),
    )
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


def chat_of(
    config: ml_collections.ConfigDict, tokenizer: transformers.PreTrainedTokenizerBase | None
) -> Chat | None:
    """The chat that prompts are put into, None without ``config.prompt.chat``.

    Raises:
      UserError: the tokenizer has no template, or it cannot be used.
    """
    if not config.prompt.chat:
        return None
    chat = Chat(tokenizer, chat_settings(config))
    if chat.opens_thoughts():
        warnings.warn(
            "the chat template begins the answer with a block of thoughts (<think>) that "
            "config.prompt.template_arguments does not end, so that options are read where the "
            "model would write its thoughts; set --config.prompt.chat=False, or the argument with "
            "which this template does not think",
            UserNotice,
            stacklevel=2,
        )
    return chat


def chat_settings(config: ml_collections.ConfigDict) -> ChatSettings:
    """What chat templates are told."""
    return ChatSettings.read(config.prompt.template_arguments, config.prompt.date)


def report_control_tokens(
    encoder: Encoder, splits: Mapping[str, list], report: dict[str, Any]
) -> None:
    """Counts, in a report and on the console, questions that hold what looks like control tokens.

    Args:
      encoder: of the run.
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


@contextlib.contextmanager
def loading_bar() -> Iterator[Callable[[int, int], None]]:
    """``on_bytes`` of ``load_model`` as a progress bar in MiB; none for a model that is small."""
    bar, done = None, 0
    with contextlib.ExitStack() as stack:

        def on_bytes(count: int, total: int) -> None:
            nonlocal bar, done
            if bar is None and total >= 64 << 20:
                bar = stack.enter_context(Progress(total >> 20, "Weights", unit="MiB"))
            before, done = done >> 20, done + count
            if bar is not None:
                bar.update((done >> 20) - before)

        yield on_bytes


def measures_quantization(config: ml_collections.ConfigDict) -> bool:
    """Whether the evaluation splits are scored without quantisation too."""
    return bool(config.model.quantize and config.model.measure_quantization)


def load(config: ml_collections.ConfigDict, quantize: str) -> Model:
    """The run's model on its mesh, quantised as asked ("" for not at all)."""
    mesh = make_mesh(config.mesh.shape)
    how = f" in {quantize}" if quantize else ""
    say(f"Loading {config.model.name}{how} onto {mesh.size} {mesh.devices.flat[0].device_kind}")
    # Parameters that train are kept in float32, whatever the computation.
    trained = config.job in ("finetune", "align") and config.train.method == "full"
    with loading_bar() as on_bytes:
        return load_model(
            config.model.name,
            None if config.model.dtype == "auto" else config.model.dtype,
            mesh,
            on_bytes=on_bytes,
            param_dtype="float32" if trained else None,
            revision=config.model.revision or None,
            attention=config.model.attention,
            adapter=config.model.adapter or None,
            quantize=quantize or None,
        )


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


def measure_splits(
    evals: Mapping[str, Encoded],
    folder: Path,
    state: str,
    score: Callable[[Encoded, Callable], Scores],
    check: Callable[[], None],
) -> dict[str, Scores]:
    """Scores every split, or reads what an interrupted run of this folder has scored.

    Args:
      evals: name -> split.
      folder: ``predictions`` of the run.
      state: "before", "after" or the model's name: the first part of the files' names.
      score: (split, on_batch) -> scores.
      check: called after every batch; raises to stop.

    Returns:
      Scores by split on process 0; other processes of a pod, which write nothing, may get fewer.
    """
    settle()
    scores = {}
    for name, split in evals.items():
        path = folder / f"{state}-{name}.parquet"
        if agreed(path.exists()):
            if jax.process_index() == 0:
                scores[name] = predictions.read(path, "choice")
            continue
        with Progress(len(split), f"{state}: {name}") as bar:

            def on_batch(count: int, bar: Progress = bar) -> None:
                bar.update(count)
                check()

            scores[name] = score(split, on_batch)
        if jax.process_index() == 0:
            predictions.write(path, scores[name])
    return scores


def take_scores(source: Path, folder: Path, state: str, names: Iterable[str]) -> None:
    """Copies another run's scores of the splits ``names`` that this run has not got yet."""
    for name in names:
        path = folder / f"{state}-{name}.parquet"
        if jax.process_index() == 0 and not path.exists():
            with atomic_path(path) as temporary:
                shutil.copyfile(source / path.name, temporary)


def figures(scores: Scores, config: ml_collections.ConfigDict) -> dict[str, float]:
    """The metrics that the log holds of an E-step or a held-out split."""
    return measure.values_of(scores, config.em.num_bins, config.em.edges, catalogue.LOG)


def finish(
    run: Run,
    setting: Setting,
    states: results.States,
    extra: Mapping[str, Any],
    quietly: bool = False,
) -> None:
    """Measures the evaluation splits and finishes the run of a method."""
    config = run.config
    name = config.model.name.removeprefix("offline:")
    after = f", before and after {config.method.upper().replace('_', ' ')}"
    own = {
        "method": config.method,
        "model": config.model.name,
        "fingerprint": setting.model.fingerprint,
        "data": setting.data,
        **extra,
    }
    title = name + (after if "after" in states else "")
    results.finish(run, states, setting.domains, own, title=title, quietly=quietly)
