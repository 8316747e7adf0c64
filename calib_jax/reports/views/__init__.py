"""What a reader sees of a result: for every job which tables, figures and sentences, in order.

A view is data. Its tables and sentences come from the result alone, so that a finished run can be
shown again; figures and page also take the scores. ``calib_jax.runs.run.Run.finish`` writes and
prints a view; no view opens a file, and no job draws.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from calib_jax.reports.figures.canvas import Figure
from calib_jax.reports.tables import Table


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph; a "note" is small and grey, a "said" is bold on the console."""

    text: str
    kind: str = ""


@dataclasses.dataclass(frozen=True)
class Heading:
    """A heading within a section."""

    text: str


@dataclasses.dataclass(frozen=True)
class Bullets:
    """Sentences without their full stops, as a list."""

    texts: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Facts:
    """Nested dictionaries, as definition lists."""

    facts: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure within the page.

    Attributes:
      figure: drawn in the colours of ``figures.drawing.THEME``, or what draws it.
      name: unique on the page.
      label: what a screen reader says.
      title, text: two lines above it.
      wide: on a phone it is scrolled sideways rather than shrunk beyond reading.
    """

    figure: Figure | Callable[[], Any]
    name: str
    label: str
    title: str = ""
    text: str = ""
    wide: bool = False


@dataclasses.dataclass(frozen=True)
class Panels:
    """Pictures side by side, as many as there is room for."""

    pictures: Sequence[Picture]
    small: bool = False


@dataclasses.dataclass(frozen=True)
class Legend:
    """What a figure's marks mean: (mark, colour as CSS or "", label).

    A mark is "fill", "line", "dashed", "over", "under", "whisker" or "scale".
    """

    entries: Sequence[tuple[str, str, str]]


@dataclasses.dataclass(frozen=True)
class Details:
    """Blocks that are folded away beneath a title."""

    title: str
    blocks: Sequence["Block"]
    opened: bool = False


@dataclasses.dataclass(frozen=True)
class Partial:
    """A block with a template of its own: ``page/templates/<name>.html``, given ``values``."""

    name: str
    values: Mapping[str, Any]


Block = Text | Heading | Bullets | Facts | Picture | Panels | Legend | Details | Partial | Table


@dataclasses.dataclass(frozen=True)
class Section:
    """A titled part of the page."""

    title: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True)
class View:
    """How a result is shown.

    Attributes:
      title, kicker: the page's title and the grey line beneath it.
      said: the result in sentences without their full stops.
      console: what is printed: tables, sentences, notes.
      sections: of the page; () for a job without a page.
      first: what stands on the page beneath the sentences, before everything else.
      cards: (above, headline, below) of each, beneath that.
      files: path in the run's folder -> text: tables as Markdown, LaTeX, CSV.
      figures: path in the run's folder without its ending -> what draws it.
    """

    title: str
    kicker: str
    said: Sequence[str]
    console: Sequence[Block]
    sections: Sequence[Section] = ()
    first: Sequence[Block] = ()
    cards: Sequence[tuple[str, str, str]] = ()
    files: Mapping[str, str] = dataclasses.field(default_factory=dict)
    figures: Mapping[str, Figure | Callable[[], Figure]] = dataclasses.field(default_factory=dict)


def note(text: str) -> Text:
    """A small grey line."""
    return Text(text, "note")


def said(sentences: Sequence[str]) -> list[Text]:
    """Sentences that come without their full stops, as what the console begins with."""
    return [Text(f"{sentence}.", "said") for sentence in sentences]
