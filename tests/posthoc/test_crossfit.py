"""Out-of-fold calibration: no row is calibrated by a fit that saw it, and nothing recompiles."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from calib_jax import metrics, posthoc
from calib_jax.errors import UserError
from calib_jax.posthoc import linear
from tests.posthoc.conftest import OF_SCORES


def test_folds_are_seeded_even_and_stratified():
    answers = np.random.default_rng(0).integers(0, 4, 103)
    folds = posthoc.fold_numbers(103, 5, seed=3, answers=answers)
    np.testing.assert_array_equal(folds, posthoc.fold_numbers(103, 5, seed=3, answers=answers))
    assert (folds != posthoc.fold_numbers(103, 5, seed=4, answers=answers)).any()
    assert np.ptp(np.bincount(folds)) <= 1
    for k in range(4):
        assert np.ptp(np.bincount(folds[answers == k], minlength=5)) <= 1


def test_groups_stay_together_and_balance():
    clusters = np.random.default_rng(1).integers(0, 30, 300).astype(str)
    folds = posthoc.fold_numbers(300, 4, clusters=clusters)
    for name in np.unique(clusters):
        assert len(np.unique(folds[clusters == name])) == 1
    assert np.ptp(np.bincount(folds)) <= 15


def test_cross_fit_equals_the_loop_by_hand(ragged):
    log_scores, answers, mask = ragged
    probs = posthoc.cross_fit("temperature", log_scores, answers, mask, folds=4, seed=2)
    folds = posthoc.fold_numbers(400, 4, seed=2, answers=answers)
    for fold in range(4):
        out, rest = folds == fold, folds != fold
        fitted = posthoc.Temperature.fit(log_scores[rest], answers[rest], mask[rest])
        np.testing.assert_allclose(probs[out], fitted(log_scores[out], mask[out]), atol=2e-6)


@pytest.mark.parametrize("name", sorted(OF_SCORES))
def test_held_out_answers_do_not_reach_their_own_fold(ragged, options, name):
    log_scores, answers, mask = ragged
    scores = np.where(mask, log_scores, 0.0)
    clusters = np.arange(400) % 4
    folds = posthoc.fold_numbers(400, 4, clusters=clusters)
    changed = answers.copy()
    own = folds == 1
    changed[own] = np.where(mask[own], scores[own], np.inf).argmin(axis=1)
    extra = options(name, scores)
    before, after = (
        posthoc.cross_fit(name, scores, y, mask, folds=4, clusters=clusters, **extra)
        for y in (answers, changed)
    )
    np.testing.assert_array_equal(before[own], after[own])
    assert before.dtype == np.float32 and before.shape == (400, 5)
    np.testing.assert_allclose(before.sum(axis=1), 1, atol=1e-5)
    assert (before[~mask] == 0).all()


def test_out_of_fold_is_not_flattered(ragged):
    log_scores, answers, mask = ragged
    few = (log_scores[:280], answers[:280], mask[:280])
    inside = posthoc.MatrixScaling.fit(*few, penalty=0.0)(few[0], few[2])
    outside = posthoc.cross_fit("matrix", *few, penalty=0.0)
    assert float(metrics.nll(inside, few[1])) < float(metrics.nll(outside, few[1]))


def test_folds_share_one_compilation(ragged):
    log_scores, answers, mask = ragged
    posthoc.cross_fit("vector", log_scores, answers, mask, folds=3)
    size = linear._fit._cache_size()
    posthoc.cross_fit("vector", log_scores, answers, mask, folds=7)
    posthoc.cross_fit("vector", log_scores[:301], answers[:301], mask[:301], folds=5)
    assert linear._fit._cache_size() == size


def test_bad_folds_and_methods(ragged):
    log_scores, answers, mask = ragged
    with pytest.raises(UserError, match="unknown method 'temp': one of .*temperature"):
        posthoc.cross_fit("temp", log_scores, answers, mask)
    with pytest.raises(UserError, match="folds must be at least 2"):
        posthoc.cross_fit("temperature", log_scores, answers, mask, folds=1)
    with pytest.raises(UserError, match="3 rows cannot make 5 folds"):
        posthoc.cross_fit("temperature", log_scores[:3], answers[:3], mask[:3])
    with pytest.raises(UserError, match="2 clusters cannot make 5 folds"):
        posthoc.cross_fit("temperature", log_scores, answers, mask, clusters=answers > 2)


def test_split_is_seeded_disjoint_and_proportional():
    answers = np.repeat(np.arange(4), [40, 80, 120, 160])
    fit_rows, test_rows = posthoc.split_rows(400, share=0.25, seed=5, answers=answers)
    assert sorted([*fit_rows, *test_rows]) == list(range(400))
    assert np.bincount(answers[fit_rows]).tolist() == [10, 20, 30, 40]
    np.testing.assert_array_equal(fit_rows, posthoc.split_rows(400, 0.25, 5, answers)[0])
    assert (fit_rows != posthoc.split_rows(400, 0.25, 6, answers)[0]).any()
    clusters = np.arange(400) // 10
    fit_rows, test_rows = posthoc.split_rows(400, share=0.5, clusters=clusters)
    assert len(fit_rows) == 200 and not set(clusters[fit_rows]) & set(clusters[test_rows])
    with pytest.raises(UserError, match="share"):
        posthoc.split_rows(10, share=1.0)


def scores_of(ragged, rows):
    log_scores, answers, mask = (array[rows] for array in ragged)
    ids = tuple(f"q{i}" for i in rows)
    return SimpleNamespace(log_scores=log_scores, answers=answers, mask=mask, ids=ids)


def test_fit_split_fits_on_one_and_applies_to_the_other(ragged):
    train, test = scores_of(ragged, range(250)), scores_of(ragged, range(250, 400))
    fitted, probs = posthoc.fit_split("temperature", train, test)
    expected = posthoc.Temperature.fit(train.log_scores, train.answers, train.mask)
    assert fitted == expected
    np.testing.assert_array_equal(probs, expected(test.log_scores, test.mask))


def test_fit_split_refuses_common_questions(ragged):
    train, test = scores_of(ragged, range(250)), scores_of(ragged, range(248, 400))
    with pytest.raises(UserError, match='2 ids stand in both sets, the first is "q248"'):
        posthoc.fit_split("temperature", train, test)
    test.ids = ()
    with pytest.raises(UserError, match="test has 0 ids for 152 rows"):
        posthoc.fit_split("temperature", train, test)


def test_the_old_name_of_clusters_is_refused_by_name(ragged):
    log_scores, answers, mask = ragged
    with pytest.raises(UserError, match="groups= is now called clusters="):
        posthoc.cross_fit("temperature", log_scores, answers, mask, groups=answers)


def test_scores_bring_their_clusters_to_the_folds(ragged):
    @dataclasses.dataclass
    class Scores:
        log_scores: np.ndarray
        answers: np.ndarray
        mask: np.ndarray
        probs: np.ndarray | None = None
        units: np.ndarray | None = None
        folds: np.ndarray | None = None

    log_scores, answers, mask = ragged
    units = np.arange(400) // 4
    own = posthoc.cross_fit_scores(
        "temperature", Scores(log_scores, answers, mask, units=units), folds=4
    )
    said = posthoc.cross_fit("temperature", log_scores, answers, mask, folds=4, clusters=units)
    np.testing.assert_array_equal(own.probs, said)
