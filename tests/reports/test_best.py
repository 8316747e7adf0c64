"""The one rule for bold: the sets of all splits, from the scores of every state."""

import dataclasses

import numpy as np
import pytest

from calib_jax.metrics.confidence_set import model_confidence_set
from calib_jax.metrics.intervals import change_interval
from calib_jax.reports import best

OPTIONS = {"num_bins": 10, "edges": "right", "num_resamples": 200}


@pytest.fixture(scope="module")
def found(make_scores):
    one, other, last = (
        make_scores(60, bias=bias, seed=seed) for bias, seed in ((0, 0), (4, 1), (0, 2))
    )
    states = {"a": {"near": one, "far": one}, "b": {"near": other, "far": one}}
    return (
        states,
        last,
        best.sets(states, {"c (post hoc)": {"near": last}}, seed=2**32 - 1, **OPTIONS),
    )


def test_one_entry_per_family_split_metric_and_state(found):
    _, _, sets = found
    assert sets["states"].keys() == sets["methods"].keys() == {"near", "far"}
    assert sets["states"]["near"].keys() == {m.key for m in best.judged()}
    assert {"conf_ece", "cw_ece", "accuracy"} <= sets["states"]["near"].keys()
    assert sets["states"]["near"]["conf_ece"].keys() == {"a", "b"}
    assert sets["methods"]["near"]["conf_ece"].keys() == {"a", "b", "c (post hoc)"}
    # Equal scores are equally good; of a model of strong bias it shows.
    assert sets["states"]["far"]["conf_ece"] == {"a": 1.0, "b": 1.0}
    assert sets["states"]["near"]["conf_ece"]["b"] <= 0.05
    assert not best.is_bold(sets["states"]["near"]["conf_ece"]["b"])


def test_against_rows_that_are_drawn_here(found):
    states, _, sets = found
    scores = [by_split["near"] for by_split in states.values()]
    right = np.stack([s.predictions == s.answers for s in scores], axis=1)
    counts = np.random.default_rng(0).multinomial(60, np.full(60, 1 / 60), size=5000)
    own = model_confidence_set(right.mean(axis=0), counts @ right / 60, 1).p_values
    shown = [*sets["states"]["near"]["accuracy"].values()]
    assert shown == pytest.approx(own.tolist(), abs=0.1)


def test_other_questions_few_questions_and_single_states_have_no_set(make_scores):
    one = make_scores(40)
    renamed = dataclasses.replace(one, ids=tuple(f"other-{i}" for i in range(40)))
    few = one.take(range(29))
    states = {
        "a": {"same": few, "alone": one, "other": one},
        "b": {"same": few, "other": renamed},
    }
    assert best.sets(states, **OPTIONS) == {"states": {}}


def test_a_column_of_two_at_least():
    draws = np.random.default_rng(0).normal(size=(99, 3))
    values = np.array([0.0, 0.1, np.inf])
    assert best.column(-1, values, draws, [True, False, True]) == [None, None, None]
    assert best.column(0, values, draws, [True] * 3) == [None, None, None]
    p = best.column(-1, values, draws, [True] * 3)
    assert p[0] == 1.0 and p[1] > 0.05 and p[2] is None


def test_bold_never_contradicts_the_interval_of_the_difference_to_the_best():
    """Errors whose noise adds to them: the set alone calls the second worse, its interval not."""
    rng = np.random.default_rng(3)
    noise = rng.normal(0, 0.01, (500, 1))
    own = rng.normal(0, 0.006, (500, 2))
    values = np.array([0.045, 0.0715])
    draws = values + np.array([0.02, 0.004]) + noise + own  # resampling shows both biases
    ends = change_interval(*(np.append(draws[:, i], values[i]) for i in (0, 1)), 0.95, "bias_aware")
    assert ends[0] < 0 < ends[1]
    assert model_confidence_set(values, draws, -1, 0.95).p_values[1] < 0.05
    assert all(map(best.is_bold, best.column(-1, values, draws, [True, True])))
