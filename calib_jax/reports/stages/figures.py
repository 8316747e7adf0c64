"""One figure in the manner of Figure 1 of Xiao et al. (2025): calibration after every stage.

Above: the reliability diagrams of all stages in a row, a row per split. Below: errors, accuracy
and confidence, letter collapse and preference collapse across the stages, with intervals.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from calib_jax.reports.compare.sentences import WHERE
from calib_jax.reports.figures import panels
from calib_jax.reports.figures.canvas import Axes, Figure, Line2D, drawn
from calib_jax.reports.figures.reliability import Panel
from calib_jax.reports.figures.style import (
    COLOURS,
    GREY,
    INK,
    MARKERS,
    draw_line,
    legend_columns,
    place,
    plain_axes,
    slant,
    top_of,
)
from calib_jax.reports.words import plural

# split -> stage -> what its diagram shows
Panels = Mapping[str, Mapping[str, Panel]]
Rows = Mapping[str, Mapping[str, Any]]  # stage -> ROW

# Of more splits whose domain is not known all are pooled.
MAX_SPLITS = 3
_COLOURS = (COLOURS[4], COLOURS[0], COLOURS[1])
_PAIR_COLOURS = (COLOURS[5], COLOURS[2])
# Inches: the least width, a panel's height, and what they all take with their names.
_LEAST, _CURVE, _CURVES = 10.5, 1.9, 3.35


def parts(domains: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Name -> "domain" and "splits" of what the figure shows: every split, pooled by domain.

    As in the comparison of methods, whose in-domain questions are one mixture; so the
    out-of-domain ones have a row of their own, however many splits there are.

    Args:
      domains: split -> "in", "out" or "" where it is not known.

    >>> list(parts({"a": "in", "b": "in", "c": "out"})), list(parts({"a": "", "b": ""}))
    (['in-domain (pooled)', 'c'], ['a', 'b'])
    """
    found: dict[str, dict[str, Any]] = {}
    for domain, where in {**WHERE, "": "all"}.items():
        splits = [split for split, of in domains.items() if of == domain]
        if len(splits) == 1 or not domain and len(splits) <= MAX_SPLITS:
            found |= {split: {"domain": domain, "splits": [split]} for split in splits}
        elif splits:
            found[f"{where} (pooled)"] = {"domain": domain, "splits": splits}
    return found


def headings(drawn: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Name -> what stands above its row, from what `parts` gives."""
    texts = {}
    for name, part in drawn.items():
        where = WHERE.get(part["domain"], "")
        texts[name] = f"{name}, {where}" if where else name
        if len(part["splits"]) > 1:
            texts[name] = f"{where or 'all'}, {' + '.join(part['splits'])}"
    return texts


@drawn
def draw(
    shown: Panels, pairs: Mapping[str, Rows], titles: Mapping[str, str] | None = None
) -> Figure:
    """The figure.

    Args:
      shown: of at least one of `parts`; stages in order, the same for all.
      pairs: set of preference pairs -> stage -> figures; {} where none were asked.
      titles: split -> what stands above its row; None: its name.
    """
    titles = titles or {}
    stages = list(next(iter(shown.values())))
    curves = _curves(shown, pairs)
    slanted = max(map(len, stages)) > 5 or len(stages) > 4
    handles, labels = _legend_items(list(shown), pairs)
    columns = legend_columns(labels, _LEAST - 0.3)
    below = _CURVES + 0.25 * slanted + 0.25 + 0.2 * (math.ceil(len(labels) / columns) - 1)
    rows = []
    for split, by_stage in shown.items():
        n = next(iter(by_stage.values())).row["n"]
        rows.append(panels.Row(by_stage, titles.get(split, split), plural(n, "question")))
    figure = panels.draw(rows, least=_LEAST, below=below)
    width, height = figure.get_size_inches()
    panels.heading(figure, below, "Across the stages")
    each = (width - 0.15) / len(curves)
    for k, (title, plot) in enumerate(curves):
        ax = place(figure, 0.15 + k * each + 0.4, below - 0.75 - _CURVE, each - 0.6, _CURVE)
        plot(ax)
        _stage_axis(ax, stages, title, slanted)
    figure.legend(
        handles,
        labels,
        ncols=columns,
        fontsize=8.8,
        frameon=False,
        loc="lower left",
        bbox_to_anchor=(panels.EDGE / width, 0.32 / height),
        borderaxespad=0,
        labelcolor=INK,
        columnspacing=1.4,
    )
    said = "Bars: 95% intervals. Dotted: by chance (95%). Dashed: mean confidence."
    figure.text(panels.EDGE / width, 0.1 / height, said, fontsize=8.5, color=GREY)
    return figure


def _curves(shown: Panels, pairs: Mapping[str, Rows]) -> list[tuple[str, Callable[[Axes], None]]]:
    """(title, what draws it) of the panels across the stages."""

    def split_lines(key: str, chance: bool = False, dashed: str = "", ranged: bool = True):
        def plot(ax: Axes) -> None:
            for i, by_stage in enumerate(shown.values()):
                rows = [panel.row for panel in by_stage.values()]
                look = _line(ax, rows, key, i, len(shown), _COLOURS[i], ranged)
                if chance:
                    values = [row[f"{key}_null_q95"] for row in rows]
                    ax.plot(range(len(rows)), values, linestyle=":", linewidth=1.1, **look)
                if dashed:
                    values = [row[dashed] for row in rows]
                    ax.plot(range(len(rows)), values, linestyle="--", linewidth=1.3, **look)

        return plot

    curves = [
        ("conf-ECE", split_lines("conf_ece", chance=True)),
        ("cw-ECE", split_lines("cw_ece", chance=True)),
        ("accuracy, confidence", split_lines("accuracy", dashed="mean_confidence")),
        ("share of c > 0.9", split_lines("share_above_090", ranged=False)),
    ]
    if pairs:
        curves.append(("preference collapse", lambda ax: _collapse(ax, pairs)))
    return curves


def _collapse(ax: Axes, pairs: Mapping[str, Rows]) -> None:
    """The policy's ratio against the rate at which people prefer the chosen answer."""
    for i, by_stage in enumerate(pairs.values()):
        rows = list(by_stage.values())
        look = _line(ax, rows, "mean_ratio", i, len(pairs), _PAIR_COLOURS[i])
        if "mean_ratio_normalised" in rows[0]:
            values = [row["mean_ratio_normalised"] for row in rows]
            ax.plot(range(len(rows)), values, "-.", linewidth=1.3, **look)
        if "share_above_rate" in rows[0]:
            values = [row["share_above_rate"] for row in rows]
            ax.plot(range(len(rows)), values, "--", linewidth=1.3, **look)
        if "preference_rate" in rows[0]:
            rates = [row["preference_rate"] for row in rows]
            ax.plot(range(len(rows)), rates, "-", color=INK, linewidth=1.2, **_alone(len(rows)))


def _line(
    ax: Axes,
    rows: Sequence[Mapping[str, Any]],
    key: str,
    i: int,
    count: int,
    colour: str,
    ranged: bool = True,
) -> dict[str, Any]:
    """A line over the stages with intervals; returns its look."""
    aside = 4 * (i - (count - 1) / 2)
    look = draw_line(ax, range(len(rows)), rows, key, i, colour, aside, ranged)
    return {**look, **_alone(len(rows))}


def _alone(stages: int) -> dict[str, Any]:
    """Of a single stage a line without marks would not be seen."""
    return {"marker": "_", "markersize": 10} if stages == 1 else {}


def _stage_axis(ax: Axes, stages: Sequence[str], title: str, slanted: bool) -> None:
    ax.set_ylim(0, min(1.02, 1.1 * top_of(ax)) or 1.0)
    ax.set_xlim(-0.35, len(stages) - 0.65)
    plain_axes(ax, size=8.5)
    ax.set_xticks(range(len(stages)), stages)
    if slanted:
        slant(ax)
    ax.set_title(title, fontsize=10.5, color=INK, loc="left")


def _legend_items(
    splits: Sequence[str], pairs: Mapping[str, Rows]
) -> tuple[list[Line2D], list[str]]:
    handles = [
        Line2D([], [], color=_COLOURS[i], marker=MARKERS[i], markersize=5, linewidth=1.6)
        for i in range(len(splits))
    ]
    labels = list(splits)
    for i, name in enumerate(pairs):
        handles.append(
            Line2D([], [], color=_PAIR_COLOURS[i], marker=MARKERS[i], markersize=5, linewidth=1.6)
        )
        labels.append(f"policy ratio, {name.replace('_', ' ')}")
    # Of pairs whose rate is known; see `_collapse`.
    drawn = [next(iter(by_stage.values())) for by_stage in pairs.values()]
    further: tuple[tuple[str, Any, str], ...] = (
        ("mean_ratio_normalised", "-.", "the same per token"),
        ("share_above_rate", "--", "share above the rate"),
    )
    for key, style, name in further:
        having = [_PAIR_COLOURS[i] for i, row in enumerate(drawn) if key in row]
        if having:
            handles.append(Line2D([], [], color=having[0], linestyle=style, linewidth=1.3))
            labels.append(name)
    if any("preference_rate" in row for row in drawn):
        handles.append(Line2D([], [], color=INK, linewidth=1.2))
        labels.append("preference rate")
    return handles, labels
