import dataclasses

import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.reports import catalogue, measure, remarks, result
from calib_jax.reports.views.splits import results

COMPARED = (
    "accuracy",
    "conf_ece",
    "cw_ece",
    "smooth_ece",
    "nll",
    "brier",
    "auroc",
    "mean_confidence",
)
OTHERS = ("squared_ece", "adaptive_ece", "pooled_ece", "rmsce", "aurc")
INTERVALS = (*COMPARED, *OTHERS)


@pytest.fixture(scope="module")
def run(make_scores):
    """(rows and change, scores) of two splits before and after."""
    domains = {"far": "out", "near": "in"}
    scores = {
        state: {
            split: make_scores(60, bias=bias, seed=seed + i, ragged=split == "far")
            for i, split in enumerate(domains)
        }
        for state, bias, seed in (("before", 3.0, 0), ("after", 0.2, 9))
    }
    rows = {
        state: {
            split: measure.measure(s, domains[split], num_resamples=20)
            for split, s in by_split.items()
        }
        for state, by_split in scores.items()
    }
    changes = {
        split: measure.change(scores["before"][split], scores["after"][split], num_resamples=20)
        for split in domains
    }
    return {**rows, "change": changes}, scores


def test_measure_states_every_figure_of_the_row(run):
    row = run[0]["before"]["near"]
    scores = run[1]["before"]["near"]
    right = scores.predictions == scores.answers
    gold = scores.probs[np.arange(60), scores.answers]
    assert row["domain"] == "in" and row["n"] == 60 and row["method"] == scores.method
    assert row["accuracy"] == pytest.approx(right.mean())
    assert row["nll"] == pytest.approx(-np.log(gold).mean(), rel=1e-5)
    assert row["mean_confidence"] == pytest.approx(scores.confidences.mean(), rel=1e-5)
    assert row["overconfidence"] == row["mean_confidence"] - row["accuracy"]
    assert row["letter_counts"] == np.bincount(scores.predictions, minlength=4).tolist()
    assert row["answer_counts"] == np.bincount(scores.answers, minlength=4).tolist()
    assert row["top_letter"] == "A"
    assert row["top_letter_share"] == max(row["letter_counts"]) / 60
    assert row["num_options"] == [4, 4]
    assert row["uniform_nll"] == pytest.approx(np.log(4))
    assert row["uniform_brier"] == 0.75 and row["uniform_accuracy"] == 0.25
    for name in INTERVALS:
        low, high = row[f"{name}_ci"]
        assert low <= high
    above = row["act_above"]
    kept = scores.confidences >= 0.5
    assert above["threshold"][0] == 0.5 and above["kept"][0] == kept.sum()
    assert above["errors"][0] == (kept & ~right).sum()
    for key, value in [*row.items(), *above.items()]:
        kinds = (int, float, str) if key not in ("auprc_ci", "sce_ovr_ci") else (type(None),)
        for item in value if isinstance(value, list) else [value]:
            assert type(item) in kinds or value is above, key


def test_uniform_guesser_on_questions_with_different_numbers_of_options(run):
    row, scores = run[0]["before"]["far"], run[1]["before"]["far"]
    k = scores.mask.sum(axis=1)
    mass = np.linspace(0, 1, 60, dtype=np.float32)
    uniform = dataclasses.replace(
        scores, probs=np.where(scores.mask, 1 / k[:, None], 0).astype(np.float32), mass=mass
    )
    guessed = measure.measure(uniform, "out", num_resamples=20)
    assert row["num_options"] == [2, 4]
    assert row["uniform_nll"] == pytest.approx(guessed["nll"], rel=1e-5)
    assert row["uniform_brier"] == pytest.approx(guessed["brier"], rel=1e-5)
    half = 1.96 * mass.std() / np.sqrt(60)
    assert guessed["candidate_mass"] == pytest.approx(0.5) and "candidate_mass" not in row
    assert guessed["candidate_mass_ci"] == pytest.approx([0.5 - half, 0.5 + half], abs=1e-6)


def test_change_is_the_difference_and_zero_for_equal_scores(run):
    result, scores = run
    for name in (*COMPARED, "squared_ece"):
        difference = result["after"]["near"][name] - result["before"]["near"][name]
        assert result["change"]["near"][name] == pytest.approx(difference)
    same = measure.change(scores["after"]["near"], scores["after"]["near"], num_resamples=20)
    assert all(same[name] == 0 for name in COMPARED) and same["accuracy_p"] == 1
    assert all(same[f"{name}_ci"] == [0, 0] for name in COMPARED if name != "accuracy")
    # That 60 questions do not flip leaves room for others that do.
    assert same["accuracy_ci"] == pytest.approx([-0.0602, 0.0602], abs=1e-4)
    found = measure.change(scores["before"]["near"], scores["after"]["near"], num_resamples=20)
    flips = metrics.accuracy_change(
        *(scores[state]["near"].predictions == scores[state]["near"].answers for state in scores)
    )
    assert found["accuracy_ci"] == [flips.low, flips.high]
    assert found["accuracy_p"] == flips.p_value
    assert same["squared_ece"] == 0 and same["squared_ece_ci"][0] == -same["squared_ece_ci"][1]
    low, high = result["change"]["near"]["squared_ece_ci"]
    assert low < result["change"]["near"]["squared_ece"] < high


def test_change_refuses_other_questions(run):
    scores = run[1]["after"]["near"]
    renamed = dataclasses.replace(scores, ids=("x", *scores.ids[1:]))
    reordered = dataclasses.replace(scores, answers=scores.answers[::-1])
    for other in (renamed, reordered):
        with pytest.raises(ValueError, match="other questions"):
            measure.change(scores, other)


def test_every_figure_is_the_metric_s_own(run):
    scores, row = run[1]["before"]["far"], run[0]["before"]["far"]
    arrays = scores.probs, scores.answers, scores.mask
    for name in (*INTERVALS, "mce", "sce_ovr", "auprc"):
        assert row[name] == pytest.approx(float(getattr(metrics, name)(*arrays)), rel=1e-5), name
    assert row["squared_ece_ci"] == list(metrics.squared_ece_interval(*arrays))
    assert row["kuiper_p_value"] == metrics.kuiper_test(*arrays).p_value
    assert row["spiegelhalter_p_value"] == metrics.spiegelhalter_test(*arrays).p_value
    parts = metrics.brier_decomposition(*arrays)
    for name, value in {
        "letter_entropy": metrics.letter_entropy(*arrays),
        "share_above_090": metrics.share_above(*arrays, threshold=0.9),
        "brier_calibration": parts.calibration,
        "brier_refinement": parts.refinement,
    }.items():
        assert row[name] == pytest.approx(float(value), rel=1e-5, abs=1e-7), name


def test_how_many_questions_are_needed_is_said_beside_how_many_there_are(run):
    row, scores = run[0]["before"]["near"], run[1]["before"]["near"]
    assert row["questions_needed"] == metrics.questions_needed(0.05, scores.confidences)
    text = remarks.sample_size(row)
    assert text.endswith("questions like these are needed; here are 60") and "enough" not in text
    assert remarks.sample_size({**row, "n": 10**6}).endswith("1,000,000, which is enough")
    assert remarks.sample_size({"n": 3}) == ""
    (table,) = results({"before": {"near": row}})
    assert any("questions like these are needed" in note for note in table.notes)


def test_the_variational_error_has_its_parts(run):
    row, scores = run[0]["before"]["near"], run[1]["before"]["near"]
    found = metrics.variational_ece(scores.probs, scores.answers, scores.mask)
    assert row["variational_ece"] == found.error
    assert row["variational_over"] == found.over > 0.3  # as overconfident as can be
    assert row["variational_under"] == found.under


def test_the_ranked_score_is_only_of_options_in_an_order(run):
    scores, row = run[1]["before"]["far"], run[0]["before"]["far"]
    assert "rps" not in row and "rps" not in run[0]["change"]["far"]
    found = measure.values_of(scores, 10, "right", catalogue.CHANGE, ordered=True)
    expected = metrics.rps(scores.probs, scores.answers, scores.mask)
    assert found["rps"] == pytest.approx(float(expected), rel=1e-6)


def test_null_figures_are_those_of_the_metrics(run):
    scores, row = run[1]["after"]["near"], run[0]["after"]["near"]
    functions = catalogue.functions(catalogue.NULL, 10, "right")
    for name, function in functions.items():
        expected = metrics.null_quantile(function, scores.probs, scores.mask, num_draws=20)
        assert row[f"{name}_null_q95"] == pytest.approx(expected, rel=1e-6)
        test = metrics.consistency_test(
            function, scores.probs, scores.answers, scores.mask, num_draws=20
        )
        assert row[f"{name}_p_value"] == test.p_value
    assert run[0]["before"]["near"]["conf_ece_p_value"] == 1 / 21  # as overconfident as can be


def test_subjects_have_a_row_each_where_there_are_two_or_more(run, make_scores):
    assert "groups" not in run[0]["after"]["near"]  # one subject, and questions without any
    names = tuple("abc"[i % 3] if i else None for i in range(60))
    scores = dataclasses.replace(make_scores(60), subjects=names)
    groups = measure.measure(scores, "in", num_resamples=20)["groups"]
    sizes = {g["group"]: g["n"] for g in groups}
    assert sizes == {measure.NO_SUBJECT: 1, "a": 19, "b": 20, "c": 20}
    assert sum(g["n"] * g["accuracy"] for g in groups) == pytest.approx(
        (scores.predictions == scores.answers).sum()
    )


def test_bins_and_edges_reach_every_binned_figure(make_scores):
    scores = make_scores(60)
    arrays = scores.probs, scores.answers, scores.mask
    row = measure.values_of(scores, num_bins=4, edges="left")
    for name in ("conf_ece", "cw_ece", "pooled_ece", "mce", "rmsce"):
        value = getattr(metrics, name)(*arrays, num_bins=4, edges="left")
        assert row[name] == pytest.approx(float(value), rel=1e-5), name
    expected = float(metrics.adaptive_ece(*arrays, num_bins=4, edges="left"))
    assert row["adaptive_ece"] == pytest.approx(expected, rel=1e-5)


def test_measure_refuses_nonsense(make_scores):
    with pytest.raises(ValueError, match="domain"):
        measure.measure(make_scores(5), "inside")
    with pytest.raises(ValueError, match="no questions"):
        measure.measure(make_scores(0), "in")


def test_auroc_without_a_wrong_answer_is_null_in_the_file(tmp_path, make_scores):
    scores = make_scores(60)
    scores = dataclasses.replace(scores, answers=scores.predictions)
    row = measure.measure(scores, "in", num_resamples=20)
    result.write(tmp_path / "s.json", {"before": {"s": row}})
    back = result.read(tmp_path / "s.json")["before"]["s"]
    assert back["auroc"] is None and back["auroc_ci"] == [None, None]
    assert back["accuracy"] == 1.0


def test_an_interval_holds_0_exactly_where_p_is_above_005(run):
    seen = set()
    for splits in (run[0]["before"], run[0]["after"]):
        for row in splits.values():
            for name in (metric.key for metric in catalogue.at(catalogue.NULL)):
                low, high = row[f"{name}_ci"]
                assert (low == 0) == (row[f"{name}_p_value"] > 0.05)
                assert 0 <= low <= row[name] <= high
                seen.add(low == 0)
    assert seen == {True, False}


def test_intervals_that_do_not_hold_are_not_stated(make_scores, run):
    row = measure.measure(make_scores(4), "", num_resamples=50)
    assert row["conf_ece_ci"] == row["nll_ci"] == [None, None]
    assert row["squared_ece_ci"] == [None, None] and "mce_ci" not in row
    assert run[0]["before"]["near"]["auprc_ci"] == [None, None]  # of 60 questions
    assert None not in row["accuracy_ci"]  # Wilson's holds for one question too
    assert None not in measure.measure(make_scores(5), "", num_resamples=50)["conf_ece_ci"]


def test_log_scores_keep_the_nll_finite_in_every_figure(make_scores):
    scores = make_scores(60)
    logs = scores.log_scores.copy()
    logs[:3] = np.where(np.arange(4) == scores.answers[:3, None], -200, -5)
    probs = np.exp(logs - logs.max(axis=1, keepdims=True))
    probs = probs / probs.sum(axis=1, keepdims=True)
    sharp = dataclasses.replace(scores, log_scores=logs, probs=probs, subjects=tuple("ab" * 30))
    row = measure.measure(sharp, "in", num_resamples=20)
    full = logs.astype(np.float64) - np.logaddexp.reduce(
        logs.astype(np.float64), axis=1, keepdims=True
    )
    assert row["nll"] == pytest.approx(-full[np.arange(60), scores.answers].mean(), rel=1e-5)
    assert row["zero_probability_answers"] == 0 and np.isfinite(row["nll_ci"]).all()
    assert all(np.isfinite(group["nll"]) for group in row["groups"])
    assert np.isfinite(measure.change(sharp, scores, num_resamples=20)["nll"])
    assert "rounding_unit" not in row and "zero_probability_rows" not in row


def test_rounded_probabilities_are_said_to_be(make_scores):
    scores = make_scores(60, bias=6.0)
    rounded = np.round(scores.probs, 2)
    with np.errstate(divide="ignore"):
        logs = np.log(rounded)
    probs = rounded / rounded.sum(axis=1, keepdims=True)
    scores = dataclasses.replace(scores, subjects=("physics", "history") * 30)
    rounded = dataclasses.replace(scores, probs=probs, log_scores=logs)
    assert np.isinf(float(metrics.nll(probs, scores.answers)))
    change = measure.change(scores, rounded, num_resamples=20)
    assert np.isfinite([change["nll"], *change["nll_ci"]]).all()
    row = measure.measure(rounded, "in", num_resamples=20)
    assert row["rounding_unit"] == 0.01 and 0 < row["zero_read_as"] < 0.00501
    assert np.isfinite([row["nll"], *row["nll_ci"]]).all() and row["zero_probability_answers"] == 0
    assert all(np.isfinite(group["nll"]) for group in row["groups"])
    assert row["zero_probability_rows"] == (probs == 0).any(axis=1).sum() > 0
    notes = remarks.zero_notes({"before": row})
    assert any("rounded to 2 decimals" in note for note in notes)


def test_what_chance_shows_of_clusters_does_not_take_their_rows_for_independent(make_scores):
    scores = make_scores(60)
    fourfold = dataclasses.replace(
        scores.take(np.repeat(np.arange(60), 4)), clusters=tuple(f"{i // 4}" for i in range(240))
    )
    found = measure.null_figures(fourfold, 10, "right", 99, 0)
    draws = metrics.clustered_null(
        fourfold.probs, fourfold.answers, fourfold.units, fourfold.mask, num_draws=99
    )
    assert found["conf_ece_null_q95"] == metrics.null.upper_quantile(draws["conf_ece"][:-1], 0.95)
    alone = measure.null_figures(dataclasses.replace(fourfold, clusters=()), 10, "right", 99, 0)
    for name in ("conf_ece", "cw_ece", "smooth_ece"):
        assert found[f"{name}_null_q95"] > 1.3 * alone[f"{name}_null_q95"]
    assert found["conf_ece_p_value"] >= alone["conf_ece_p_value"]


def test_a_mean_s_interval_over_clusters_is_that_of_their_sums():
    values = np.random.default_rng(0).random(50)
    mean, once = measure.mean_interval(values)
    same, fourfold = measure.mean_interval(np.repeat(values, 4), np.repeat(np.arange(50), 4))
    assert same == pytest.approx(mean) and fourfold == pytest.approx(once)


def test_a_change_is_not_judged_where_the_answers_tell_too_little(make_scores):
    """Of one question, and of fifty that all are right, resamples hardly differ."""

    def all_right(confidence, n):
        scores = make_scores(n)
        probs = np.full(scores.probs.shape, (1 - confidence) / (scores.probs.shape[1] - 1))
        probs[np.arange(n), scores.answers] = confidence
        probs = probs.astype(np.float32)
        mask = np.ones(probs.shape, bool)
        return dataclasses.replace(scores, probs=probs, log_scores=np.log(probs), mask=mask)

    for n in (1, 50):
        found = measure.change(all_right(0.985, n), all_right(0.965, n), num_resamples=20)
        for name in ("conf_ece", "squared_ece", "cw_ece", "smooth_ece"):
            assert found[f"{name}_ci"] == [None, None]
        assert None not in found["accuracy_ci"]
    assert found["nll_ci"][0] > 0  # a mean of what was said: of 50 it is known
    row = measure.measure(all_right(0.985, 50), "", num_resamples=20)
    assert row["squared_ece_ci"] == [None, None]
    # As far off as Wilson's interval of 50 of 50 allows.
    assert row["conf_ece_ci"][1] == pytest.approx(0.985 - row["accuracy_ci"][0], abs=1e-6)
