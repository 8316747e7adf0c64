"""What alignment changed: aligned (IT) against base (PT), by pair, task, method and metric.

Source: Oh and Hwang 2024, Does Alignment Tuning Really Break LLMs' Internal Confidence?
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax import metrics
from calib_jax.confidence.scores import Scores
from calib_jax.errors import UserError

# Key -> (label, which way is better). "SCE" is the label form, cw-ECE; the paper's published
# figures fit the one-vs-rest form, which has no direction: sharpness alone raises it.
METRICS = MappingProxyType(
    {
        "conf_ece": ("ECE", -1),
        "cw_ece": ("SCE", -1),
        "sce_ovr": ("SCE, one-vs-rest", 0),
        "accuracy": ("accuracy", +1),
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
      interval: 95 %, of the change, paired over the questions; None where they are not known.
      pt_range, it_range: what pt and it can be, where they are recovered from rounded figures.
    """

    pt: float
    it: float
    change: float
    ratio: float
    rank: int | None = None
    interval: tuple[float, float] | None = None
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


def ranked(cells: Cells) -> dict[str, dict[str, dict[str, Cell]]]:
    """The same cells with the ranks of the pairs within every task, method and metric."""
    result: dict[str, dict[str, dict[str, Cell]]] = {pair: {} for pair in cells}
    for task in tasks_of(cells):
        for method in methods_of(cells):
            here = {
                pair: by_task[task][method]
                for pair, by_task in cells.items()
                if method in by_task.get(task, {})
            }
            places = {
                metric: ranks(
                    {p: c.changes[metric].ratio for p, c in here.items() if metric in c.changes}
                )
                for metric in METRICS
            }
            for pair, cell in here.items():
                new = {
                    metric: dataclasses.replace(change, rank=places[metric][pair])
                    for metric, change in cell.changes.items()
                }
                result[pair].setdefault(task, {})[method] = dataclasses.replace(cell, changes=new)
    return result


def tasks_of(cells: Cells) -> list[str]:
    """Every task of any pair, as they stand."""
    return list(dict.fromkeys(task for by_task in cells.values() for task in by_task))


def methods_of(cells: Cells) -> list[str]:
    """Every extraction method of any cell, as they stand."""
    return list(
        dict.fromkeys(
            method
            for by_task in cells.values()
            for by_method in by_task.values()
            for method in by_method
        )
    )


def column(cells: Cells, method: str, metric: str) -> dict[tuple[str, str], Change]:
    """(pair, task) -> change of one metric by one method."""
    return {
        (pair, task): by_method[method].changes[metric]
        for pair, by_task in cells.items()
        for task, by_method in by_task.items()
        if method in by_method and metric in by_method[method].changes
    }


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


@functools.cache
def _functions(num_bins: int, edges: str) -> Mapping[str, Any]:
    """Cached: the bootstrap compiles per function object."""
    bins = {"num_bins": num_bins, "edges": edges}
    named = {name: getattr(metrics, name) for name in METRICS}
    return MappingProxyType(
        {
            name: function if name == "accuracy" else functools.partial(function, **bins)
            for name, function in named.items()
        }
    )


@functools.partial(jax.jit, static_argnames=("num_bins", "edges"))
def _values(probs, answers, mask, num_bins: int, edges: str) -> jax.Array:
    functions = _functions(num_bins, edges).values()
    return jnp.stack([function(probs, answers, mask) for function in functions])


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
      seed, num_resamples: of the paired bootstrap.

    Raises:
      ValueError: the two are of other questions, options, answers or methods.
    """
    if (what := difference(base, aligned)) is not None:
        raise ValueError(f"base and aligned differ: {what}")
    mask = np.asarray(base.mask, bool)
    keep = regular_rows(mask) if base.method.startswith("choice") else np.ones(len(mask), bool)
    mask = mask[keep]
    width = int(mask.sum(axis=1).max())
    sides = [np.asarray(s.probs)[keep, :width] for s in (base, aligned)]
    rest = np.asarray(base.answers)[keep], mask[:, :width]
    pt, it = (_values(probs, *rest, num_bins=num_bins, edges=edges).tolist() for probs in sides)
    intervals = metrics.paired_bootstrap_all(
        _functions(num_bins, edges), *sides, *rest, num_resamples=num_resamples, seed=seed
    )
    changes = {
        name: between(a, b, tuple(intervals[name]))
        for name, a, b in zip(METRICS, pt, it, strict=True)
    }
    return Cell(changes, int(keep.sum()), int((~keep).sum()))


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
    """Cells as ``summary.json`` holds them."""
    return {
        pair: {
            task: {
                method: {
                    "n": cell.n,
                    "dropped": cell.dropped,
                    **{
                        metric: {
                            "pt": change.pt,
                            "it": change.it,
                            "change": change.change,
                            "ratio": change.ratio,
                            "rank": change.rank,
                            "change_ci": change.interval and list(change.interval),
                            **{
                                key: list(ends)
                                for key in _RANGES
                                if (ends := getattr(change, key)) is not None
                            },
                        }
                        for metric, change in cell.changes.items()
                    },
                }
                for method, cell in by_method.items()
            }
            for task, by_method in by_task.items()
        }
        for pair, by_task in cells.items()
    }


def from_dict(found: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Cell]]]:
    """What `as_dict` gave; null is NaN again.

    Raises:
      UserError: it is not the "pairs" of a study's summary.json.
    """

    def number(value: float | None) -> float:
        return math.nan if value is None else float(value)

    def cell(row: Mapping[str, Any]) -> Cell:
        changes = {
            metric: Change(
                *(number(row[metric][key]) for key in ("pt", "it", "change", "ratio")),
                row[metric]["rank"],
                *(
                    tuple(map(number, ends)) if (ends := row[metric].get(key)) else None
                    for key in ("change_ci", *_RANGES)
                ),
            )
            for metric in METRICS
            if metric in row
        }
        return Cell(changes, row["n"], row["dropped"])

    try:
        return {
            pair: {
                task: {method: cell(row) for method, row in by_method.items()}
                for task, by_method in by_task.items()
            }
            for pair, by_task in found.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f'not the "pairs" of a study\'s summary.json ({error!r})') from None
