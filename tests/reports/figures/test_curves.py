import dataclasses

import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.reports.figures import curves


def test_smooth_curve_is_the_metrics_curve_within_its_band(make_scores):
    scores = make_scores(100, bias=1.0, ragged=True)
    found = curves.smooth(scores)
    curve = metrics.smooth_curve(scores.probs, scores.answers, scores.mask, num_points=128)
    shown = ~np.isnan(found["accuracy"])
    # Padding the rows to a power of two changes nothing.
    np.testing.assert_allclose(
        found["accuracy"][shown], np.asarray(curve.accuracy)[shown], atol=1e-5
    )
    assert (found["low"][shown] <= found["high"][shown]).all()
    outside = (found["accuracy"] < found["low"]) | (found["accuracy"] > found["high"])
    assert outside.sum() <= 0.1 * shown.sum()
    low, high = np.quantile(scores.confidences, (0.005, 0.995))
    grid = found["grid"][shown]
    assert grid[0] == pytest.approx(low, abs=1 / 128) and grid[-1] == pytest.approx(
        high, abs=1 / 128
    )


def test_smooth_curve_of_equal_confidences_and_of_one_question(make_scores):
    one = make_scores(1)
    assert (~np.isnan(curves.smooth(one)["accuracy"])).sum() >= 1
    certain = dataclasses.replace(one, probs=np.array([[1, 0, 0, 0]], np.float32))
    assert curves.smooth(certain)["accuracy"][-1] in (0, 1)


def test_risk_coverage_ends_at_the_error(make_scores):
    scores = make_scores(90, bias=1.0)
    coverage, risk = curves.risk_coverage(scores)
    assert len(coverage) == 90 and coverage[-1] == 1
    assert risk[-1] == pytest.approx(np.mean(scores.predictions != scores.answers))
    assert len(curves.risk_coverage(make_scores(1000))[0]) == 400


def test_figures_hold_a_curve_per_state(make_scores, check_texts):
    states = {"before": make_scores(60, bias=3.0), "after": make_scores(60)}
    ax, strip = curves.smooth_panel(states).axes
    assert len(ax.lines) == 3  # and the diagonal
    assert len(strip.patches) == 4
    (ax,) = curves.risk_panel(states).axes
    assert len(ax.lines) == 2
    long = {f"a rather long name {i}": scores for i, scores in enumerate(states.values())}
    for draw in (curves.smooth_panel, curves.risk_panel):
        check_texts(draw(states))
        figure = draw(long, "exam: a title")
        check_texts(figure)
        assert figure.texts[0].get_text() == "exam: a title"
        assert [text.get_text() for text in figure.legends[0].get_texts()] == list(long)
