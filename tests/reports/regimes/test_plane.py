"""Points and paths in the plane, and the boundary, against plain loops."""

import dataclasses
import json

import numpy as np
import pytest

from calib_jax.reports.regimes import figures
from calib_jax.reports.regimes.plane import Point, advice, boundaries, boundary, of_dict, paths


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


def own(accuracy, low, high, **more):
    more = {"path": "before", "accuracy_ci": (low, high), "conf_ece": 0.3, **more}
    return point(accuracy=accuracy, subject=True, **more)


REACHED = point("other", accuracy=0.6, conf_ece=0.01)


@pytest.mark.parametrize(
    ("model", "others", "said"),
    [
        (own(0.4, 0.3, 0.5), [REACHED], "try CFT"),
        (own(0.8, 0.7, 0.9), [REACHED], "try RCFT"),
        (own(0.55, 0.45, 0.65), [REACHED], "includes the empirical boundary, 0.600"),
        (own(0.4, 0.3, 0.5, conf_ece=0.01), [REACHED], "needs no calibration"),
        (own(0.4, 0.3, 0.5), [point("other", accuracy=0.6)], "no other model"),
        (own(0.4, 0.3, 0.5), [point("other", "else", 0.6, 0.01)], "no other model"),
        (own(0.4, 0.3, 0.5), [point("before", accuracy=0.6, conf_ece=0.01)], "no other model"),
        (own(0.4, 0.3, 0.5, chance=None), [REACHED], "is not known"),
        (own(0.4, 0.3, 0.5, accuracy_ci=None), [REACHED], "is not known"),
    ],
)
def test_advice_is_given_where_the_points_bear_it(model, others, said):
    found = advice(model, [model, *others])
    assert said in found
    assert found.startswith("No advice") == (said[:3] not in ("try", "nee"))


def test_boundaries_are_of_questions_where_chance_is_known():
    points = [REACHED, point(questions="log", chance=None), point(questions="hard")]
    assert boundaries(points) == {"q": REACHED, "hard": None}


def test_many_panels_stand_in_rows_of_three():
    figure = figures.draw({f"{i}": [point(questions=f"{i}")] for i in range(5)}, "title")
    tops = [round(ax.get_position().y0, 3) for ax in figure.axes]
    assert tops[0] == tops[2] > tops[3] == tops[4]
