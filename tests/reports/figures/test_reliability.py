import numpy as np
import pytest
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from calib_jax import metrics
from calib_jax.reports.figures import reliability
from calib_jax.reports.figures.bins import Bins, bins_of
from calib_jax.reports.figures.reliability import Panel

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


def test_lines_bound_where_a_calibrated_model_would_end(make_scores):
    bins = bins_of(make_scores(80, bias=1.0))
    filled = bins.counts > 0
    lines = [c for c in drawn(bins).collections if c.get_label() == reliability.CONSISTENCY]
    for end, line in zip(bins.consistency, lines, strict=True):
        ends = np.array([segment[:, 1] for segment in line.get_segments()])
        np.testing.assert_allclose(ends, np.repeat(end[filled, None], 2, axis=1))


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


def test_figures_above_a_diagram_are_those_of_its_row():
    row = {"conf_ece": 0.1234, "accuracy": 0.5, "mean_confidence": None}
    assert reliability.about(row) == "conf-ECE 0.123\naccuracy 0.500   mean conf. –"
    row["conf_ece_ci"] = [0.1, 0.2]
    assert reliability.about(row, [("conf_ece", "cw_ece")]) == "conf-ECE 0.123 [0.100, 0.200]"
    assert reliability.about({}) == ""


@pytest.mark.parametrize("confidences", [None, np.array([0.2, 0.9])])
def test_a_diagram_alone_has_its_bars_and_the_histogram_it_was_given(
    make_scores, confidences, check_texts
):
    bins = bins_of(make_scores(80))
    row = {"accuracy": 0.25, "mean_confidence": 0.5}
    ax, *strips = reliability.draw_panel(Panel(row, bins, confidences), NORM).axes
    heights = [bar.get_height() for bar in of_label(ax, "accuracy")]
    assert heights == pytest.approx(bins.accuracy[bins.counts > 0].tolist())
    assert len(strips) == (confidences is not None)
    for strip in strips:
        assert [line.get_xdata()[0] for line in strip.lines] == [0.25, 0.5]
    check_texts(ax.figure)


def test_file_names_hold_no_separator():
    assert reliability.file_name("a/b c") == "a_b_c"
