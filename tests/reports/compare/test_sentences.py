"""Sentences of a comparison: who beats whom, and whether that is sure."""

import dataclasses

from calib_jax.reports.compare import sentences
from tests.reports.compare.conftest import estimate


def test_sentences_say_where_the_temperature_wins_and_whether_that_is_sure(comparison):
    cft = {**comparison.rows["cft"], "out": comparison.rows["cft"]["in"]}
    whole = dataclasses.replace(
        comparison, rows={**comparison.rows, "cft": cft}, chance={"cft": {"in": 0.08}}
    )
    first, accuracy, wins, losses = sentences.sentences(whole, ["temperature", "fixed_temperature"])
    assert first.startswith("DPO, as it is → CFT: conf-ECE 0.400 → 0.200 in-domain")
    # The interval of CFT against the model as it is: the other way round than that in the table.
    said = "(no significant change: its 95% interval [-0.500, +0.100] includes 0)"
    assert said in first and accuracy.startswith("DPO, as it is → CFT: accuracy 0.500 → 0.500")
    assert (
        "0.200 in-domain (no significant" in first and "more than 70 questions show of a" in first
    )
    assert wins.startswith("Temp. scale beats CFT on conf-ECE in-domain (0.100 against 0.200)")
    assert "out-of-domain" not in wins
    assert "CFT beats Temp. scale on conf-ECE out-of-domain (0.200 against 0.200, not" in losses


def test_a_temperature_that_never_wins_is_said_to_win_nowhere(comparison):
    rows = {n: {"in": by["in"]} for n, by in comparison.rows.items()}
    rows["temperature"] = rows["before"]
    whole = dataclasses.replace(comparison, parts={"in": comparison.parts["in"]}, rows=rows)
    said = sentences.sentences(whole, ["temperature"])
    assert said[2] == "Temp. scale beats CFT on none of conf-ECE, NLL, Brier and cw-ECE"


def test_any_other_method_that_is_significantly_better_is_named(comparison):
    cft = {**comparison.rows["cft"], "out": comparison.rows["cft"]["in"]}
    rows = {**comparison.rows, "cft": cft}
    _, _, *said = sentences.sentences(dataclasses.replace(comparison, rows=rows))
    (better,) = said
    assert better.startswith(
        "Temp. scale is significantly better than CFT on conf-ECE in-domain (0.100 against 0.200), "
    )
    rows["temperature"] = comparison.rows["before"]
    _, _, *said = sentences.sentences(dataclasses.replace(comparison, rows=rows))
    assert said == [
        "None of the other methods is significantly better than CFT on conf-ECE, NLL, Brier or "
        "cw-ECE"
    ]


def test_headline_with_and_without_the_model_as_it_is(comparison):
    rows = {name: {"in": by["in"]} for name, by in comparison.rows.items()}
    one = dataclasses.replace(comparison, parts={"in": comparison.parts["in"]}, rows=rows)
    assert sentences.headline(one) == sentences.sentences(one)[:2]
    confident = {
        name: {"in": {**by["in"], "mean_confidence": estimate(0.8)}} for name, by in rows.items()
    }
    plain, *rest = sentences.headline(dataclasses.replace(one, rows=confident))
    assert plain.startswith(
        "On 70 questions of x + y: before, the model says it is 80% sure and is right 50% of the "
        "time (95% interval: 45% to 55%); after CFT, it says it is 80% sure and is right 50%"
    )
    assert plain.endswith(
        "Before, it is less often right than it says, by more than chance explains"
    )
    assert rest == sentences.sentences(one)[:2]
    del rows["before"]
    labels = {name: comparison.labels[name] for name in rows}
    alone = dataclasses.replace(one, rows=rows, labels=labels)
    assert sentences.headline(alone) == ["Temp. scale, CFT: compared with CFT"]
