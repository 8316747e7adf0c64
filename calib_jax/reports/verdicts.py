"""What may be said of a figure in words: whether a change is one, and what chance alone would show.

For several models and stages; the first sentences of measured splits are those of ``headline``.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax.reports.words import interval, number


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
    >>> of_chance({"n": 16, "n_clusters": 4, "conf_ece": 0.2, "conf_ece_null_q95": 0.1})
    'more than 16 questions in 4 clusters show of a perfectly calibrated model by chance, 0.100'
    """
    value, limit = row.get("conf_ece"), row.get("conf_ece_null_q95")
    if value is None or limit is None or math.isnan(value) or math.isnan(limit):
        return ""
    within = f" in {clusters:,} clusters" if (clusters := row.get("n_clusters")) else ""
    shown = f"{row['n']:,} {unit}{within} show of a perfectly calibrated model by chance"
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
