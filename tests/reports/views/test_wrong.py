import dataclasses

import numpy as np

from calib_jax.reports.views import Details, Partial, Text
from calib_jax.reports.views import wrong as questions


def test_the_surest_wrong_answers_of_all_splits_in_order(make_scores):
    by_split = {"near": make_scores(60, bias=2.0), "far": make_scores(80, bias=1.0, seed=3)}
    found = questions.most_wrong(by_split)
    everything = sorted(
        (
            float(c)
            for s in by_split.values()
            for c, p, a in zip(s.confidences, s.predictions, s.answers, strict=True)
            if p != a
        ),
        reverse=True,
    )
    assert [wrong.confidence for wrong in found] == everything[:20]
    for wrong in found:
        scores = by_split[wrong.split]
        assert wrong.chosen == scores.predictions[wrong.row] != wrong.answer
        assert wrong.answer == scores.answers[wrong.row]


def test_a_question_is_told_with_its_texts_or_without(make_scores):
    scores = make_scores(30, bias=4.0)
    told_by_id, note = questions.blocks(
        {"Tiny": {"near": {"domain": "in"}}}, {"Tiny": {"near": scores}}
    )
    assert isinstance(told_by_id, Partial) and "named by id" in note.text
    long = "why " * 400
    told = dataclasses.replace(
        scores,
        questions=tuple(f"Invented question {i}? {long}" for i in range(30)),
        choices=tuple(tuple(f"choice {k} of {i}" for k in range(4)) for i in range(30)),
    )
    states = {"before": {"near": {"domain": "in"}}, "after": {"near": {"domain": "in"}}}
    after, before = questions.blocks(states, {"before": {"near": told}, "after": {"near": told}})
    assert isinstance(after, Details) and after.opened and not before.opened
    assert after.title.startswith("after: the 2") and before.title.startswith("before: the 2")
    wrong = questions.most_wrong({"near": told})[0]
    item = after.blocks[0].values["items"][0]
    assert f"Invented question {wrong.row}?" in item["question"] and "…" in item["question"]
    said = [option["said"] for option in item["options"]]
    assert len(said) == 4
    assert f"choice {wrong.chosen} of {wrong.row} (chosen)" in said
    assert f"choice {wrong.answer} of {wrong.row} (right)" in said


def test_nothing_wrong_is_said(make_scores):
    scores = make_scores(10)
    scores = dataclasses.replace(scores, answers=np.asarray(scores.predictions))
    assert questions.most_wrong({"near": scores}) == []
    blocks = questions.blocks({"m": {"near": {"domain": "in"}}}, {"m": {"near": scores}})
    assert blocks[0] == Text("None is wrong.")


def test_a_group_does_not_repeat_the_questions_of_its_task(make_scores):
    whole = make_scores(60, bias=2.0)
    found = questions.most_wrong({"mmlu": whole, "mmlu_stem": whole.take(np.arange(30))})
    assert len({wrong.row for wrong in found}) == len(found) == 20
    assert {wrong.split for wrong in found} == {"mmlu"}
