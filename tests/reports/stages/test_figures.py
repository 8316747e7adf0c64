"""The figure of the stages: a diagram per stage and split, and what is drawn beneath."""

import numpy as np
import pytest

from calib_jax.reports.figures.bins import Bins
from calib_jax.reports.figures.reliability import Panel
from calib_jax.reports.stages import figures


def make_panel(confidence, accuracy):
    """All questions in one bin."""
    m = int(confidence * 10)
    edges = (np.arange(11) / 10).astype(np.float32)
    counts = np.bincount([m], minlength=10) * 50
    row = {
        "n": 50,
        "accuracy": accuracy,
        "mean_confidence": confidence,
        "conf_ece": abs(confidence - accuracy),
        "cw_ece": 0.1,
        "share_above_090": float(confidence > 0.9),
        "conf_ece_null_q95": 0.05,
        "cw_ece_null_q95": 0.02,
    }
    row |= {f"{key}_ci": [0.9 * row[key], 1.1 * row[key]] for key in ("conf_ece", "cw_ece")}
    row["accuracy_ci"] = [accuracy - 0.05, accuracy + 0.05]
    bins = Bins(
        edges=edges,
        counts=counts,
        accuracy=np.full(10, accuracy),
        confidence=np.full(10, confidence),
    )
    return Panel(row, bins, np.full(50, confidence))


PAIRS = {
    name: {
        "mean_ratio": ratio,
        "mean_ratio_ci": [ratio - 0.02, ratio + 0.02],
        "preference_rate": 0.8,
        "share_above_rate": share,
    }
    for name, ratio, share in (("sft", 0.5, 0.1), ("dpo", 0.7, 0.6), ("cft", 0.55, 0.2))
}


def titles(figure):
    return [ax.get_title() or ax.get_title(loc="left") for ax in figure.axes]


def line(ax, style):
    return next(one.get_ydata() for one in ax.lines if one.get_linestyle() == style)


@pytest.mark.parametrize("splits", [1, 2])
def test_a_row_of_diagrams_per_split_and_curves_across_stages(splits):
    stages = {"sft": make_panel(0.45, 0.5), "dpo": make_panel(0.95, 0.5)}
    stages["cft"] = make_panel(0.55, 0.5)
    figure = figures.draw({f"split{i}": stages for i in range(splits)}, {"pairs": PAIRS})
    found = titles(figure)
    for name in stages:
        assert found.count(name) == splits
    by_title = dict(zip(found, figure.axes, strict=True))
    curves = ["conf-ECE", "cw-ECE", "accuracy, confidence", "share of c > 0.9"]
    assert all(name in by_title for name in [*curves, "preference collapse"])
    ax = by_title["conf-ECE"]
    np.testing.assert_allclose(line(ax, "-"), [0.05, 0.45, 0.05], atol=1e-6)
    np.testing.assert_allclose(line(ax, ":"), 0.05)
    assert ax.get_ylim()[1] >= 0.495  # the interval's end is inside
    np.testing.assert_allclose(line(by_title["accuracy, confidence"], "--"), [0.45, 0.95, 0.55])
    collapse = by_title["preference collapse"]
    np.testing.assert_allclose(line(collapse, "-"), [0.5, 0.7, 0.55])
    np.testing.assert_allclose(line(collapse, "--"), [0.1, 0.6, 0.2])
    assert any(np.all(np.asarray(one.get_ydata()) == 0.8) for one in collapse.lines)

    # Nothing lies over anything else.
    boxes = [ax.get_position() for ax in figure.axes]
    for i, one in enumerate(boxes):
        assert 0 <= one.x0 < one.x1 <= 1 and 0 <= one.y0 < one.y1 <= 1
        for other in boxes[i + 1 :]:
            apart = one.x1 <= other.x0 or other.x1 <= one.x0
            assert apart or one.y1 <= other.y0 or other.y1 <= one.y0


def test_without_pairs_and_with_long_names():
    panels = {"exam": {"pretrained": make_panel(0.5, 0.5), "cft": make_panel(0.6, 0.5)}}
    figure = figures.draw(panels, {})
    assert "preference collapse" not in titles(figure)


def test_the_names_of_all_lines_stand_clear_of_the_note_and_within_the_figure():
    panels = {
        name: {n: make_panel(0.5, 0.5) for n in PAIRS} for name in ("in-domain (pooled)", "x")
    }
    tokens = {name: {**row, "mean_ratio_normalised": 0.5} for name, row in PAIRS.items()}
    figure = figures.draw(panels, {"pairs": tokens, "pairs_trained": tokens})
    figure.canvas.draw()
    legend = figure.legends[-1].get_window_extent()
    names = [text.get_text() for text in figure.legends[-1].get_texts()]
    assert "the same per token" in names and "share above the rate" in names
    assert 0 <= legend.x0 and legend.x1 <= figure.bbox.x1
    assert not any(legend.overlaps(text.get_window_extent()) for text in figure.texts)
    assert not any(legend.overlaps(ax.get_tightbbox()) for ax in figure.axes)


def test_every_split_is_in_one_row_of_at_most_three():
    domains = {f"exam{i}": "in" for i in range(6)} | {"other": "out"}
    assert list(figures.parts(domains)) == ["in-domain (pooled)", "other"]
    # Without a domain splits stand alone, or more than three together.
    alone = figures.parts(dict.fromkeys("abc", ""))
    assert list(alone) == list("abc") and figures.headings(alone)["a"] == "a"
    (pool,) = figures.parts(dict.fromkeys("abcd", "")).values()
    assert pool["splits"] == list("abcd")
    for given in (domains, dict.fromkeys("abcdef", "")):
        drawn = figures.parts(given).values()
        assert [split for part in drawn for split in part["splits"]] == list(given)


def test_every_line_of_a_single_stage_is_seen():
    one = {"base": make_panel(0.5, 0.5)}
    figure = figures.draw({"exam": one}, {"pairs": {"base": PAIRS["sft"]}})
    by_title = dict(zip(titles(figure), figure.axes, strict=True))
    for name in ("conf-ECE", "accuracy, confidence", "preference collapse"):
        assert all(line.get_marker() not in ("", "None", None) for line in by_title[name].lines)


def test_the_legend_names_what_is_drawn_alone():
    panels = {"exam": {name: make_panel(0.5, 0.5) for name in PAIRS}}
    keys = ("mean_ratio", "mean_ratio_ci")
    unrated = {name: {key: row[key] for key in keys} for name, row in PAIRS.items()}
    rate = ["share above the rate", "preference rate"]
    for pairs, expected in ((PAIRS, rate), (unrated, [])):
        legend = figures.draw(panels, {"pairs": pairs}).legends[-1]
        texts = [text.get_text() for text in legend.get_texts()]
        assert texts == ["exam", "policy ratio, pairs", *expected]
