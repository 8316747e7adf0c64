import dataclasses
import io

import numpy as np
import pytest
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from PIL import Image

from calib_jax import metrics
from calib_jax.reports.figures import canvas, drawing, reliability
from calib_jax.reports.figures.bins import Bins, bins_of

NORM = PowerNorm(0.5, 0, 1)


def drawn(bins):
    ax = Figure().add_subplot()
    reliability.draw_bars(ax, bins, NORM)
    return ax


def of_label(ax, label):
    return [c.patches[0] for c in ax.containers if c.get_label() == label]


@pytest.mark.parametrize("edges", ["left", "right"])
def test_bars_are_the_accuracies_of_bin_stats(make_scores, edges):
    scores = make_scores(80, bias=1.0)
    stats = metrics.bin_stats(scores.probs, scores.answers, scores.mask, 10, edges)
    counts, accuracy = np.asarray(stats.count), np.asarray(stats.accuracy())
    confidence = np.asarray(stats.mean_confidence())
    ax = drawn(bins_of(scores, 10, edges))
    bars = of_label(ax, "accuracy")
    filled = np.flatnonzero(counts)
    assert 0 < len(filled) < 10
    assert [b.get_height() for b in bars] == pytest.approx(accuracy[filled].tolist())
    assert [b.get_x() for b in bars] == pytest.approx(filled / 10)
    assert [b.get_width() for b in bars] == pytest.approx([0.1] * len(filled))
    for kind, hatch, sign in (("over-confident", "/", 1), ("under-confident", ".", -1)):
        gaps = of_label(ax, kind)
        where = [m for m in filled if sign * (confidence[m] - accuracy[m]) > 0]
        assert [g.get_y() for g in gaps] == pytest.approx(
            [min(accuracy[m], confidence[m]) for m in where]
        )
        assert [g.get_y() + g.get_height() for g in gaps] == pytest.approx(
            [max(accuracy[m], confidence[m]) for m in where]
        )
        assert all(set(g.get_hatch()) == {hatch} for g in gaps)


def test_empty_bins_draw_nothing():
    nan = np.full(10, np.nan)
    empty = Bins(metrics.bin_edges(10), np.zeros(10, int), nan, nan)
    assert drawn(empty).containers == []


def test_denser_bins_are_darker():
    nan = np.full(8, np.nan)
    bins = Bins(
        metrics.bin_edges(10),
        np.array([5, 90, *[0] * 8]),
        np.array([0.5, 0.5, *nan]),
        np.array([0.05, 0.15, *nan]),
    )
    sparse, dense = of_label(drawn(bins), "accuracy")
    assert sum(dense.get_facecolor()[:3]) < sum(sparse.get_facecolor()[:3])


def test_diagonal_and_axes():
    ax = drawn(Bins(metrics.bin_edges(10), np.zeros(10, int), np.full(10, np.nan), None))
    (line,) = ax.lines
    assert line.get_xydata().tolist() == [[0, 0], [1, 1]] and line.get_linestyle() == "--"
    assert ax.get_xlim() == ax.get_ylim() == (0, 1) and ax.get_aspect() == 1


def test_figure_states_the_figures_and_the_letters(run):
    result, scores = run
    states = {s: result[s] for s in ("before", "after")}
    figure = reliability.draw(states, scores)
    texts = [t.get_text() for ax in figure.axes for t in ax.texts]
    row = result["before"]["near"]
    low, high = row["conf_ece_ci"]
    # In-domain first, although it is listed last.
    assert f"{row['conf_ece']:.3f} [{low:.3f}, {high:.3f}]" in texts[0]
    assert len(texts) == 4
    letters = [ax for ax in figure.axes if ax.get_title() == "letters chosen"]
    heights = [bar.get_height() for bar in letters[0].containers[0]]
    assert heights == pytest.approx([n / row["n"] for n in row["letter_counts"]])


def overlaps(figure, kinds):
    """Pairs of texts whose boxes intersect."""
    renderer = figure.canvas.get_renderer()
    texts = [t for t in figure.findobj(kinds) if t.get_visible() and t.get_text().strip()]
    boxes = [(t.get_text(), t.get_window_extent(renderer).shrunk(0.98, 0.9)) for t in texts]
    return [
        (a, b)
        for i, (a, box) in enumerate(boxes)
        for b, other in boxes[i + 1 :]
        if box.overlaps(other) and box.width and other.width
    ]


@pytest.mark.parametrize("skilled", [False, True])
@pytest.mark.parametrize("states", [("before",), ("before", "after")])
def test_no_text_overlaps_and_all_lies_inside(run, states, skilled):
    from matplotlib.text import Text

    result, scores = run
    if skilled:  # under-confident bars reach into the corner where the box would stand
        scores = {
            s: {k: dataclasses.replace(v, answers=v.predictions) for k, v in by_split.items()}
            for s, by_split in scores.items()
        }
    figure = reliability.draw({s: result[s] for s in states}, scores, title="A title")
    figure.canvas.draw()
    assert overlaps(figure, Text) == []
    renderer = figure.canvas.get_renderer()
    for text in figure.findobj(Text):
        if text.get_visible() and text.get_text().strip():
            box = text.get_window_extent(renderer)
            assert box.x0 >= 0 and box.y0 >= 0, text
            assert box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1, text


def test_writes_one_figure_for_all_and_one_per_split(tmp_path, run):
    result, scores = run
    states = {"before": result["before"] | {"a/b": result["before"]["near"]}}
    with_slash = {"before": scores["before"] | {"a/b": scores["before"]["near"]}}
    written = reliability.write(tmp_path, states, with_slash)
    names = {"reliability.png", "reliability_near.png", "reliability_far.png"}
    assert {p.name for p in tmp_path.iterdir()} == names | {"reliability_a_b.png"}
    assert written["a/b"].name == "reliability_a_b.png"
    with Image.open(written["near"]) as image:
        assert image.width >= 1200


def test_svg_and_data_uri(run):
    result, scores = run
    figure = reliability.draw({"before": {"near": result["before"]["near"]}}, scores)
    image = canvas.svg(figure)
    assert image.lstrip().startswith(b"<?xml") and image == canvas.svg(figure)
    assert drawing.data_uri(image, "svg").startswith("data:image/svg+xml;base64,")
    Image.open(io.BytesIO(canvas.png(figure, dpi=50))).verify()


def test_leaves_no_pyplot_figure_behind(run):
    import matplotlib.pyplot as plt

    result, scores = run
    reliability.draw({"before": result["before"]}, scores)
    assert plt.get_fignums() == []
