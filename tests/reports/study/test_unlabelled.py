"""What the base repairs of the aligned model without labels, on planted scores."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from calib_jax.reports.study import unlabelled
from tests.jobs.test_study import make_scores


def sharpened(scores, by):
    """The same answers, surer."""
    log_scores = scores.log_scores * by
    probs = np.exp(log_scores) / np.exp(log_scores).sum(axis=1, keepdims=True)
    return dataclasses.replace(scores, log_scores=log_scores, probs=probs)


def test_a_model_that_is_only_too_sure_has_its_bases_confidence_again():
    """Both repairs are exact: the base is the aligned model at another temperature."""
    base = make_scores(3, n=400)
    rows = unlabelled.measure(base, sharpened(base, 3.0), num_resamples=50)
    assert rows["daca"]["temperature"] == pytest.approx(3.0, rel=1e-4)
    assert rows["daca"]["agreement"] == rows["daca"]["n"] == 400
    own = unlabelled.measure(base, base, num_resamples=50)["aligned"]
    for name in ("daca", "reeval"):
        for key in ("accuracy", "mean_confidence", "conf_ece", "auroc"):
            assert rows[name][key] == pytest.approx(own[key], abs=1e-5)
    assert rows["aligned"]["conf_ece"] > 0.1 + own["conf_ece"]


def test_the_answers_stay_where_the_models_differ():
    """The rows' figures against sklearn and sums in numpy, over the options of each question."""
    base, aligned = make_scores(4, n=200), make_scores(5, 4.0, n=200)
    rows = unlabelled.measure(base, aligned, num_resamples=50)
    chosen = aligned.probs.argmax(axis=1)
    correct = chosen == aligned.answers
    again = base.probs[np.arange(200), chosen]
    assert {row["accuracy"] for row in rows.values()} == {correct.mean()}
    found = rows["reeval"]
    assert found["mean_confidence"] == pytest.approx(again.mean(), rel=1e-5)
    assert found["auroc"] == pytest.approx(roc_auc_score(correct, again), abs=1e-6)
    bins = np.ceil(again * 10).clip(1)
    gaps = [abs((correct - again)[bins == b].sum()) for b in range(1, 11)]
    assert found["conf_ece"] == pytest.approx(sum(gaps) / 200, abs=1e-5)
    low, high = found["conf_ece_ci"]
    assert low <= found["conf_ece"] <= high


def test_models_that_never_agree_leave_daca_out():
    base = make_scores(4, n=20)
    flipped = dataclasses.replace(
        base, log_scores=-base.log_scores, probs=np.roll(base.probs, 1, axis=1)
    )
    rows = unlabelled.measure(base, flipped, num_resamples=50)
    assert set(rows) == {"aligned", "reeval"}
    text = [
        str(cell)
        for row in unlabelled.table({"p": {"t": {"choice": rows}}}).rows
        for cell in row.cells
    ]
    assert "BaseCal-ReEval" in text and not any("DACA" in one for one in text)
