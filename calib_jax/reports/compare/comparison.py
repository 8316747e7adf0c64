"""Methods beside each other: what is known of each, and how ``summary.json`` holds it."""

import dataclasses
import math
import statistics
from collections.abc import Mapping
from typing import Any

from calib_jax.errors import UserError

# Key -> (label, which way is better: -1 lower, +1 higher, 0 neither).
METRICS = {
    "conf_ece": ("conf-ECE", -1),
    "cw_ece": ("cw-ECE", -1),
    "accuracy": ("acc.", +1),
    "nll": ("NLL", -1),
    "brier": ("Brier", -1),
    "auroc": ("AUROC", +1),
    "mean_confidence": ("mean conf.", 0),
}
DOMAINS = {"in": "ID", "out": "OOD"}
# The model as it is, among the methods; and what earlier versions called it.
BEFORE, _OLD_BEFORE = "before", "dpo"


@dataclasses.dataclass(frozen=True)
class Versus:
    """A method against the reference, on the same questions.

    Attributes:
      difference: the method's mean over the seeds minus the reference's.
      interval: 95 %, over questions; None where undefined.
      p_value: two-sided, of no difference: the smallest 1 - level whose interval leaves 0 out.
      seeds: in how many seeds the difference has this sign.
    """

    difference: float
    interval: tuple[float, float] | None
    p_value: float
    seeds: int

    @property
    def significant(self) -> bool:
        """Whether the interval lies on one side of 0."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)


@dataclasses.dataclass(frozen=True)
class Estimate:
    """One metric of one method on one part.

    Attributes:
      value: the mean over the seeds.
      per_seed: of every seed.
      interval: 95 %, of the mean, over questions: the trained models stay as they are.
      best: the best of the methods, or not significantly worse than the best.
      versus: against the reference; None for the reference itself.
    """

    value: float
    per_seed: tuple[float, ...]
    interval: tuple[float, float] | None = None
    best: bool = False
    versus: Versus | None = None

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
    """

    domain: str
    splits: tuple[str, ...]
    questions: int


@dataclasses.dataclass(frozen=True)
class Comparison:
    """The methods of one model.

    Attributes:
      model: its name.
      labels: method -> what it is called, in the table's order.
      parts: "in", "out" (domains, pooled), then every split of a domain that has several.
      seeds: of the runs.
      reference: the method that the others stand against.
      unchanged: methods that move no prediction of the model as it is.
      rows: method -> part -> metric -> estimate; what was not measured is missing.
      chance: method -> part -> the conf-ECE that a perfectly calibrated model of these
        confidences exceeds in one sample of 20; mean over the seeds.
      guesser: part -> what a uniform guesser gets on its questions, of all seeds
        (``measure.uniform``).
      remarks: what is to be known of a method's fit, in sentences without full stops.
      settings: method -> "method", "learning rate", ... -> what it was; {} where all are alike.
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


def current_name(method: str) -> str:
    """The name of a method, whatever an earlier version called it."""
    return BEFORE if method == _OLD_BEFORE else method


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """A comparison as ``summary.json`` holds it."""
    return {
        "model": comparison.model,
        "seeds": list(comparison.seeds),
        "reference": comparison.reference,
        "labels": dict(comparison.labels),
        "unchanged": sorted(comparison.unchanged),
        "guesser": {key: dict(row) for key, row in comparison.guesser.items()},
        "remarks": list(comparison.remarks),
        "settings": {name: dict(row) for name, row in comparison.settings.items()},
        "parts": {
            key: {"domain": p.domain, "splits": list(p.splits), "questions": p.questions}
            for key, p in comparison.parts.items()
        },
        "rows": {
            name: {
                key: {metric: _estimate_dict(estimate) for metric, estimate in found.items()}
                | {"conf_ece_null_q95": comparison.chance.get(name, {}).get(key)}
                for key, found in by_part.items()
            }
            for name, by_part in comparison.rows.items()
        },
    }


def _estimate_dict(estimate: Estimate) -> dict[str, Any]:
    versus = estimate.versus
    return {
        "value": estimate.value,
        "sd": estimate.deviation,
        "ci": estimate.interval and list(estimate.interval),
        "per_seed": list(estimate.per_seed),
        "best": estimate.best,
        "versus": versus and {
            "difference": versus.difference,
            "ci": versus.interval and list(versus.interval),
            "p_value": versus.p_value,
            "seeds": versus.seeds,
        },
    }  # fmt: skip


def from_dict(found: Mapping[str, Any], path: str = "summary.json") -> Comparison:
    """What ``as_dict`` gave.

    Raises:
      UserError: it is not a comparison's; the message names ``path``.
    """

    def number(value: float | None) -> float:
        return math.nan if value is None else float(value)

    def by_name(row: Mapping[str, Any]) -> dict[str, Any]:
        return {current_name(name): value for name, value in row.items()}

    def estimate(row: Mapping[str, Any]) -> Estimate:
        versus = row["versus"]
        return Estimate(
            number(row["value"]),
            tuple(map(number, row["per_seed"])),
            row["ci"] and tuple(row["ci"]),
            row["best"],
            versus
            and Versus(
                number(versus["difference"]), versus["ci"] and tuple(versus["ci"]),
                number(versus["p_value"]), versus["seeds"],
            ),
        )  # fmt: skip

    try:
        rows = {
            current_name(name): {
                key: {metric: estimate(row) for metric, row in part.items() if metric in METRICS}
                for key, part in by_part.items()
            }
            for name, by_part in found["rows"].items()
        }
        chance = {
            current_name(name): {
                key: number(part.get("conf_ece_null_q95")) for key, part in by_part.items()
            }
            for name, by_part in found["rows"].items()
        }
        parts = {
            key: Part(p["domain"], tuple(p["splits"]), p["questions"])
            for key, p in found["parts"].items()
        }
        return Comparison(
            found["model"], by_name(found["labels"]), parts, tuple(found["seeds"]),
            current_name(found["reference"]), frozenset(found["unchanged"]), rows, chance,
            # Later than the rest.
            found.get("guesser", {}), tuple(found.get("remarks", ())),
            by_name(found.get("settings", {})),
        )  # fmt: skip
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path} holds no comparison of methods ({error!r})") from None
