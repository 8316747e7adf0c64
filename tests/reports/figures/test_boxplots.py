import numpy as np
import pytest

from calib_jax.reports.figures import boxplots

BOXES = [[0.5, 0.6, 0.7, 0.8, 0.9], [0.1, 0.15, 0.2, 0.25, 0.3]]


def test_quantiles_are_those_of_each_rank(make_scores):
    scores = make_scores(80, bias=1.0, ragged=True)
    found = boxplots.quantiles_of(scores)
    for rank in range(4):
        values = [
            np.sort(p[m])[::-1][rank]
            for p, m in zip(scores.probs, scores.mask, strict=True)
            if m.sum() > rank
        ]
        expected = np.quantile(values, [0.05, 0.25, 0.5, 0.75, 0.95])
        assert found[rank] == pytest.approx(expected, abs=1e-5)


def test_log_lines_with_boxes_become_epochs_and_null_ranks_are_left_out():
    log = [
        {"kind": "estep", "epoch": 0, "step": 0, "sorted_confidences": [*BOXES, [None] * 5]},
        {"kind": "estep", "epoch": 1, "step": 3},  # of an earlier version
        {"kind": "train", "epoch": 1, "step": 4, "sorted_confidences": BOXES},
    ]
    assert boxplots.of_log(log) == {"epoch 0": BOXES}


def test_many_epochs_are_thinned_evenly_with_first_and_last():
    groups = {f"epoch {i}": i for i in range(100)}
    kept = boxplots.thinned(groups, 4)
    assert kept == {"epoch 0": 0, "epoch 33": 33, "epoch 66": 66, "epoch 99": 99}
    assert boxplots.thinned({"a": 1}) == {"a": 1}


@pytest.mark.parametrize("legend", [False, True])
def test_draws_a_box_per_group_and_rank(legend):
    groups = {"before": BOXES, "after": BOXES[:1]}
    (ax,) = boxplots.draw(groups, "A title", legend).axes
    assert len(ax.patches) == 3
    assert [t.get_text() for t in ax.get_xticklabels()] == ["before", "after"]
    medians = {line.get_ydata()[0] for line in ax.lines if len(set(line.get_ydata())) == 1}
    assert {0.7, 0.2} <= medians
