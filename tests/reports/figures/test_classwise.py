import numpy as np

from calib_jax.confidence.scores import Scores
from calib_jax.reports.figures import classwise


def test_a_panel_per_letter_and_one_for_all(make_scores):
    panels, left_out = classwise.panels_of(make_scores(60))
    assert list(panels) == ["A", "B", "C", "D", classwise.POOLED] and left_out == 0
    assert all(bins.counts.sum() == 60 for name, bins in panels.items() if len(name) == 1)
    assert panels[classwise.POOLED].counts.sum() == 240
    figure = classwise.draw(make_scores(60), "near")
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == list(panels)


def test_of_many_letters_the_most_frequent_are_kept_and_the_rest_counted():
    n, k = 200, 30
    probs = np.full((n, k), 1 / k, np.float32)
    answers = np.where(np.arange(n) < 40, 29, np.arange(n) % 9).astype(np.int32)
    names = ("x",) * n
    scores = Scores(np.log(probs), probs, np.ones((n, k), bool), answers, names, names, names)
    panels, left_out = classwise.panels_of(scores)
    assert len(panels) == classwise.MAX_LETTERS + 1 and left_out == 30 - classwise.MAX_LETTERS
    assert list(panels)[-2:] == ["29", classwise.POOLED]
    title = classwise.draw(scores, "near").texts[0].get_text()
    assert "without the 22 letters" in title
