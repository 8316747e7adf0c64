"""The grid of small reliability diagrams: one for every task and method, none over another."""

import numpy as np
import pytest

from calib_jax.reports.figures import grid

SPLITS = [f"task_{i}" for i in range(7)]


@pytest.fixture
def drawn(make_scores):
    def draw(*names):
        scores = {
            name: {split: make_scores(40, seed=7 * i + j) for j, split in enumerate(SPLITS)}
            for i, name in enumerate(names)
        }
        rows = {
            name: {s: {"conf_ece": 0.1234 + j / 100, "accuracy": 0.5} for j, s in enumerate(SPLITS)}
            for name in names
        }
        # One that was not measured leaves its place empty.
        del rows[names[-1]]["task_3"]
        return grid.draw(rows, scores, title="Tiny")

    return draw


@pytest.mark.parametrize("names", [("choice",), ("choice", "continuation_sum", "continuation_min")])
def test_every_diagram_has_its_place(drawn, names):
    figure = drawn(*names)
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    expected = {s if len(names) == 1 else f"{s}\n{n}" for s in SPLITS for n in names}
    expected -= {"task_3" if len(names) == 1 else f"task_3\n{names[-1]}"}
    assert set(titles) == expected and len(titles) == len(expected)
    boxes = np.array([ax.get_position().extents for ax in figure.axes])
    assert boxes.min() >= 0 and boxes.max() <= 1
    for i, (x0, y0, x1, y1) in enumerate(boxes):
        for u0, v0, u1, v1 in boxes[i + 1 :]:
            assert x1 <= u0 or u1 <= x0 or y1 <= v0 or v1 <= y0
    texts = {ax.get_title(loc="left").split("\n")[0]: ax.texts[0].get_text() for ax in figure.axes}
    assert texts["task_6"] == "ECE 0.183\nacc. 0.500"
