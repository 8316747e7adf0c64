"""The one door to matplotlib: its parts are imported from here, and drawn with settings of our own.

A matplotlibrc may ask for LaTeX, fonts, sizes and formats, and text between two dollar signs would
be taken for mathematics. None of it may stop a job after hours of work or change its pictures, and
nothing is changed for whoever else draws in the same process.
"""

import contextlib
import functools
import io
import re
import warnings
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import (
    LinearSegmentedColormap,
    ListedColormap,
    PowerNorm,
    to_hex,
)
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator, PercentFormatter
from matplotlib.transforms import Bbox, ScaledTranslation

from calib_jax.characters import encodable
from calib_jax.errors import UserNotice

__all__ = [
    "Axes", "Bbox", "Figure", "FuncFormatter", "Line2D", "LineCollection",
    "LinearSegmentedColormap", "ListedColormap", "MaxNLocator", "NullLocator", "Patch",
    "PercentFormatter", "PowerNorm",
    "ScalarMappable", "ScaledTranslation", "Text", "drawn", "extent", "new_figure", "png",
    "readable", "svg", "to_hex",
]  # fmt: skip  # names, several on a line

# Comes with matplotlib; the others are asked, where they are installed, for what it lacks.
_FONT = "DejaVu Sans"
_FONTS_BESIDE = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "WenQuanYi Zen Hei",
    "Hiragino Sans", "PingFang SC", "Microsoft YaHei", "Malgun Gothic", "Noto Sans Devanagari",
    "Noto Sans Thai", "Arial Unicode MS",
)  # fmt: skip  # names, several on a line
_NO_GLYPH = re.compile(r"Glyph \d+ .*missing from")
# Of these XML can hold none.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffe\uffff]")

P = ParamSpec("P")
R = TypeVar("R")
_UNDRAWN = "a function that draws a whole figure, or a part of one, is to be decorated with @drawn"
_depth = 0


@functools.cache
def _settings() -> Any:
    """matplotlib's own defaults, our fonts, and text that is taken as it stands."""
    installed = {font.name for font in fontManager.ttflist}
    fonts = [_FONT, *(name for name in _FONTS_BESIDE if name in installed)]
    # The backend is left alone: to read it would choose one.
    defaults: dict[Any, Any] = dict(dict.items(matplotlib.rcParamsDefault))
    del defaults["backend"]
    return defaults | {
        "font.family": fonts,
        "text.usetex": False,
        "text.parse_math": False,
        "svg.hashsalt": "calib_jax",
    }


@contextlib.contextmanager
def _our_settings(**more: Any) -> Iterator[None]:
    """Within it matplotlib has our settings; characters that no font holds are told of once."""
    global _depth
    with warnings.catch_warnings(record=True) as caught:
        warnings.filterwarnings("always", message=_NO_GLYPH.pattern)
        # Those of the reader come back as they were, whatever they were.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", matplotlib.MatplotlibDeprecationWarning)
            settings: Any = more if _depth else _settings() | more
            inside = matplotlib.rc_context(settings)
            inside.__enter__()
        _depth += 1
        try:
            yield
        finally:
            _depth -= 1
            inside.__exit__(None, None, None)
    for one in caught:
        if _NO_GLYPH.match(str(one.message)):
            _tell_of_boxes()
        else:
            warnings.warn_explicit(one.message, one.category, one.filename, one.lineno)


@functools.cache
def _tell_of_boxes() -> None:
    warnings.warn(
        UserNotice(
            "some characters are in no font that is installed: pictures show boxes in their place "
            "(report.html shows them all the same). A font such as Noto Sans CJK mends that."
        ),
        stacklevel=2,
    )


def drawn(draw: Callable[P, R]) -> Callable[P, R]:
    """Makes a function draw under our settings: one that draws a whole figure and returns it."""

    @functools.wraps(draw)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        with _our_settings():
            return draw(*args, **kwargs)

    return wrapper


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches that belongs to no window and no global state.

    Raises:
      RuntimeError: called by a function that is not `drawn`: a matplotlibrc would have its say.
    """
    if not _depth:
        raise RuntimeError(_UNDRAWN)
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def readable(text: str) -> str:
    """Text as a picture and a file in UTF-8 can hold it.

    Bytes of a file's name that are no UTF-8, and other halves of characters, are shown as their
    code, and so are control characters.

    >>> readable("caf\\udce9"), readable("a\\x07b"), readable("two\\nlines, 5 $")
    ('caf\\\\udce9', 'a\\\\x07b', 'two\\nlines, 5 $')
    """
    return _CONTROL.sub(lambda m: ascii(m[0])[1:-1], encodable(text))


def extent(artist: Artist) -> Bbox:
    """Where an artist stands, with all that hangs on it, in pixels."""
    _make_readable(artist)
    found = artist.get_tightbbox()
    assert found is not None, artist  # nothing that is drawn has none
    return found


def _make_readable(artist: Artist) -> None:
    for text in artist.findobj(Text):
        text.set_text(readable(text.get_text()))


def _save(figure: Figure, kind: str, **options: Any) -> bytes:
    if any(text.get_parse_math() for text in figure.findobj(Text)):
        raise RuntimeError(_UNDRAWN)
    _make_readable(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()


def png(figure: Figure, dpi: int = 200) -> bytes:
    """The figure as PNG."""
    with _our_settings():
        return _save(figure, "png", dpi=dpi)


def svg(figure: Figure, text: bool = False) -> bytes:
    """The figure as SVG; letters are paths, so that it needs no font, or `text` that can be read.

    The same figure gives the same bytes.
    """
    with _our_settings(**{"svg.fonttype": "none" if text else "path"}):
        return _save(figure, "svg", metadata={"Date": None})
