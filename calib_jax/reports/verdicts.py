"""What may be said of a figure in words: whether a change is one, and what chance alone would show.

The first sentences of every page and of every console are made of these.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax.reports.states import is_part, ordered_splits
from calib_jax.reports.words import interval, number

Rows = Mapping[str, Mapping[str, Any]]

# Of more splits than these the table speaks.
MAX_SENTENCES = 4


def of_change(ends: Sequence[float | None] | None, null: float = 0.0, signed: bool = True) -> str:
    """Whether a change is one, by its 95 % interval; "" where no interval is known.

    Args:
      ends: of the interval.
      null: what no change is: 0, and 1 of a factor.
      signed: whether the ends are shown with their sign.

    >>> of_change((-0.463, 0.102))
    'no significant change: its 95% interval [-0.463, +0.102] includes 0'
    >>> of_change((-0.39, -0.31)), of_change((1.01, 1.2), 1.0, signed=False)
    ('significantly lower: by [-0.390, -0.310]', 'significantly higher: by × [1.010, 1.200]')
    >>> of_change(None)
    ''
    """
    known = [end for end in ends or () if end is not None and not math.isnan(end)]
    if len(known) < 2:
        return ""
    low, high = known
    shown = interval(known, signed)
    if low <= null <= high:
        return f"no significant change: its 95% interval {shown} includes {null:g}"
    factor = "" if null == 0 else "× "
    way = "lower" if high < null else "higher"
    return f"significantly {way}: by {factor}{shown}"


def short(ends: Sequence[float | None] | None, null: float = 0.0) -> str:
    """The same in two words, for a card: "no significant change", "significantly lower"."""
    return of_change(ends, null).partition(":")[0]


def deciding(change: Mapping[str, Any]) -> Sequence[float | None] | None:
    """The interval by which a conf-ECE has changed or not: the unbiased squared error's."""
    return change.get("squared_ece_ci") or change.get("conf_ece_ci")


def of_error(change: Mapping[str, Any]) -> str:
    """``of_change`` of a split's conf-ECE, by its square's change where that is known.

    >>> of_error({"conf_ece_ci": [-0.2, 0.01], "squared_ece_ci": [-0.031, -0.004]})
    'significantly lower: its square by [-0.0310, -0.0040]'
    >>> of_error({"conf_ece_ci": [-0.2, -0.1]})
    'significantly lower: by [-0.200, -0.100]'
    """
    ends = change.get("squared_ece_ci")
    if not ends or None in ends or any(map(math.isnan, ends)):
        return of_change(change.get("conf_ece_ci"))
    text = of_change(ends).partition(":")[0]
    shown = interval(ends, signed=True, digits=4)
    if text.startswith("no"):
        return f"{text}: the 95% interval {shown} of its square's change includes 0"
    return f"{text}: its square by {shown}"


def of_chance(row: Mapping[str, Any], unit: str = "questions") -> str:
    """What a perfectly calibrated model would show; "" where it is not known.

    Args:
      row: with "n", "conf_ece" and "conf_ece_null_q95", which a perfectly calibrated model of the
        same confidences exceeds in one sample of 20.
      unit: what is counted.

    >>> of_chance({"n": 16, "conf_ece": 0.174, "conf_ece_null_q95": 0.213})
    'within what 16 questions show of a perfectly calibrated model by chance, up to 0.213'
    >>> of_chance({"n": 16, "conf_ece": 0.314, "conf_ece_null_q95": 0.213})
    'more than 16 questions show of a perfectly calibrated model by chance, 0.213'
    """
    value, limit = row.get("conf_ece"), row.get("conf_ece_null_q95")
    if value is None or limit is None or math.isnan(value) or math.isnan(limit):
        return ""
    shown = f"{row['n']:,} {unit} show of a perfectly calibrated model by chance"
    if value <= limit:
        return f"within what {shown}, up to {number(limit)}"
    return f"more than {shown}, {number(limit)}"


def course(
    name: str,
    values: Mapping[str, float | None],
    changes: Mapping[str, str],
    arrow: str = " → ",
    after: str = "",
) -> str:
    """ "conf-ECE on arc: 0.410 (start) → 0.050 (sft, significantly lower: by [...]); ...".

    Args:
      name: of the figure, and where it was measured.
      values: state -> value.
      changes: state -> what is said of its change.
      arrow: between two values.
      after: said of the last value.
    """
    several = len(values) > 1
    parts = []
    for state, value in values.items():
        about = ", ".join(filter(None, (state if several else "", changes.get(state))))
        parts.append(number(value) + (f" ({about})" if about else ""))
    text = f"{name}: {arrow.join(parts)}"
    if not after:
        return text
    return f"{text}; the last is {after}" if several else f"{text}, {after}"


def of_states(states: Rows, changes: Rows | None = None) -> list[str]:
    """A sentence per split, without its full stop: conf-ECE, whether it changed, and chance.

    Args:
      states: state ("before", "after", or a model's or method's name) -> split -> ROW.
      changes: split -> the paired differences from "before" to "after".
    """
    splits = ordered_splits(states)
    said = []
    for split in splits[:MAX_SENTENCES]:
        rows = {state: by_split[split] for state, by_split in states.items() if split in by_split}
        values = {state: row.get("conf_ece") for state, row in rows.items()}
        name, last = f"conf-ECE on {split}", rows[list(rows)[-1]]
        if "before" in rows:
            change = of_error((changes or {}).get(split, {}))
            said.append(course(name, values, {"after": change}, after=of_chance(last)))
        else:
            chances = {state: of_chance(row) for state, row in rows.items()}
            several = len(rows) > 1
            said.append(
                course(
                    name,
                    values,
                    chances if several else {},
                    "; ",
                    "" if several else of_chance(last),
                )
            )
    if len(splits) > MAX_SENTENCES:
        said.append(f"The tables hold {len(splits) - MAX_SENTENCES} more splits")
    return said


def of_methods(states: Rows) -> list[str]:
    """A sentence per method: the range of conf-ECE over its tasks, and on how many it is chance."""
    said = []
    for method, rows in states.items():
        whole = {split: row for split, row in rows.items() if not is_part(split, rows)}
        known = {s: row for s, row in whole.items() if row.get("conf_ece") is not None}
        found = sorted(known, key=lambda split: known[split]["conf_ece"])
        if len(found) == 1:
            row = known[found[0]]
            name = f"conf-ECE by {method} on {found[0]}"
            said.append(course(name, {method: row["conf_ece"]}, {}, after=of_chance(row)))
            continue
        ends = [
            f"{number(known[split]['conf_ece'])} ({split}, n = {known[split]['n']:,})"
            for split in (found[:1] + found[1:][-1:])
        ]
        text = f"conf-ECE by {method}: {' to '.join(ends)}"
        within = [split for split in found if of_chance(known[split]).startswith("within")]
        text += (
            f"; on {len(within)} of {len(found)} tasks it is within what as many questions show of "
            "a perfectly calibrated model by chance"
        )
        said.append(text + (f" ({', '.join(within)})" if 0 < len(within) <= MAX_SENTENCES else ""))
    return said
