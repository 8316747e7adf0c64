"""The distributions: a curve per model of margins, and of changes of the loss on text."""

import numpy as np

from calib_jax.reports.pairs import figures
from tests.reports.pairs.test_measure import make_losses, make_scores


def curves(ax):
    """The curves of one panel, without the line at 0."""
    return [(line.get_xdata(), line.get_ydata()) for line in ax.lines[:-1]]


def test_margins_are_curves_of_every_model_up_to_all_pairs():
    scores = {f"m{i}": make_scores(i) for i in range(8)}
    plain, per_token = figures.margins(scores).axes
    assert len(curves(plain)) == len(curves(per_token)) == 6  # the first of many
    for panel, attribute in ((plain, "margins"), (per_token, "normalised_margins")):
        for (x, y), one in zip(curves(panel), scores.values(), strict=False):
            np.testing.assert_allclose(x, np.sort(getattr(one, attribute)))
            assert y[0] == 1 / len(one) and y[-1] == 1


def test_drift_is_of_the_documents_against_the_first_model():
    before, after = make_losses(0), make_losses(1)
    figure = figures.drift({"before": before, "after": after})
    for ax, size in zip(figure.axes, ("tokens", "bytes"), strict=True):
        ((x, _),) = curves(ax)
        change = after.nll / getattr(after, size) - before.nll / getattr(before, size)
        np.testing.assert_allclose(x, np.sort(change))
    assert [text.get_text() for text in figure.texts if text.get_text() == "after"]
