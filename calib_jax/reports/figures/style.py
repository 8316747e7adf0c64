"""What all figures share: colours with a dark twin each, plain axes, and the ways out of a figure.

A figure is drawn once, in light colours. As PNG and SVG files it stays so; on the page every colour
becomes a CSS variable, and the reader's light or dark setting decides.
"""

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import numpy as np

from calib_jax.reports.figures.canvas import (
    Axes,
    Figure,
    LinearSegmentedColormap,
    LineCollection,
    ListedColormap,
    ScaledTranslation,
    Text,
    extent,
    svg,
    to_hex,
)
from calib_jax.reports.words import cut

# Okabe-Ito and ColorBrewer tones: told apart by colour-blind readers, and in greyscale.
INK, GREY, FAINT, PAPER = "#222222", "#767676", "#d9d9d9", "#ffffff"
CONFIDENCE, POPULATION = "#d55e00", "#a6a6a6"
RIGHT, WRONG = "#0072b2", "#d55e00"
COLOURS = ("#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#0072b2", "#882255")
MARKERS = ("o", "s", "^", "D", "v", "P")
# Points; what is smaller cannot be read.
_SMALLEST = 6
DASHES = (0, (3, 1))
DIAGONAL: dict[str, Any] = {"linestyle": (0, (5, 3)), "color": INK, "linewidth": 1.2}

# Eight steps from few questions to many: few enough to name each on the page.
_LIGHT_SHADES = LinearSegmentedColormap.from_list(
    "population", ["#dbe9f6", "#9ecae1", "#4292c6", "#08519c", "#08306b"]
)
_DARK_SHADES = LinearSegmentedColormap.from_list(
    "population on dark", ["#1d3246", "#1f5586", "#3f8fcf", "#8cc4f0", "#d6ebff"]
)
SHADES = ListedColormap([_LIGHT_SHADES(i / 7) for i in range(8)], "population")

# (name on the page, colour on white, colour on a dark page). On a dark page many is bright.
THEME = (
    ("ink", INK, "#e4e6ea"),
    ("axis", GREY, "#9299a3"),
    ("faint", FAINT, "#363b43"),
    ("paper", PAPER, "#15171b"),
    ("vermilion", CONFIDENCE, "#ff8c42"),
    ("crowd", POPULATION, "#626973"),
    ("orange", COLOURS[0], "#f0b030"),
    ("green", COLOURS[1], "#2cc197"),
    ("purple", COLOURS[2], "#e39bc6"),
    ("sky", COLOURS[3], "#7cc8f2"),
    ("blue", COLOURS[4], "#57a9e6"),
    ("wine", COLOURS[5], "#d77ba6"),
    *((f"shade{i}", to_hex(SHADES(i)), to_hex(_DARK_SHADES(i / 7))) for i in range(8)),
)
_NAMES = {light: name for name, light, _ in THEME}
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")
# The page's own font is used; hundredths of a point cannot be seen.
_FONT = re.compile(r"font-family:[^;]*;\s*")
_LONG = re.compile(r"(\d\.\d)\d+")


def theme_css(dark: bool) -> str:
    """The figures' CSS variables: ``--f-ink: #222222; ...``."""
    return " ".join(f"--f-{name}: {there if dark else here};" for name, here, there in THEME)


def css_colour(i: int) -> str:
    """The i-th state's colour as CSS, a variable of ``theme_css``."""
    return _variable(COLOURS[i % len(COLOURS)])


def place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    """Axes at a place given in inches."""
    w, h = figure.get_size_inches()
    return figure.add_axes((left / w, bottom / h, width / w, height / h))


def plain_axes(ax: Axes, size: float = 9, grid: Any = "both", box: bool = False) -> None:
    """Thin grey axes under the data; `grid` "both", "x", "y" or "" for none."""
    ax.tick_params(labelsize=size, color=GREY, labelcolor=INK)
    if grid:
        ax.grid(axis=grid, color=FAINT, linewidth=0.6, zorder=0)
    ax.set_axisbelow(True)
    if not box:
        ax.spines[["top", "right"]].set_visible(False)
    for spine in ax.spines.values():
        spine.set(color=GREY, linewidth=0.8)


def fit(text: Text, room: float) -> None:
    """Makes a line no wider than so many inches: smaller as far as it can be read, then cut."""
    most = room * text.figure.dpi
    # Letters are not exactly proportional to their size.
    while extent(text).width > most and (size := float(text.get_fontsize())) > _SMALLEST:
        text.set_fontsize(max(0.95 * size, _SMALLEST))
    while (width := extent(text).width) > most and len(text.get_text()) > 2:
        length = len(text.get_text())
        text.set_text(cut(text.get_text(), min(int(length * most / width), length - 1)))


def add_title(
    figure: Figure, text: str, left: float, top: float = 0.12, size: float = 12.5
) -> None:
    """A bold line at the top, so many inches from the edges; smaller where it would not fit."""
    width, height = figure.get_size_inches()
    line = figure.text(
        left / width, 1 - top / height, text, fontsize=size, weight="bold", va="top", color=INK
    )
    fit(line, width - left - 0.05)


def add_legend(
    figure: Figure, handles: Sequence[Any], labels: Sequence[str], columns: int, left: float
) -> None:
    """One legend for all panels, beneath the title and so many inches from the left edge."""
    width, height = figure.get_size_inches()
    figure.legend(
        handles,
        labels,
        ncols=columns,
        fontsize=8.8,
        frameon=False,
        loc="upper left",
        labelcolor=INK,
        borderaxespad=0,
        handletextpad=0.5,
        bbox_to_anchor=(left / width, 1 - 0.42 / height),
        columnspacing=1.4,
    )


def legend_columns(labels: Sequence[str], room: float) -> int:
    """How many columns of a legend of 9 points fit into so many inches."""
    return max(1, min(len(labels), int(room / (0.55 + 0.08 * max(map(len, labels), default=1)))))


def draw_line(
    ax: Axes,
    xs: Sequence[float],
    rows: Sequence[Mapping[str, Any]],
    key: str,
    mark: int,
    colour: str,
    aside: float = 0.0,
    ranged: bool = True,
    label: str | None = None,
) -> dict[str, Any]:
    """A line of marks over `xs` with the rows' 95 % intervals.

    Args:
      rows: the figures at each of `xs`, "<key>" and, where `ranged`, "<key>_ci".
      mark: the line's number, which chooses the marks.
      aside: points to the right, or the intervals of several lines would hide one another.
      label: what a legend calls it.

    Returns:
      Its look, for what else is drawn of the same rows.
    """
    shift = ScaledTranslation(aside / 72, 0, ax.figure.dpi_scale_trans)
    look: dict[str, Any] = {"color": colour, "transform": ax.transData + shift}
    if ranged:
        ends = np.array([row[f"{key}_ci"] for row in rows], float)
        ax.vlines(xs, ends[:, 0], ends[:, 1], alpha=0.55, linewidth=1.8, **look)
    values = np.array([row[key] for row in rows], float)
    ax.plot(
        xs,
        values,
        marker=MARKERS[mark % len(MARKERS)],
        markersize=5,
        linewidth=1.6,
        label=label,
        **look,
    )
    return look


def top_of(ax: Axes) -> float:
    """The highest end of any line or interval; those that stand aside do not count for limits."""
    tops = [np.asarray(line.get_ydata(), float) for line in ax.lines]
    lines = [bars for bars in ax.collections if isinstance(bars, LineCollection)]
    tops += [segment[:, 1] for bars in lines for segment in bars.get_segments()]
    return max((float(np.nanmax(ys, initial=0)) for ys in tops), default=0.0)


def slant(ax: Axes) -> None:
    """Turns long names along x, which would touch one another."""
    ax.tick_params(axis="x", rotation=25)
    for text in ax.get_xticklabels():
        text.set_horizontalalignment("right")


def inline_svg(figure: Figure, name: str, label: str) -> str:
    """The figure as an <svg> element for the page: scales, follows the theme, can be read aloud.

    Args:
      figure: drawn in the colours of `THEME`.
      name: of the figure, unique on the page: its ids are marked with it.
      label: what a screen reader says.
    """
    root = ElementTree.fromstring(svg(figure, text=True))
    view = root.get("viewBox")
    for parent in list(root.iter()):
        for child in list(parent):
            child.tag = child.tag.split("}")[1]
            if child.tag in ("metadata", "style"):
                parent.remove(child)
    body = "".join(_markup(child, name) for child in root)
    # Parts that nothing points at need no name.
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda m: m[0] if m[1] in used else "", body)
    label = html.escape(label, quote=True)
    return f'<svg viewBox="{view}" role="img" aria-label="{label}">{body}</svg>'


def _markup(element: ElementTree.Element, name: str) -> str:
    """An element and what is in it as HTML; groups without a use are dissolved."""
    if element.tag == "pattern":
        return _hatch(element, name)
    inner = "".join(_markup(child, name) for child in element) + html.escape(element.text or "")
    inner = inner.strip()
    attributes = ""
    for key, value in element.attrib.items():
        key = key.split("}")[-1]  # xlink:href
        if key == "style":
            value = _FONT.sub("", _COLOUR.sub(lambda m: _variable(m[0]), value))
        elif key == "href":
            value = value.replace("#", f"#{name}-")
        elif key == "id":
            value = f"{name}-{value}"
        elif key == "transform" and value.startswith("rotate(-0 "):
            continue
        value = _LONG.sub(r"\1", " ".join(value.split())).replace("url(#", f"url(#{name}-")
        attributes += f' {key}="{html.escape(value)}"'
    if element.tag == "g" and set(element.attrib) <= {"id"}:
        return inner
    return f"<{element.tag}{attributes}>{inner}</{element.tag}>"


def _variable(colour: str) -> str:
    return f"var(--f-{_NAMES[colour]})" if colour in _NAMES else colour


def _hatch(pattern: ElementTree.Element, name: str) -> str:
    """A small tile in the place of matplotlib's, which draws hundreds of dots or lines."""
    path, below = pattern[-1], pattern[0].get("style", "")
    found = _COLOUR.search(path.get("style", ""))
    assert found is not None  # matplotlib states the colour of every hatch
    colour = _variable(found[0])
    face = re.search(r"fill: ([^;\"]+)", below)
    size, mark = 5, f'<circle cx="2.5" cy="2.5" r="0.75" style="fill: {colour}"/>'
    if "C" not in path.get("d", ""):  # lines, not dots
        mark = f'<path d="M-1 1L1 -1M0 5L5 0M4 6L6 4" style="stroke: {colour}; stroke-width: 0.8"/>'
    ground = ""
    if face and face[1] != "none":
        fill = _COLOUR.sub(lambda m: _variable(m[0]), below)
        ground = f'<rect width="{size}" height="{size}" style="{fill}"/>'
    return (
        f'<pattern id="{name}-{pattern.get("id")}" patternUnits="userSpaceOnUse" '
        f'width="{size}" height="{size}">{ground}{mark}</pattern>'
    )
