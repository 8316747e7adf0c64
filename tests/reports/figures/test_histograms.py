import numpy as np
import pytest

from calib_jax.reports.figures import histograms


def test_shares_add_up_to_accuracy_and_error(make_scores):
    scores = make_scores(80, bias=1.0)
    right, wrong = histograms.shares(scores)
    accuracy = np.mean(scores.predictions == scores.answers)
    assert right.sum() == pytest.approx(accuracy) and wrong.sum() == pytest.approx(1 - accuracy)


def test_right_goes_up_and_wrong_goes_down(make_scores):
    scores = make_scores(80, bias=1.0)
    up, down = histograms.draw({"before": scores}, "near").axes[0].containers
    right, wrong = histograms.shares(scores)
    assert [b.get_height() for b in up] == pytest.approx(right.tolist())
    assert [b.get_height() for b in down] == pytest.approx((-wrong).tolist())
