"""Within folds: the weighted mean of each fold's own value, and no bias from the folds' fits."""

import functools

import jax
import numpy as np
import pytest

from calib_jax import metrics, posthoc


@pytest.mark.parametrize("metric", [metrics.auroc, metrics.auprc, metrics.aurc])
@pytest.mark.parametrize("weighted", [False, True])
def test_equals_the_loop(metric, weighted):
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(3), 60).astype(np.float32)
    answers, folds = rng.integers(0, 3, 60), rng.integers(0, 4, 60)
    folds[folds == 2] = 1  # a fold without rows
    answers[folds == 3] = probs[folds == 3].argmax(axis=1)  # AUROC of these is undefined
    weights = rng.integers(0, 3, 60) if weighted else np.ones(60, int)
    values, sizes = [], []
    for fold in range(4):
        own = folds == fold
        value = float(metric(probs[own], answers[own], weights=weights[own])) if own.any() else None
        if value is not None and not np.isnan(value):
            values.append(value)
            sizes.append(weights[own].sum())
    function = functools.partial(metrics.within_folds, metric, num_folds=4)
    given = {"weights": weights if weighted else None, "folds": folds}
    found = float(function(probs, answers, **given))
    assert found == pytest.approx(np.average(values, weights=sizes), rel=1e-6)
    assert float(jax.jit(function)(probs, answers, **given)) == pytest.approx(found, rel=1e-6)


def test_undefined_where_no_fold_defines_it():
    probs = [[0.9, 0.1], [0.8, 0.2]]
    found = metrics.within_folds(metrics.auroc, probs, [0, 1], folds=[0, 1], num_folds=2)
    assert np.isnan(float(found))


def test_uninformative_scores_are_worth_one_half():
    # Pooled over the folds, cross-fitted temperatures rank such rows worse than chance.
    pooled, within = [], []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        scores, answers = rng.normal(0, 1.5, (50, 4)), rng.integers(0, 4, 50)
        folds = posthoc.fold_numbers(50, 5, seed, answers)
        probs = posthoc.cross_fit("temperature", scores, answers, seed=seed)
        pooled.append(float(metrics.auroc(probs, answers)))
        found = metrics.within_folds(metrics.auroc, probs, answers, folds=folds, num_folds=5)
        within.append(float(found))
    error = np.std(within) / np.sqrt(len(within))
    assert abs(np.mean(within) - 0.5) < 3 * error < 0.05
    assert np.mean(pooled) < 0.5 - 3 * error
