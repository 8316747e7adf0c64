"""The job ``align``: the stages before calibration, SFT on demonstrations or DPO on pairs.

Letters and preference pairs are measured before and after, so that collapse can be seen coming.
"""

import functools
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np

from calib_jax import metrics
from calib_jax.confidence.preference import PreferenceScores
from calib_jax.reports import Progress, open_metrics
from calib_jax.reports.pairs import measure, predictions
from calib_jax.runs import journal, results, split_scores
from calib_jax.runs.preference_setting import HELD_OUT, METHODS, PairSet, Setting, prepare_setting
from calib_jax.runs.run import Run, agreed, claim, say
from calib_jax.training.answers import AnswerTraining
from calib_jax.training.checkpoints import Checkpoints, kept_epochs
from calib_jax.training.interrupt import StopRequest
from calib_jax.training.loop import Listener


def main(run: Run) -> None:
    """One stage from model to report; started again, it continues where it stopped.

    Raises:
      UserError: bad input.
      Stopped: SIGTERM; the same command continues.
      FloatingPointError: a loss that is not finite.
    """
    config, workdir, stop = run.config, run.workdir, run.stop

    # --- Questions and pairs, model, plan --------------------------------------------------------
    setting = prepare_setting(config)
    training = METHODS[config.align.method](
        config,
        setting.model,
        setting.groups,
        setting.ids,
        list(setting.evals.values()),
        [pair for pairs in setting.pair_sets.values() for pair in pairs.pairs],
    )
    pairs = {"config.align.train": (setting.ids, setting.groups)}
    if held_out := setting.pair_sets.get(HELD_OUT):
        pairs["config.align.eval"] = held_out.ids, held_out.pairs
    inputs = {name: journal.fingerprint(*found) for name, found in pairs.items()}
    inputs |= {name: split.fingerprint() for name, split in setting.evals.items()}
    claim(workdir, config, inputs)
    fingerprint = setting.model.fingerprint
    setting.model = setting.model.without_params()  # full fine-tuning consumes them
    checkpoints = Checkpoints(
        workdir / "checkpoints", keep=config.checkpoint.keep, fingerprint=fingerprint
    )
    epochs = kept_epochs(config, workdir, fingerprint)
    resumed = checkpoints.latest_step()
    what = "pairs" if config.align.method == "dpo" else "demonstrations"
    say(
        f"{config.align.method}: {len(setting.groups)} {what}, {config.train.epochs} epoch(s), "
        f"{training.num_steps} steps, padded lengths {training.buckets}"
        + (f"; continuing from step {resumed}" if resumed is not None else "")
    )

    # --- Before ----------------------------------------------------------------------------------
    folder = workdir / "predictions"
    if resumed is None:  # otherwise these lie in the folder: they precede every checkpoint
        split_scores.measure_splits(setting.evals, folder, "before", training.score, stop.check)
        measure_pairs(training, setting.pair_sets, folder, "before", stop)

    # --- Training --------------------------------------------------------------------------------
    with open_metrics(workdir, config.report.writers, config.to_dict()) as log:
        log.truncate_after(-1 if resumed is None else resumed)
        with Reporter(config, setting, training, log, stop) as reporter:
            training.run(checkpoints, stop, reporter.listener, epochs=epochs)
    for kept in filter(None, (checkpoints, epochs)):
        kept.close()

    # --- After -----------------------------------------------------------------------------------
    states: dict[str, Any] = {}
    measured: dict[str, dict[str, PreferenceScores]] = {}
    for state in ("before", "after"):
        states[state] = split_scores.measure_splits(
            setting.evals, folder, state, training.score, stop.check
        )
        measured[state] = measure_pairs(training, setting.pair_sets, folder, state, stop)
    if jax.process_index() == 0:
        name = config.model.name.removeprefix("offline:")
        own = {
            "method": config.align.method,
            "model": config.model.name,
            "fingerprint": fingerprint,
            "preferences": preference_figures(config, measured),
            "data": setting.data,
            "training": {
                "examples": len(setting.groups),
                "steps": training.num_steps,
                "epochs": config.train.epochs,
                "padded_lengths": list(training.buckets),
                "resumed_from_step": resumed,
            },
        }
        title = f"{name}, before and after {config.align.method.upper()}"
        results.finish(run, states, setting.domains, own, title=title)


def measure_pairs(
    training: AnswerTraining,
    pair_sets: dict[str, PairSet],
    folder: Path,
    state: str,
    stop: StopRequest,
) -> dict[str, PreferenceScores]:
    """Scores every set of pairs, or reads what an interrupted run of this folder has scored."""
    found = {}
    for name, part in pair_sets.items():
        path = folder / f"{state}-pairs-{name}.parquet"
        if agreed(path.exists()):
            if jax.process_index() == 0:
                found[name] = predictions.read_pairs(path)
            continue
        with Progress(len(part.ids), f"{state}: pairs, {name.replace('_', ' ')}") as bar:
            found[name] = training.score_pairs(
                part.pairs, part.ids, part.rates, functools.partial(bar.update, 1), stop.check
            )
        if jax.process_index() == 0:
            predictions.write_pairs(path, found[name])
    return found


def preference_figures(
    config: ml_collections.ConfigDict, pairs: dict[str, dict[str, PreferenceScores]]
) -> dict[str, Any]:
    """The part "preferences" of the summary: of every set a part "pairs" and a "change"."""
    resampling = {"seed": config.seed, "num_resamples": config.report.num_resamples}
    found = {}
    for name, before in pairs["before"].items():
        after, beta = pairs["after"][name], config.align.beta
        found[name] = {
            "beta": beta,
            "pairs": {
                "before": measure.measure_pairs(before, **resampling),
                "after": measure.measure_pairs(after, before, beta, **resampling),
            },
            "change": {"pairs": {"after": measure.change_pairs(before, after, **resampling)}},
        }
    return found


class Reporter:
    """Turns what the loop tells into progress bars and lines of ``metrics.jsonl``."""

    def __init__(self, config, setting: Setting, training, log, stop):
        self.config, self.setting, self.training = config, setting, training
        self.log, self.stop = log, stop
        self.bar: Progress | None = None
        self.listener = Listener(
            on_scored=self.on_scored, on_step=self.on_step, on_epoch_end=self.on_epoch_end
        )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._close()

    def _open(self, title: str, initial: int = 0) -> Progress:
        if self.bar is None:
            self.bar = Progress(len(self.setting.groups), title, initial=initial).__enter__()
        return self.bar

    def _close(self) -> None:
        if self.bar is not None:
            self.bar.__exit__(None, None, None)
            self.bar = None

    def on_scored(self, epoch: int, count: int) -> None:
        self._open("reference").update(count)

    def on_step(self, epoch, step, count, done, terms) -> None:
        if done == count:  # the epoch's first: the bar of the reference is another
            self._close()
        shown = {key: terms[key] for key in ("loss", "reward_accuracy") if key in terms}
        title = f"{self.config.align.method} {epoch + 1}/{self.config.train.epochs}"
        self._open(title, initial=done - count).update(count, **shown)
        self.log.write("train", step, epoch, **terms)

    def on_epoch_end(self, epoch, step) -> None:
        self._close()
        for name, part in self.setting.pair_sets.items():
            scores = self.training.score_pairs(
                part.pairs, part.ids, part.rates, check=self.stop.check
            )
            figures = logged(scores)
            self.log.write("eval", step, epoch, split=f"pairs, {name}", **figures)
            shown = ("accuracy", "mean_margin", "mean_ratio", "mean_excess", "mean_confidence")
            line = ", ".join(f"{key} {figures[key]:.4f}" for key in shown if key in figures)
            say(f"Pairs ({name.replace('_', ' ')}) after epoch {epoch + 1}: {line}")


def logged(scores: PreferenceScores) -> dict[str, float]:
    """What the log holds of pairs after an epoch; figures of the rate where it is known."""
    sides = scores.chosen, scores.rejected
    figures = {
        "accuracy": float(metrics.preference_accuracy(*sides)),
        "mean_margin": float(scores.margins.mean()),
        # Of the answer that the model prefers, of the two.
        "mean_confidence": float(np.mean(1 / (1 + np.exp(-np.abs(scores.margins))))),
    }
    rated = ~np.isnan(scores.rates)
    if rated.any():
        collapse = metrics.preference_collapse(
            scores.chosen[rated], scores.rejected[rated], scores.rates[rated]
        )
        figures |= {
            "mean_ratio": float(collapse.mean_ratio),
            "mean_excess": float(collapse.mean_excess),
            "share_above_rate": float(collapse.share_above),
        }
        lengths = scores.chosen_tokens[rated], scores.rejected_tokens[rated]
        if max(lengths[0].max(), lengths[1].max()) > 1:  # a letter's ratio is its token's
            collapse = metrics.preference_collapse(
                scores.chosen[rated], scores.rejected[rated], scores.rates[rated], None, *lengths
            )
            figures["mean_ratio_normalised"] = float(collapse.mean_ratio)
            figures["mean_excess_normalised"] = float(collapse.mean_excess)
    return figures
