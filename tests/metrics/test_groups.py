import json
import math

import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.metrics import groups as groups_module

SIZES = {"law": 90, "art": 30, "medicine": 700, "one": 1}


@pytest.fixture(scope="module")
def data():
    """probs, answers, groups, mask: overconfident rows of four subjects, shuffled, K = 3 or 4."""
    rng = np.random.default_rng(4)
    names = rng.permutation(np.repeat(list(SIZES), list(SIZES.values())))
    scores = 1.5 * rng.normal(size=(len(names), 4))
    mask = np.ones(scores.shape, bool)
    mask[names == "art", 3] = False
    scores[~mask] = -np.inf
    answers = (scores + rng.gumbel(size=scores.shape)).argmax(axis=1)
    probs = np.exp(1.7 * scores)
    return (probs / probs.sum(axis=1, keepdims=True)).astype(np.float32), answers, names, mask


@pytest.fixture(scope="module")
def table(data):
    return metrics.group_table(*data, num_resamples=400)


def test_figures_are_those_of_the_groups_alone(data, table):
    probs, answers, names, mask = data
    assert [row["group"] for row in table] == sorted(SIZES)
    for row in table:
        mine = names == row["group"]
        arrays = probs[mine], answers[mine], mask[mine]
        assert row["n"] == SIZES[row["group"]]
        for key, metric in {
            "accuracy": metrics.accuracy,
            "mean_confidence": metrics.mean_confidence,
            "conf_ece": metrics.conf_ece,
            "cw_ece": metrics.cw_ece,
            "nll": metrics.nll,
            "brier": metrics.brier,
        }.items():
            assert row[key] == pytest.approx(float(metric(*arrays)), abs=2e-6), key
        square = float(metrics.squared_ece(*arrays))  # NaN of one row
        assert row["squared_ece"] == pytest.approx(square, abs=1e-6, nan_ok=True)
    json.dumps(table)  # plain Python values


@pytest.mark.parametrize("name", ["law", "medicine"])
def test_chance_is_that_of_the_groups_alone(data, table, name):
    """Other random numbers, so within Monte Carlo error of 400 draws."""
    probs, answers, names, mask = data
    row = next(row for row in table if row["group"] == name)
    mine = names == name
    arrays = probs[mine], answers[mine], mask[mine]
    alone = metrics.bootstrap(metrics.conf_ece, *arrays)
    width = alone[1] - alone[0]
    np.testing.assert_allclose(row["conf_ece_ci"], alone, atol=0.2 * width)
    test = metrics.consistency_test(metrics.conf_ece, *arrays)
    assert row["conf_ece_null_q95"] == pytest.approx(test.null_q95, rel=0.08)
    assert row["conf_ece_p_value"] == pytest.approx(test.p_value, abs=0.05)
    assert row["conf_ece_ci"][0] <= row["conf_ece"] <= row["conf_ece_ci"][1]


def test_long_groups_are_summed_in_parts(data, table, monkeypatch):
    monkeypatch.setattr(groups_module, "_BLOCK", 64)
    parts = metrics.group_table(*data, num_resamples=400)
    for row, whole in zip(parts, table, strict=True):
        np.testing.assert_allclose(row["conf_ece_ci"], whole["conf_ece_ci"], atol=1e-6)
        assert row["conf_ece_null_q95"] == pytest.approx(whole["conf_ece_null_q95"], abs=1e-6)


def test_a_single_row_and_all_right(table):
    one = next(row for row in table if row["group"] == "one")
    assert one["n"] == 1 and one["accuracy"] in (0, 1)
    low, high = one["accuracy_ci"]
    assert high - low > 0.7  # a single answer says little
    assert one["conf_ece_p_value"] > 0.05
    certain = metrics.group_table([[1.0, 0.0]] * 4, [0] * 4, [3, 3, 3, 1], num_resamples=19)
    assert [row["group"] for row in certain] == [1, 3]
    assert certain[1]["conf_ece"] == certain[1]["conf_ece_null_q95"] == 0
    assert certain[1]["conf_ece_p_value"] == 1 and certain[1]["accuracy_ci"][1] == 1


def test_wilson_interval():
    """Published: 15 of 148, 95 %: 0.0624 to 0.1605 (Newcombe 1998, Table I)."""
    low, high = metrics.wilson_interval(15, 148)
    assert (round(float(low), 4), round(float(high), 4)) == (0.0624, 0.1605)


def test_macro_average(table):
    average = metrics.macro_average(table)
    assert average["nll"] == pytest.approx(np.mean([row["nll"] for row in table]))
    assert "n" not in average and "conf_ece_p_value" not in average
    assert metrics.macro_average([]) == {}


def test_bad_input():
    good, answers = np.full((2, 2), 0.5), [0, 0]
    with pytest.raises(ValueError, match="groups must have shape"):
        metrics.group_table(good, answers, ["a"])
    with pytest.raises(ValueError, match="row 0 sums to"):
        metrics.group_table(good + 0.1, answers, ["a", "b"])
    for bad in ({"num_resamples": 0}, {"level": 1.0}, {"edges": "up"}, {"num_bins": 0}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            metrics.group_table(good, answers, ["a", "b"], **bad)
    assert metrics.group_table(np.ones((0, 2)), np.zeros(0, int), np.zeros(0, int)) == []


def test_nan_never_appears_for_certain_and_wrong():
    row = metrics.group_table([[1.0, 0.0]] * 3, [1, 1, 0], ["a"] * 3, num_resamples=19)[0]
    assert row["nll"] == math.inf and row["conf_ece_p_value"] == 1 / 20


def test_clusters_widen_a_group_s_intervals_and_what_chance_shows():
    """Every row four times over, in a cluster: the figures say what one of the four says."""
    rng = np.random.default_rng(3)
    confidence = rng.uniform(0.5, 1, 60)
    probs = np.column_stack([confidence, 1 - confidence])
    answers = (rng.random(60) > confidence - 0.3).astype(int)  # far from intervals that begin at 0
    names = np.repeat(["a", "b"], 30)
    fourfold = [np.repeat(x, 4, axis=0) for x in (probs, answers, names)]
    code = np.repeat(np.arange(60), 4)
    together = metrics.group_table(*fourfold, num_resamples=200, clusters=code)
    apart = metrics.group_table(*fourfold, num_resamples=200)
    once = metrics.group_table(probs, answers, names, num_resamples=200)
    for few, many, one in zip(together, apart, once, strict=True):
        assert few["n"] == 120 and few["n_clusters"] == 30 and "n_clusters" not in many
        for key in ("accuracy_ci", "conf_ece_ci"):
            assert np.ptp(few[key]) > 1.5 * np.ptp(many[key])
            assert np.ptp(few[key]) == pytest.approx(np.ptp(one[key]), rel=0.25)
        assert few["conf_ece_null_q95"] > 1.5 * many["conf_ece_null_q95"]


def subjects(rng, count, size, off=()):
    """Calibrated 2-way groups but for those in ``off``, which say 40 % more than is right."""
    confidence = rng.uniform(0.55, 0.95, count * size)
    names = np.repeat(np.arange(count), size)
    right = rng.random(len(names)) < confidence - 0.4 * np.isin(names, off)
    probs = np.column_stack([confidence, 1 - confidence])
    return probs, np.where(right, 0, 1), names


@pytest.mark.parametrize("clustered", [False, True])
def test_one_bad_group_of_many_is_found(clustered):
    """Of 57, as MMLU has: 1,000 draws alone leave no p-value below 57/1001 = .057."""
    probs, answers, names = subjects(np.random.default_rng(0), 57, 40, off=[3])
    clusters = np.arange(len(names)) // 2 if clustered else None
    table = metrics.group_table(probs, answers, names, num_resamples=199, seed=1, clusters=clusters)
    p, adjusted = (
        np.array([row[f"conf_ece_p_{x}"] for row in table]) for x in ("value", "adjusted")
    )
    assert np.flatnonzero(adjusted <= 0.05).tolist() == [3] and p[3] == 1 / (40 * 57)
    # All others have p-values of their own draws; the interval holds 0 exactly where p > .05.
    lows = np.array([row["conf_ece_ci"][0] for row in table])
    assert ((lows > 0) == (p <= 0.05)).all()


def test_further_draws_are_of_the_same_distribution():
    """p-values of calibrated groups stay uniform in the tail that is drawn further."""
    probs, answers, names = subjects(np.random.default_rng(2), 800, 20)
    table = metrics.group_table(probs, answers, names, num_resamples=99)
    p = np.array([row["conf_ece_p_value"] for row in table])
    for level in (0.01, 0.05, 0.2):
        spread = 3 * np.sqrt(level * (1 - level) / 800)
        assert level - 1.5 * spread < (p <= level).mean() < level + spread
    assert not any(row["conf_ece_p_adjusted"] <= 0.05 for row in table)
