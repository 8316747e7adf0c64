"""The known world against numpy in float64: its target, the exact errors, and what is learnt."""

import numpy as np
import pytest

from calib_jax.training import synthetic


@pytest.fixture(scope="module")
def there():
    return synthetic.world(3, 2.5)


def oracle(confidence, chosen, num_bins):
    """Binned and unbinned |p*(ŷ) − c| in float64, bins (a, b]."""
    confidence, chosen = np.asarray(confidence, np.float64), np.asarray(chosen, np.float64)
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    gaps = [abs((chosen - confidence)[bins == m].sum()) for m in range(num_bins)]
    return sum(gaps) / len(bins), np.abs(chosen - confidence).mean()


def test_the_target_is_a_distribution_and_answers_follow_it(there):
    drawn = synthetic.draw(there, 40_000, (3, 1))
    assert drawn.target.dtype == np.float32 and drawn.answers.dtype == np.int32
    np.testing.assert_allclose(drawn.target.sum(axis=1), 1, atol=1e-6)
    logits = 2.5 * np.tanh(drawn.features.astype(np.float64) @ there.first) @ there.second
    odds = np.exp(logits)
    np.testing.assert_allclose(drawn.target, odds / odds.sum(axis=1, keepdims=True), atol=1e-5)
    # Where the target says about 0.7, the answer is that option in about 0.7.
    said = drawn.target[:, 1]
    near = np.abs(said - 0.7) < 0.1
    share, expected = (drawn.answers[near] == 1).mean(), said[near].mean()
    assert abs(share - expected) < 4 * np.sqrt(0.25 / near.sum())


def test_the_same_seed_draws_the_same_and_another_does_not(there):
    one, same, other = (synthetic.draw(there, 50, (3, k)) for k in (1, 1, 2))
    np.testing.assert_array_equal(one.answers, same.answers)
    assert not np.array_equal(one.features, other.features)


def test_a_probabilistic_generator_is_calibrated_and_most_accurate(there):
    drawn = synthetic.draw(there, 5000, (3, 1))
    found = synthetic.exact(drawn.target, drawn.target, 10)
    assert found["conf_ece"] == found["question_error"] == 0
    assert found["accuracy"] == pytest.approx(drawn.target.max(axis=1).mean(dtype=np.float64))
    other = np.random.default_rng(0).dirichlet(np.ones(4), 5000).astype(np.float32)
    assert synthetic.exact(other, drawn.target, 10)["accuracy"] < found["accuracy"]


def test_exact_figures_are_those_of_float64(there):
    drawn = synthetic.draw(there, 3000, (3, 1))
    probs = np.random.default_rng(1).dirichlet(np.ones(4), 3000).astype(np.float32)
    chosen = drawn.target[np.arange(3000), probs.argmax(axis=1)]
    binned, unbinned = oracle(probs.max(axis=1), chosen, 10)
    found = synthetic.exact(probs, drawn.target, 10)
    assert found["accuracy"] == pytest.approx(chosen.astype(np.float64).mean(), abs=1e-7)
    assert found["conf_ece"] == pytest.approx(binned, abs=1e-6)
    assert found["question_error"] == pytest.approx(unbinned, abs=1e-6)


def test_recalibration_by_bins_leaves_accuracy_and_no_binned_error(there):
    drawn = synthetic.draw(there, 3000, (3, 1))
    probs = np.random.default_rng(1).dirichlet(np.ones(4), 3000).astype(np.float32)
    chosen = drawn.target[np.arange(3000), probs.argmax(axis=1)].astype(np.float64)
    bins = np.clip(np.ceil(probs.max(axis=1) * 10).astype(int) - 1, 0, 9)
    means = {m: chosen[bins == m].mean() for m in set(bins)}
    confidence = np.array([means[m] for m in bins])
    found = synthetic.recalibrated(probs, drawn.target, 10)
    assert found["accuracy"] == pytest.approx(chosen.mean())
    assert found["conf_ece"] == pytest.approx(0, abs=1e-12)
    assert found["question_error"] == pytest.approx(np.abs(chosen - confidence).mean())


def test_measured_epochs_begin_at_0_and_hold_the_last():
    for epochs in (1, 3, 10, 11, 12, 13, 57, 80):
        found = synthetic.measured_epochs(epochs)
        assert found == sorted(set(found)) and found[0] == 0 and found[-1] == epochs
        assert found[: min(epochs, 10) + 1] == list(range(min(epochs, 10) + 1))


def test_over_fine_tuning_makes_overconfident_and_the_ece_term_holds_it_back(there):
    """SFT learns 100 questions by heart: its exact error grows, and less so under λ."""
    learnt, asked = synthetic.draw(there, 100, (3, 1)), synthetic.draw(there, 5000, (3, 2))
    options = {"epochs": 60, "learning_rate": 0.01, "seed": 0, "batch_size": 50, "num_bins": 10}
    last = {}
    for weight in (0.0, 30.0):
        features = {"learnt": learnt.features, "asked": asked.features}
        course = synthetic.fine_tuned(learnt, features, ece_weight=weight, **options)
        assert list(course) == synthetic.measured_epochs(60)
        probs = course[60]["asked"]
        np.testing.assert_allclose(probs.sum(axis=1), 1, atol=1e-5)
        last[weight] = synthetic.exact(probs, asked.target, 10)
        if not weight:
            by_heart = (course[60]["learnt"].argmax(axis=1) == learnt.answers).mean()
            chosen = asked.target[np.arange(5000), probs.argmax(axis=1)]
            assert by_heart > 0.9 and probs.max(axis=1).mean() > chosen.mean() + 0.15
            early = synthetic.exact(course[3]["asked"], asked.target, 10)
            assert last[0.0]["conf_ece"] > early["conf_ece"] + 0.1
    assert last[30.0]["conf_ece"] < last[0.0]["conf_ece"] - 0.05


def test_questions_held_out_are_not_learnt_and_make_the_accuracies(there):
    """They may be any for SFT; for CFT their answers alone change what is learnt."""
    learnt, asked = synthetic.draw(there, 60, (3, 1)), synthetic.draw(there, 200, (3, 2))
    other = np.where(np.arange(60) < 20, (learnt.answers + 1) % 4, learnt.answers)
    options = {"epochs": 4, "learning_rate": 0.01, "seed": 0, "batch_size": 20, "num_bins": 10}

    def last(answers, weight, held_out=20):
        drawn = synthetic.Drawn(learnt.features, learnt.target, answers)
        given = {"ece_weight": weight, "held_out": held_out, **options}
        return synthetic.fine_tuned(drawn, {"asked": asked.features}, **given)[4]["asked"]

    np.testing.assert_array_equal(last(learnt.answers, 0.0), last(other, 0.0))
    assert np.abs(last(learnt.answers, 10.0) - last(other, 10.0)).max() > 1e-3
    assert np.abs(last(learnt.answers, 0.0, 0) - last(other, 0.0, 0)).max() > 1e-3
