"""What a result means, in words that need no statistics: how sure, how often right, what is chance.

The first sentences of pages, consoles and model cards are made of these; the number, conf-ECE with
its interval, comes last.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calib_jax.metrics.shares import pooled_interval, wilson_interval
from calib_jax.reports import remarks
from calib_jax.reports.states import is_part, ordered_splits
from calib_jax.reports.verdicts import course, short
from calib_jax.reports.words import interval, listed, number, plural

Row = Mapping[str, Any]
Rows = Mapping[str, Row]
States = Mapping[str, Rows]

# Of more splits, models or tasks than these the tables speak.
MAX_SPLITS, MAX_NAMED = 3, 4
# A p-value up to this one is "more than chance explains".
ALPHA = 0.05
# What the questions of a file are called that names no split (``ingest.files``).
UNNAMED = "all"
# States that are no names of models: who says something, and whom a verdict is about.
CALLED = {
    "before": ("before, the model", "before"),
    "after": ("after, it", "after"),
    "measured": ("the model", ""),
}


# --- Words for figures ----------------------------------------------------------------------------


def percent(value: float, digits: int = 0) -> str:
    """A share in percent; 0% and 100% only where it is exactly that.

    >>> percent(0.853), percent(0.9996), percent(1.0), percent(0.99999999)
    ('85%', '99.96%', '100%', 'over 99.99%')
    """
    if value in (0, 1):
        return f"{value:.0%}"
    for more in range(digits, max(digits, 2) + 1):
        shown = f"{value:.{more}%}"
        if 0 < float(shown[:-1]) < 100:
            return shown
    return "over 99.99%" if value > 0.5 else "under 0.01%"


def p_value(p: float) -> str:
    """A p-value, in as many digits as show on which side of 0.05 it lies.

    >>> p_value(0.31), p_value(0.0002), p_value(0.0504), p_value(0.05)
    ('p = 0.310', 'p < 0.001', 'p = 0.0504', 'p = 0.050')
    """
    if p < 0.0005:
        return "p < 0.001"
    digits = next(d for d in range(3, 12) if (float(f"{p:.{d}f}") <= ALPHA) == (p <= ALPHA))
    return f"p = {p:.{digits}f}"


def in_samples(p: float) -> str:
    """The same as a count of samples.

    >>> in_samples(0.31), in_samples(0.004), in_samples(0.0001)
    ('31 of 100 such samples', '4 of 1,000 such samples', 'at most 1 of 1,000 such samples')
    """
    if p >= 0.1:
        return f"{100 * p:.0f} of 100 such samples"
    count = f"{1000 * p:.0f}" if p >= 0.0015 else "at most 1"
    return f"{count} of 1,000 such samples"


def _known(ends: Sequence[float | None] | None) -> tuple[float, float] | None:
    low, high = ends or (None, None)
    return None if low is None or high is None or low != low or high != high else (low, high)


def figure(row: Row, key: str) -> str:
    """A figure with its interval, where it has one."""
    return " ".join(filter(None, (number(row.get(key)), interval(row.get(f"{key}_ci")))))


# --- One measurement ------------------------------------------------------------------------------


def side(row: Row) -> int:
    """1 where the mean confidence lies above accuracy's interval, -1 below it, else 0."""
    ends = _known(row.get("accuracy_ci"))
    if ends is None:
        return 0
    low, high = ends
    return int(row["mean_confidence"] > high) - int(row["mean_confidence"] < low)


def beyond_chance(row: Row) -> bool | None:
    """Whether the calibration error is more than chance explains; None where that is not known."""
    if (p := row.get("conf_ece_p_value")) is not None:
        return p <= ALPHA
    value, limit = row.get("conf_ece"), row.get("conf_ece_null_q95")
    return None if value is None or limit is None else value > limit


def told(row: Row) -> bool:
    """Whether a measurement says what these sentences need; one of an earlier version may not."""
    return None not in (row.get("mean_confidence"), row.get("accuracy"), row.get("n"))


def sure_and_right(row: Row) -> str:
    """ "says it is 85% sure and is right 72% of the time (95% interval: 65% to 78%)".

    Args:
      row: with "mean_confidence", "accuracy" and, where it is known, "accuracy_ci".
    """
    confidence, accuracy = row["mean_confidence"], row["accuracy"]
    near = (accuracy, *(_known(row.get("accuracy_ci")) or ()))
    digits = int(bool(side(row)) and f"{confidence:.0%}" in [f"{value:.0%}" for value in near])
    right = {1: "right every time", 0: "never right"}.get(
        accuracy, f"right {percent(accuracy, digits)} of the time"
    )
    text = f"says it is {percent(confidence, digits)} sure and is {right}"
    ends = _known(row.get("accuracy_ci"))
    if ends is None:
        return text
    low, high = (percent(end, digits) for end in ends)
    return f"{text} (95% interval: {low} to {high})"


def of_chance(row: Row) -> str:
    """Whether the difference between the two is more than chance explains; "" if not known."""
    known = beyond_chance(row)
    if known is None:
        return ""
    if _few(row):
        return f"{remarks.size(row)} cannot tell the difference from chance"
    way = {1: "less often right than it says", -1: "more often right than it says"}.get(side(row))
    if known and way:
        return f"it is {way}, by more than chance explains"
    if known:
        return (
            "it is right about as often as it says on average, but not at every level of "
            "confidence, by more than chance explains"
        )
    if way:
        return (
            f"it is {way} on average, but the error over all levels of confidence is no "
            "more than chance explains"
        )
    return "the difference is no more than chance explains"


def _few(row: Row) -> bool:
    """Whether there are too few questions for intervals, as measurements say."""
    return "conf_ece_ci" in row and _known(row["conf_ece_ci"]) is None


def _p(row: Row) -> str:
    """ "p = 0.003"; "" where it is not known, or would say nothing."""
    p = row.get("conf_ece_p_value")
    return "" if p is None or _few(row) else p_value(p)


_OFF = "a model that is right exactly as often as it says would be at least this far off"


def of_chances(rows: Sequence[tuple[str, Row]], explain: bool = True) -> list[str]:
    """What ``of_chance`` says of several measurements, with p-values; those alike together.

    Args:
      rows: (whom the verdict is about, ROW); "" for whom it needs not say.
      explain: whether the p-value is explained.
    """
    alike: dict[str, list[tuple[str, Row]]] = {}
    for whom, row in rows:
        if chance := of_chance(row):
            alike.setdefault(chance, []).append((whom, row))
    parts = []
    for chance, found in alike.items():
        names = [whom for whom, _ in found]
        whom = listed(names)
        if len(names) > 1 and all(name.startswith("for ") for name in names):
            whom = f"for each of {listed([name.removeprefix('for ') for name in names])}"
        shown = listed(list(filter(None, (_p(row) for _, row in found))))
        text = f"{whom}, {chance}" if whom else chance
        if shown and explain and len(rows) == 1:
            text += f": {_OFF} in {in_samples(rows[0][1]['conf_ece_p_value'])}"
        parts.append(text + (f" ({shown})" if shown else ""))
    said = [_capital("; ".join(parts))] if parts else []
    if explain and len(rows) > 1 and any(_p(row) for _, row in rows):
        said.append(f"Here p is how often {_OFF}")
    return said


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def on(split: str, n: int) -> str:
    """ "On 400 questions of arc"; "On 400 questions" of a file that names no split."""
    return f"On {plural(n, 'question')}{named(split, ' of {}')}"


def named(split: str, form: str) -> str:
    """The split within ``form``, such as " of {}"; "" for the name of a file that names none."""
    return "" if split == UNNAMED else form.format(split)


# --- Splits ---------------------------------------------------------------------------------------


def of_states(states: States, changes: Rows | None = None) -> list[str]:
    """Sentences per split, without their last full stop.

    Args:
      states: state ("before", "after", or a model's or method's name) -> split -> ROW.
      changes: split -> the paired differences from "before" to "after".
    """
    splits = ordered_splits(states)
    said = []
    for split in splits[:MAX_SPLITS]:
        rows = {state: by_split[split] for state, by_split in states.items() if split in by_split}
        change = (changes or {}).get(split)
        said.append(of_split(split, rows, change, explain=split == splits[0]))
    if len(splits) > MAX_SPLITS:
        said.append(f"The tables hold {plural(len(splits) - MAX_SPLITS, 'more split')}")
    return said


def of_split(split: str, rows: Rows, change: Row | None = None, explain: bool = True) -> str:
    """What the models say and how often they are right, chance, the change, and the number.

    Args:
      split: the name of what was asked.
      rows: state -> ROW.
      change: paired differences from "before" to "after".
      explain: whether the p-value is explained.
    """
    said = lead(split, rows, explain)
    if not said:
        return course(f"conf-ECE on {split}", {s: r.get("conf_ece") for s, r in rows.items()}, {})
    if len(rows) == 1:
        (row,) = rows.values()
        said.append(f"The error of its confidence (conf-ECE) is {figure(row, 'conf_ece')}")
    elif {"before", "after"} <= set(rows):
        said += of_change(rows["before"], rows["after"], change)
    else:
        shown = list(rows.items())[:MAX_NAMED]
        each = (f"{state} {figure(row, 'conf_ece')}" for state, row in shown)
        said.append(f"The error of the confidence (conf-ECE): {', '.join(each)}")
    if (more := len(rows) - MAX_NAMED) > 0:
        said.append(f"The tables hold {plural(more, 'more model')}")
    return ". ".join(said)


def lead(
    split: str,
    rows: Rows,
    explain: bool = True,
    by: str = "",
    called: Mapping[str, tuple[str, str]] = CALLED,
) -> list[str]:
    """How sure and how often right; then chance. [] where measurements do not say it.

    Args:
      split: the name of what was asked.
      rows: state -> ROW.
      explain: whether the p-value is explained.
      by: how the one state's confidence was read; "" for no matter.
      called: state -> who says something, and whom a verdict is about; else by its name.
    """
    if not all(map(told, rows.values())):
        return []
    shown = list(rows.items())[:MAX_NAMED]
    counts = {row["n"] for row in rows.values()}
    alike = len(counts) == 1
    parts, chances = [], []
    for state, row in shown:
        who, whom = called.get(state, (state, f"for {state}"))
        if len(rows) == 1:
            who, whom = "the model" if by or state in called else state, ""
        count = "" if alike else f" ({plural(row['n'], 'question')})"
        parts.append(f"{who}{count} {sure_and_right(row)}")
        chances.append((whom, row))
    where = on(split, counts.pop()) if alike else f"On {split}"
    where += f", read by {by}" if by else ""
    said = f"{where}{', ' if len(parts) == 1 else ': '}{'; '.join(parts)}"
    return [said, *of_chances(chances, explain)]


def of_change(before: Row, after: Row, change: Row | None) -> list[str]:
    """Whether the error and the accuracy have changed by more than chance explains."""
    figures = f"{figure(before, 'conf_ece')} → {figure(after, 'conf_ece')}"
    change = change or {}
    ends = change.get("conf_ece_ci")
    if (known := short(ends)) == "":
        return [f"The error of its confidence (conf-ECE): {figures}"]
    moved = f"a change of {number(change['conf_ece'], signed=True)} {interval(ends, True)}"
    verb = {"significantly lower": "has shrunk", "significantly higher": "has grown"}.get(known)
    text = f"{verb} by" if verb else "has not changed by"
    said = [
        f"The error of its confidence {text} more than chance explains: conf-ECE {figures}, {moved}"
    ]
    if (known_ends := _known(change.get("accuracy_ci"))) is not None:
        said.append(_right_more_often(*known_ends))
    return said


def _right_more_often(low: float, high: float) -> str:
    if low <= 0 <= high:
        return "How often it is right has not changed by more than chance explains"
    least, most = sorted((abs(100 * low), abs(100 * high)))
    way = "more" if low > 0 else "less"
    return f"It is right {way} often, by {least:.1f} to {most:.1f} percentage points"


# --- Readings -------------------------------------------------------------------------------------


def of_methods(states: States) -> list[str]:
    """Sentences per reading of one model: over its tasks together, and on how many it is chance."""
    said = []
    for method, rows in list(states.items())[:MAX_NAMED]:
        whole = {split: row for split, row in rows.items() if not is_part(split, rows)}
        known = {split: row for split, row in whole.items() if row.get("conf_ece") is not None}
        if len(known) == 1:
            ((split, row),) = known.items()
            error = f"The error of its confidence (conf-ECE) is {figure(row, 'conf_ece')}"
            said.append(". ".join([*lead(split, {method: row}, by=method), error]))
        elif known:
            said.append(_of_tasks(method, known))
    if (more := len(states) - MAX_NAMED) > 0:
        said.append(f"The tables hold {plural(more, 'more way')} of reading the confidence")
    return said


def pooled(rows: Rows) -> dict[str, Any]:
    """n, mean confidence and accuracy, with its interval, of several splits' questions together."""
    n = sum(row["n"] for row in rows.values())
    confidence = sum(row["n"] * row["mean_confidence"] for row in rows.values())
    right, counts, ends = [], [], []
    for row in rows.values():
        counts.append(row["n"])
        right.append(round(row["n"] * row["accuracy"]))
        # A summary of an earlier version may lack it.
        ends.append(_known(row.get("accuracy_ci")) or wilson_interval(right[-1], counts[-1]))
    low, high = np.array(ends, float).T
    return {
        "n": n,
        "mean_confidence": confidence / n,
        "accuracy": sum(right) / n,
        "accuracy_ci": list(pooled_interval(np.array(right), np.array(counts), low, high)),
    }


def _of_tasks(method: str, rows: Rows) -> str:
    said = []
    if all(map(told, rows.values())):
        every = pooled(rows)
        about = f"{plural(every['n'], 'question')} of {len(rows)} tasks"
        said.append(f"On {about}, read by {method}, the model {sure_and_right(every)}")
    beyond = {split: beyond_chance(row) for split, row in rows.items()}
    if None not in beyond.values():
        within = [split for split, known in beyond.items() if not known]
        count = len(rows) - len(within)
        except_on = f" (not on {listed(within)})" if 0 < len(within) <= MAX_NAMED else ""
        told_of = {
            0: f"On none of the {len(rows)} tasks is the difference more than chance explains",
            len(rows): f"On all {len(rows)} tasks the difference is more than chance explains",
        }.get(
            count,
            f"On {count} of the {len(rows)} tasks the difference is more than chance explains"
            f"{except_on}",
        )
        said.append(
            f"{told_of}; of models that are right as often as they say, that is so on 1 task in 20"
        )
    first, *_, last = sorted(rows, key=lambda split: rows[split]["conf_ece"])
    ends = (f"{figure(rows[s], 'conf_ece')} ({s}, n = {rows[s]['n']:,})" for s in (first, last))
    said.append(f"The error of its confidence (conf-ECE) is from {' to '.join(ends)}")
    return ". ".join(said)
