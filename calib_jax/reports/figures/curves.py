"""Curves over a split's questions: reliability without bins, and risk-coverage."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from calib_jax import metrics
from calib_jax.confidence.scores import Scores
from calib_jax.reports import zeros
from calib_jax.reports.figures.canvas import (
    Axes,
    Figure,
    Line2D,
    Patch,
    PercentFormatter,
    drawn,
    new_figure,
)
from calib_jax.reports.figures.style import (
    COLOURS,
    DIAGONAL,
    INK,
    POPULATION,
    add_title,
    fit,
    legend_columns,
    place,
    plain_axes,
)

# A curve is drawn over the middle 99 % of the confidences: what lies beyond is a few questions.
_ENDS = (0.005, 0.995)
# Of so few different confidences each has a mark of its own.
_FEW = 12
LINES: tuple[Any, ...] = ("-", "--", "-.", ":")
CURVE = COLOURS[4]
# What the parts of a reliability curve's figure are called.
BAND, CONSISTENCY = "95% confidence band", "calibrated model, by chance (95%)"


def reliability_curve(scores: Scores) -> metrics.ReliabilityCurve:
    """`metrics.reliability_curve` within the middle 99 % of the confidences."""
    curve = metrics.reliability_curve(scores.probs, scores.answers, scores.mask)
    if not len(scores.answers):
        return curve
    low, high = np.quantile(np.asarray(scores.confidences, np.float64), _ENDS)
    # Outwards to the next points, so that none is left without.
    first = max(np.searchsorted(curve.confidence, low, "right") - 1, 0)
    last = np.searchsorted(curve.confidence, high, "left")
    return metrics.ReliabilityCurve(*(values[first : last + 1] for values in curve))


def draw_curve(ax: Axes, strip: Axes, scores: Scores) -> None:
    """Draws one curve with both bands and the diagonal, and beneath where the questions lie."""
    curve = reliability_curve(scores)
    at = curve.confidence
    bands = (
        (curve.consistency_low, curve.consistency_high, POPULATION, 0.4, CONSISTENCY),
        (curve.low, curve.high, CURVE, 0.25, BAND),
    )
    few = len(at) <= _FEW
    for (low, high, colour, alpha, label), width in zip(bands, (9, 4), strict=True):
        ax.fill_between(at, low, high, color=colour, alpha=alpha, linewidth=0, label=label)
        if few:
            ax.vlines(at, low, high, color=colour, alpha=2 * alpha, linewidth=width)
    ax.plot([0, 1], [0, 1], **DIAGONAL, zorder=2)
    ax.plot(at, curve.accuracy, "-o" if few else "-", color=CURVE, linewidth=2.2, zorder=3)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ticks = np.arange(0, 1.01, 0.2)
    ax.set_xticks(ticks, [])
    ax.set_yticks(ticks)
    plain_axes(ax, box=True)
    counts, edges = np.histogram(scores.confidences, np.linspace(0, 1, 41))
    strip.stairs(counts, edges, color=POPULATION, fill=True)
    strip.set(xlim=(0, 1), ylim=(0, 1.1 * max(counts.max(), 1)), yticks=[])
    strip.set_xticks(ticks)
    plain_axes(strip, grid="")
    strip.spines["left"].set_visible(False)
    strip.set_xlabel("confidence", fontsize=10, color=INK, labelpad=3)


@drawn
def curve_panel(scores: Scores) -> Figure:
    """One reliability curve alone, for the page, where text stands around it."""
    figure = new_figure(3.8, 4.3)
    ax = place(figure, 0.62, 1.16, 3.0, 3.0)
    draw_curve(ax, place(figure, 0.62, 0.48, 3.0, 0.58), scores)
    ax.set_ylabel("accuracy", fontsize=10, color=INK, labelpad=3)
    return figure


@drawn
def draw_curves(scores: Mapping[str, Scores], title: str) -> Figure:
    """One split's reliability curves side by side; `scores` is state -> scores."""
    width, height = max(0.4 + 3.6 * len(scores), 5.4), 5.5
    figure = new_figure(width, height)
    for i, (state, one) in enumerate(scores.items()):
        left = 0.72 + 3.6 * i
        ax = place(figure, left, 1.68, 3.0, 3.0)
        draw_curve(ax, place(figure, left, 1.0, 3.0, 0.58), one)
        fit(ax.set_title(state, fontsize=11, color=INK, loc="left"), 3.0)
        if not i:
            ax.set_ylabel("accuracy", fontsize=10, color=INK, labelpad=3)
    add_title(figure, title, 0.2, top=0.15)
    figure.legend(
        [
            Line2D([], [], color=CURVE, linewidth=2.2),
            Patch(facecolor=CURVE, alpha=0.25),
            Patch(facecolor=POPULATION, alpha=0.4),
            Line2D([], [], **DIAGONAL),
        ],
        ["accuracy (isotonic fit)", BAND, CONSISTENCY, "perfect calibration"],
        ncols=2,
        fontsize=9,
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(0.2 / width, 0.06 / height),
        labelcolor=INK,
        borderaxespad=0,
    )
    return figure


def draw_risk(ax: Axes, scores: Mapping[str, Scores]) -> None:
    """Draws the error among the most confident share of the questions, for every share."""
    top = 0.0
    for i, one in enumerate(scores.values()):
        coverage, risk = risk_coverage(one)
        ax.plot(
            coverage, risk, LINES[i % 4], color=COLOURS[i % len(COLOURS)], linewidth=1.8, zorder=3
        )
        # The first few questions jump between 0 and 1.
        settled = risk[coverage >= 0.02]
        top = max(top, float(np.nanmax(settled, initial=0.0)))
    ax.set(xlim=(0, 1), ylim=(0, min(1, 1.12 * top) or 1))
    ax.set_xticks(np.arange(0, 1.01, 0.2))
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0))
    plain_axes(ax)
    ax.set_xlabel("questions answered, most confident first", fontsize=9.5, color=INK, labelpad=3)
    ax.set_ylabel("of them wrong", fontsize=9.5, color=INK, labelpad=3)


@drawn
def risk_panel(scores: Mapping[str, Scores], title: str = "") -> Figure:
    """Risk-coverage of one split; `scores` is state -> scores.

    With a title it stands alone and names the states; without, the page does both.
    """
    figure = _framed(3.8, 2.9, title, scores)
    draw_risk(place(figure, 0.72, 0.48, 2.83, 2.28), scores)
    return figure


def risk_coverage(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and risk at up to 400 places, evenly spread over the curve; see metrics."""
    arrays = scores.probs, scores.answers, scores.mask
    coverage, risk, _ = metrics.risk_coverage_curve(*arrays, log_scores=zeros.as_read(scores))
    coverage, risk = np.asarray(coverage), np.asarray(risk)
    chosen = np.unique(np.linspace(0, len(risk) - 1, 400).round().astype(int))
    return coverage[chosen], risk[chosen]


def _framed(width: float, height: float, title: str, states: Iterable[str]) -> Figure:
    """A figure of that size, and above it the title, if any, with a legend of the states."""
    if not title:
        return new_figure(width, height)
    names = list(states)
    columns = legend_columns(names, width)
    height += 0.5 + 0.2 * math.ceil(len(names) / columns)
    figure = new_figure(width, height)
    add_title(figure, title, 0.2)
    handles = [
        Line2D([], [], color=COLOURS[i % len(COLOURS)], linestyle=LINES[i % 4], linewidth=2)
        for i in range(len(names))
    ]
    figure.legend(
        handles,
        names,
        ncols=columns,
        fontsize=9,
        frameon=False,
        loc="upper left",
        bbox_to_anchor=(0.2 / width, 1 - 0.42 / height),
        labelcolor=INK,
        borderaxespad=0,
    )
    return figure
