"""What scoring returns: every option's log-score and probability, and the answers.

A free answer is a row of one option, K = 1: the answer that was given. Its probability is the
confidence c, in 0..1, and need not be 1; the right answer is 0, or -1 where the given one is wrong.
The top label is then the given answer whatever c is, so that conf-ECE, AUROC and whatever else is
of the top label is of c against its being right; Brier is (c - y)^2 and NLL is that of a yes/no
event.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class Scores:
    """Predictions on N questions of at most K options: the narrow waist, with names.

    Attributes:
      log_scores: [N, K] float32, natural log, not renormalised over the options; -inf where
        masked. For "choice" it is the letter's log-probability among the whole vocabulary, for
        "continuation_sum" that of the option's text.
      probs: [N, K] float32, renormalised over the options; 0 where masked.
      mask: [N, K] bool, the options that each question has.
      answers: [N] int32.
      ids, tasks, subjects: N names each, as the questions state them.
      method: how the confidence was read (``methods.METHODS``).
      questions: N texts, or () where they are not known.
      choices: N tuples of the options' texts, or () where they are not known.
      clusters: N names or None each, or (): rows of one name depend on each other (questions of one
        passage, repeats of a question), and intervals are over clusters. A row without a name
        stands alone.
      mass: [N] float32, the probability of all options together before they are renormalised; None
        where it is not known or means nothing.
      folds: [N] int32, the fold that each row was held out in, of scores that are cross-fitted
        (``posthoc.cross_fit_scores``); else None.
      states: [N, D] float32, the normalised hidden states that the letters are read from; None
        where they were not asked for, or are not known.
    """

    log_scores: np.ndarray
    probs: np.ndarray
    mask: np.ndarray
    answers: np.ndarray
    ids: tuple[str, ...]
    tasks: tuple[str | None, ...]
    subjects: tuple[str | None, ...]
    method: str = "choice"
    questions: tuple[str, ...] = ()
    choices: tuple[tuple[str, ...], ...] = ()
    clusters: tuple[str | None, ...] = ()
    mass: np.ndarray | None = None
    folds: np.ndarray | None = None
    states: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def is_free(self) -> bool:
        """Whether the rows are free answers: one option each, the answer that was given."""
        return self.mask.shape[1] == 1

    @property
    def predictions(self) -> np.ndarray:
        """[N] int32, the most probable option; the first of equals."""
        return self.probs.argmax(axis=1).astype(np.int32)

    @property
    def confidences(self) -> np.ndarray:
        """[N] float32, the probability of the predicted option."""
        return self.probs.max(axis=1, initial=0)

    @property
    def units(self) -> np.ndarray | None:
        """[N] int32, each row's cluster by its number; None where no two rows share one."""
        names = {name for name in self.clusters if name is not None}
        if len(names) + self.clusters.count(None) == len(self.clusters):
            return None
        numbers: dict[str | int, int] = {}
        keys = (i if name is None else name for i, name in enumerate(self.clusters))
        return np.array([numbers.setdefault(key, len(numbers)) for key in keys], np.int32)

    @property
    def num_units(self) -> int:
        """How many clusters there are, counting rows that stand alone; N where all do."""
        units = self.units
        return len(self) if units is None else int(units.max()) + 1

    @property
    def classes(self) -> tuple[str, ...]:
        """[K] the options' texts where every question has the same in the same order; else ().

        Options are classes then ("Billing", "Technical"), and no letters or places: not so one
        question alone, nor options whose texts are letters themselves.
        """
        first = self.choices[0] if len(self.choices) > 1 and not self.is_free else ()
        bare = [text.strip("(). ") for text in first]
        if len(set(first)) < len(first) or all(len(b) == 1 and b.isalpha() for b in bare):
            return ()
        return () if any(one != first for one in self.choices) else first

    def take(self, rows: Sequence[int] | np.ndarray) -> "Scores":
        """The scores of some rows, in the order asked for."""
        rows = np.asarray(rows, int)
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                changes[field.name] = value[rows]
            elif isinstance(value, tuple) and value:
                changes[field.name] = tuple(value[i] for i in rows)
        return dataclasses.replace(self, **changes)


def of_confidences(
    confidences: Sequence[float] | np.ndarray,
    right: Sequence[bool] | np.ndarray,
    ids: Sequence[str],
    method: str = "given",
    **names: Any,
) -> Scores:
    """Scores of N free answers: a confidence in each, and whether it is right.

    Args:
      confidences: [N] in 0..1.
      right: [N] bool.
      ids: N names.
      method: how the confidence was read.
      **names: further attributes of ``Scores``; tasks and subjects are None where not given.

    >>> scores = of_confidences([0.25, 0.75], [True, False], ["a", "b"])
    >>> scores.probs.tolist(), scores.answers.tolist(), scores.predictions.tolist()
    ([[0.25], [0.75]], [0, -1], [0, 0])
    """
    wide = np.asarray(confidences, np.float64)[:, None]
    nothing = (None,) * len(wide)
    with np.errstate(divide="ignore"):
        logs = np.log(wide)
    return Scores(
        log_scores=logs.astype(np.float32),
        probs=wide.astype(np.float32),
        mask=np.ones(wide.shape, bool),
        answers=np.where(np.asarray(right, bool), 0, -1).astype(np.int32),
        ids=tuple(ids),
        method=method,
        **{"tasks": nothing, "subjects": nothing, **names},
    )
