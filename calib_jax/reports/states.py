"""The columns of a run's summary: its states, models or readings, each with its splits' figures."""

from collections.abc import Iterable, Mapping
from typing import Any

from calib_jax.errors import UserError

# State ("before", "after", a model's or a reading's name) -> split -> figures.
States = Mapping[str, Mapping[str, Mapping[str, Any]]]
# Where an evaluation by several readings holds them: {"measured": {split: {reading: figures}}}.
MEASURED = "measured"
# Schema 1 did not name its states. Dictionaries of such a summary that are none:
_NO_STATES = frozenset(
    {"change", "data", "prompt", "training", "posthoc", "quantization", "wall_time_s", "versions"}
)


def named(states: States) -> dict[str, Any]:
    """A summary's keys for states: each beneath its name, and "states", their names in order."""
    return {"states": list(states), **states}


def by_reading(states: States) -> dict[str, Any]:
    """A summary's keys for one model that was read in several ways."""
    return {"states": list(states), MEASURED: _transposed(states)}


def states_of(summary: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The states of a summary, in order: {"before": {split: figures}, "after": ...}.

    Raises:
      UserError: the summary holds no measurement of splits.
    """
    if "states" in summary:
        names = summary["states"]
        if is_by_reading(summary):
            by_state = _transposed(summary[MEASURED])
            return {name: by_state[name] for name in names}
        return {name: summary[name] for name in names}
    found: dict[str, Any] = {}
    for name, splits in summary.items():
        if name in _NO_STATES or not isinstance(splits, Mapping) or not splits:
            continue
        if all(map(_is_row, splits.values())):
            found[name] = splits
        elif all(
            isinstance(m, Mapping) and m and all(map(_is_row, m.values())) for m in splits.values()
        ):
            found |= _transposed(splits)
    if not found:
        raise UserError(
            "The summary holds no measurement: neither 'before' nor 'after' nor a model's figures."
        )
    return found


def is_by_reading(summary: Mapping[str, Any]) -> bool:
    """Whether a summary's states are several readings of one model."""
    measured = summary.get(MEASURED)
    if not isinstance(measured, Mapping) or not measured:
        return False
    return not _is_row(next(iter(measured.values())))


def _is_row(value: Any) -> bool:
    return isinstance(value, Mapping) and "conf_ece" in value


def _transposed(nested: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    result: dict[str, dict[str, Any]] = {}
    for outer, values in nested.items():
        for inner, value in values.items():
            result.setdefault(inner, {})[outer] = value
    return result


def side_by_side(summaries: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The states that compare several runs: the common "before" and each run's "after".

    Raises:
      UserError: two runs evaluated other questions, so that their figures cannot be compared.
    """
    merged: dict[str, Mapping[str, Any]] = {}
    reference: tuple[str, Mapping[str, Any]] | None = None
    for name, summary in summaries.items():
        states = states_of(summary)
        for state, splits in states.items():
            if reference is None:
                reference = (name, splits)
            for split, row in splits.items():
                other = reference[1].get(split)
                for key in ("n", "answer_counts"):
                    if other is not None and other.get(key) != row.get(key):
                        raise UserError(
                            f"runs {reference[0]!r} and {name!r} were measured on other questions: "
                            f"{split} has {key} {other.get(key)} and {row.get(key)}"
                        )
            if state == "before":
                merged.setdefault("before", splits)
            elif state == "after" or len(states) == 1:
                merged[name] = splits
            else:
                merged[f"{name} {state}"] = splits
    return merged


def ordered_splits(states: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Every split of any state, those in-domain first, otherwise in their order."""
    names = list(dict.fromkeys(split for splits in states.values() for split in splits))

    def is_out(split: str) -> bool:
        row = next(splits[split] for splits in states.values() if split in splits)
        return row.get("domain") != "in"

    return sorted(names, key=is_out)


def is_part(split: str, splits: Iterable[str]) -> bool:
    """Whether a split is a group of another one's questions, as mmlu_stem is of mmlu."""
    return any(split.startswith(f"{other}_") for other in splits)
