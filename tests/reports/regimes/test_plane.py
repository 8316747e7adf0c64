"""Points and paths in the plane, and the boundary, against plain loops."""

import dataclasses
import json

import numpy as np
import pytest

from calib_jax.reports.regimes import figures
from calib_jax.reports.regimes.plane import Point, boundary, of_dict, paths


def point(path="SFT", questions="q", accuracy=0.5, conf_ece=0.1, chance=0.05, **more):
    return Point(path, "SFT", questions, 100, accuracy, conf_ece, chance, **more)


def test_the_boundary_is_the_largest_accuracy_that_chance_explains():
    rng = np.random.default_rng(0)
    points = [
        point(f"{i}", "ab"[i % 2], *map(float, rng.uniform(0, 1, 3).round(2))) for i in range(200)
    ]
    for questions in "ab":
        largest = -1.0
        for one in points:
            if one.questions == questions and one.conf_ece <= one.chance:
                largest = max(largest, one.accuracy)
        assert boundary(points, questions).accuracy == largest
    assert boundary(points, "c") is None
    assert boundary([point(accuracy=0.9)], "q") is None


def test_chance_is_unknown_where_a_figure_is():
    assert point(chance=None).within is None and point(conf_ece=float("nan")).within is None
    assert point(conf_ece=0.05).within is True and point(conf_ece=0.051).within is False
    assert boundary([point(chance=None)], "q") is None


def test_paths_run_by_epoch_and_mix_no_questions():
    points = [point(epoch=e, questions=q) for e, q in ((2, "a"), (0, "a"), (1, "b"), (1, "a"))]
    found = paths(points)
    assert {key: [p.epoch for p in those] for key, those in found.items()} == {
        ("a", "SFT"): [0, 1, 2],
        ("b", "SFT"): [1],
    }


def test_a_point_comes_back_from_json():
    one = point(accuracy_ci=(0.4, 0.6), seed=3, epoch=2)
    assert of_dict(json.loads(json.dumps(dataclasses.asdict(one)))) == one


@pytest.mark.parametrize("target", [None, (0.9, 0.0)])
def test_marks_are_filled_where_chance_explains_and_the_boundary_is_drawn(target):
    points = [
        point(accuracy=0.5, conf_ece=0.2, epoch=0),
        point(accuracy=0.6, conf_ece=0.04, epoch=1),
        point(accuracy=0.7, conf_ece=0.3, epoch=2),
    ]
    (ax,) = figures.draw({"all": points}, "title", target).axes
    marks = [line for line in ax.lines if line.get_marker() == "o"]
    assert [float(line.get_xdata()[0]) for line in marks] == [0.5, 0.6, 0.7]
    filled = [line.get_markerfacecolor() == line.get_color() for line in marks]
    assert filled == [False, True, False]
    dotted = [line for line in ax.lines if line.get_linestyle() == ":"]
    assert [float(line.get_xdata()[0]) for line in dotted] == [0.6]
    assert sum(line.get_marker() == "*" for line in ax.lines) == (target is not None)
