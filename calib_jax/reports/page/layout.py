"""The building blocks of report.html: escaped text, tables, inline figures, legends, facts."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from calib_jax.reports import content
from calib_jax.reports.figures.canvas import Figure
from calib_jax.reports.figures.drawing import COLOURS, THEME, inline_svg

States = Mapping[str, Mapping[str, Mapping[str, Any]]]

# What a page can hold and a reader can take in; the page says where it left something out.
MAX_FIGURE_SPLITS, MAX_FIGURE_STATES, MAX_BIN_SPLITS = 6, 4, 24
# Reliability diagrams are what an evaluation of many tasks is looked at for.
MAX_DIAGRAM_SPLITS = 24

_NAMES = {light: f"var(--f-{name})" for name, light, _ in THEME}


def escape(value: Any) -> str:
    """Text as HTML."""
    return html.escape(str(value), quote=True)


def colour(i: int) -> str:
    """The i-th state's colour as CSS."""
    return _NAMES[COLOURS[i % len(COLOURS)]]


def note(text: str) -> str:
    """A small grey line."""
    return f'<p class="note">{escape(text)}</p>'


def table(head: str, rows: Sequence[str], name: str, kind: str = "", tall: bool = False) -> str:
    """A table that scrolls within itself; `name` is read aloud, `kind` is its class."""
    tall_class = " tall" if tall else ""
    kind_attribute = f' class="{kind}"' if kind else ""
    # Reachable by keyboard, or it could not be scrolled without a mouse.
    return (
        f'<div class="scroll{tall_class}" tabindex="0" role="region" aria-label="{escape(name)}">'
        f"<table{kind_attribute}><thead>{head}</thead>\n<tbody>\n"
        + "\n".join(rows)
        + "\n</tbody></table></div>"
    )


def heads(names: Sequence[str]) -> str:
    """Header cells of columns."""
    return "".join(f'<th scope="col">{escape(name)}</th>' for name in names)


def figure(
    drawn: Figure, name: str, label: str, title: str = "", text: str = "", wide: bool = False
) -> str:
    """An inline figure.

    Args:
      drawn: the figure.
      name: unique on the page.
      label: what a screen reader says.
      title, text: two lines above it.
      wide: on a phone it is scrolled sideways rather than shrunk beyond reading.
    """
    above = f"<strong>{escape(title)}</strong>" if title else ""
    above += f'<span class="figures">{escape(text)}</span>' if text else ""
    kind = ' class="wide"' if wide else ""
    return f"<figure{kind}>{above}{inline_svg(drawn, name, label)}</figure>"


def panels(figures: Sequence[str], small: bool = False) -> str:
    """Figures side by side, as many as there is room for."""
    kind = "panels small" if small else "panels"
    return f'<div class="{kind}">' + "\n".join(figures) + "</div>"


def legend(entries: Sequence[tuple[str, str]]) -> str:
    """A legend of (swatch as HTML, label)."""
    items = "".join(f"<li>{swatch}{escape(label)}</li>" for swatch, label in entries)
    return f'<ul class="legend">{items}</ul>'


def swatch(kind: str, css_colour: str | None = None) -> str:
    """A legend's sign: "fill", "line", "dashed", "over", "under", "whisker" or "scale"."""
    if kind == "scale":
        steps = "".join(f'<i style="background:var(--f-shade{i})"></i>' for i in range(8))
        return f'<span class="scale">{steps}</span>'
    key = "background" if kind == "fill" else "border-color"
    style = f' style="{key}:{css_colour}"' if css_colour else ""
    return f'<i class="{kind}"{style}></i>'


def facts(value: Any) -> str:
    """Nested dictionaries as definition lists; everything else as text."""
    if isinstance(value, Mapping):
        items = "".join(
            f"<dt>{escape(str(k).replace('_', ' '))}</dt><dd>{facts(v)}</dd>"
            for k, v in value.items()
        )
        return f'<dl class="facts">{items}</dl>' if items else "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(facts(v) for v in value) or "none"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    return escape(value)


def for_figures(
    states: States, max_splits: int = MAX_FIGURE_SPLITS
) -> tuple[dict[str, dict[str, Mapping[str, Any]]], list[str]]:
    """The states and splits that get figures, and a line for each limit that was met."""
    splits = content.ordered_splits(states)
    kept_splits, kept_states = splits[:max_splits], list(states)[:MAX_FIGURE_STATES]
    notes = []
    if len(splits) > len(kept_splits):
        notes.append(
            f"Figures: the first {len(kept_splits)} of {len(splits)} splits; the table of results "
            "holds all."
        )
    if len(states) > len(kept_states):
        notes.append(
            f"Figures: the first {len(kept_states)} of {len(states)} columns; the table of results "
            "holds all."
        )
    chosen = {
        state: {split: states[state][split] for split in kept_splits if split in states[state]}
        for state in kept_states
    }
    return {state: rows for state, rows in chosen.items() if rows}, notes
