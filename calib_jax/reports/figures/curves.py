"""Curves over a split's questions, all states in one figure: smooth reliability, risk-coverage."""

import functools
import math
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from calib_jax import metrics
from calib_jax.confidence.scores import Scores
from calib_jax.reports.figures.canvas import (
    Axes,
    Figure,
    Line2D,
    PercentFormatter,
    drawn,
    new_figure,
)
from calib_jax.reports.figures.style import (
    COLOURS,
    DIAGONAL,
    INK,
    add_title,
    legend_columns,
    place,
    plain_axes,
)

_POINTS, _RESAMPLES = 128, 200
# A curve is drawn over the middle 99 % of the confidences: a wide kernel reaches beyond them.
_ENDS = (0.005, 0.995)
LINES: tuple[Any, ...] = ("-", "--", "-.", ":")


@functools.partial(jax.jit, static_argnames="num_resamples")
def _curves(probs, answers, count, key, num_resamples):
    """The smooth curve [P + 1] of the first `count` rows, and [num_resamples, P + 1] resampled."""
    size = probs.shape[0]
    real = (jnp.arange(size) < count).astype(jnp.int32)
    # The bandwidth where the curve is as smooth as it is wrong; smooth_curve's own default. The
    # resamples keep it.
    sigma = jnp.maximum(metrics.smooth_ece(probs, answers, weights=real), 1 / 2048)

    def curve(weights):
        return metrics.smooth_curve(probs, answers, None, sigma, weights, _POINTS).accuracy

    def resampled(key):
        rows = jax.random.randint(key, (size,), 0, count)
        return curve(jnp.zeros(size, jnp.int32).at[rows].add(jnp.arange(size) < count))

    return curve(real), jax.lax.map(resampled, jax.random.split(key, num_resamples))


def smooth(scores: Scores, seed: int = 0) -> dict[str, np.ndarray]:
    """The smooth reliability curve of `metrics.smooth_curve` with a pointwise 95 % band.

    Returns:
      grid, accuracy, low, high: [129] each, NaN outside the middle 99 % of the confidences; the
      band is the bootstrap's, at the bandwidth of the questions as they are. confidences: [N].
    """
    confidences = np.asarray(scores.confidences)
    count = len(confidences)
    # Only confidence and correctness matter. Rows up to a power of two, which weigh nothing, spare
    # a compilation for most splits.
    probs = np.zeros((1 << max(count - 1, 0).bit_length(), 2), np.float32)
    probs[:count, 0] = confidences
    answers = np.zeros(len(probs), np.int32)
    answers[:count] = np.asarray(scores.predictions) != np.asarray(scores.answers)
    accuracy, many = (
        np.array(x) for x in _curves(probs, answers, count, jax.random.key(seed), _RESAMPLES)
    )
    grid = np.arange(_POINTS + 1) / _POINTS
    # Outwards to the next points, so that equal confidences leave two.
    first, last = np.quantile(confidences.astype(np.float64), _ENDS) * _POINTS
    shown = (grid * _POINTS >= np.floor(first)) & (grid * _POINTS <= np.ceil(last))
    shown &= ~np.isnan(accuracy)
    low, high = np.full_like(accuracy, np.nan), np.full_like(accuracy, np.nan)
    if shown.any():
        # Of the resamples that reach the point at all; the questions' own curve always does.
        reached = np.vstack([many[:, shown], accuracy[shown]])
        low[shown], high[shown] = np.nanquantile(reached, (0.025, 0.975), axis=0)
    accuracy[~shown] = np.nan
    curve = {"grid": grid, "accuracy": accuracy, "low": low, "high": high}
    return curve | {"confidences": confidences}


def draw_smooth(ax: Axes, strip: Axes, curves: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Draws the curves with bands and the diagonal, and beneath where the questions lie."""
    ax.plot([0, 1], [0, 1], **DIAGONAL, zorder=2)
    for i, curve in enumerate(curves.values()):
        colour, grid = COLOURS[i % len(COLOURS)], curve["grid"]
        ax.fill_between(grid, curve["low"], curve["high"], color=colour, alpha=0.22, linewidth=0)
        ax.plot(grid, curve["accuracy"], LINES[i % 4], color=colour, linewidth=2.2, zorder=3)
        counts, edges = np.histogram(curve["confidences"], np.linspace(0, 1, 41))
        # Each with its own height: one that is all in one place would flatten the others.
        strip.stairs(counts / max(counts.max(), 1), edges, color=colour, linewidth=1.1, fill=False)
        strip.stairs(
            counts / max(counts.max(), 1), edges, color=colour, alpha=0.25, fill=True, linewidth=0
        )
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ticks = np.arange(0, 1.01, 0.2)
    ax.set_xticks(ticks, [])
    ax.set_yticks(ticks)
    plain_axes(ax, box=True)
    ax.set_ylabel("accuracy", fontsize=10, color=INK, labelpad=3)
    strip.set(xlim=(0, 1), ylim=(0, 1.1), yticks=[])
    strip.set_xticks(ticks)
    plain_axes(strip, grid="")
    strip.spines["left"].set_visible(False)
    strip.set_xlabel("confidence", fontsize=10, color=INK, labelpad=3)


@drawn
def smooth_panel(scores: Mapping[str, Scores], title: str = "") -> Figure:
    """Smooth reliability of one split; `scores` is state -> scores.

    With a title it stands alone and names the states; without, the page does both.
    """
    figure = _framed(3.8, 4.3, title, scores)
    draw_smooth(
        place(figure, 0.62, 1.16, 3.0, 3.0),
        place(figure, 0.62, 0.48, 3.0, 0.58),
        {state: smooth(one) for state, one in scores.items()},
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
    """Risk-coverage of one split; arguments as in `smooth_panel`."""
    figure = _framed(3.8, 2.9, title, scores)
    draw_risk(place(figure, 0.72, 0.48, 2.83, 2.28), scores)
    return figure


def risk_coverage(scores: Scores) -> tuple[np.ndarray, np.ndarray]:
    """Coverage and risk at up to 400 places, evenly spread over the curve; see metrics."""
    arrays = scores.probs, scores.answers, scores.mask
    coverage, risk, _ = metrics.risk_coverage_curve(*arrays, log_scores=scores.log_scores)
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
