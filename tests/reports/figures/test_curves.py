import dataclasses

import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.reports.figures import curves


def test_the_curve_is_the_metrics_within_the_middle_of_the_confidences(make_scores):
    scores = make_scores(400, bias=1.0, ragged=True)
    found = curves.reliability_curve(scores)
    whole = metrics.reliability_curve(scores.probs, scores.answers, scores.mask)
    low, high = np.quantile(scores.confidences, (0.005, 0.995))
    kept = np.isin(whole.confidence, found.confidence)
    np.testing.assert_array_equal(np.stack(found), np.stack(whole)[:, kept])
    assert found.confidence[0] <= low < found.confidence[1]
    assert found.confidence[-2] < high <= found.confidence[-1]
    assert len(found.confidence) < len(whole.confidence)


def test_few_confidences_have_marks_and_one_is_seen(make_scores):
    one = make_scores(1)
    certain = dataclasses.replace(one, probs=np.array([[1, 0, 0, 0]], np.float32))
    for scores in (one, certain):
        ax, _ = curves.curve_panel(scores).axes
        curve = next(line for line in ax.lines if line.get_marker() == "o")
        assert curve.get_xdata() == [scores.confidences[0]]
        assert curve.get_ydata() == [scores.predictions[0] == scores.answers[0]]
    many, _ = curves.curve_panel(make_scores(200)).axes
    assert not [line for line in many.lines if line.get_marker() == "o"]


def test_both_bands_are_drawn_and_named(make_scores):
    scores = make_scores(200, bias=3.0)
    curve = curves.reliability_curve(scores)
    ax, strip = curves.curve_panel(scores).axes
    areas = {area.get_label(): area.get_paths()[0].get_extents() for area in ax.collections}
    assert list(areas) == [curves.CONSISTENCY, curves.BAND]
    for name, low, high in (
        (curves.CONSISTENCY, curve.consistency_low, curve.consistency_high),
        (curves.BAND, curve.low, curve.high),
    ):
        assert (areas[name].y0, areas[name].y1) == pytest.approx((low.min(), high.max()))
    (counts,) = strip.patches
    assert counts.get_data().values.sum() == 200


def test_risk_coverage_ends_at_the_error(make_scores):
    scores = make_scores(90, bias=1.0)
    coverage, risk = curves.risk_coverage(scores)
    assert len(coverage) == 90 and coverage[-1] == 1
    assert risk[-1] == pytest.approx(np.mean(scores.predictions != scores.answers))
    assert len(curves.risk_coverage(make_scores(1000))[0]) == 400


def test_figures_hold_a_curve_per_state(make_scores, check_texts):
    states = {"before": make_scores(60, bias=3.0), "after": make_scores(60)}
    (ax,) = curves.risk_panel(states).axes
    assert len(ax.lines) == 2
    check_texts(ax.figure)
    check_texts(curves.curve_panel(states["before"]))
    long = {f"a rather long name {i}": scores for i, scores in enumerate(states.values())}
    figure = curves.risk_panel(long, "exam: a title")
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(long)
    every = curves.draw_curves(long, "exam: a title")
    assert [ax.get_title("left") for ax in every.axes[::2]] == list(long)
    named = [text.get_text() for text in every.legends[0].get_texts()]
    assert {curves.BAND, curves.CONSISTENCY} < set(named)
    for drawn in (figure, every, curves.draw_curves({"before": states["before"]}, "exam: a title")):
        check_texts(drawn)
        assert drawn.texts[0].get_text() == "exam: a title"
