"""Where in a predictions file something stands, and the checks whose messages say so."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from calib_jax import metrics
from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Reading:
    """How a file is to be read where it leaves a choice (``config.report``).

    Attributes:
      answer_base: "0", "1", or "auto": 0 where 0 occurs among the answers, refused where not.
      clusters: the column whose rows of one value depend on each other; "auto" or "none".
      columns: which columns hold what, for ``layout.parse``; "" where their names tell.
      method: which of several probs_<method> columns; "" where there is one.
      ordered: whether the options are a scale, lowest first, whose order must be one.
      ragged: whether rows may have different numbers of options.
      sum_tolerance: how far a row's sum may be from 1; such rows are divided by their sum. 0: as
        far as rounding to the file's floating-point type goes (half precision is divided too).
    """

    answer_base: str = "auto"
    clusters: str = "auto"
    columns: str = ""
    method: str = ""
    ordered: bool = False
    ragged: bool = False
    sum_tolerance: float = 0.0


@dataclasses.dataclass(frozen=True)
class Table:
    """One file, read and checked.

    Attributes:
      scores: of its rows.
      splits: [N], the split each row names.
      about: what was read as what.
      part: the subject, where the file is one of a task that is logged subject by subject.
    """

    scores: Scores
    splits: tuple[str | None, ...]
    about: dict[str, Any]
    part: str | None = None


@dataclasses.dataclass(frozen=True)
class Place:
    """Names rows of a file as a user counts them.

    Attributes:
      path: the file.
      numbers: [N], from 1.
      ids: [N].
    """

    path: str
    numbers: Sequence[int]
    ids: Sequence[str]

    def row(self, i: int) -> str:
        return f"{self.path} row {self.numbers[i]} (id {self.ids[i]!r})"

    def refuse(self, bad: Iterable[int], say: Callable[[int], str], remedy: str) -> None:
        """Raises UserError for the first of the rows ``bad`` [0-based], and says how many."""
        bad = list(bad)
        if bad:
            total = f"{len(bad)} bad row{'s' if len(bad) > 1 else ''} of {len(self.numbers)}"
            raise UserError(f"{self.row(bad[0])} {say(bad[0])} ({total}): {remedy}")


def check(
    place: Place,
    probs: np.ndarray,
    answers: np.ndarray,
    mask: np.ndarray,
    tolerance: float | None = None,
) -> None:
    """``metrics.validate`` with messages that name the file, the row and its id; and unique ids."""
    try:
        metrics.validate(probs, answers, mask, tolerance)
    except ValueError as error:
        found = re.match(r"row (\d+)(.*)", str(error), re.DOTALL)
        where = place.row(int(found[1])) + found[2] if found else f"{place.path}: {error}"
        if "sums to" in where:
            off = np.abs(np.where(mask, probs, 0).sum(axis=1) - 1).max()
            far = max(0.001, np.ceil(off * 1000 - 1e-6) / 1000)
            where += f"; for rounded figures say how far, --config.report.sum_tolerance={far:g}"
        raise UserError(where) from None
    first: dict[str, int] = {}
    repeated = [i for i, name in enumerate(place.ids) if first.setdefault(name, i) != i]
    place.refuse(
        repeated,
        lambda i: f"repeats the id of row {place.numbers[first[place.ids[i]]]}",
        "every question needs its own id (a file of several splits names them in 'split')",
    )


def softmax(place: Place, log_scores: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Probabilities [N, K] in float64 of log-scores or logits, which must be numbers."""
    bad = (np.isnan(log_scores) | np.isposinf(log_scores)) & mask
    bad |= ~(np.isfinite(log_scores) & mask).any(axis=1)[:, None]
    place.refuse(
        np.flatnonzero(bad.any(axis=1)),
        lambda i: "holds log-scores that are no numbers",
        "remove or recompute these rows",
    )
    shifted = np.exp(log_scores - log_scores.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def as_float32(probs: np.ndarray) -> np.ndarray:
    """Probabilities [N, K] in float32 with the argmax of their float64.

    Two options whose probabilities differ by less than float32 tells would otherwise tie, and the
    first would be the predicted one.
    """
    result = probs.astype(np.float32)
    rows = np.flatnonzero(result.argmax(axis=1) != probs.argmax(axis=1))
    chosen = probs[rows].argmax(axis=1)
    result[rows, chosen] = np.nextafter(result[rows].max(axis=1), np.float32(2))
    return result
