"""What a comparison says, in sentences: also where the baseline beats the method."""

from collections.abc import Iterator, Sequence
from typing import Any

from calib_jax.reports import catalogue, verdicts
from calib_jax.reports.compare.comparison import BEFORE, CHANCE, Comparison
from calib_jax.reports.headline import CALLED, lead
from calib_jax.reports.words import DOMAINS as WHERE
from calib_jax.reports.words import listed, number

# What temperatures can change, too, and is better in one direction.
_CONTESTED = [m for m in catalogue.at(catalogue.VERSUS) if m.direction and m.key != "accuracy"]
_NAMES = [metric.brief for metric in _CONTESTED]


def headline(comparison: Comparison) -> list[str]:
    """The first sentences: how sure and how often right, and what the reference changed.

    Else what is compared with what.
    """
    labels = comparison.labels
    return [*plain(comparison), *change(comparison)] or [
        f"{', '.join(labels.values())}: compared with {labels[comparison.reference]}"
    ]


def plain(comparison: Comparison) -> list[str]:
    """How sure the model as it is and the reference are, and how often right, per domain."""
    after = comparison.reference
    if BEFORE not in comparison.rows or after == BEFORE:
        return []
    name = f"after {comparison.labels[after]}"
    called = {**CALLED, after: (f"{name}, it", f"{name}, ")}
    said = []
    for domain in (d for d in WHERE if d in comparison.parts):
        part, rows = comparison.parts[domain], {}
        for method in (BEFORE, after):
            row: dict[str, Any] = {"n": part.questions}
            for key in ("mean_confidence", "accuracy", "conf_ece"):
                if estimate := comparison.estimate(method, domain, key):
                    row |= {key: estimate.value, f"{key}_ci": estimate.interval}
            row[CHANCE] = comparison.chance.get(method, {}).get(domain)
            rows[method] = row
        if told := lead(" + ".join(part.splits), rows, called=called):
            said.append(". ".join(told))
    return said


def sentences(comparison: Comparison, rivals: Sequence[str] = ()) -> list[str]:
    """Sentences without their full stops, the most important first.

    Args:
      comparison: of one model.
      rivals: methods that are compared with the reference one by one (the temperatures), as far as
        they were measured.
    """
    reference, said = comparison.reference, change(comparison)
    for rival in rivals:
        if rival in comparison.rows and rival != reference:
            said += _duel(comparison, rival)
    if reference != BEFORE:
        others = (name for name in comparison.rows if name not in {BEFORE, reference, *rivals})
        said += _others(comparison, list(others))
    return said


def change(comparison: Comparison) -> list[str]:
    """conf-ECE and accuracy of the model as it is and of the reference, a sentence each.

    With significance and chance; [] where the model as it is was not compared.
    """
    labels, after = comparison.labels, comparison.reference
    if BEFORE not in comparison.rows or after == BEFORE:
        return []
    said = []
    for metric in ("conf_ece", "accuracy"):
        parts = []
        for domain in (d for d in WHERE if d in comparison.parts):
            first, last = (comparison.rows[method][domain][metric] for method in (BEFORE, after))
            versus = first.versus  # of the model as it is less the method
            low, high = (versus and versus.interval) or (None, None)
            ends = None if low is None or high is None else (-high, -low)
            known = verdicts.of_change(ends)
            text = f"{number(first.value)} → {number(last.value)} {WHERE[domain]}"
            text += f" ({known})" if known else ""
            if metric == "conf_ece":
                chance = verdicts.of_chance(
                    {
                        "n": comparison.parts[domain].questions,
                        "conf_ece": last.value,
                        CHANCE: comparison.chance.get(after, {}).get(domain),
                    }
                )
                text += f", {chance}" if chance else ""
            parts.append(text)
        name = catalogue.get(metric).label
        said.append(f"{labels[BEFORE]} → {labels[after]}: {name} {'; '.join(parts)}")
    return said


def _against(comparison: Comparison, rival: str) -> Iterator[tuple[bool, bool, str]]:
    """Whether a rival beats the reference, whether that is significant, and on what."""
    for metric in _CONTESTED:
        for domain, where in WHERE.items():
            estimate = comparison.estimate(rival, domain, metric.key)
            versus = estimate and estimate.versus
            if estimate is None or not versus or not versus.difference:
                continue
            other = comparison.rows[comparison.reference][domain][metric.key].value
            wins = (versus.difference > 0) == (metric.direction > 0)
            better, worse = (estimate.value, other) if wins else (other, estimate.value)
            doubt = "" if versus.significant else ", not significantly"
            values = f"{number(better)} against {number(worse)}{doubt}"
            yield wins, versus.significant, f"{metric.brief} {where} ({values})"


def _others(comparison: Comparison, names: Sequence[str]) -> list[str]:
    """Which other methods are significantly better than the reference at something; or none is.

    By p-values adjusted for all differences of the table against the reference.
    """
    reference = comparison.labels[comparison.reference]
    better = {
        name: [text for wins, sure, text in _against(comparison, name) if wins and sure]
        for name in names
    }
    if names and not any(better.values()):
        what = listed(_NAMES, "or")
        return [f"None of the other methods is significantly better than {reference} on {what}"]
    return [
        f"{comparison.labels[name]} is significantly better than {reference} on {listed(what)}"
        for name, what in better.items()
        if what
    ]


def _duel(comparison: Comparison, rival: str) -> list[str]:
    """Where a rival beats the reference, and where it does not; two sentences at most."""
    sides: dict[bool, list[str]] = {True: [], False: []}
    for wins, _, text in _against(comparison, rival):
        sides[wins].append(text)
    one, two = comparison.labels[rival], comparison.labels[comparison.reference]
    said = [f"{one} beats {two} on {listed(sides[True]) or f'none of {listed(_NAMES)}'}"]
    if sides[False]:
        said.append(f"{two} beats {one} on {listed(sides[False])}")
    return said
