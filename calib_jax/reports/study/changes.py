"""What alignment changed: aligned (IT) against base (PT), by pair, task, method and metric.

Source: Oh and Hwang 2024, Does Alignment Tuning Really Break LLMs' Internal Confidence?
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from calib_jax import metrics
from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError
from calib_jax.reports import catalogue, zeros
from calib_jax.reports.measure import values_of

# The paper's names. Its SCE is taken as the class-wise ECE; the figures that its authors published
# fit the one-vs-rest form.
_LABELS = {
    "conf_ece": ("ECE", ""),
    "cw_ece": ("SCE", ""),
    "sce_ovr": ("SCE, one-vs-rest", "SCE (ovr)"),
    "accuracy": ("accuracy", ""),
}
# Key -> the catalogue's metric under the paper's name.
METRICS: Mapping[str, catalogue.Metric] = MappingProxyType(
    {
        metric.key: dataclasses.replace(metric, label=label, short=short)
        for metric in catalogue.at(catalogue.STUDY)
        for label, short in [_LABELS.get(metric.key, (metric.label, metric.short))]
    }
)
_RANGES = ("pt_range", "it_range")
# A base value below this gives no ratio: noise divided by nothing.
SMALLEST_BASE = 1e-4
# A task counts as one of K options where at least this share of its questions has K.
_REGULAR = 0.9


@dataclasses.dataclass(frozen=True)
class Change:
    """One metric of a pair on a task.

    Attributes:
      pt, it: of the base (pre-trained) and of the aligned (instruction-tuned) model; NaN where
        only their ranges are known.
      change: it - pt.
      ratio: change / pt, signed, as a fraction; NaN where pt < `SMALLEST_BASE`.
      rank: 1 for the largest ratio among the pairs; None without a ratio.
      change_ci: 95 %, paired over the questions; None where they are not known.
      pt_range, it_range: what pt and it can be, where they are recovered from rounded figures.
    """

    pt: float
    it: float
    change: float
    ratio: float
    rank: int | None = None
    change_ci: tuple[float, float] | None = None
    pt_range: tuple[float, float] | None = None
    it_range: tuple[float, float] | None = None

    @property
    def falls(self) -> bool:
        """Whether the metric is lower after alignment."""
        return (self.ratio if math.isfinite(self.ratio) else self.change) < 0


@dataclasses.dataclass(frozen=True)
class Cell:
    """A pair on a task by a method.

    Attributes:
      changes: metric -> change.
      n: questions; None where not known.
      dropped: questions left out for their number of options; see `regular_rows`.
    """

    changes: Mapping[str, Change]
    n: int | None = None
    dropped: int = 0


# pair -> task -> method -> cell; what was not measured is missing.
Cells = Mapping[str, Mapping[str, Mapping[str, Cell]]]


def between(pt: float, it: float, interval: tuple[float, float] | None = None) -> Change:
    """The change from `pt` to `it`.

    >>> between(0.25, 0.5).ratio, between(0.5, 0.25).ratio, between(0.0, 0.1).ratio
    (1.0, -0.5, nan)
    """
    change = it - pt
    return Change(pt, it, change, change / pt if pt >= SMALLEST_BASE else math.nan, None, interval)


def ranks(ratios: Mapping[str, float]) -> dict[str, int | None]:
    """1 for the largest ratio, descending; equal ones share the smallest rank; None for NaN.

    >>> ranks({"a": 0.1, "b": 0.5, "c": 0.1, "d": float("nan"), "e": -1.0})
    {'a': 2, 'b': 1, 'c': 2, 'd': None, 'e': 4}
    """
    return {
        name: None if math.isnan(ratio) else 1 + sum(other > ratio for other in ratios.values())
        for name, ratio in ratios.items()
    }


def ranked(cells: Cells) -> Cells:
    """The same cells with the ranks of the pairs within every task, method and metric."""

    def with_ranks(pair: str, task: str, method: str, cell: Cell) -> Cell:
        changes = {}
        for metric, change in cell.changes.items():
            found = column(cells, method, metric).items()
            places = ranks({p: c.ratio for (p, t), c in found if t == task})
            changes[metric] = dataclasses.replace(change, rank=places[pair])
        return dataclasses.replace(cell, changes=changes)

    return _mapped(cells, with_ranks)


def each(cells: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
    """(pair, task, method, cell) of every cell."""
    for pair, by_task in cells.items():
        for task, by_method in by_task.items():
            for method, cell in by_method.items():
                yield pair, task, method, cell


def _mapped(cells: Mapping[str, Any], function: Callable[..., Any]) -> dict[str, Any]:
    """pair -> task -> method -> function(pair, task, method, cell); empty pairs are kept."""
    result: dict[str, Any] = {pair: {} for pair in cells}
    for pair, task, method, cell in each(cells):
        result[pair].setdefault(task, {})[method] = function(pair, task, method, cell)
    return result


def tasks_of(cells: Cells) -> list[str]:
    """Every task of any pair, in their order."""
    return list(dict.fromkeys(task for _, task, _, _ in each(cells)))


def methods_of(cells: Cells) -> list[str]:
    """Every extraction method of any cell, in their order."""
    return list(dict.fromkeys(method for _, _, method, _ in each(cells)))


def metrics_in(cells: Cells) -> list[str]:
    """The metrics that any cell holds, in the catalogue's order."""
    found = {metric for *_, cell in each(cells) for metric in cell.changes}
    return [metric for metric in METRICS if metric in found]


def column(cells: Cells, method: str, metric: str) -> dict[tuple[str, str], Change]:
    """(pair, task) -> change of one metric by one method."""
    return {
        (pair, task): cell.changes[metric]
        for pair, task, by, cell in each(cells)
        if by == method and metric in cell.changes
    }


def every_change(cells: Cells) -> list[Change]:
    """The changes of all metrics."""
    return [change for *_, cell in each(cells) for change in cell.changes.values()]


def ranking(cells: Cells, method: str, metric: str) -> dict[tuple[str, ...], list[str]]:
    """Orders of the pairs by their change ratio, largest first -> the tasks that have this order.

    An order names the pair on place 1, 2, ...: "a = b" where two share a place, "" where no pair
    has it.

    Args:
      cells: with ranks.
      method, metric: whose ratio.
    """
    found = column(cells, method, metric)
    tasks_by_order: dict[tuple[str, ...], list[str]] = {}
    for task in tasks_of(cells):
        places = {p: c.rank for (p, t), c in found.items() if t == task and c.rank is not None}
        if places:
            order = tuple(
                " = ".join(pair for pair, place in places.items() if place == i)
                for i in range(1, len(places) + 1)
            )
            tasks_by_order.setdefault(order, []).append(task)
    return tasks_by_order


def regular_rows(mask: np.ndarray) -> np.ndarray:
    """[N] bool: the questions with the task's usual number of options, all where it has none.

    ARC holds a few questions of three or five options among thousands of four. Read by letters, a
    fifth letter is a class of its own with a handful of questions, so the paper's prompt takes
    four options only. A task in which fewer than nine in ten agree has no usual number.
    """
    counts = np.asarray(mask, bool).sum(axis=1)
    values, sizes = np.unique(counts, return_counts=True)
    usual = values[sizes.argmax()]
    if sizes.max() < _REGULAR * len(counts):
        return np.ones(len(counts), bool)
    return counts == usual


def measure(
    base: Scores,
    aligned: Scores,
    num_bins: int = 10,
    edges: str = "right",
    seed: int = 0,
    num_resamples: int = 1000,
) -> Cell:
    """A cell from two models' scores of the same questions by the same method.

    Letters are read over the questions with the task's usual number of options; see
    `regular_rows`.

    Args:
      base, aligned: N questions each, in one order.
      num_bins, edges: of the bins.
      seed, num_resamples: of the paired bootstrap; an accuracy's change has the score interval
        of ``metrics.accuracy_change``.

    Raises:
      ValueError: the two are of other questions, options, answers or methods.
    """
    if (what := difference(base, aligned)) is not None:
        raise ValueError(f"base and aligned differ: {what}")
    first, second, keep = comparable(base, aligned)
    pt, it = (values_of(s, num_bins, edges, catalogue.STUDY) for s in (first, second))
    intervals = metrics.paired_bootstrap_all(
        catalogue.functions(catalogue.STUDY, num_bins, edges),
        first.probs,
        second.probs,
        first.answers,
        first.mask,
        num_resamples=num_resamples,
        seed=seed,
        clusters=first.units,
        log_scores=(zeros.as_read(first), zeros.as_read(second)),
    )
    ends = {key: (float(low), float(high)) for key, (low, high) in intervals.items()}
    flips = metrics.accuracy_change(*(s.predictions == s.answers for s in (first, second)))
    ends["accuracy"] = flips.low, flips.high
    changes = {key: between(pt[key], it[key], ends[key]) for key in METRICS}
    return Cell(changes, int(keep.sum()), int((~keep).sum()))


def comparable(base: Scores, aligned: Scores) -> tuple[Scores, Scores, np.ndarray]:
    """Both without the questions that letters leave out, and which were kept, [N] bool."""
    mask = np.asarray(base.mask, bool)
    keep = regular_rows(mask) if base.method.startswith("choice") else np.ones(len(mask), bool)
    width = int(mask[keep].sum(axis=1).max())
    return _part(base, keep, width), _part(aligned, keep, width), keep


def _part(scores: Scores, keep: np.ndarray, width: int) -> Scores:
    """The scores of some questions, [N] bool, and of the first `width` options."""
    part = scores.take(np.flatnonzero(keep))
    arrays = {key: getattr(part, key)[:, :width] for key in ("probs", "log_scores", "mask")}
    return dataclasses.replace(part, **arrays)


def difference(base: Scores, aligned: Scores) -> str | None:
    """In what two models' scores are not of the same questions, or None."""
    if base.method != aligned.method:
        return f"methods {base.method} and {aligned.method}"
    if len(base) != len(aligned):
        return f"{len(base)} and {len(aligned)} questions"
    for i, (one, other) in enumerate(zip(base.ids, aligned.ids, strict=True)):
        if one != other:
            return f"question {i + 1} is {one!r} in one and {other!r} in the other"
    same = np.asarray(base.answers) == np.asarray(aligned.answers)
    counts = [np.asarray(s.mask, bool).sum(axis=1) for s in (base, aligned)]
    same &= counts[0] == counts[1]
    if not same.all():
        return f"the options or the answer of question {base.ids[int((~same).argmax())]!r}"
    return None


def as_dict(cells: Cells) -> dict[str, Any]:
    """Cells as ``summary.json`` holds them; ranges only where they are known."""

    def row(pair: str, task: str, method: str, cell: Cell) -> dict[str, Any]:
        changes = {
            metric: {k: v for k, v in vars(c).items() if v is not None or k not in _RANGES}
            for metric, c in cell.changes.items()
        }
        return {"n": cell.n, "dropped": cell.dropped, **changes}

    return _mapped(cells, row)


def from_dict(found: Mapping[str, Any]) -> Cells:
    """What `as_dict` gave, also after it was written and read: null is NaN again.

    Raises:
      UserError: it is not the "pairs" of a study's summary.json.
    """

    def number(value: float | None) -> float:
        return math.nan if value is None else float(value)

    def change(row: Mapping[str, Any]) -> Change:
        values: dict[str, Any] = {key: number(row[key]) for key in ("pt", "it", "change", "ratio")}
        ends = {key: row.get(key) for key in ("change_ci", *_RANGES)}
        pairs: dict[str, Any] = {k: e and tuple(map(number, e)) for k, e in ends.items()}
        return Change(**values, rank=row["rank"], **pairs)

    def cell(pair: str, task: str, method: str, row: Mapping[str, Any]) -> Cell:
        changes = {metric: change(row[metric]) for metric in METRICS if metric in row}
        return Cell(changes, row["n"], row["dropped"])

    try:
        return _mapped(found, cell)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f'not the "pairs" of a study\'s summary.json ({error!r})') from None
