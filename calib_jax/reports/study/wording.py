"""How a study's changes, values and captions are put into words, in every table and on the page."""

import math
from collections.abc import Mapping

from calib_jax.reports import content
from calib_jax.reports.study.changes import METRICS, Cells, Change, column, methods_of

_ARROWS = {-1: " ↓", 1: " ↑", 0: ""}
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
    "rounding leaves open, – where that is most of 0 to 1. They come without intervals."
)


def caption(cells: Cells, console: bool = False) -> str:
    """What stands under a table of changes.

    Args:
      cells: of the table.
      console: whether the table leaves intervals out, which the files beside it hold.
    """
    every = [change for columns in _columns(cells) for change in columns.values()]
    parts = ["Change: aligned - base"]
    if any(change.interval is not None for change in every):
        parts.append(_ELSEWHERE if console else _INTERVALS)
    text = f"{'; '.join(parts)}. {_SCE}"
    if any(change.pt_range is not None for change in every):
        text += f" {_RECOVERED}"
    return text


def _columns(cells: Cells) -> list[Mapping[tuple[str, str], Change]]:
    return [column(cells, method, metric) for method in methods_of(cells) for metric in METRICS]


def headline(cells: Cells, files: Mapping[str, str] | None = None) -> str:
    """ "Lower after alignment: by choice ECE in 20 of 70 (9 significantly) and SCE in ...; by ...".

    Significantly: the whole 95 % interval of the change lies below 0. Published figures come
    without intervals.

    Args:
      cells: the changes.
      files: where they are published ones: path -> which SCE it holds.
    """
    parts = []
    for method in methods_of(cells):
        counts = []
        for metric in ("conf_ece", sce_of(cells, method)):
            fallen, total = falls(cells, method, metric)
            counts.append(
                f"{METRICS[metric][0]} in {fallen} of {total}{_surely(cells, method, metric)}"
            )
        parts.append(f"by {method} {' and '.join(counts)}")
    text = "ower after alignment: " + "; ".join(parts)
    return f"{published_text(files)}: l{text}" if files else f"L{text}"


def published_text(files: Mapping[str, str]) -> str:
    """ "Published figures of choice.csv (SCE, one-vs-rest), not measured here"."""
    names = ", ".join(f"{path} ({METRICS[sce][0]})" for path, sce in files.items())
    return f"Published figures of {names}, not measured here"


def sce_of(cells: Cells, method: str = "") -> str:
    """The SCE that figures show: the label form where it is known, as it is of measured cells.

    Args:
      cells: the changes.
      method: of one method; "" for all of them, where the form that more cells hold is taken.
    """
    methods = [method] if method else methods_of(cells)
    counts = {s: sum(len(column(cells, m, s)) for m in methods) for s in ("cw_ece", "sce_ovr")}
    return max(counts, key=counts.__getitem__)


def falls(cells: Cells, method: str, metric: str) -> tuple[int, int]:
    """(cells in which the metric is lower after alignment, all cells)."""
    found = column(cells, method, metric).values()
    return sum(change.falls for change in found), len(found)


def _surely(cells: Cells, method: str, metric: str) -> str:
    """ " (9 significantly; 12 significantly higher)"; "" where no interval is known."""
    ends = [c.interval for c in column(cells, method, metric).values() if c.interval is not None]
    if not ends:
        return ""
    lower, higher = sum(end[1] < 0 for end in ends), sum(end[0] > 0 for end in ends)
    return f" ({lower} significantly; {higher} significantly higher)"


def falls_text(cells: Cells, method: str) -> str:
    """ "choice: lower after alignment: ECE 20 of 70; SCE 0 of 70"."""
    parts = []
    for metric in METRICS:
        fallen, total = falls(cells, method, metric)
        if total:
            sure = _surely(cells, method, metric)
            parts.append(f"{METRICS[metric][0]} {fallen} of {total}{sure}")
    return f"{method}: lower after alignment: {'; '.join(parts)}"


def label(metric: str) -> str:
    """ "SCE ↓"."""
    name, direction = METRICS[metric]
    return name + _ARROWS[direction]


def signed(value: float, decimals: int, sign: float = 0.0) -> str:
    """A signed figure: one that rounds to zero keeps its sign, and zero itself has that of `sign`.

    >>> signed(0.25, 3), signed(-0.0004, 3), signed(0.0, 3), signed(0.0, 3, -0.001)
    ('+0.250', '-0.000', '0.000', '-0.000')
    """
    if math.isnan(value):
        return "-"
    way = value or (0.0 if math.isnan(sign) else sign)
    return ("+" if way > 0 else "-" if way < 0 else "") + f"{abs(value):.{decimals}f}"


def percent(ratio: float) -> str:
    """A signed ratio: "+41.6%", "+1678%"; "" where there is none."""
    if math.isnan(ratio):
        return ""
    return signed(100 * ratio, 0 if abs(ratio) >= 9.9995 else 1) + "%"


def difference_text(change: Change, metric: str, interval: bool = True) -> str:
    """ "+0.176 [+0.100, +0.200]"; accuracy's change in percentage points; "-" where not known."""
    scale, decimals = (100, 2) if metric == "accuracy" else (1, 3)
    if math.isnan(change.change):
        return "-"
    # A printed 0.000 whose ratio is -0.1% fell.
    text = signed(scale * change.change, decimals, change.ratio)
    text += " pts" if metric == "accuracy" else ""
    if interval and change.interval is not None:
        text += " [{}, {}]".format(*(signed(scale * end, decimals) for end in change.interval))
    return text


def change_text(change: Change, metric: str, interval: bool = True) -> str:
    """ "+0.176 [+0.100, +0.200], +41.6%": `difference_text`, and the ratio where there is one."""
    text, ratio = difference_text(change, metric, interval), percent(change.ratio)
    return f"{text}, {ratio}" if ratio else text


def values_text(change: Change) -> str:
    """ "0.423 → 0.599"; ranges of what is not known better: "0.422–0.425 → 0.598–0.601"."""
    return f"{_value(change.pt, change.pt_range)} → {_value(change.it, change.it_range)}"


def _value(value: float, ends: tuple[float, float] | None) -> str:
    if ends is None:
        return content.number(value)
    if ends[1] - ends[0] > _WIDEST:
        return "–"
    # Outwards, so that what is printed holds; the small number is the round-off of sums.
    low = f"{math.floor(1000 * ends[0] + 1e-6) / 1000:.3f}"
    high = f"{math.ceil(1000 * ends[1] - 1e-6) / 1000:.3f}"
    return low if low == high else f"{low}–{high}"


def verdict(change: Change, metric: str) -> str:
    """ "better" or "worse" where the whole interval says so, else ""."""
    direction, ends = METRICS[metric][1], change.interval
    if not direction or ends is None or not (min(ends) > 0 or max(ends) < 0):
        return ""
    return "better" if ends[0] * direction > 0 else "worse"
