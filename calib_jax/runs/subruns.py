"""Runs of the job ``finetune`` that belong together: one model, the same scores before training."""

import dataclasses
import gc
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import ml_collections

from calib_jax import provenance
from calib_jax.confidence.asked import Split, score_split, split_groups
from calib_jax.confidence.engine import Engine
from calib_jax.confidence.scores import Scores
from calib_jax.config import base
from calib_jax.errors import UserError
from calib_jax.models.model import Model
from calib_jax.provenance import Heard
from calib_jax.reports import predictions, result
from calib_jax.reports.study.changes import difference
from calib_jax.runs import base_model, run_setting, split_scores
from calib_jax.runs.run import Run, say

# The training questions as the model scores them before training, and their file's state.
TRAIN, CALIBRATION = "train", "calibration"


@dataclasses.dataclass(frozen=True)
class Before:
    """The model as it is, on the questions of one seed; scores on process 0 only.

    Attributes:
      folder: of ``predictions``.
      scores: split -> scores.
      calibration: scores of the training questions, where they were asked for.
      domains: split -> "in" or "out".
      summary: what its run wrote.
    """

    folder: Path
    scores: Mapping[str, Scores]
    calibration: Scores | None
    domains: Mapping[str, str]
    summary: Mapping


class Subruns:
    """The runs in ``workdir/<name>/``; finished ones are read, and an interrupted one continues.

    The model is loaded when the first unfinished run needs it, and once; under full fine-tuning,
    which consumes it, once for every run.

    Args:
      whole: the run that they are parts of; their configs are derived from its own.
      train: the job ``finetune``: (run, model=..., before=folder of predictions) -> None.

    Attributes:
      folders: name -> folder of every run, in order.
    """

    def __init__(self, whole: Run, train: Callable[..., None]):
        self.whole, self._train = whole, train
        self.folders: dict[str, str] = {}
        self._model: Model | None = None
        # What questions and model were read from, for the runs that take them ready made.
        self._heard = Heard()
        # The train.method and the adapter that the model was loaded for.
        self._loaded_for = ("", "")

    def settings(self, seed: int) -> ml_collections.ConfigDict:
        """The config of a run with this seed, its method still to be set.

        ``{seed}`` in the adapter's name stands for the seed: of every seed what it starts from.
        """
        derived = self.whole.config.copy_and_resolve_references()
        derived.job, derived.seed = "finetune", seed
        derived.model.adapter = derived.model.adapter.replace("{seed}", str(seed))
        # What a quantised base loses is a question of its own, and would load the model twice.
        derived.model.measure_quantization = False
        # A whole with other parts has the same runs.
        for section in ("compare", "sweep"):
            derived[section].update(base()[section])
        return derived

    def _held(self, config: ml_collections.ConfigDict) -> Model | None:
        """The model, where one is loaded: what is to be trained is float32, what is frozen not."""
        asked = (config.train.method, config.model.adapter)
        if self._loaded_for != asked:
            if self._loaded_for[1] != asked[1]:
                self._heard = Heard()  # the other adapter was read for other runs
            self._model, self._loaded_for = None, asked
        return self._model

    def _loaded(self, config: ml_collections.ConfigDict) -> Model:
        self._model = self._held(config) or base_model.load(config, config.model.quantize)
        return self._model

    def series(
        self,
        seeds: Sequence[int],
        configs: Callable[[int], Mapping[str, ml_collections.ConfigDict]],
        calibration: bool = False,
        check: Callable[[Mapping[str, int]], None] = lambda sizes: None,
        states: bool = False,
    ) -> Iterator[tuple[int, Before, dict[str, dict[str, Scores]]]]:
        """Seed by seed, scores the model as it is and trains every config.

        Args:
          seeds: of the runs.
          configs: seed -> name -> config, which comes from ``settings``.
          calibration, check, states: as in ``before``.

        Yields:
          A seed, the model as it is, and name -> split -> scores after training (on process 0).

        Raises:
          UserError, Stopped, FloatingPointError: as in ``before`` and ``train``.
        """
        for seed in seeds:
            before = self.before(seed, calibration, check, states)
            yield (
                seed,
                before,
                {
                    name: self.train(f"{name}-seed{seed}", config, before)
                    for name, config in configs(seed).items()
                },
            )
            self.whole.stop.check()

    def before(
        self,
        seed: int,
        calibration: bool = False,
        check: Callable[[Mapping[str, int]], None] = lambda sizes: None,
        states: bool = False,
    ) -> Before:
        """Scores the model as it is, or reads what was scored.

        The folder of the whole is claimed once the questions have proven good.

        Args:
          seed: of the questions and the order of their options.
          calibration: whether to score the training questions, too.
          check: gets the sizes of the measured splits; raises where they will not do.
          states: whether the hidden states that the letters are read from are kept, too.

        Raises:
          UserError: bad input.
          Stopped: SIGTERM.
        """
        config = self.settings(seed)
        config.method = "before"
        # Those of one method alone; nothing is trained here.
        config.train.alpha, config.train.label_smoothing = base().train.alpha, 0.0
        folder = self._folder(f"before-seed{seed}")
        with Run(config, folder, self.whole.stop) as run:
            if not run.finished:
                held = self._held(config)
                self._heard.repeat()
                with provenance.listening(self._heard):
                    # Loads the model where none is yet, after it has found the questions good.
                    setting = run_setting.prepare_setting(config, held)
                check({name: len(split) for name, split in setting.evals.items()})
                self.whole.claim()
                run.claim()
                self._score(run, setting, calibration, states)
        self.whole.stop.check()
        found = result.read(folder / "summary.json")
        domains = {split: row["domain"] for split, row in found["before"].items()}
        check({split: row["n"] for split, row in found["before"].items()})
        scores, fitted_on = {}, None
        if jax.process_index() == 0:
            scores = _read(folder, "before", domains, states)
            if calibration:
                fitted_on = _read(folder, CALIBRATION, [TRAIN], states)[TRAIN]
        return Before(folder / "predictions", scores, fitted_on, domains, found)

    def _folder(self, name: str) -> Path:
        self.folders[name] = str(self.whole.workdir / name)
        return self.whole.workdir / name

    def _score(
        self, run: Run, setting: run_setting.Setting, calibration: bool, states: bool
    ) -> None:
        self._model, config = setting.model, run.config
        engine = Engine(
            setting.model,
            token_budget=config.batch.token_budget,
            max_shapes=config.batch.max_buckets,
            length_multiple=config.batch.length_multiple,
            states=states,
        )
        train = {TRAIN: setting.train} if calibration else {}
        splits = [*setting.evals.values(), *train.values()]
        engine.plan([group for split in splits for group in split_groups(split)])

        def score(split: Split, on_batch) -> Scores:
            return score_split(engine, split, on_batch)

        place, check = run.workdir / "predictions", run.stop.check
        split_scores.measure_splits(train, place, CALIBRATION, score, check, states)
        scores = split_scores.measure_splits(setting.evals, place, "before", score, check, states)
        if jax.process_index() == 0:
            split_scores.finish(run, setting, {"before": scores}, {}, quietly=True)

    def train(
        self, name: str, config: ml_collections.ConfigDict, before: Before
    ) -> dict[str, Scores]:
        """Trains and measures, or reads what was measured: split -> scores, on process 0.

        Args:
          name: of the folder.
          config: from ``settings``, with the method set.
          before: of the same seed.

        Raises:
          UserError: bad input, or a run of other questions.
          Stopped: SIGTERM.
          FloatingPointError: a loss that is not finite.
        """
        folder = self._folder(name)
        with Run(config, folder, self.whole.stop) as run:
            if not run.finished:
                say(f"\n{name}: {folder}")
                self._held(config)  # forgets another one
                self._heard.repeat()
                with provenance.listening(self._heard):
                    model = self._loaded(config)
                if config.train.method == "full":
                    self._model = None
                self._train(run, model=model, before=before.folder)
                del model
                gc.collect()  # a run's state hangs together in circles
        self.whole.stop.check()
        if jax.process_index() != 0:
            return {}
        scores = _read(folder, "after", before.domains)
        for split, found in scores.items():
            if what := difference(before.scores[split], found):
                raise UserError(
                    f"{folder} was measured on other questions than {before.folder.parent}: "
                    f"{split}, {what}. Delete the folder, and start again."
                )
        return scores


def _read(
    folder: Path, state: str, splits: Collection[str], states: bool = False
) -> dict[str, Scores]:
    place = folder / "predictions"
    return {
        split: predictions.read(place / f"{state}-{split}.parquet", states=states)
        for split in splits
    }
