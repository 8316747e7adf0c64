"""The job ``finetune``: measure a model, restore its calibration, measure it again."""

from pathlib import Path

import jax
import ml_collections
import numpy as np

from calib_jax import metrics
from calib_jax.models.model import Model
from calib_jax.reports import Progress, open_metrics
from calib_jax.runs import base_model, quantization, run_setting, split_scores
from calib_jax.runs.run import Run, claim, say
from calib_jax.training.checkpoints import Checkpoints, kept_epochs
from calib_jax.training.em import EmTraining
from calib_jax.training.em_texts import training_of
from calib_jax.training.loop import Listener


def main(run: Run, model: Model | None = None, before: Path | None = None) -> None:
    """One run from aligned model to report; started again, it continues where it stopped.

    Args:
      run: its config, folder and signal to stop.
      model: loaded as this run would load it (full fine-tuning consumes it); None: it is loaded.
      before: a folder with ``before-<split>.parquet`` of the same model and questions; None: the
        splits are scored here.

    Raises:
      UserError: bad input.
      Stopped: SIGTERM; the same command continues.
      FloatingPointError: a loss that is not finite.
    """
    config, workdir, stop = run.config, run.workdir, run.stop

    # --- Questions, model, plan ------------------------------------------------------------------
    setting = run_setting.prepare_setting(config, model)
    measured = [*([setting.validation] if setting.validation else []), *setting.evals.values()]
    training = training_of(config, setting.model, setting.train, measured)
    splits = {"config.data.train": setting.train, **setting.evals}
    if setting.validation is not None:
        splits["config.data.validation"] = setting.validation
    claim(workdir, config, {name: split.fingerprint() for name, split in splits.items()})
    folder, unquantized = workdir / "predictions", {}
    if base_model.measures_quantization(config):
        unquantized = split_scores.measure_splits(
            setting.evals, folder, "unquantized", training.score, stop.check
        )
        # Freed first: both at once would take the memory that quantisation is to save.
        setting.model, training.base = setting.model.without_params(), None
        setting.model = base_model.load(config, config.model.quantize)
        training.base = setting.model.params
    setting.model = setting.model.without_params()  # full fine-tuning consumes them
    checkpoints = Checkpoints(
        workdir / "checkpoints",
        keep=config.checkpoint.keep,
        fingerprint=setting.model.fingerprint,
    )
    best = None
    if config.train.early_stopping:
        best = Checkpoints(workdir / "best", keep=1, fingerprint=setting.model.fingerprint)
    epochs = kept_epochs(config, workdir, setting.model.fingerprint)
    resumed = checkpoints.latest_step()
    if setting.model.lora:
        say(_adapter_line(config, training))
    apart = f" ({training.held_out.sum()} held out)" if training.held_out is not None else ""
    say(
        f"{config.method}: {len(setting.train)} questions{apart}, {config.train.epochs} epoch(s), "
        f"{training.num_steps} steps, padded lengths {training.buckets}"
        + (f"; continuing from step {resumed}" if resumed is not None else "")
    )

    # --- Before ----------------------------------------------------------------------------------
    states = {}
    if before is not None:
        split_scores.take_scores(before, folder, "before", setting.evals)
    if resumed is None:  # otherwise these lie in the folder: they precede every checkpoint
        split_scores.measure_splits(setting.evals, folder, "before", training.score, stop.check)

    # --- EM --------------------------------------------------------------------------------------
    with open_metrics(workdir, config.report.writers, config.to_dict()) as log:
        log.truncate_after(-1 if resumed is None else resumed)
        with Reporter(config, setting, training, log, stop) as reporter:
            training.run(checkpoints, stop, reporter.listener, best, epochs)
    for kept in filter(None, (checkpoints, best, epochs)):
        kept.close()
    if best is not None:
        say(_stopping_line(config, training))

    # --- After -----------------------------------------------------------------------------------
    for state in ("before", "after"):
        states[state] = split_scores.measure_splits(
            setting.evals, folder, state, training.score, stop.check
        )
    if jax.process_index() == 0:
        extra = quantization.shift(config, unquantized, states["before"]) | {
            "training": {
                "questions": len(setting.train),
                "questions_learnt": len(training.learnt),
                "steps": training.epochs_trained * training.steps_per_epoch,
                "epochs": config.train.epochs,
                "epochs_trained": training.epochs_trained,
                "best_epoch": training.best_epoch,
                "padded_lengths": list(training.buckets),
                "resumed_from_step": resumed,
            }
        }
        split_scores.finish(run, setting, states, extra)


class Reporter:
    """Turns what the EM loop tells into progress bars and lines of ``metrics.jsonl``."""

    def __init__(self, config, setting, training, log, stop):
        self.config, self.setting, self.training = config, setting, training
        self.log, self.stop = log, stop
        self.bar = self.title = None
        self.listener = Listener(
            on_scored=self.on_scored,
            on_e_step=self.on_e_step,
            on_step=self.on_step,
            on_epoch_end=self.on_epoch_end,
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._close()

    def _open(self, what: str, epoch: int, total: int, initial: int = 0) -> Progress:
        title = f"{what} {epoch + 1}/{self.config.train.epochs}"
        if self.title != title:
            self._close()
            self.bar = Progress(total, title, initial=initial).__enter__()
            self.title = title
        return self.bar

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.__exit__(None, None, None)
            self.bar = self.title = None

    def on_scored(self, epoch: int, count: int) -> None:
        self._open("E-step", epoch, len(self.setting.train)).update(count)

    def on_e_step(self, epoch, step, scores, estep) -> None:
        self._close()
        figures = split_scores.figures(scores, self.config)
        self.log.write(
            "estep",
            step,
            epoch,
            **figures,
            bin_accuracy=estep.bin_accuracy,
            bin_counts=estep.bin_counts,
            sorted_confidences=metrics.rank_quantiles(scores.probs, scores.mask),
            letter_counts=[
                int((scores.predictions == k).sum()) for k in range(scores.mask.shape[1])
            ],
        )
        say(f"E-step {epoch + 1}, before step {step + 1}: {_line(figures)}")
        if self.training.held_out is not None:
            apart = scores.take(np.flatnonzero(self.training.held_out))
            figures = split_scores.figures(apart, self.config)
            self.log.write("eval", step, epoch, split="held out of training", **figures)
            say(f"Of these, held out: {_line(figures)}")

    def on_step(self, epoch, step, count, done, terms) -> None:
        bar = self._open("M-step", epoch, len(self.training.learnt), initial=done - count)
        bar.update(count, **{key: terms[key] for key in self.training.objective.logged})
        self.log.write("train", step, epoch, **terms)

    def on_epoch_end(self, epoch, step) -> float | None:
        self._close()
        if self.setting.validation is None:
            return None
        with Progress(len(self.setting.validation), "validation") as bar:

            def on_batch(count):
                bar.update(count)
                self.stop.check()

            scores = self.training.score(self.setting.validation, on_batch)
        figures = split_scores.figures(scores, self.config)
        self.log.write("eval", step, epoch, split="validation", **figures)
        say(f"Held out after epoch {epoch + 1}: {_line(figures)}")
        return figures[self.config.train.early_stopping_metric]


def _adapter_line(config: ml_collections.ConfigDict, training: EmTraining) -> str:
    lora, name = training.decoder.lora, config.model.adapter
    if lora is None:
        return f"Starting from the base with {name} merged into it"
    return (
        f"Training {name} on: rank {lora.rank}, alpha {lora.alpha:g} and targets "
        f"{','.join(lora.targets)} are its own, whatever config.train.lora says; dropout "
        f"{lora.dropout:g} is the config's"
    )


def _stopping_line(config: ml_collections.ConfigDict, training: EmTraining) -> str:
    trained, asked = training.epochs_trained, config.train.epochs
    early = f"Stopped after epoch {trained} of {asked}" if trained < asked else "Early stopping"
    metric = config.train.early_stopping_metric
    return f"{early}: epoch {training.best_epoch}'s model is taken, the best by {metric}"


def _line(figures: dict[str, float]) -> str:
    names = ("conf_ece", "accuracy", "mean_confidence", "nll")
    return ", ".join(f"{name} {figures[name]:.4f}" for name in names)
