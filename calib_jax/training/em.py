"""Algorithm 1, (Regularized) Calibration-Aware Fine-Tuning: an EM loop over confidence bins."""

from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np

from calib_jax.confidence.asked import Split, split_groups
from calib_jax.config import check_config
from calib_jax.errors import UserError
from calib_jax.models.model import Model
from calib_jax.parallel import mesh as meshes
from calib_jax.questions.batches import (
    answer_positions,
    asked,
    bucket_of,
    choose_buckets,
    row_layout,
    spread,
    training_order,
)
from calib_jax.questions.clusters import hold_out
from calib_jax.questions.encoder import Encoded
from calib_jax.training import terms
from calib_jax.training.inputs import BINS, LABELS, LEVELS, OWN, TARGETS, Settings
from calib_jax.training.interrupt import StopRequest
from calib_jax.training.loop import Listener, Training
from calib_jax.training.objective import EmObjective, OnlineBins
from calib_jax.training.targets import EStep, e_step


class EmTraining(Training):
    """One run of Algorithm 1.

    Args:
      config: the whole config; ``train``, ``em``, ``batch`` and ``checkpoint`` are read.
      model: see ``Training``.
      encoded: the training set; for options' texts see ``em_texts.TextEmTraining``.
      measured: the splits that ``score`` will be given besides: their shapes are planned too.

    Attributes:
      held_out: [N] bool, the training questions that no step learns, and that the bins' accuracies
        are taken from; None where every question does both.
      learnt: rows of the training questions that steps learn.
    """

    objective: EmObjective

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        model: Model,
        encoded: Split,
        measured: Sequence[Split] = (),
    ):
        self.encoded = encoded
        train = config.train
        if not len(encoded):
            raise UserError("config.data.train leaves no question to train on.")
        objective = self._objective(config)
        self.held_out: np.ndarray | None = None
        if config.em.held_out and objective.needs_e_step:
            try:
                self.held_out = hold_out(encoded.questions, config.em.held_out, config.seed)
            except UserError as error:
                raise UserError(f"config.em.held_out: {error}") from None
        # The questions that steps learn.
        self.learnt = np.arange(len(encoded))
        if self.held_out is not None:
            self.learnt = np.flatnonzero(~self.held_out)
        if LEVELS in objective.needs:
            _check_levels(encoded)
        assert model.mesh is not None  # see ``Training``
        self.lengths = self._lengths(model)
        self.num_rows = rows_per_step(train, self.lengths, meshes.batch_shards(model.mesh))
        self.packed = self.num_rows < train.batch_size
        super().__init__(config, model, objective)
        self._plan_shapes()
        self.engine.plan([g for split in (encoded, *measured) for g in split_groups(split)])

    def _objective(self, config: ml_collections.ConfigDict) -> EmObjective:
        return objective_of(config, len(self.encoded))

    def _lengths(self, model: Model) -> np.ndarray:
        """[N] the places that each question takes in a row."""
        assert isinstance(self.encoded, Encoded)  # of texts a subclass knows
        return self.encoded.lengths

    def _plan_shapes(self) -> None:
        """Fixes the shapes of the run's batches: questions a row, and the rows' lengths."""
        lengths, epochs = self.lengths, range(self.config.train.epochs)
        batches = [rows for epoch in epochs for rows in self.batch_rows(epoch)]
        placed = [self._place(rows) for rows in batches]
        self.slots = max(len(row) for rows in placed for row in rows)
        self.buckets = choose_buckets(
            [max(lengths[row].sum() for row in rows if row) for rows in placed],
            # Packed batches are of like length, and scoring compiles a shape or two besides.
            max(1, self.config.batch.max_buckets - 2 * self.packed),
            self.engine.multiple,
        )

    def _place(self, rows: np.ndarray) -> list[list[int]]:
        """The questions of each row of a batch."""
        if not self.packed:
            return [[int(row)] for row in rows] + [[]] * (self.num_rows - len(rows))
        return [
            [int(rows[i]) for i in members] for members in spread(self.lengths[rows], self.num_rows)
        ]

    # --- What Training asks ----------------------------------------------------------------------

    examples = "questions"

    def batch_rows(self, epoch: int) -> list[np.ndarray]:
        order = training_order(
            self.lengths[self.learnt],
            self.config.train.batch_size,
            self.config.seed,
            epoch,
            strata=self.encoded.answers[self.learnt],
            # In packed rows questions of any length go together.
            window=1 if self.packed else 16,
        )
        return [self.learnt[rows] for rows in order]

    def example_name(self, row: int) -> str:
        return self.encoded.questions[row].id

    def initial_stats(self) -> Any:
        online = self.objective.online
        if online is None:
            return ()
        return online.start(self.config.train.batch_size, self.encoded.mask)

    def empty_aux(self) -> dict[str, np.ndarray]:
        N, K = self.encoded.mask.shape
        M = self.config.em.num_bins
        estep = EStep(
            np.zeros(N, np.int32),
            np.zeros(M, np.float32),
            np.zeros(M, np.int32),
            np.zeros((N, K), np.float32),
        )
        return self._aux(estep, np.zeros((N, K), np.float32))

    def _aux(self, estep: EStep, probs: np.ndarray) -> dict[str, np.ndarray]:
        """What checkpoints hold of an E-step: its probabilities [N, K] where a term reads them."""
        own = {"probs": np.asarray(probs)} if OWN in self.objective.needs else {}
        return estep._asdict() | own

    def prepares(self, epoch: int, index: int) -> bool:
        em = self.config.em
        if not self.objective.needs_e_step:
            return False
        if em.refresh == "steps":
            return (epoch * self.steps_per_epoch + index) % em.refresh_steps == 0
        if em.refresh == "once":
            return epoch == index == 0
        return index == 0

    def prepare(self, epoch: int, stop: StopRequest, listener: Listener) -> dict[str, np.ndarray]:
        """The E-step: π on every training question, then bins z, accuracies q, targets p."""

        def on_batch(count: int) -> None:
            listener.on_scored(epoch, count)
            stop.check()

        scores = self.score(self.encoded, on_batch)
        em = self.config.em
        estep = e_step(
            scores.probs,
            scores.answers,
            scores.mask,
            self.held_out,
            num_bins=em.num_bins,
            edges=em.edges,
            binning=em.binning,
            shrinkage=em.shrinkage,
        )
        estep = EStep(*(np.asarray(x) for x in estep))
        listener.on_e_step(epoch, int(self.state.step), scores, estep)
        return self._aux(estep, scores.probs)

    def make_batch(self, rows: np.ndarray, aux: dict[str, np.ndarray]) -> dict[str, dict]:
        placed = self._place(rows)
        longest = max(int(self.lengths[row].sum()) for row in placed if row)
        arrays = self._layout(placed, bucket_of(longest, self.buckets))
        batch = asked(self.encoded.mask, self.encoded.answers, placed, self.slots)
        whole = {
            **self._shared(),
            "num_rows": np.float32(len(rows)),
            "num_tokens": np.float32(self.lengths[rows].sum()),
        }
        needs = self.objective.needs
        if BINS in needs:
            whole |= {name: aux[name] for name in ("bin_accuracy", "bin_counts")}
        if TARGETS in needs and self.objective.online is None:
            batch["targets"] = aux["targets"][batch["index"]] * batch["weights"][..., None]
        if OWN in needs:
            batch["own"] = aux["probs"][batch["index"]] * batch["weights"][..., None]
        del batch["index"]
        batch |= arrays
        A = self.config.train.microbatches
        return {
            "rows": {name: x.reshape(A, -1, *x.shape[1:]) for name, x in batch.items()},
            "whole": whole,
        }

    def _shared(self) -> dict[str, np.ndarray]:
        """What all questions share."""
        assert isinstance(self.encoded, Encoded)
        return {"letter_ids": self.encoded.letter_ids}

    def _layout(self, placed: list[list[int]], length: int) -> dict[str, np.ndarray]:
        """The tokens of a batch's rows, and where answers are read in them."""
        assert isinstance(self.encoded, Encoded)
        arrays = row_layout(self.encoded, placed, length)
        names = ["tokens"]
        if LABELS in self.objective.needs:
            names.append("labels")
        if self.packed:
            names += ["positions", "ends", "segments"]
        last = answer_positions(self.lengths, placed, self.slots)
        return {"last": last, **{name: arrays[name] for name in names}}


def _check_levels(encoded: Split) -> None:
    """Options that are confidences hold the truth in the first or the last of three or more.

    Raises:
      UserError: a question's options are no such confidences.
    """
    counts = encoded.mask.sum(axis=1)
    for row, (K, answer) in enumerate(zip(counts, encoded.answers, strict=True)):
        if K < 3 or answer not in (0, K - 1):
            raise UserError(
                f"question {encoded.questions[row].id}: config.train.terms has tokenised_brier, "
                "whose options are confidences from 0 % to 100 %, three or more of them, the first "
                f"or the last of which is the truth; this question has {K} options, and its answer "
                f"is option {answer + 1}. Train on graded answers."
            )


def rows_per_step(train: ml_collections.ConfigDict, lengths: np.ndarray, shards: int) -> int:
    """Rows of a batch: its questions, or fewer where several share a row.

    Packed rows are about as long as two long questions, and as many as the mesh and the
    microbatches split evenly: longer ones would pad less and attend to more.
    """
    if not train.packing:
        return train.batch_size
    least = train.microbatches * shards
    rows = least * max(1, round(train.batch_size * lengths.mean() / (2 * lengths.max()) / least))
    return min(rows, train.batch_size)


def objective_of(config: ml_collections.ConfigDict, questions: int) -> EmObjective:
    """What ``config.train`` and ``config.em`` ask to minimise.

    Args:
      questions: of the training set.

    Raises:
      UserError: the config has errors.
    """
    check_config(config)
    train, em = config.train, config.em
    online = None
    if em.refresh == "online" and TARGETS in terms.needs(train):
        online = OnlineBins(em.num_bins, em.edges, em.shrinkage, questions)
    settings = Settings(
        label_smoothing=train.label_smoothing,
        smooth_over=train.smooth_over,
        sft2_reduction=train.sft2_reduction,
        divergence=train.divergence,
        num_bins=em.num_bins,
        edges=em.edges,
    )
    weighted = tuple((term, term.weight(train)) for term in terms.active(train))
    return EmObjective(weighted, settings, online)
