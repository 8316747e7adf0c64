"""Conformal sets: the finite-sample quantile, the guarantee, and the cases of too few rows."""

import numpy as np
import pytest

from calib_jax import posthoc
from calib_jax.errors import UserError

PREDICTORS = {
    "lac": lambda *args, **kw: posthoc.LAC.fit(*args, **kw),
    "aps": lambda *args, **kw: posthoc.APS.fit(*args, **kw),
    "aps randomized": lambda *args, **kw: posthoc.APS.fit(*args, randomized=True, **kw),
}


def softmax(x):
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


def test_rank_is_the_finite_sample_one():
    assert [posthoc.conformal_rank(n, 0.1) for n in (8, 9, 10, 19, 99, 100)] == [
        9,
        9,
        10,
        18,
        90,
        91,
    ]
    assert posthoc.conformal_rank(9, 0.3) == 7  # 10 * 0.7 exactly


def test_lac_on_the_golden_set(set_a):
    # MAPIE 1.6.0, LACConformityScore on the same 500 and 2000 rows.
    log_scores, answers = set_a
    fitted = posthoc.LAC.fit(log_scores[:500], answers[:500], alpha=0.1)
    sets = fitted.sets(log_scores[500:2500])
    assert fitted.threshold == pytest.approx(0.96447217, abs=1e-7)
    assert float(posthoc.mean_set_size(sets)) == pytest.approx(2.278, abs=1e-6)
    assert float(posthoc.set_coverage(sets, answers[500:2500])) == pytest.approx(0.9115, abs=1e-6)


def test_aps_against_loops(ragged):
    log_scores, answers, mask = ragged
    fitted = posthoc.APS.fit(log_scores[:200], answers[:200], mask[:200], alpha=0.2)

    def scores(i):
        probs = np.where(mask[i], softmax(log_scores[i]), 0)
        order = sorted(range(5), key=lambda k: (-probs[k], k))
        return {k: sum(probs[j] for j in order[: order.index(k) + 1]) for k in range(5)}

    own = sorted(scores(i)[answers[i]] for i in range(200))
    threshold = own[posthoc.conformal_rank(200, 0.2) - 1]
    assert fitted.threshold == pytest.approx(threshold, abs=1e-6)
    sets = np.asarray(fitted.sets(log_scores[200:], mask[200:]))
    for i in range(200, 400):
        for k in range(5):
            if abs(scores(i)[k] - threshold) > 1e-5:
                assert sets[i - 200, k] == (mask[i, k] and scores(i)[k] <= threshold)


@pytest.mark.parametrize("name", PREDICTORS)
def test_coverage_over_many_draws(set_a, name):
    """Mean coverage lies in [1 - alpha, 1 - alpha + 1/(n + 1)], up to Monte-Carlo error."""
    log_scores, answers = set_a
    rng = np.random.default_rng(4)
    covered = []
    for draw in range(150):
        rows = rng.permutation(10_000)[:600]
        options = {"seed": draw} if "random" in name else {}
        fitted = PREDICTORS[name](log_scores[rows[:99]], answers[rows[:99]], alpha=0.2, **options)
        sets = fitted(log_scores[rows[99:]])
        covered.append(float(posthoc.set_coverage(sets, answers[rows[99:]])))
    error = 4 * np.std(covered) / np.sqrt(len(covered))
    assert 0.8 - error <= np.mean(covered) <= 0.8 + 1 / 100 + error


@pytest.mark.parametrize("name", PREDICTORS)
def test_too_few_rows_give_all_options_and_say_so(ragged, name, tmp_path):
    log_scores, answers, mask = ragged
    with pytest.warns(posthoc.CalibrationWarning, match="8 rows are too few.*needs 9"):
        fitted = PREDICTORS[name](log_scores[:8], answers[:8], mask[:8], alpha=0.1)
    assert fitted.threshold is None
    np.testing.assert_array_equal(fitted.sets(log_scores, mask), mask)
    fitted.save(tmp_path / "sets.json")
    assert posthoc.load(tmp_path / "sets.json") == fitted


@pytest.mark.parametrize("name", PREDICTORS)
def test_round_trip_gives_the_same_sets(ragged, name, tmp_path):
    log_scores, answers, mask = ragged
    fitted = PREDICTORS[name](log_scores[:200], answers[:200], mask[:200], alpha=0.3)
    fitted.save(tmp_path / "sets.json")
    again = posthoc.load(tmp_path / "sets.json")
    sets = np.asarray(fitted(log_scores, mask))
    np.testing.assert_array_equal(again(log_scores, mask), sets)
    assert not sets[~mask].any()


def test_smaller_alpha_gives_larger_sets(ragged):
    log_scores, answers, mask = ragged
    sizes = [
        float(posthoc.mean_set_size(posthoc.LAC.fit(*ragged, alpha=a)(log_scores, mask)))
        for a in (0.4, 0.2, 0.1, 0.05)
    ]
    assert sizes == sorted(sizes)


def test_measures_with_weights_and_without_rows():
    sets = np.array([[True, False], [True, True]])
    assert float(posthoc.set_coverage(sets, [1, 0], weights=[3, 1])) == 0.25
    assert float(posthoc.mean_set_size(sets, weights=[3, 1])) == 1.25
    assert np.isnan(posthoc.mean_set_size(sets[:0]))


@pytest.mark.parametrize("alpha", [0, 1, -0.1, 2])
def test_bad_alpha(alpha):
    with pytest.raises(UserError, match="alpha"):
        posthoc.LAC.fit([[0.0, 1.0]], [0], alpha=alpha)


@pytest.mark.parametrize("scale", [1, 10, 40])
def test_sets_of_a_confident_model_are_those_of_its_logarithms(set_a, scale):
    log_scores, answers = scale * set_a[0][:2000] / 3, set_a[1][:2000]
    sets = posthoc.LAC.fit(log_scores[:1000], answers[:1000], alpha=0.1).sets(log_scores[1000:])
    logs = log_scores - np.logaddexp.reduce(log_scores, axis=1, keepdims=True)
    own = np.sort(-np.take_along_axis(logs, answers[:, None], axis=1)[:1000, 0])
    expected = -logs[1000:] <= own[posthoc.conformal_rank(1000, 0.1) - 1]
    assert (np.asarray(sets) != expected).mean() < 1e-3
    assert float(posthoc.mean_set_size(sets)) < 2.6
    sets = posthoc.APS.fit(log_scores[:1000], answers[:1000], alpha=0.1).sets(log_scores[1000:])
    assert float(posthoc.mean_set_size(sets)) < 3
    assert float(posthoc.set_coverage(sets, answers[1000:])) == pytest.approx(0.9, abs=0.03)


def test_a_certain_model_that_is_right_needs_one_option():
    log_scores = np.where(np.eye(4, dtype=bool)[np.arange(200) % 4], 0.0, -104.0)
    sets = posthoc.APS.fit(log_scores, np.arange(200) % 4, alpha=0.1).sets(log_scores)
    assert float(posthoc.mean_set_size(sets)) == 1


def test_randomized_sets_cover_however_the_rows_arrive():
    """u is each row's own, whichever rows stand beside it."""
    rng = np.random.default_rng(0)
    scores = 3 * rng.normal(size=(4000, 4)).astype(np.float32)
    probs = softmax(scores / 2)
    answers = (probs.cumsum(axis=1) < rng.random((4000, 1))).sum(axis=1).clip(0, 3)
    for seed in range(3):
        predictor = posthoc.APS.fit(
            scores[:2000], answers[:2000], alpha=0.1, randomized=True, seed=seed
        )
        whole = np.asarray(predictor.sets(scores[2000:]))
        share = whole[np.arange(2000), answers[2000:]].mean()
        assert share == pytest.approx(0.9, abs=0.02)  # 3 standard errors of 2,000 rows
        # The same sets row by row, in another order, and filled up with masked options.
        one_by_one = [np.asarray(predictor.sets(row[None]))[0] for row in scores[2000:2030]]
        np.testing.assert_array_equal(one_by_one, whole[:30])
        order = rng.permutation(2000)
        np.testing.assert_array_equal(predictor.sets(scores[2000:][order]), whole[order])
        wider = np.pad(scores[2000:], ((0, 0), (0, 2)))
        padded = predictor.sets(wider, np.arange(6) < 4 + np.zeros((2000, 1)))
        np.testing.assert_array_equal(padded[:, :4], whole)


def test_each_copy_of_a_row_and_each_draw_has_its_own_u():
    copies = np.tile(np.log(np.float32([[0.7, 0.3]])), (4000, 1))
    predictor = posthoc.APS(
        log_threshold=-np.log(1 - 0.35), alpha=0.1, rows=9, randomized=True, seed=0
    )
    # The first option stands in the set where (1 - u) 0.7 <= 0.35: for half of all u.
    first = np.asarray(predictor.sets(copies))[:, 0]
    assert first.mean() == pytest.approx(0.5, abs=0.025)
    np.testing.assert_array_equal(predictor.sets(copies), predictor.sets(copies))
    drawn = [np.asarray(predictor.sets(copies[:1], draw=call))[0, 0] for call in range(400)]
    assert np.mean(drawn) == pytest.approx(0.5, abs=0.08)
