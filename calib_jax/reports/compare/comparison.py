"""Methods beside each other: what is known of each, and how ``summary.json`` holds it."""

import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Any

from calib_jax.errors import UserError
from calib_jax.reports.result import Contrast, Measured

DOMAINS = {"in": "ID", "out": "OOD"}
# The model as it is, among the methods; and what earlier versions called it.
BEFORE, _OLD_BEFORE = "before", "dpo"
# What stands among a part's estimates as a plain number: conf-ECE by chance.
CHANCE = "conf_ece_null_q95"


@dataclasses.dataclass(frozen=True)
class Versus:
    """A method against the reference, on the same questions.

    Attributes:
      difference: the method's mean over the seeds minus the reference's.
      interval: 95 %, over questions; None where undefined.
      p_value: two-sided, of no difference: the smallest 1 - level whose interval leaves 0 out.
      seeds: in how many seeds the difference has this sign.
      adjusted_p: the same for all differences of the table at once, never below ``p_value``; None
        where they were not taken together.
    """

    difference: float
    interval: tuple[float, float] | None
    p_value: float
    seeds: int
    adjusted_p: float | None = None

    @property
    def significant(self) -> bool:
        """Whether it is one at 5 % among all of the table; alone, whether 0 is not in it."""
        if self.adjusted_p is not None:
            return self.adjusted_p <= 0.05
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """One metric of one method on one part.

    Attributes:
      value: the mean over the seeds.
      per_seed: of every seed.
      interval: 95 %, of the mean, over questions: the trained models stay as they are.
      best: not shown to be worse than the best of the methods (``reports.best``).
      versus: against the reference; None for the reference itself.
      best_p: the p-value of being as good as the best, in the model confidence set; None where
        there is none.
    """

    value: float
    per_seed: tuple[float, ...]
    interval: tuple[float, float] | None = None
    best: bool = False
    versus: Versus | None = None
    best_p: float | None = None

    @property
    def deviation(self) -> float:
        """The standard deviation over the seeds; NaN for a single one."""
        finite = all(map(math.isfinite, self.per_seed))
        return statistics.stdev(self.per_seed) if finite and len(self.per_seed) > 1 else math.nan


@dataclasses.dataclass(frozen=True)
class Part:
    """Questions that are measured together: a domain's splits pooled, or one split of several.

    Attributes:
      domain: "in" or "out".
      splits: their names.
      questions: per seed.
      clusters: of all seeds' questions; None where no two share one (``Scores.clusters``).
    """

    domain: str
    splits: tuple[str, ...]
    questions: int
    clusters: int | None = None


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The methods of one model.

    Attributes:
      model: its name.
      labels: method -> what it is called, in the table's order.
      parts: "in", "out" (domains, pooled), then every split of a domain that has several.
      seeds: of the runs.
      reference: the method that the others are compared with.
      unchanged: methods that move no prediction of the model as it is.
      rows: method -> part -> metric -> estimate; what was not measured is missing.
      chance: method -> part -> the conf-ECE that a perfectly calibrated model of these
        confidences exceeds in one sample of 20; mean over the seeds.
      guesser: part -> what a uniform guesser gets on its questions, of all seeds
        (``measure.uniform``).
      remarks: what must be known of a method's fit, in sentences without full stops.
      settings: method -> "method", "learning rate", ... -> what it was; {} where all are alike.
      reading: how every method's confidence was read.
    """

    model: str
    labels: Mapping[str, str]
    parts: Mapping[str, Part]
    seeds: tuple[int, ...]
    reference: str
    unchanged: frozenset[str]
    rows: Mapping[str, Mapping[str, Mapping[str, Estimate]]]
    chance: Mapping[str, Mapping[str, float]]
    guesser: Mapping[str, Mapping[str, Any]] = dataclasses.field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    settings: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    reading: str = "choice"

    def estimate(self, method: str, part: str, metric: str) -> Estimate | None:
        """One estimate; None for what was not measured."""
        return self.rows.get(method, {}).get(part, {}).get(metric)

    def measured(self) -> tuple[Measured, ...]:
        """What every method shows on every part: the mean over the seeds, then each seed."""
        found = []
        for method, by_part in self.rows.items():
            for part, estimates in by_part.items():
                n = {"n": self.parts[part].questions}
                mean: dict[str, Any] = {key: estimate.value for key, estimate in estimates.items()}
                mean |= {f"{key}_ci": e.interval for key, e in estimates.items() if e.interval}
                mean[CHANCE] = self.chance.get(method, {}).get(part)
                found.append(Measured(method, part, n | mean, self.reading))
                for i, seed in enumerate(self.seeds):
                    each = {key: estimate.per_seed[i] for key, estimate in estimates.items()}
                    found.append(Measured(method, part, n | each, self.reading, seed))
        return tuple(found)

    def contrasts(self) -> tuple[Contrast, ...]:
        """Every method less the reference on every part, means over the seeds."""
        found = []
        for method, by_part in self.rows.items():
            for part, estimates in by_part.items():
                known = {key: e.versus for key, e in estimates.items() if e.versus is not None}
                figures: dict[str, Any] = {key: v.difference for key, v in known.items()}
                figures |= {f"{key}_ci": v.interval for key, v in known.items() if v.interval}
                figures |= {f"{key}_p": v.p_value for key, v in known.items()}
                if figures:
                    found.append(Contrast(self.reference, method, part, figures, self.reading))
        return tuple(found)


def current_name(method: str) -> str:
    """The name of a method, whatever an earlier version called it."""
    return BEFORE if method == _OLD_BEFORE else method


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """A comparison as ``summary.json`` holds it."""
    plain = ("model", "labels", "seeds", "reference", "guesser", "remarks", "settings", "reading")
    return {
        **{key: getattr(comparison, key) for key in plain},
        "unchanged": sorted(comparison.unchanged),
        "parts": {key: dataclasses.asdict(part) for key, part in comparison.parts.items()},
        "rows": {
            name: {
                key: {metric: _estimate_dict(estimate) for metric, estimate in found.items()}
                | {CHANCE: comparison.chance.get(name, {}).get(key)}
                for key, found in by_part.items()
            }
            for name, by_part in comparison.rows.items()
        },
    }


def _estimate_dict(estimate: Estimate) -> dict[str, Any]:
    found = dataclasses.asdict(estimate) | {"sd": estimate.deviation}
    for one in filter(None, (found, found["versus"])):
        one["ci"] = one.pop("interval")
    return found


def from_dict(found: Mapping[str, Any], path: str = "summary.json") -> Comparison:
    """What ``as_dict`` gave.

    Raises:
      UserError: it does not hold a comparison; the message names ``path``.
    """

    def number(value: float | None) -> float:
        return math.nan if value is None else float(value)

    def by_name(row: Mapping[str, Any]) -> dict[str, Any]:
        return {current_name(name): value for name, value in row.items()}

    def interval(ends: list[float] | None) -> tuple[float, float] | None:
        return (ends[0], ends[1]) if ends else None

    def estimate(row: Mapping[str, Any]) -> Estimate:
        per_seed, against = tuple(map(number, row["per_seed"])), row["versus"]
        versus = against and Versus(
            number(against["difference"]),
            interval(against["ci"]),
            number(against["p_value"]),
            against["seeds"],
            against.get("adjusted_p"),
        )
        ends = interval(row["ci"])
        best = row["best"], versus, row.get("best_p")
        return Estimate(number(row["value"]), per_seed, ends, *best)

    try:
        rows = {
            current_name(name): {
                key: {metric: estimate(row) for metric, row in part.items() if metric != CHANCE}
                for key, part in by_part.items()
            }
            for name, by_part in found["rows"].items()
        }
        chance = {
            current_name(name): {key: number(part.get(CHANCE)) for key, part in by_part.items()}
            for name, by_part in found["rows"].items()
        }
        parts = {
            key: Part(p["domain"], tuple(p["splits"]), p["questions"], p.get("clusters"))
            for key, p in found["parts"].items()
        }
        return Comparison(
            found["model"],
            by_name(found["labels"]),
            parts,
            tuple(found["seeds"]),
            current_name(found["reference"]),
            frozenset(found["unchanged"]),
            rows,
            chance,
            # Summaries of earlier versions may lack these.
            found.get("guesser", {}),
            tuple(found.get("remarks", ())),
            by_name(found.get("settings", {})),
            found.get("reading", "choice"),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} holds no comparison of methods ({error!r})") from None
