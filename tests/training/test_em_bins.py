"""The confidence bins of the EM loop: when they are made anew, and of which questions."""

import numpy as np
import pytest

from calib_jax.errors import UserError
from calib_jax.training.interrupt import Stopped
from calib_jax.training.targets import target_distribution
from tests.training.conftest import tiny_config
from tests.training.test_em import assert_same


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"binning": "quantile"}, "config.em.binning"),
        ({"shrinkage": -1.0}, "config.em.shrinkage"),
        ({"refresh": "never"}, "config.em.refresh"),
        ({"refresh": "steps", "refresh_steps": 0}, "refresh_steps"),
        ({"refresh": "online", "binning": "mass"}, "all questions at once"),
        ({"refresh": "online", "held_out": 0.2}, "needs an E-step"),
        ({"held_out": 1.0}, "config.em.held_out"),
        ({"held_out": 0.01}, "one part would be empty"),
        ({"refresh": "twice"}, "choose from: epoch, steps, once, online"),
    ],
)
def test_bad_bins_are_named(start, change, message):
    config = tiny_config()
    config.em.update(change)
    with pytest.raises(UserError, match=message):
        start(config)


def test_bins_are_made_anew_every_few_steps(start):
    """Two E-steps within one epoch, the second seeing what the steps between them did."""
    config = tiny_config(epochs=1, batch_size=4)
    config.em.refresh, config.em.refresh_steps = "steps", 3
    run = start(config).run()
    assert run.training.num_steps == 5 and len(run.e_steps) == 2
    assert np.abs(run.scores[0].probs - run.scores[1].probs).max() > 1e-4


def test_held_out_questions_make_the_accuracies_and_are_not_learnt(start):
    """No step sees them, whatever the epoch, and a run that is resumed draws the same."""
    config = tiny_config(epochs=2, batch_size=4, method="lora")
    config.em.held_out = 0.25
    run = start(config, "whole").run()
    training, held = run.training, run.training.held_out
    assert held.sum() == 5
    for epoch in range(2):
        taught = np.concatenate(training.batch_rows(epoch))
        assert sorted(taught) == sorted(np.flatnonzero(~held))
    for scores, estep in zip(run.scores, run.e_steps, strict=True):
        right = (scores.predictions == scores.answers)[held]
        expected = np.bincount(estep.bins[held], right, 10) + right.mean()
        counts = np.bincount(estep.bins[held], minlength=10)
        np.testing.assert_array_equal(estep.bin_counts, counts)
        np.testing.assert_allclose(estep.bin_accuracy, expected / (counts + 1), rtol=1e-6)
    with pytest.raises(Stopped):
        start(config, "parts").run(stop_at=5)
    assert_same(start(config, "parts").run().training, training)


def test_resumed_equals_uninterrupted_whatever_the_refresh(start):
    for refresh, stop_at in (("steps", 3), ("online", 2)):
        config = tiny_config(epochs=1, batch_size=4, method="lora")
        config.em.refresh, config.em.refresh_steps = refresh, 3
        whole = start(config, f"{refresh}-whole").run()
        with pytest.raises(Stopped):
            start(config, f"{refresh}-parts").run(stop_at)
        assert_same(start(config, f"{refresh}-parts").run().training, whole.training)


def test_online_bins_are_running_sums_of_the_batches(start):
    """Against a loop in numpy over the forward passes of a model that does not move."""
    config = tiny_config(epochs=2, learning_rate=0.0, batch_size=8)
    config.em.refresh, config.em.shrinkage = "online", 2.0
    run = start(config)
    training, scores = run.training, run.training.score(run.training.encoded)
    chance = (1.0 / scores.mask.sum(axis=1)).mean()
    count = np.full(10, 0.8)
    correct = count * chance
    bins = np.ceil(scores.confidences * 10).astype(int) - 1
    expected = []
    for epoch in range(2):
        for rows in training.batch_rows(epoch):
            q = (correct + 2 * correct.sum() / count.sum()) / (count + 2)
            p = target_distribution(scores.probs[rows], q[bins[rows]], scores.mask[rows])
            expected.append(((np.asarray(p) - scores.probs[rows]) ** 2).sum(axis=1).mean())
            right = scores.predictions[rows] == scores.answers[rows]
            keep = 1 - len(rows) / 20
            count = count * keep + np.bincount(bins[rows], minlength=10)
            correct = correct * keep + np.bincount(bins[rows], right, minlength=10)
    run.run()
    assert not run.e_steps
    np.testing.assert_allclose([terms["ece"] for _, terms in run.terms], expected, rtol=1e-4)
    np.testing.assert_allclose(training.state.stats["count"], count, rtol=1e-5)
    np.testing.assert_allclose(training.state.stats["correct"], correct, rtol=1e-5)
