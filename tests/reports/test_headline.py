"""The first sentences: how sure, how often right, chance, the change, the number."""

import numpy as np
import pytest

from calib_jax import metrics
from calib_jax.reports import headline
from calib_jax.reports.measure import measure
from tests.reports.conftest import build_scores


def row(confidence, accuracy, error=0.1, p=0.001, n=200, domain="out"):
    low, high = metrics.wilson_interval(accuracy * n, n)
    ends = [None, None] if n < 5 else [error - 0.03, error + 0.03]
    figures = {"mean_confidence": confidence, "accuracy": accuracy, "conf_ece": error}
    more = {"accuracy_ci": [float(low), float(high)], "conf_ece_ci": ends, "conf_ece_p_value": p}
    return {"n": n, "domain": domain, **figures, **more}


def alone(*figures, **more):
    (said,) = headline.of_states({"measured": {"exam": row(*figures, **more)}})
    return said.split(". ")


def test_an_overconfident_model_is_less_often_right_than_it_says():
    first, chance, number = alone(0.85, 0.72, 0.13)
    assert first == (
        "On 200 questions of exam, the model says it is 85% sure and is right 72% of the time "
        "(95% interval: 65% to 78%)"
    )
    assert chance == (
        "It is less often right than it says, by more than chance explains: a model that is right "
        "exactly as often as it says would be at least this far off in at most 1 of 1,000 such "
        "samples (p = 0.001)"
    )
    assert number == "The error of its confidence (conf-ECE) is 0.130 [0.100, 0.160]"


@pytest.mark.parametrize(
    ("figures", "begins", "ends"),
    [
        ((0.60, 0.75, 0.15, 0.002), "It is more often right than it says, by more", "(p = 0.002)"),
        ((0.74, 0.72, 0.13, 0.03), "It is right about as often as it says on average,", "0.030)"),
        ((0.74, 0.72, 0.05, 0.31), "The difference is no more than chance explains: ", "0.310)"),
        # Just above and just below 0.05, and a test that does not see what the average shows.
        ((0.74, 0.72, 0.05, 0.0504), "The difference is no more than", "(p = 0.0504)"),
        ((0.74, 0.72, 0.05, 0.0496), "It is right about as often", "(p = 0.050)"),
        ((0.80, 0.72, 0.09, 0.06), "It is less often right than it says on average, but", "0.060)"),
    ],
)  # fmt: skip  # a case per line
def test_what_chance_explains(figures, begins, ends):
    _, chance, _ = alone(*figures)
    assert chance.startswith(begins) and chance.endswith(ends)


def test_few_questions_all_right_all_wrong_and_shares_near_the_ends():
    first, chance, number = alone(0.74, 1.0, n=3)
    assert "74% sure and is right every time (95% interval: 44% to 100%)" in first
    assert chance == "3 questions cannot tell the difference from chance"
    assert number.endswith("is 0.100")
    first, chance, _ = alone(0.9996, 0.0, n=1)
    assert first.startswith("On 1 question of exam") and "99.96% sure and is never right" in first
    assert chance == "1 question cannot tell the difference from chance"
    # What reads alike and differs has a decimal.
    first, *_ = alone(0.7241, 0.7165, n=100_000)
    assert "72.4% sure and is right 71.7% of the time (95% interval: 71.4% to 71.9%)" in first


def test_a_file_that_names_no_split_has_questions_alone():
    (said,) = headline.of_states({"measured": {"all": row(0.8, 0.7)}})
    assert said.startswith("On 200 questions, the model says")


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ([-0.12, -0.04], "has shrunk by more than chance explains"),
        ([0.04, 0.12], "has grown by more than chance explains"),
        ([-0.12, 0.04], "has not changed by more than chance explains"),
    ],
)
def test_before_and_after_with_the_change(ends, said):
    states = {"before": {"s": row(0.85, 0.72, 0.13)}, "after": {"s": row(0.7, 0.73, 0.05, 0.31)}}
    change = {"conf_ece": sum(ends) / 2, "conf_ece_ci": ends, "accuracy_ci": [0.021, 0.094]}
    (text,) = headline.of_states(states, {"s": change})
    first, chance, p, moved, right = text.split(". ")
    assert first.startswith("On 200 questions of s: before, the model says it is 85% sure and is")
    assert "; after, it says it is 70% sure and is right 73% of the time" in first
    assert chance == (
        "Before, it is less often right than it says, by more than chance explains (p = 0.001); "
        "after, the difference is no more than chance explains (p = 0.310)"
    )
    assert p.startswith("Here p is how often a model that is right exactly as often as it says")
    assert moved.startswith(f"The error of its confidence {said}: conf-ECE 0.130 [0.100, 0.160] → ")
    assert moved.endswith(f"a change of {sum(ends) / 2:+.3f} [{ends[0]:+.3f}, {ends[1]:+.3f}]")
    assert right == "It is right more often, by 2.1 to 9.4 percentage points"
    (text,) = headline.of_states(states, {"s": {**change, "accuracy_ci": [-0.094, -0.021]}})
    assert text.endswith("It is right less often, by 2.1 to 9.4 percentage points")
    (text,) = headline.of_states(states, {"s": {**change, "accuracy_ci": [-0.01, 0.02]}})
    assert text.endswith("How often it is right has not changed by more than chance explains")
    (text,) = headline.of_states(states)  # the change was not measured
    assert text.endswith("(conf-ECE): 0.130 [0.100, 0.160] → 0.050 [0.020, 0.080]")


def test_verdicts_that_are_alike_are_told_together():
    alike = {name: {"s": row(0.85, 0.72)} for name in ("before", "after")}
    (said,) = headline.of_states(alike)
    assert "Before and after, it is less often right than it says" in said
    assert "(p = 0.001 and p = 0.001)" in said
    models = {name: {"s": row(0.85, 0.72)} for name in ("a", "b", "c")}
    (said,) = headline.of_states(models)
    assert "For each of a, b and c, it is less often right" in said
    (said,) = headline.of_states({**alike, "c": models["c"]})
    assert "Before, after and for c, it is less often right" in said


def test_several_models_keep_their_names_and_their_numbers_of_questions():
    states = {"gpt": {"s": row(0.85, 0.72)}, "llama": {"s": row(0.7, 0.72, p=0.4)}}
    (said,) = headline.of_states(states)
    assert "On 200 questions of s: gpt says it is" in said and "; llama says it is 70%" in said
    assert "For gpt, it is less often right" in said and "; for llama, the difference" in said
    assert said.endswith("(conf-ECE): gpt 0.100 [0.070, 0.130], llama 0.100 [0.070, 0.130]")
    states["llama"]["s"]["n"] = 300
    (said,) = headline.of_states(states)
    assert said.startswith("On s: gpt (200 questions) says") and "llama (300 questions)" in said
    many = {f"m{i}": {"s": row(0.8, 0.7)} for i in range(6)}
    (said,) = headline.of_states(many)
    assert "m3 says" in said and "m4" not in said and said.endswith("The tables hold 2 more models")


def test_of_many_splits_the_first_are_told_and_p_is_explained_once():
    rows = {f"s{i}": row(0.8, 0.7) for i in range(6)}
    said = headline.of_states({"measured": rows})
    assert len(said) == 4 and said[-1] == "The tables hold 3 more splits"
    assert [text.count("such samples") for text in said] == [1, 0, 0, 0]


def test_summaries_of_earlier_versions_say_what_they_know():
    assert headline.of_states({"m": {"s": {"conf_ece": 0.4, "n": 1}}}) == ["conf-ECE on s: 0.400"]
    old = row(0.8, 0.7, 0.3)
    del old["conf_ece_p_value"]
    (said,) = headline.of_states({"m": {"s": old}})
    assert "chance" not in said
    (said,) = headline.of_states({"m": {"s": {**old, "conf_ece_null_q95": 0.2}}})
    assert "by more than chance explains. The error" in said


def test_readings_are_summed_up_over_whole_tasks():
    rows = {f"t{i}": row(0.7, 0.5, 0.1 * i, p=0.5 if i < 2 else 0.001) for i in range(5)}
    rows["t4_part"] = row(0.7, 0.5, 0.9)
    (said,) = headline.of_methods({"choice": rows})
    first, chance, number = said.split(". ")
    assert first.startswith("On 1,000 questions of 5 tasks, read by choice, the model says it is")
    low, high = metrics.wilson_interval(500, 1000)
    assert f"70% sure and is right 50% of the time (95% interval: {low:.0%} to {high:.0%})" in first
    assert chance.startswith(
        "On 3 of the 5 tasks the difference is more than chance explains (not on t0 and t1); of"
    )
    assert number.endswith(
        "from 0.000 [-0.030, 0.030] (t0, n = 200) to 0.400 [0.370, 0.430] (t4, n = 200)"
    )
    for p, begins in ((0.001, "On all 3 tasks the"), (0.5, "On none of the 3 tasks is the")):
        (said,) = headline.of_methods({"choice": {f"t{i}": row(0.7, 0.5, p=p) for i in range(3)}})
        assert f". {begins} difference " in said and "than chance explains; of models" in said
    (one,) = headline.of_methods({"choice": {"t": row(0.8, 0.7)}})
    assert one.startswith("On 200 questions of t, read by choice, the model says it is 80% sure")
    (old,) = headline.of_methods(
        {"choice": {f"t{i}": {"conf_ece": 0.1 * i, "n": 9} for i in (1, 2)}}
    )
    assert old.startswith("The error of its confidence (conf-ECE) is from 0.100 (t1")


def test_a_calibrated_model_is_said_to_be_within_chance():
    """From scores to words: the answers are drawn from the model's own probabilities."""
    rng = np.random.default_rng(3)
    scores = build_scores(41)
    cut = (scores.probs.cumsum(axis=1) < rng.random((41, 1))).sum(axis=1)
    scores.answers[:] = np.minimum(cut, scores.mask.sum(axis=1) - 1)
    measured = measure(scores, "out", num_resamples=20)
    (said,) = headline.of_states({"measured": {"exam": measured}})
    confidence, right = scores.confidences.mean(), (scores.predictions == scores.answers).mean()
    assert said.startswith(
        f"On 41 questions of exam, the model says it is {confidence:.0%} sure and is right "
        f"{right:.0%} of the time"
    )
    assert "The difference is no more than chance explains" in said
