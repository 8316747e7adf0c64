"""What a comparison says, in sentences: also where the baseline beats the method."""

from collections.abc import Collection, Sequence

from calib_jax.reports import verdicts
from calib_jax.reports.compare.comparison import DOMAINS, METRICS, Comparison
from calib_jax.reports.content import number

WHERE = {"in": "in-domain", "out": "out-of-domain"}
# Temperature against fine-tuning: what both can change.
_CONTESTED = ("conf_ece", "cw_ece", "nll", "brier")


def sentences(comparison: Comparison, before: str, rivals: Sequence[str] = ()) -> list[str]:
    """Sentences without their full stops, the most important first.

    Args:
      comparison: of one model.
      before: the method that is the model as it is.
      rivals: methods to be held against the reference (the temperatures), where they were measured.
    """
    said = []
    reference = comparison.reference
    if before in comparison.rows and reference != before:
        said += change(comparison, before, reference)
    for rival in rivals:
        if rival in comparison.rows and rival != reference:
            said += _duel(comparison, rival)
    if reference != before:
        said += _others(comparison, {before, reference, *rivals})
    return said


def _others(comparison: Comparison, known: Collection[str]) -> list[str]:
    """Which other methods are significantly better than the reference at something; or none is."""
    names = [name for name in comparison.rows if name not in known]
    better = {}
    for name in names:
        for metric in _CONTESTED:
            for domain in DOMAINS:
                estimate = comparison.rows[name].get(domain, {}).get(metric)
                versus = None if estimate is None else estimate.versus
                if versus is None or not versus.significant:
                    continue
                if (versus.difference > 0) == (METRICS[metric][1] > 0):
                    other = comparison.rows[comparison.reference][domain][metric].value
                    better.setdefault(name, []).append(
                        f"{METRICS[metric][0]} {WHERE[domain]} ({number(estimate.value)} against "
                        f"{number(other)})"
                    )
    reference = comparison.labels[comparison.reference]
    if names and not better:
        return [f"None of the other methods is significantly better than {reference} on {_or()}"]
    return [
        f"{comparison.labels[name]} is significantly better than {reference} on {_listed(what)}"
        for name, what in better.items()
    ]


def change(comparison: Comparison, before: str, after: str) -> list[str]:
    """conf-ECE and accuracy before and after, a sentence each: significance, and chance.

    Args:
      comparison: of one model.
      before: the method that is the model as it is.
      after: the reference, which ``before`` stands against.
    """
    labels = comparison.labels
    said = []
    for metric, name in (("conf_ece", "conf-ECE"), ("accuracy", "accuracy")):
        parts = []
        for domain in (d for d in DOMAINS if d in comparison.parts):
            first, last = (comparison.rows[method][domain][metric] for method in (before, after))
            versus = first.versus  # of the model as it is less the method
            ends = versus and versus.interval and (-versus.interval[1], -versus.interval[0])
            known = verdicts.of_change(ends)
            text = f"{number(first.value)} → {number(last.value)} {WHERE[domain]}"
            text += f" ({known})" if known else ""
            if metric == "conf_ece":
                row = {
                    "n": comparison.parts[domain].questions,
                    "conf_ece": last.value,
                    "conf_ece_null_q95": comparison.chance.get(after, {}).get(domain),
                }
                chance = verdicts.of_chance(row)
                text += f", {chance}" if chance else ""
            parts.append(text)
        said.append(f"{labels[before]} → {labels[after]}: {name} {'; '.join(parts)}")
    return said


def _duel(comparison: Comparison, rival: str) -> list[str]:
    """Where a rival beats the reference, and where it does not; two sentences at most."""
    sides: dict[bool, list[str]] = {True: [], False: []}
    for metric in _CONTESTED:
        for domain in DOMAINS:
            estimate = comparison.rows[rival].get(domain, {}).get(metric)
            if estimate is None or estimate.versus is None or not estimate.versus.difference:
                continue
            other = comparison.rows[comparison.reference][domain][metric].value
            wins = (estimate.versus.difference > 0) == (METRICS[metric][1] > 0)
            doubt = "" if estimate.versus.significant else ", not significantly"
            values = (estimate.value, other) if wins else (other, estimate.value)
            sides[wins].append(
                f"{METRICS[metric][0]} {WHERE[domain]} ({number(values[0])} against "
                f"{number(values[1])}{doubt})"
            )
    one, two = comparison.labels[rival], comparison.labels[comparison.reference]
    said = [f"{one} beats {two} on {_listed(sides[True])}"]
    if not sides[True]:
        said = [f"{one} beats {two} nowhere: not on {_or()}"]
    if sides[False]:
        said.append(f"{two} beats {one} on {_listed(sides[False])}")
    return said


def _listed(items: Sequence[str]) -> str:
    return (
        items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}" if items else ""
    )


def _or() -> str:
    names = [METRICS[metric][0] for metric in _CONTESTED]
    return f"{', '.join(names[:-1])} or {names[-1]}"
