"""The grid of reliability panels: what was given is drawn, each in its place, none over another."""

import numpy as np
import pytest

from calib_jax.metrics import bin_edges
from calib_jax.reports.figures import canvas, panels
from calib_jax.reports.figures.bins import Bins
from calib_jax.reports.figures.reliability import Panel


def make_panel(seed=0, filled=10, strip=True):
    """Random bins of which the first `filled` hold questions."""
    rng = np.random.default_rng(seed)
    counts = np.where(np.arange(10) < filled, rng.integers(1, 40, 10), 0)
    nan = np.where(counts > 0, 1.0, np.nan)
    edges = bin_edges(10)
    bins = Bins(edges, counts, rng.random(10) * nan, (edges[:-1] + 0.05) * nan)
    row = {
        "conf_ece": 0.12,
        "conf_ece_ci": [0.1, 0.2],
        "cw_ece": 0.1,
        "accuracy": 0.4,
        "mean_confidence": 0.6,
    }
    return Panel(row, bins, rng.random(50) if strip else None)


def diagrams(figure):
    """Title -> axes of each diagram."""
    return {ax.get_title(): ax for ax in figure.axes if ax.get_aspect() == 1}


def heights(ax):
    return [c.patches[0].get_height() for c in ax.containers if c.get_label() == "accuracy"]


SIZES = {"large": panels.LARGE, "medium": panels.MEDIUM, "small": panels.SMALL}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 3, 7])
def test_bins_drawn_are_the_bins_given_and_nothing_touches(size, count, check_texts):
    given = {f"model {i}": make_panel(i, 10 - i, size != "small") for i in range(count)}
    figure = panels.draw(panels.wrapped(given), SIZES[size], "A title", unit="facts")
    drawn = diagrams(figure)
    assert list(drawn) == list(given)
    for name, panel in given.items():
        filled = panel.bins.counts > 0
        assert heights(drawn[name]) == pytest.approx(panel.bins.accuracy[filled].tolist())
        assert "conf-ECE 0.120 [0.100, 0.200]" in drawn[name].texts[0].get_text()
    check_texts(figure)
    # A legend where there are histograms, and its scale of shades.
    assert len(figure.legends) == (size != "small")
    assert ("facts in the bin" in [ax.get_title() for ax in figure.axes]) == (size != "small")


def test_panels_without_questions_are_empty_and_places_without_a_panel_free(check_texts):
    rows = [
        panels.Row({"a": None, "b": make_panel(1)}, "first", "a note"),
        panels.Row({"c": make_panel(2, filled=0), "d": None}, "second"),
    ]
    figure = panels.draw(rows)
    drawn = diagrams(figure)
    assert list(drawn) == ["b", "c"] and heights(drawn["c"]) == []
    assert drawn["b"].get_position().x0 > drawn["c"].get_position().x1
    assert drawn["b"].get_position().y0 > drawn["c"].get_position().y1
    assert [text.get_text() for text in figure.texts] == ["first", "a note", "second", ""]
    # The first panel of each row names its axis and ticks, and the last of each column.
    for ax in drawn.values():
        assert ax.get_ylabel() == "accuracy"
        assert [t.get_text() for t in ax.get_yticklabels() if t.get_visible()][-1] == "1"
    strips = [ax for ax in figure.axes if ax.get_xlabel()]
    assert [ax.get_xlabel() for ax in strips] == ["confidence", "confidence"]
    check_texts(figure)


def test_only_the_border_of_small_panels_is_labelled(check_texts):
    given = {f"m{i}": make_panel(i, strip=False) for i in range(7)}
    figure = panels.draw(panels.wrapped(given), panels.SMALL, x="probability", y="share")
    for i, ax in enumerate(diagrams(figure).values()):
        assert ax.get_xlabel() == ("probability" if i >= 3 else "")
        assert ax.get_ylabel() == ("share" if i in (0, 4) else "")
    check_texts(figure)


def test_one_scale_of_shades_for_all():
    few, many = (
        Bins(bin_edges(2), np.array(n), np.full(2, 0.5), np.full(2, 0.6))
        for n in ([50, 50], [1, 99])
    )
    figure = panels.draw([panels.Row({"a": Panel({}, few), "b": Panel({}, many)})], panels.SMALL)
    shades = [ax.containers[2].patches[0].get_facecolor() for ax in diagrams(figure).values()]
    assert sum(shades[0][:3]) > sum(shades[1][:3])  # 50 of 100 are paler than 99 of 100


def test_names_of_any_length_and_kind_stay_within_their_columns(check_texts):
    names = ["a" * 300, r"$\frac{1}$ & <b>", "W" * 20, "caf\udce9 \x07"]
    given = {name: make_panel(i, strip=False) for i, name in enumerate(names)}
    figure = panels.draw(
        [panels.Row(given, "a heading " * 30, "a note")], panels.SMALL, "a title " * 40
    )
    check_texts(figure)
    shown = [ax.get_title() for ax in figure.axes]
    assert shown[1:3] == names[1:3] and shown[0].startswith("aaa") and shown[0].endswith("…")
    assert canvas.svg(figure, text=True).count(b"&lt;b&gt;") == 1


def test_room_beneath_and_beside_is_left_to_others(check_texts):
    drawn = []
    row = panels.Row({"a": make_panel()}, beside=("letters", drawn.append))
    figure = panels.draw([row], panels.LARGE, least=11.0, below=2.0)
    (ax,) = drawn
    assert ax.get_title() == "letters"
    width, height = figure.get_size_inches()
    assert width == 11.0
    lowest = [box.get_window_extent().y0 for box in (*figure.axes, *figure.legends)]
    assert min(lowest) / figure.dpi >= 2.0 and height > 6
    check_texts(figure)


def test_panels_are_wrapped_evenly():
    def shape(count):
        return [len(row.panels) for row in panels.wrapped(dict.fromkeys(range(count)))]

    assert shape(3) == [3] and shape(5) == [3, 2] and shape(7) == [4, 3] and shape(9) == [3, 3, 3]
