"""A study in words: headline, captions and notes, and how changes and values are written."""

import math
import statistics
from collections.abc import Mapping

from calib_jax.reports.study.changes import (
    METRICS,
    SMALLEST_BASE,
    Cells,
    Change,
    column,
    each,
    every_change,
    methods_of,
)
from calib_jax.reports.words import UNKNOWN, number, plural

# A range that is wider than this says next to nothing: values lie in [0, 1].
_WIDEST = 0.5
_SCE = (
    "Percent: the change over the base's value. SCE is the class-wise ECE; its one-vs-rest form is "
    "the one that the published figures fit, and sharpness alone raises it."
)
_INTERVALS = "brackets: its 95% bootstrap interval, paired over the same questions"
_ELSEWHERE = "changes.md and report.html hold its 95% interval"
_RECOVERED = (
    "Values before and after are recovered from rounded changes and ratios: a range is what the "
    "rounding leaves open, and – stands for most of 0 to 1. They come without intervals."
)


# --- Sentences ------------------------------------------------------------------------------------


def headline(cells: Cells, files: Mapping[str, str] | None = None) -> str:
    """ "Lower after alignment: by choice ECE in 20 of 70 (9 significantly) and SCE in ...; by ...".

    Significantly: the whole 95 % interval of the change lies below 0. Published figures come
    without intervals.

    Args:
      cells: the changes.
      files: where they are published ones: path -> which SCE it holds.
    """
    parts = [
        f"by {method} {_counted(cells, method, 'conf_ece', 'in ')} and "
        f"{_counted(cells, method, sce_of(cells, method), 'in ')}"
        for method in methods_of(cells)
    ]
    text = "ower after alignment: " + "; ".join(parts)
    return f"{published_text(files)}: l{text}" if files else f"L{text}"


def falls_text(cells: Cells, method: str) -> str:
    """ "lower after alignment: ECE 20 of 70; SCE 0 of 70"."""
    parts = [_counted(cells, method, metric) for metric in METRICS if column(cells, method, metric)]
    return f"lower after alignment: {'; '.join(parts)}"


def _counted(cells: Cells, method: str, metric: str, within: str = "") -> str:
    """ "ECE 20 of 70 (9 significantly; 12 significantly higher)"; without intervals the counts."""
    fallen, total = falls(cells, method, metric)
    text = f"{METRICS[metric].label} {within}{fallen} of {total}"
    found = column(cells, method, metric).values()
    if not (ends := [c.change_ci for c in found if c.change_ci is not None]):
        return text
    lower, higher = sum(end[1] < 0 for end in ends), sum(end[0] > 0 for end in ends)
    return f"{text} ({lower} significantly; {higher} significantly higher)"


def falls(cells: Cells, method: str, metric: str) -> tuple[int, int]:
    """(cells in which the metric is lower after alignment, all cells)."""
    found = column(cells, method, metric).values()
    return sum(change.falls for change in found), len(found)


def sce_of(cells: Cells, method: str = "") -> str:
    """The SCE that figures show: the label form where it is known, as it is of measured cells.

    Args:
      cells: the changes.
      method: of one method; "" for all of them, where the form that more cells hold is taken.
    """
    methods = [method] if method else methods_of(cells)
    counts = {s: sum(len(column(cells, m, s)) for m in methods) for s in ("cw_ece", "sce_ovr")}
    return max(counts, key=counts.__getitem__)


def published_text(files: Mapping[str, str]) -> str:
    """ "Published figures of choice.csv (SCE, one-vs-rest), not measured here"."""
    names = ", ".join(f"{path} ({METRICS[sce].label})" for path, sce in files.items())
    return f"Published figures of {names}, not measured here"


def caption(cells: Cells, elsewhere: bool = False) -> str:
    """What stands under a table of changes.

    Args:
      cells: of the table.
      elsewhere: whether the table leaves intervals out, which the files beside it hold.
    """
    parts = ["Change: aligned - base"]
    if any(change.change_ci is not None for change in every_change(cells)):
        parts.append(_ELSEWHERE if elsewhere else _INTERVALS)
    text = f"{'; '.join(parts)}. {_SCE}"
    if any(change.pt_range is not None for change in every_change(cells)):
        text += f" {_RECOVERED}"
    return text


def notes(cells: Cells, ties: bool) -> list[str]:
    """What a reader must know of these cells: ties, missing ratios, questions left out.

    Args:
      cells: the changes.
      ties: whether pairs share a rank.
    """
    found = []
    if ties:
        found.append("Pairs with equal ratios share a rank, and the next rank is left out.")
    missing = [math.isnan(c.ratio) and not math.isnan(c.change) for c in every_change(cells)]
    if any(missing):
        have = "has" if sum(missing) == 1 else "have"
        found.append(
            f"{plural(sum(missing), 'change')} {have} no ratio and no rank: the base's value is "
            f"below {SMALLEST_BASE}."
        )
    every = each(cells)
    dropped = {(task, method): cell.dropped for _, task, method, cell in every if cell.dropped}
    for (task, method), count in dropped.items():
        are, have = ("is", "has") if count == 1 else ("are", "have")
        found.append(
            f"{task}, {method}: {plural(count, 'question')} {are} left out, which {have} another "
            "number of options than the rest."
        )
    return found


# --- Figures --------------------------------------------------------------------------------------


def signed(value: float, decimals: int, sign: float = 0.0) -> str:
    """A signed figure: one that rounds to zero keeps its sign, and zero itself has that of `sign`.

    >>> signed(0.25, 3), signed(-0.0004, 3), signed(0.0, 3), signed(0.0, 3, -0.001)
    ('+0.250', '-0.000', '0.000', '-0.000')
    """
    if math.isnan(value):
        return UNKNOWN
    way = value or (0.0 if math.isnan(sign) else sign)
    return ("+" if way > 0 else "-" if way < 0 else "") + f"{abs(value):.{decimals}f}"


def ratio_text(ratio: float) -> str:
    """A signed ratio: "+41.6%", "+1678%"; "" where there is none."""
    if math.isnan(ratio):
        return ""
    return signed(100 * ratio, 0 if abs(ratio) >= 9.9995 else 1) + "%"


def median_text(cells: Cells, method: str, metric: str) -> str:
    """The median ratio of all pairs and tasks; "–" where there is none."""
    ratios = [c.ratio for c in column(cells, method, metric).values() if not math.isnan(c.ratio)]
    return ratio_text(statistics.median(ratios)) if ratios else UNKNOWN


def change_text(change: Change, metric: str) -> str:
    """ "+0.176"; accuracy's in percentage points; "–" where it is not known."""
    # A printed 0.000 whose ratio is -0.1% fell.
    text = signed(*_scaled(change.change, metric), change.ratio)
    return f"{text} pts" if metric == "accuracy" and text != UNKNOWN else text


def with_ratio(change: Change, metric: str) -> str:
    """ "+0.176 (+41.6%)", or the change alone where there is no ratio."""
    text, ratio = change_text(change, metric), ratio_text(change.ratio)
    return f"{text} ({ratio})" if ratio else text


def interval_text(change: Change, metric: str) -> str:
    """ "[+0.100, +0.200]", in the change's own unit; "" where it is not known."""
    if change.change_ci is None:
        return ""
    return "[{}, {}]".format(*(signed(*_scaled(end, metric)) for end in change.change_ci))


def _scaled(value: float, metric: str) -> tuple[float, int]:
    """A change in the unit and with the decimals that it is shown in."""
    return (100 * value, 2) if metric == "accuracy" else (value, 3)


def values_text(change: Change) -> str:
    """ "0.423 → 0.599"; ranges of what is not known better: "0.422–0.425 → 0.598–0.601"."""
    return f"{_value(change.pt, change.pt_range)} → {_value(change.it, change.it_range)}"


def _value(value: float, ends: tuple[float, float] | None) -> str:
    if ends is None:
        return number(value)
    if ends[1] - ends[0] > _WIDEST:
        return UNKNOWN
    # Outwards, so that what is printed holds; the small number is the round-off of sums.
    low = f"{math.floor(1000 * ends[0] + 1e-6) / 1000:.3f}"
    high = f"{math.ceil(1000 * ends[1] - 1e-6) / 1000:.3f}"
    return low if low == high else f"{low}–{high}"
