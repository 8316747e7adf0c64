"""The accuracy-ECE frontier of a sweep over λ and M (the regimes of Xiao et al. 2025)."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from calib_jax.reports.compare.comparison import Comparison
from calib_jax.reports.compare.sentences import WHERE
from calib_jax.reports.figures.canvas import Axes, Bbox, Figure, Line2D, drawn, extent, new_figure
from calib_jax.reports.figures.style import (
    COLOURS,
    FAINT,
    GREY,
    INK,
    MARKERS,
    PAPER,
    add_legend,
    add_title,
    place,
    plain_axes,
)

_SIDE, _GAP, _LEFT, _RIGHT, _BOTTOM, _TOP = 4.3, 0.95, 0.75, 0.25, 0.62, 1.02
LEGEND = (
    "Marks: the mean over the seeds; faint lines: 95% bootstrap intervals over questions. The "
    "frontier joins the settings that no other beats in both accuracy and error."
)
# Where a label may stand, in points from its mark, the dearest first.
_PLACES = (
    (7, 5, "left"),
    (-7, 5, "right"),
    (7, -12, "left"),
    (-7, -12, "right"),
    (0, 9, "center"),
    (0, -17, "center"),
    (12, 14, "left"),
    (-12, 14, "right"),
    (12, -22, "left"),
    (-12, -22, "right"),
)


@dataclasses.dataclass(frozen=True)
class Point:
    """A setting of the sweep; λ = 0 has no bins, and M is None for it."""

    weight: float
    bins: int | None

    @property
    def label(self) -> str:
        """What the table calls it."""
        return f"λ = {self.weight:g}" + ("" if self.bins is None else f", M = {self.bins}")


def pareto(accuracies: Sequence[float], errors: Sequence[float]) -> list[int]:
    """The indices that no other beats: none has both more accuracy and less error, one strictly.

    In increasing order of accuracy. What is not finite is left out.

    >>> pareto([0.5, 0.6, 0.4, 0.6], [0.1, 0.2, 0.3, 0.25])
    [0, 1]
    """
    known = [
        i for i in range(len(errors)) if math.isfinite(accuracies[i]) and math.isfinite(errors[i])
    ]

    def beaten(i: int) -> bool:
        return any(
            accuracies[j] >= accuracies[i]
            and errors[j] <= errors[i]
            and (accuracies[j] > accuracies[i] or errors[j] < errors[i])
            for j in known
        )

    return sorted((i for i in known if not beaten(i)), key=lambda i: (accuracies[i], -errors[i]))


def frontier_of(comparison: Comparison, domain: str, metric: str = "conf_ece") -> list[str]:
    """The settings on the frontier of a domain, in increasing order of accuracy."""
    names = [name for name in comparison.rows if domain in comparison.rows[name]]
    values = [
        [comparison.rows[name][domain][key].value for name in names] for key in ("accuracy", metric)
    ]
    return [names[i] for i in pareto(*values)]


@drawn
def draw(
    comparison: Comparison,
    points: Mapping[str, Point],
    before: str,
    title: str,
    metric: str = "conf_ece",
    label: str = "conf-ECE",
) -> Figure:
    """A panel per domain: accuracy to the right, error upwards, so the lower right is best.

    Args:
      comparison: of the settings and the model as it is.
      points: setting's name -> what it is.
      before: the name of the model as it is.
      title: above the panels.
      metric, label: of the error.
    """
    domains = [d for d in WHERE if d in comparison.parts]
    bins = list(dict.fromkeys(p.bins for p in points.values()))
    width = _LEFT + len(domains) * (_SIDE + _GAP) - _GAP + _RIGHT
    width = max(width, 6.2)
    height = _BOTTOM + 0.85 * _SIDE + _TOP
    figure = new_figure(width, height)
    for i, domain in enumerate(domains):
        ax = place(figure, _LEFT + i * (_SIDE + _GAP), _BOTTOM, _SIDE, 0.85 * _SIDE)
        _panel(ax, comparison, domain, points, before, bins, metric)
        about = f"{WHERE[domain]}: {' + '.join(comparison.parts[domain].splits)}"
        ax.set_title(about, fontsize=10, color=INK, loc="left", pad=5)
        ax.set_xlabel("accuracy", fontsize=10, color=INK)
        ax.set_ylabel(label, fontsize=10, color=INK)
    names = ["no bins (λ = 0)" if m is None else f"M = {m}" for m in bins]
    handles = [Line2D([], [], **_style(j)) for j in range(len(bins))]
    handles += [Line2D([], [], **_BEFORE), Line2D([], [], color=GREY, linewidth=1.4)]
    labels = [*names, "before", "Pareto frontier"]
    add_legend(figure, handles, labels, min(len(handles), 6), _LEFT)
    add_title(figure, title, _LEFT)
    return figure


_MARK: dict[str, Any] = {"linestyle": "", "markeredgecolor": PAPER}
_BEFORE = _MARK | {"marker": "X", "color": INK, "markersize": 8}


def _style(j: int) -> dict[str, Any]:
    """The mark of the j-th number of bins."""
    colour = COLOURS[(4, 1, 5)[j % 3]]
    return _MARK | {"marker": MARKERS[j % len(MARKERS)], "color": colour, "markersize": 7}


def _panel(
    ax: Axes,
    comparison: Comparison,
    domain: str,
    points: Mapping[str, Point],
    before: str,
    bins: Sequence[int | None],
    metric: str,
) -> None:
    marks, texts = [], []
    for name, by_part in comparison.rows.items():
        if domain not in by_part:
            continue
        found = by_part[domain]
        x, y = found["accuracy"].value, found[metric].value
        if not (math.isfinite(x) and math.isfinite(y)):
            continue
        style = _BEFORE if name == before else _style(bins.index(points[name].bins))
        for ends, axis in ((found["accuracy"].interval, 0), (found[metric].interval, 1)):
            if ends is not None:
                xs, ys = (ends, [y, y]) if axis == 0 else ([x, x], ends)
                ax.plot(xs, ys, color=style["color"], linewidth=0.9, alpha=0.28, zorder=1.5)
        ax.plot(x, y, **style, zorder=3)
        marks.append((x, y))
        text = "before" if name == before else f"λ = {points[name].weight:g}"
        texts.append((text, style["color"]))  # where marks crowd, the colour tells whose it is
    line = [
        (by["accuracy"].value, by[metric].value)
        for by in (comparison.rows[n][domain] for n in frontier_of(comparison, domain, metric))
    ]
    ax.plot(*zip(*line, strict=True), color=GREY, linewidth=1.4, zorder=2)
    plain_axes(ax)
    ax.margins(0.06)
    ax.set_ylim(bottom=0)
    ax.spines["bottom"].set_color(FAINT)
    label_marks(ax, marks, texts)


def label_marks(
    ax: Axes, marks: Sequence[tuple[float, float]], texts: Sequence[tuple[str, str]]
) -> None:
    """Writes a text in its colour beside each mark, where it touches least of the others."""
    at = ax.transData.transform(np.asarray(marks))
    scale = ax.figure.dpi / 72
    taken = [Bbox.from_bounds(x - 4 * scale, y - 4 * scale, 8 * scale, 8 * scale) for x, y in at]
    frame = ax.get_window_extent()
    for mark, (text, colour) in zip(marks, texts, strict=True):
        best: tuple[Any, ...] = (math.inf,)
        for dx, dy, side in _PLACES:
            note = ax.annotate(
                text,
                mark,
                (dx, dy),
                textcoords="offset points",
                fontsize=8.5,
                ha=side,
                color=colour,
                zorder=4,
            )
            box = extent(note)
            cost = sum(_overlap(box, other) for other in taken)
            cost += box.width * box.height - _overlap(box, frame)
            note.remove()
            if cost < best[0]:
                best = (cost, dx, dy, side, box)
            if not cost:
                break
        _, dx, dy, side, box = best
        ax.annotate(
            text,
            mark,
            (dx, dy),
            textcoords="offset points",
            fontsize=8.5,
            ha=side,
            color=colour,
            zorder=4,
        )
        taken.append(box)


def _overlap(one: Bbox, other: Bbox) -> float:
    common = Bbox.intersection(one, other)
    return 0.0 if common is None else common.width * common.height
