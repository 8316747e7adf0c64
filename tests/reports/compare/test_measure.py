"""Means over seeds, intervals over questions, what is best and what differs."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib_jax import metrics
from calib_jax.errors import UserError
from calib_jax.reports.compare import measure
from calib_jax.reports.compare.comparison import as_dict, from_dict
from calib_jax.reports.writers import plain
from tests.reports.compare.conftest import Few, make_scores

NAMES = ("sharp", "twin", "mild")


def scores_of(seeds=(0, 1)):
    """Two splits in-domain, of 4 and of 3 options, one out-of-domain; "twin" repeats "sharp"."""

    def splits(k, sharp):
        return {
            "four": make_scores(k, sharp),
            "three": make_scores(10 + k, sharp, n=30, options=3),
            "far": make_scores(20 + k, sharp, n=25),
        }

    strengths = {"sharp": 6.0, "twin": 6.0, "mild": 1.0}
    return {name: {k: splits(k, s) for k in seeds} for name, s in strengths.items()}


DOMAINS = {"four": "in", "far": "out", "three": "in"}


@pytest.fixture(scope="module", autouse=True)
def fewer_metrics():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "catalogue", Few)
        yield


@pytest.fixture(scope="module")
def compared():
    return measure.compare(
        scores_of(),
        DOMAINS,
        model="m",
        labels={n: n for n in NAMES},
        reference="sharp",
        unchanged=["twin"],
        num_resamples=200,
    )


def test_ids_may_hold_slashes(compared):
    """As the packaged tasks' do: "anatomy/test/3"."""

    def slashed(one):
        return dataclasses.replace(one, ids=tuple(f"anatomy/test/{i}" for i in one.ids))

    scores = {
        name: {k: {s: slashed(one) for s, one in splits.items()} for k, splits in by_seed.items()}
        for name, by_seed in scores_of().items()
    }
    options = {"model": "m", "labels": {n: n for n in NAMES}, "reference": "sharp"}
    again = measure.compare(scores, DOMAINS, **options, unchanged=["twin"], num_resamples=200)
    for name in NAMES:
        for key, found in compared.rows[name].items():
            values = {metric: estimate.per_seed for metric, estimate in found.items()}
            assert values == {m: again.rows[name][key][m].per_seed for m in found}


def test_values_are_those_of_the_pooled_questions(compared):
    for k in (0, 1):
        here = scores_of()["sharp"][k]
        probs = np.zeros((70, 4), np.float32)
        mask = np.zeros((70, 4), bool)
        probs[:40], mask[:40] = here["four"].probs, True
        probs[40:, :3], mask[40:, :3] = here["three"].probs, True
        answers = np.concatenate([here["four"].answers, here["three"].answers])
        for metric, function in (("conf_ece", metrics.conf_ece), ("nll", metrics.nll)):
            found = compared.rows["sharp"]["in"][metric]
            assert found.per_seed[k] == pytest.approx(
                float(function(probs, answers, mask)), abs=1e-6
            )
    for by_part in compared.rows.values():
        for part in by_part.values():
            for found in part.values():
                assert found.value == pytest.approx(np.mean(found.per_seed))
                assert found.deviation == pytest.approx(np.std(found.per_seed, ddof=1))
                assert found.interval[0] <= found.value <= found.interval[1]


def test_parts_are_domains_then_the_splits_of_those_that_have_several(compared):
    assert {k: (p.domain, p.splits, p.questions) for k, p in compared.parts.items()} == {
        "in": ("in", ("four", "three"), 70),
        "out": ("out", ("far",), 25),
        "four": ("in", ("four",), 40),
        "three": ("in", ("three",), 30),
    }


def test_equal_methods_do_not_differ_and_unequal_ones_do(compared):
    twin, mild = (compared.rows[n]["in"]["conf_ece"].versus for n in ("twin", "mild"))
    assert twin.difference == 0 and twin.interval == (0, 0) and twin.p_value == 1
    assert not twin.significant
    assert mild.difference < 0 and mild.significant and mild.seeds == 2
    assert mild.p_value == pytest.approx(2 / 201)
    assert compared.rows["sharp"]["in"]["conf_ece"].versus is None


def test_best_are_the_best_and_what_is_not_worse_beyond_doubt(compared):
    best = {n: compared.rows[n]["in"]["conf_ece"].best for n in NAMES}
    assert best == {"sharp": False, "twin": False, "mild": True}
    # The order of the options stays, so nothing tells the accuracies apart; one is printed as "=".
    best = {n: compared.rows[n]["in"]["accuracy"].best for n in NAMES}
    assert best["sharp"] and not best["twin"]
    assert not any(compared.rows[n]["in"]["mean_confidence"].best for n in NAMES)


def test_a_resample_takes_the_same_questions_of_every_seed():
    # Seed 1 asks the same questions in another order: the mean over both is that of one.
    one = make_scores(0, 3.0)
    turned = one.take(np.arange(len(one))[::-1])
    single = {"a": {0: {"x": one}}, "b": {0: {"x": make_scores(1, 1.0)}}}
    double = {
        "a": {0: {"x": one}, 1: {"x": turned}},
        "b": {0: single["b"][0], 1: {"x": single["b"][0]["x"].take(np.arange(40)[::-1])}},
    }
    options = {"model": "", "labels": {"a": "", "b": ""}, "reference": "a", "num_resamples": 60}
    first, second = (measure.compare(s, {"x": "in"}, **options) for s in (single, double))
    for metric in ("accuracy", "nll", "conf_ece"):
        a, b = (c.rows["b"]["in"][metric] for c in (first, second))
        assert a.interval == pytest.approx(b.interval, abs=1e-5)
        assert a.versus.interval == pytest.approx(b.versus.interval, abs=1e-5)


def test_json_keeps_everything(compared):
    again = from_dict(json.loads(json.dumps(plain(as_dict(compared)))))
    assert again == compared


def test_json_of_something_else_is_refused():
    with pytest.raises(UserError, match=r"a/summary.json holds no comparison"):
        from_dict({"rows": {"a": {"in": {"conf_ece": 3}}}}, "a/summary.json")


@st.composite
def drawn(draw):
    # Of fewer than 40 draws no p-value is below 0.05.
    P, S, R = draw(st.integers(1, 5)), draw(st.integers(1, 3)), draw(st.integers(40, 80))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    values = rng.uniform(0, 1, (S, P))
    if draw(st.booleans()):
        values[:, rng.integers(P)] = np.inf
    noise = rng.normal(0, draw(st.sampled_from([0.001, 0.1])), (R, P))
    return values, values.mean(axis=0) + noise


@given(drawn(), st.sampled_from(["conf_ece", "accuracy", "mean_confidence", "nll"]))
def test_best_and_significance_agree_with_the_figures(arrays, metric):
    values, draws = arrays
    names = [f"m{i}" for i in range(values.shape[1])]
    found = measure.estimates(names, metric, values, draws, "m0", ["m1"])
    assert list(found) == names
    direction = {"conf_ece": -1, "nll": -1, "accuracy": 1, "mean_confidence": 0}[metric]
    open_to = [
        n for n in names if np.isfinite(found[n].value) and not (metric == "accuracy" and n == "m1")
    ]
    bold = [n for n in names if found[n].best]
    assert set(bold) <= set(open_to)
    assert bold == [n for n in names if (found[n].best_p or 0) > 0.05]
    if direction and len(open_to) > 1:
        top = max(open_to, key=lambda n: direction * found[n].value)
        assert top in bold  # what is best is bold, whatever else is
    else:
        assert not bold
    for name in names[1:]:
        versus = found[name].versus
        if versus.interval is None:
            assert np.isnan(versus.p_value)
        else:
            assert versus.significant == (versus.p_value < 0.05)
            assert 0 <= versus.seeds <= values.shape[0]


def test_the_p_values_of_a_table_are_taken_together(compared):
    for name in ("twin", "mild"):
        for part, found in compared.rows[name].items():
            for metric, estimate in found.items():
                versus = estimate.versus
                if part in ("in", "out") and metric != "mean_confidence":
                    assert versus.adjusted_p >= versus.p_value
                    assert versus.significant == (versus.adjusted_p <= 0.05)
                else:
                    assert versus.adjusted_p is None
    assert compared.rows["twin"]["in"]["nll"].versus.adjusted_p == 1
    # 8 differences of 2 methods: by the draws, and not by 8 times the smallest p-value there is.
    assert compared.rows["mild"]["in"]["conf_ece"].versus.adjusted_p < 0.05


def test_a_handful_of_questions_has_no_best():
    values, draws = np.array([[0.1, 0.9]]), np.random.default_rng(0).normal(size=(99, 2)) * 0.01
    for questions, bold in ((29, [False, False]), (30, [True, False]), (None, [True, False])):
        found = measure.estimates("ab", "nll", values, draws + values, "a", (), questions)
        assert [found[name].best for name in "ab"] == bold


def test_one_seed_has_no_deviation():
    found = measure.estimates(["a"], "nll", np.ones((1, 1)), np.ones((9, 1)), "none")
    assert np.isnan(found["a"].deviation) and found["a"].versus is None and not found["a"].best


def test_pooling_marks_whose_question_it_is():
    one = make_scores(0, n=3)
    both = measure.pooled({"a": one, "b": dataclasses.replace(one, ids=("q0", "q1", "q2"))})
    assert both.ids == ("a/q0", "a/q1", "a/q2", "b/q0", "b/q1", "b/q2")
