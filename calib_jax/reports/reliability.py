"""Reliability diagrams in the manner of Xiao et al. (2025), before and after side by side.

Bars: accuracy per bin of confidence, darker where more questions lie; hatched: the gap to the mean
confidence; beneath: the histogram of confidences; at the right: the letters chosen.
"""

import base64
import dataclasses
import io
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, PowerNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import PercentFormatter

from calib_jax.confidence.scores import Scores
from calib_jax.reports import content
from calib_jax.reports.atomic import atomic_path
from calib_jax.reports.bins import Bins, bins_of

# Okabe-Ito and ColorBrewer tones: told apart by colour-blind readers, and in greyscale.
_INK, _GREY, _FAINT = "#222222", "#767676", "#d9d9d9"
_CONFIDENCE = "#d55e00"
_STATE_COLOURS = ("#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#0072b2", "#f0e442")
_SHADES = LinearSegmentedColormap.from_list(
    "population", ["#dbe9f6", "#9ecae1", "#4292c6", "#08519c", "#08306b"]
)
_OVER, _UNDER = "////", "...."
_DASHES = (0, (3, 1))

# Inches. A diagram is square; what surrounds it has fixed room, so nothing can overlap.
_SIDE, _STRIP, _STRIP_GAP = 3.5, 0.62, 0.10
_LEFT, _GAP, _RIGHT, _LETTERS = 0.78, 0.62, 0.25, 2.75
_TITLE, _HEADER, _BELOW, _LEGEND, _TOP = 0.36, 0.32, 0.62, 0.66, 0.16
_FIGURES_ABOVE, _SCALE = 0.46, 1.62


@dataclasses.dataclass(frozen=True)
class Panel:
    """What one diagram shows: the ROW of summary.json, its bins and the confidences [N]."""

    row: Mapping[str, Any]
    bins: Bins
    confidences: np.ndarray


def draw_bars(ax: Axes, bins: Bins, norm: PowerNorm) -> None:
    """Draws bars, gaps and diagonal of one diagram; nothing where a bin is empty.

    Args:
      ax: the axes; limits and aspect are set here.
      bins: counts, accuracy and mean confidence of M bins.
      norm: maps a bin's share of the questions to a shade.
    """
    shares = bins.counts / max(bins.counts.sum(), 1)
    for m in np.flatnonzero(bins.counts):
        left, width = bins.edges[m], bins.edges[m + 1] - bins.edges[m]
        accuracy, confidence = float(bins.accuracy[m]), float(bins.confidence[m])
        ax.bar(
            left, accuracy, width, align="edge", color=_SHADES(norm(shares[m])),
            edgecolor="white", linewidth=0.9, zorder=2, label="accuracy",
        )  # fmt: skip
        over = confidence > accuracy
        ax.bar(
            left, abs(confidence - accuracy), width, bottom=min(accuracy, confidence),
            align="edge", facecolor=(1, 1, 1, 0.35) if not over else "none",
            edgecolor=_GREY if over else _INK, hatch=_OVER if over else _UNDER,
            linewidth=0.7, zorder=3, label="over-confident" if over else "under-confident",
        )  # fmt: skip
    ax.plot([0, 1], [0, 1], linestyle=(0, (5, 3)), color=_INK, linewidth=1.2, zorder=4)
    ax.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    ticks = np.arange(0, 1.01, 0.2)
    ax.set_xticks(ticks, [])
    ax.set_yticks(ticks)
    ax.tick_params(labelsize=9, color=_GREY, labelcolor=_INK)
    ax.grid(color=_FAINT, linewidth=0.6, zorder=0)
    ax.set_axisbelow(True)
    for spine in ax.spines.values():
        spine.set(color=_GREY, linewidth=0.8)


def _box_is_free(bins: Bins) -> bool:
    """Whether no bar reaches into the top left corner, where the figures stand."""
    tops = np.maximum(bins.accuracy, bins.confidence)
    under = (bins.counts > 0) & (bins.edges[:-1] < 0.66)
    return not (tops[under] > 0.77).any()


def _draw_figures(ax: Axes, row: Mapping[str, Any], boxed: bool) -> None:
    """The main figures, in a box in the top left corner or in two lines above the diagram."""
    ece = f"{content.number(row['conf_ece'])} {content.interval(row.get('conf_ece_ci'))}".rstrip()
    cw_ece, accuracy, confidence = (
        content.number(row[key]) for key in ("cw_ece", "accuracy", "mean_confidence")
    )
    if boxed:
        # The fixed-width font aligns the figures.
        text = (
            f"conf-ECE   {ece}\ncw-ECE     {cw_ece}\naccuracy   {accuracy}\nmean conf. {confidence}"
        )
        ax.text(
            0.025, 0.975, text, transform=ax.transAxes, va="top", ha="left", fontsize=8.2,
            family="DejaVu Sans Mono", color=_INK, linespacing=1.35, zorder=6,
            bbox={"facecolor": "white", "edgecolor": _FAINT, "alpha": 0.92,
                  "boxstyle": "round,pad=0.4"},
        )  # fmt: skip
    else:
        ax.text(
            0.5, 1.025, f"conf-ECE {ece}   cw-ECE {cw_ece}\n"
            f"accuracy {accuracy}   mean confidence {confidence}",
            transform=ax.transAxes, va="bottom", ha="center", fontsize=8.8, color=_INK,
            linespacing=1.4,
        )  # fmt: skip


def _draw_strip(ax: Axes, panel: Panel) -> None:
    """The histogram of confidences, with accuracy and mean confidence as vertical lines."""
    weights = np.full(len(panel.confidences), 1 / max(len(panel.confidences), 1))
    ax.hist(panel.confidences, bins=np.linspace(0, 1, 41), weights=weights, color="#a6a6a6",
            histtype="stepfilled")  # fmt: skip
    ax.axvline(panel.row["accuracy"], color=_INK, linewidth=1.8)
    ax.axvline(panel.row["mean_confidence"], color=_CONFIDENCE, linewidth=1.8, linestyle=_DASHES)
    ax.set(xlim=(0, 1), yticks=[])
    ax.margins(y=0.12)
    ax.set_xticks(np.arange(0, 1.01, 0.2))
    ax.tick_params(labelsize=9, color=_GREY, labelcolor=_INK)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.spines["bottom"].set(color=_GREY, linewidth=0.8)
    ax.set_xlabel("confidence", fontsize=10, color=_INK, labelpad=3)


def _draw_letters(ax: Axes, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """Share of the questions answered with each letter, per state, and the gold letters' share."""
    gold = np.asarray(next(iter(rows.values()))["answer_counts"], float)
    used = [gold, *(np.asarray(row["letter_counts"], float) for row in rows.values())]
    size = max(len(u) for u in used)
    padded = np.stack([np.pad(u, (0, size - len(u))) for u in used])
    letters = int(np.flatnonzero(padded.sum(axis=0)).max(initial=0)) + 1
    shares = padded[:, :letters] / np.maximum(padded.sum(axis=1, keepdims=True), 1)
    width = 0.78 / len(rows)
    places = np.arange(letters)
    for i in range(len(rows)):
        ax.bar(
            places - 0.39 + (i + 0.5) * width, shares[i + 1], width * 0.92,
            color=_STATE_COLOURS[i % len(_STATE_COLOURS)], zorder=2,
        )  # fmt: skip
    gold_lines = ax.hlines(
        shares[0], places - 0.43, places + 0.43, color=_INK, linewidth=1.8, zorder=3
    )
    ax.set(xlim=(-0.6, letters - 0.4), ylim=(0, 1))
    ax.set_xticks(places, content.LETTERS[:letters])
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.tick_params(labelsize=9, color=_GREY, labelcolor=_INK)
    ax.tick_params(axis="x", length=0, labelsize=10)
    ax.grid(axis="y", color=_FAINT, linewidth=0.6, zorder=0)
    ax.set_axisbelow(True)
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set(color=_GREY, linewidth=0.8)
    # Beneath the axes: inside, a bar may stand anywhere.
    ax.legend(
        [*ax.containers, gold_lines], [*rows, "gold answers"],
        fontsize=8.8, frameon=False, loc="upper left", bbox_to_anchor=(-0.02, -0.09), ncols=3,
        handlelength=1.2, columnspacing=1.2, borderaxespad=0,
    )  # fmt: skip


def _draw_legend(figure: Figure, norm: PowerNorm, width: float, height: float) -> None:
    """One legend and the scale of shades for the whole figure, along its bottom."""
    blue = _SHADES(0.55)
    handles = [
        Patch(facecolor=blue, edgecolor="white"),
        Patch(facecolor="none", edgecolor=_GREY, hatch=_OVER),
        Patch(facecolor="none", edgecolor=_INK, hatch=_UNDER),
        Line2D([], [], color=_INK, linestyle=(0, (5, 3)), linewidth=1.2),
        Line2D([], [], color=_INK, linewidth=1.8),
        Line2D([], [], color=_CONFIDENCE, linewidth=1.8, linestyle=_DASHES),
    ]
    labels = [
        "accuracy in the bin", "gap: over-confident", "gap: under-confident",
        "perfect calibration", "accuracy overall", "mean confidence",
    ]  # fmt: skip
    figure.legend(
        handles, labels, ncols=3, fontsize=8.8, frameon=False, loc="lower left",
        bbox_to_anchor=(_LEFT / width - 0.1 / width, 0.10 / height), borderaxespad=0,
        handlelength=2.0, columnspacing=1.4,
    )  # fmt: skip
    bar = figure.add_axes(
        ((width - _RIGHT - _SCALE - 0.2) / width, 0.30 / height, _SCALE / width, 0.13 / height)
    )
    scale = figure.colorbar(ScalarMappable(norm, _SHADES), cax=bar, orientation="horizontal")
    scale.outline.set_visible(False)
    ticks = [0, norm.vmax / 4, norm.vmax]
    scale.set_ticks(ticks, labels=[f"{100 * t:.0f}%" for t in ticks])
    scale.ax.minorticks_off()
    scale.ax.tick_params(labelsize=8, length=2, color=_GREY, labelcolor=_INK, pad=2)
    scale.ax.set_title("questions in the bin", fontsize=8.8, color=_INK, pad=3)


def draw(
    states: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, Scores]],
    num_bins: int = 10,
    edges: str = "right",
    letters: bool = True,
    title: str | None = None,
) -> Figure:
    """Draws the diagrams: one row per split (in-domain first), one column per state.

    Args:
      states: state ("before", "after") -> split -> ROW of summary.json.
      scores: state -> split -> scores, for the bins and the histogram.
      num_bins: M bins of equal width.
      edges: "right" for (a, b], "left" for [a, b).
      letters: whether to add the letters' histogram as a last column.
      title: a line above everything.

    Returns:
      A figure that belongs to no window and no global state.
    """
    splits = content.ordered_splits(states)
    panels = {
        (state, split): Panel(
            rows[split],
            bins_of(scores[state][split], num_bins, edges),
            np.asarray(scores[state][split].confidences),
        )
        for state, rows in states.items()
        for split in splits
        if split in rows
    }
    top_share = max((p.bins.counts.max() / p.bins.counts.sum() for p in panels.values()), default=1)
    # The square root keeps sparse bins apart beside one that holds nearly everything.
    norm = PowerNorm(0.5, vmin=0, vmax=float(top_share))

    # In the corner of every diagram or of none.
    boxed = all(_box_is_free(p.bins) for p in panels.values())
    header = _HEADER + (0 if boxed else _FIGURES_ABOVE)
    column = _SIDE + _GAP
    width = _LEFT + len(states) * column - _GAP + _RIGHT
    width += (_GAP + 0.05 + _LETTERS) if letters else 0
    width = max(width, _LEFT + 5.75 + _SCALE + _RIGHT)
    block = _TITLE + header + _SIDE + _STRIP_GAP + _STRIP + _BELOW
    height = _TOP + (0.45 if title else 0) + len(splits) * block + _LEGEND
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)

    def place(left: float, bottom: float, w: float, h: float) -> Axes:
        return figure.add_axes((left / width, bottom / height, w / width, h / height))

    y = height - _TOP
    if title:
        figure.text(
            _LEFT / width, (y - 0.1) / height, title, fontsize=15, weight="bold", va="top",
            color=_INK,
        )  # fmt: skip
        y -= 0.45
    for split in splits:
        here = {s: panels[s, split] for s in states if (s, split) in panels}
        first = next(iter(here.values())).row
        about = [content.DOMAINS.get(first.get("domain"), ""), f"{first['n']:,} questions"]
        figure.text(
            _LEFT / width, (y - 0.05) / height, split, fontsize=12.5, weight="bold", va="top",
            color=_INK,
        )  # fmt: skip
        figure.text(
            (width - _RIGHT) / width, (y - 0.08) / height, " · ".join(filter(None, about)),
            fontsize=10, va="top", ha="right", color=_GREY,
        )  # fmt: skip
        figure.add_artist(
            Line2D(
                [_LEFT / width, 1 - _RIGHT / width],
                [(y - 0.32) / height] * 2,
                color=_FAINT,
                linewidth=1,
            )  # fmt: skip
        )
        bottom = y - _TITLE - header - _SIDE
        strip_bottom = bottom - _STRIP_GAP - _STRIP
        for i, state in enumerate(states):
            if state not in here:
                continue
            left = _LEFT + i * column
            ax = place(left, bottom, _SIDE, _SIDE)
            ax.set_title(state, fontsize=11.5, color=_INK, pad=6 if boxed else 36)
            draw_bars(ax, here[state].bins, norm)
            _draw_figures(ax, here[state].row, boxed)
            if i == 0:
                ax.set_ylabel("accuracy", fontsize=10, color=_INK)
            strip = place(left, strip_bottom, _SIDE, _STRIP)
            _draw_strip(strip, here[state])
        if letters:
            left = _LEFT + len(states) * column + 0.05
            ax = place(left, bottom, _LETTERS, _SIDE)
            ax.set_title("letters chosen", fontsize=11.5, color=_INK, pad=6)
            _draw_letters(ax, {state: panel.row for state, panel in here.items()})
        y -= block
    _draw_legend(figure, norm, width, height)
    return figure


def file_name(split: str) -> str:
    """`split` with everything but letters, digits, ".", "_" and "-" replaced by "_"."""
    return re.sub(r"[^\w.-]", "_", split)


def png(figure: Figure, dpi: int = 200) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def svg(figure: Figure) -> bytes:
    """The figure as SVG, letters drawn as paths so that it needs no font."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "calib_jax"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def data_uri(image: bytes, kind: str) -> str:
    """An image as a data: address for HTML; `kind` is "png" or "svg"."""
    mime = {"png": "image/png", "svg": "image/svg+xml"}[kind]
    return f"data:{mime};base64,{base64.b64encode(image).decode()}"


def write(
    folder: str | os.PathLike,
    states: Mapping[str, Mapping[str, Any]],
    scores: Mapping[str, Mapping[str, Scores]],
    num_bins: int = 10,
    edges: str = "right",
    title: str | None = None,
) -> dict[str, pathlib.Path]:
    """Writes reliability.png (all splits) and reliability_<split>.png, atomically.

    Returns:
      "" -> the figure of all splits; split -> its own.
    """
    folder = pathlib.Path(folder)
    written = {}
    for split in ["", *content.ordered_splits(states)]:
        chosen = {
            state: {s: row for s, row in rows.items() if not split or s == split}
            for state, rows in states.items()
        }
        figure = draw(chosen, scores, num_bins, edges, title=title)
        name = f"_{file_name(split)}" if split else ""
        written[split] = folder / f"reliability{name}.png"
        with atomic_path(written[split]) as temporary:
            temporary.write_bytes(png(figure))
    return written
