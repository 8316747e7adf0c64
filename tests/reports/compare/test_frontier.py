"""The frontier: which settings no other beats, and what the figure shows of them."""

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from calib_jax.reports.compare import frontier
from calib_jax.reports.compare.frontier import Point
from tests.reports.compare.conftest import estimate

POINTS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12)


@given(POINTS)
def test_frontier_is_what_no_other_beats(points):
    accuracies, errors = (np.array(x, float) for x in zip(*points, strict=True))
    found = frontier.pareto(accuracies, errors)
    assert found
    for i in range(len(points)):
        beaten = any(
            accuracies[j] >= accuracies[i]
            and errors[j] <= errors[i]
            and (accuracies[j], errors[j]) != (accuracies[i], errors[i])
            for j in range(len(points))
        )
        assert (i in found) == (not beaten)
    assert np.all(np.diff(accuracies[found]) >= 0) and np.all(np.diff(errors[found]) >= 0)


def test_what_is_not_known_is_on_no_frontier():
    assert frontier.pareto([0.5, np.nan, 0.9], [0.1, 0.0, np.inf]) == [0]


def sweep_of(comparison):
    names = ["before", "lambda0", "lambda1-bins5", "lambda1-bins10"]
    where = [(0.3, 0.4), (0.6, 0.3), (0.5, 0.1), (0.5, 0.1)]
    rows = {
        name: {d: {"accuracy": estimate(x), "conf_ece": estimate(y)} for d in ("in", "out")}
        for name, (x, y) in zip(names, where, strict=True)
    }
    points = {
        "lambda0": Point(0.0, None),
        "lambda1-bins5": Point(1.0, 5),
        "lambda1-bins10": Point(1, 10),
    }
    return dataclasses.replace(comparison, rows=rows, labels={n: n for n in names}), points


def test_figure_labels_every_setting_and_no_labels_touch(comparison):
    sweep, points = sweep_of(comparison)
    figure = frontier.draw(sweep, points, "before", "title")
    assert len(figure.axes) == 2
    for ax in figure.axes:
        texts = [t.get_text() for t in ax.texts]
        assert texts == ["before", "λ = 0", "λ = 1", "λ = 1"]
        boxes = [t.get_window_extent() for t in ax.texts]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    said = [t.get_text() for t in figure.legends[0].get_texts()]
    assert said == ["no bins (λ = 0)", "M = 5", "M = 10", "before", "Pareto frontier"]
    assert frontier.frontier_of(sweep, "in") == ["lambda1-bins5", "lambda1-bins10", "lambda0"]


def test_labels_of_settings():
    assert Point(0.0, None).label == "λ = 0" and Point(0.3, 10).label == "λ = 0.3, M = 10"
