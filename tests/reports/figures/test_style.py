import html
import re
from xml.etree import ElementTree

import pytest
from matplotlib.colors import to_rgb

from calib_jax.reports.figures import canvas, style


def luminance(colour):
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_and_lines_stand_out_on_both_grounds():
    themes = {name: (light, dark) for name, light, dark in style.THEME}
    for ground in (0, 1):
        paper = themes["paper"][ground]
        assert contrast(themes["ink"][ground], paper) > 12
        for name in ("axis", "vermilion", "blue", "green", "wine"):
            assert contrast(themes[name][ground], paper) > 3, name
    # Many is dark on white, and bright on a dark page.
    shades = [themes[f"shade{i}"] for i in range(8)]
    light, dark = ([luminance(s[k]) for s in shades] for k in (0, 1))
    assert light == sorted(light, reverse=True) and dark == sorted(dark)
    assert len(themes) == len(style.THEME) == len({light for _, light, _ in style.THEME})


@pytest.fixture
@canvas.drawn
def inline():
    figure = canvas.new_figure(3, 2)
    ax = style.place(figure, 0.5, 0.5, 2, 1)
    style.plain_axes(ax)
    ax.bar([0], [1], facecolor="none", edgecolor=style.GREY, hatch="////")
    ax.bar([1], [1], facecolor="none", edgecolor=style.INK, hatch="...")
    ax.text(0.5, 0.5, "a < b & c", color=style.INK)
    return style.inline_svg(figure, "some-name", 'a "label"')


def test_inline_svg_is_small_marked_and_coloured_by_variables(inline):
    ElementTree.fromstring(inline)
    assert inline.startswith(
        '<svg viewBox="0 0 216 144" role="img" aria-label="a &quot;label&quot;">'
    )
    assert not re.search(r"#[0-9a-f]{6}\b|font-family|metadata|xlink", inline)
    assert html.escape("a < b & c") in inline
    ids = re.findall(r' id="([^"]*)"', inline)
    pointed = re.findall(r'(?:href="#|url\(#)([^")]+)', inline)
    assert ids and set(ids) == set(pointed) and all(i.startswith("some-name-") for i in ids)
    assert inline.count("<pattern") == 2 and inline.count("<circle") == 1
    assert len(inline) < 12_000


@canvas.drawn
def test_a_title_that_is_too_long_is_made_to_fit():
    figure = canvas.new_figure(3, 1)
    style.add_title(figure, "a title that is much too long for three inches of a figure", 0.2)
    box = figure.texts[0].get_window_extent()
    assert box.x1 <= figure.bbox.x1 and figure.texts[0].get_fontsize() < 12.5


@canvas.drawn
def test_a_line_that_no_size_makes_fit_is_cut():
    figure = canvas.new_figure(3, 1)
    style.add_title(figure, "a title " * 50, 0.2)
    line = figure.texts[0]
    assert line.get_window_extent().x1 <= figure.bbox.x1
    assert line.get_text().startswith("a title a") and line.get_text().endswith("…")
    assert line.get_fontsize() >= 6
