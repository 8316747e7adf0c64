"""Predictions of other systems: options by name, answers by name, and config.report.columns."""

import csv
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from calib_jax.errors import UserError
from calib_jax.reports.ingest import files
from calib_jax.reports.ingest.places import Reading

NAMES = ["Billing", "Technical", "Sales"]
PROBS = np.random.default_rng(2).dirichlet(np.ones(3), 12).round(6)
PROBS[:, 2] = 1 - PROBS[:, :2].sum(axis=1)
GOLD = [0, 1, 2, 2, 1, 0] * 2
ROWS = [dict(zip(NAMES, map(float, row), strict=True)) for row in PROBS]


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def table(path, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def load(path, **reading):
    found = files.load(str(path), Reading(**reading))
    ((_, splits),) = found.states.items()
    ((_, scores),) = splits.items()
    return scores, found.about[str(path)]


def named(i):
    return NAMES[GOLD[i]]


def by_probability(row):
    return dict(sorted(row.items(), key=lambda item: -item[1]))


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        ("csv", lambda i: {"ticket": i, "ms": 3.5 * i, **ROWS[i], "label": named(i)}),
        ("csv", lambda i: {**{f"prob_{n}": p for n, p in ROWS[i].items()}, "answer": named(i)}),
        ("csv", lambda i: {"probs": json.dumps(ROWS[i]), "answer": named(i)}),
        ("jsonl", lambda i: {"probabilities": ROWS[i], "target": GOLD[i]}),
        (
            "jsonl",
            lambda i: {"probs": list(ROWS[i].values()), "choices": NAMES, "answer": named(i)},
        ),
        (
            "jsonl",
            lambda i: {
                "logits": {n: float(np.log(p)) for n, p in ROWS[i].items()},
                "answer": named(i),
            },
        ),
        ("json", lambda i: {"probs": ROWS[i], "answer": named(i)}),
        ("parquet", lambda i: {"probs": ROWS[i], "answer": named(i)}),
    ],
)
def test_names_of_options_are_kept(tmp_path, kind, row):
    rows, path = [row(i) for i in range(len(GOLD))], tmp_path / f"a.{kind}"
    if kind == "json":
        path.write_text(json.dumps(rows))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        {"csv": table, "jsonl": jsonl}[kind](path, rows)
    scores, _ = load(path)
    assert scores.classes == tuple(NAMES) and scores.answers.tolist() == GOLD
    np.testing.assert_allclose(scores.probs, PROBS, atol=1e-6)


def test_an_option_that_is_never_right_is_found_by_the_sum(tmp_path):
    rows = [{**ROWS[i], "seen": 7, "label": NAMES[GOLD[i] % 2]} for i in range(len(GOLD))]
    scores, about = load(table(tmp_path / "a.csv", rows))
    assert scores.classes == tuple(NAMES) and about["columns_not_used"] == ["seen"]
    rows = [{**row, "half": 0.5} for row in rows]
    with pytest.raises(
        UserError, match=r"do not sum to 1 .*--config.report.columns=Billing,Techni"
    ):
        load(table(tmp_path / "b.csv", rows))


def test_objects_in_the_order_of_their_probabilities_are_one_order(tmp_path):
    rows = [{"probs": by_probability(r), "answer": named(i)} for i, r in enumerate(ROWS)]
    scores, _ = load(jsonl(tmp_path / "a.jsonl", rows))
    order = sorted(NAMES)
    assert scores.classes == tuple(order)
    np.testing.assert_allclose(scores.probs, [[r[n] for n in order] for r in ROWS], atol=1e-6)
    assert [order[a] for a in scores.answers] == [named(i) for i in range(len(GOLD))]
    # And pair with a file in another order.
    other = jsonl(
        tmp_path / "b.jsonl", [{"probs": r, "answer": named(i)} for i, r in enumerate(ROWS)]
    )
    states = files.load(f"before={other},after={tmp_path / 'a.jsonl'}").states
    before, after = states["before"]["all"], states["after"]["all"]
    np.testing.assert_array_equal(before.probs, after.probs)
    assert before.answers.tolist() == after.answers.tolist() == GOLD
    assert after.classes == before.classes == tuple(NAMES)


def test_letters_and_short_endings_are_no_names(tmp_path):
    rows = [{"probs": dict(zip("CAB", p.tolist(), strict=True)), "answer": "B"} for p in PROBS]
    scores, _ = load(jsonl(tmp_path / "a.jsonl", rows))
    assert not scores.choices and scores.answers.tolist() == [1] * len(PROBS)
    np.testing.assert_allclose(scores.probs, PROBS[:, [1, 2, 0]], atol=1e-6)
    rows = [
        {"probs": p.tolist(), "p_value": 0.1, "p_adjusted": 0.2, "answer": g}
        for p, g in zip(PROBS, GOLD, strict=True)
    ]
    assert load(jsonl(tmp_path / "b.jsonl", rows))[0].probs.shape == PROBS.shape


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        ("Billing,Technical,Sales,answer=truth,id=who,id=turn", lambda i: ROWS[i]),
        ("probs=out.probs,answer=truth,id=who,id=turn", lambda i: {"out": {"probs": ROWS[i]}}),
        (
            "log_scores=Billing,log_scores=Technical,log_scores=Sales,answer=truth,id=who,id=turn",
            lambda i: {n: float(np.log(p)) + 3 for n, p in ROWS[i].items()},
        ),
    ],
)
def test_any_layout_by_config_report_columns(tmp_path, columns, row):
    rows = [
        {
            "who": f"t{i // 2}",
            "turn": i % 2,
            "truth": named(i),
            "answer": "not this one",
            "label": 5,
            **row(i),
        }
        for i in range(len(GOLD))
    ]
    path = jsonl(tmp_path / "a.jsonl", rows)
    scores, about = load(path, columns=columns)
    assert scores.classes == tuple(NAMES) and scores.answers.tolist() == GOLD
    np.testing.assert_allclose(scores.probs, PROBS, atol=1e-5)
    assert scores.ids[:3] == ("t0-0", "t0-1", "t1-0")
    assert "answer: truth" in about["columns_as_said"]
    assert about["columns_not_used"] == ["answer", "label"]


def test_one_number_is_the_probability_of_yes(tmp_path):
    yes, gold = [0.9, 0.25, 0.5, 0.125], [1, 0, 0, 1]
    rows = [{"score": p, "label": g} for p, g in zip(yes, gold, strict=True)]
    scores, _ = load(table(tmp_path / "a.csv", rows), columns="score")
    np.testing.assert_allclose(scores.probs, [[1 - p, p] for p in yes], atol=1e-7)
    assert scores.answers.tolist() == gold and scores.classes == ("0", "1")
    rows = [
        {"score": float(np.log(p / (1 - p))), "label": g} for p, g in zip(yes, gold, strict=True)
    ]
    scores, _ = load(table(tmp_path / "b.csv", rows), columns="log_scores=score")
    np.testing.assert_allclose(scores.probs[:, 1], yes, atol=1e-6)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("truth=answer", "'truth=answer' is not understood; .*one of the roles probs, log_scores"),
        ("probs=", "'probs=' is not understood"),
        ("Billing,Billing", "'Billing' appears twice as probs"),
        ("answer=a,answer=b", "answer can be one column, not a, b"),
        ("Biling,Technical", "no column 'Biling' for probs .* among Billing, Technical"),
    ],
)
def test_bad_columns_are_refused(tmp_path, columns, message):
    rows = [{**row, "label": named(i)} for i, row in enumerate(ROWS)]
    with pytest.raises(UserError, match=message):
        load(table(tmp_path / "a.csv", rows), columns=columns)


def test_columns_of_a_file_whose_layout_is_known_are_refused(tmp_path, make_scores):
    from calib_jax.reports import predictions

    path = tmp_path / "before-near.parquet"
    predictions.write(path, make_scores(8))
    with pytest.raises(UserError, match="whose columns are known; leave the field empty"):
        load(path, columns="answer=truth")


# --- Answers ------------------------------------------------------------------------------------


def answered(tmp_path, answers, choices=None, **reading):
    more = {"choices": choices} if choices else {}
    rows = [{"probs": [0.5, 0.25, 0.25], "answer": a, **more} for a in answers]
    return load(jsonl(tmp_path / "a.jsonl", rows), **reading)[0].answers.tolist()


@pytest.mark.parametrize(
    ("answers", "choices", "expected"),
    [
        (["no", "yes", "maybe"], ["yes", "no", "maybe"], [1, 0, 2]),
        (["B", "a", "C"], None, [1, 0, 2]),
        (["B", "A"], ["red", "green", "blue"], [1, 0]),
        (["x", "C"], ["C", "x", "y"], [1, 0]),  # no letter of these three is X
        ([1.0, 0.0, "2"], None, [1, 0, 2]),
        ([0, 2], ["5", "6", "0"], [0, 2]),  # whole numbers stay indices
        ([30, 10], ["10", "20", "30"], [2, 0]),  # which these cannot be
    ],
)
def test_answers_by_text_letter_or_index(tmp_path, answers, choices, expected):
    assert answered(tmp_path, answers, choices) == expected


@pytest.mark.parametrize(
    ("answers", "choices", "message"),
    [
        (["yes", "Yes"], ["yes", "no", "maybe"], r"row 2 .*'Yes' .*\('yes', 'no', 'maybe'\).*case"),
        (["A", "ß"], None, r"row 2 .*has answer 'ß'"),
        (["A", "É"], None, r"row 2 .*has answer 'É'"),
        (["A", "D"], None, r"row 2 .*'D' and 3 options"),
        (["A", "B"], ["B", "A", "C"], r"letter of option 0 \(from 0\) and the text of option 1"),
        (["0", "1"], ["1", "0", "2"], r"0-based index of option 0 .*answer_base=0"),
        (["red", "red"], ["red", "red", "blue"], r"row 1 .*has answer 'red'"),
        ([1, 2, 3], None, r"seem to count from 1. If so, say --config.report.answer_base=1"),
        ([1, 2, 1], None, r"answer_base=0 or --config.report.answer_base=1"),
        ([True, False], None, r"row 1 .*has answer True"),
    ],
)
def test_answers_that_name_no_option_or_two_are_refused(tmp_path, answers, choices, message):
    with pytest.raises(UserError, match=message):
        answered(tmp_path, answers, choices)


def test_answer_base_decides_what_numbers_mean(tmp_path):
    choices = ["1", "2", "3"]
    assert answered(tmp_path, [1, 2, 1], choices, answer_base="1") == [0, 1, 0]
    assert answered(tmp_path, ["1", "2"], choices, answer_base="0") == [1, 2]


def test_the_tolerance_that_a_message_names_is_enough(tmp_path):
    rows = [{"probs": p, "answer": 0} for p in ([0.33, 0.33, 0.33], [0.5, 0.3, 0.175])]
    path = jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(UserError, match=r"say how far, --config.report.sum_tolerance=0.025$"):
        load(path)
    assert load(path, sum_tolerance=0.025)[1]["rows_divided_by_their_sum"] == 2
    path = jsonl(tmp_path / "b.jsonl", [{"probs": [0.33, 0.33, 0.33], "answer": 0}])
    assert load(path, sum_tolerance=0.01)[1]["rows_divided_by_their_sum"] == 1


@pytest.mark.parametrize("spelling", [("false", "true"), ("False", "True")])
def test_json_s_true_and_false_are_options_of_these_names(tmp_path, spelling):
    no, yes = spelling
    rows = [
        {"probs": {no: 0.3, yes: 0.7}, "answer": True},
        {"probs": {no: 0.6, yes: 0.4}, "answer": False},
    ]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = files.load(str(tmp_path / "p.jsonl")).states["measured"]
    (scores,) = found.values()
    assert [scores.choices[i][k] for i, k in enumerate(scores.answers)] == [yes, no]


SCALE = ("low", "mid", "high")


def scale_file(tmp_path, orders, answer=lambda order: "mid", **more):
    path = tmp_path / "scale.jsonl"
    rows = [
        {"id": i, "probs": {name: 0.5 if name == "mid" else 0.25 for name in order}}
        | {"answer": answer(order)}
        | {key: of(order) for key, of in more.items()}
        for i, order in enumerate(orders)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_an_ordered_scale_keeps_the_order_that_its_rows_state(tmp_path):
    path = scale_file(tmp_path, [SCALE] * 3)
    found = files.load(path, Reading(ordered=True))
    scores = next(iter(found.states.values()))["all"]
    assert scores.choices == (SCALE,) * 3 and scores.answers.tolist() == [1, 1, 1]
    order = found.about[path]["options_order"]
    assert order == "as the rows state them, lowest first: low, mid, high"


def test_rows_that_disagree_on_the_order_are_refused_of_a_scale_and_said_else(tmp_path):
    path = scale_file(tmp_path, [SCALE, SCALE, SCALE[::-1]])
    with pytest.raises(
        UserError, match="row 3 .*'high', 'mid', 'low'.*row 1 the same.*lowest first"
    ):
        files.load(path, Reading(ordered=True))
    found = files.load(path, Reading())
    assert next(iter(found.states.values()))["all"].choices[0] == ("high", "low", "mid")
    assert found.about[path]["options_order"] == (
        "by the alphabet: row 3 states them in another order than row 1"
    )
    # A place among the options says nothing where rows disagree on their order.
    path = scale_file(tmp_path, [SCALE, SCALE[::-1]], answer=lambda order: order.index("low"))
    with pytest.raises(
        UserError, match="row 2 .*another order than row 1, and answers are read as"
    ):
        files.load(path, Reading())


def test_choices_of_a_scale_stand_in_one_order(tmp_path):
    path = tmp_path / "p.jsonl"
    rows = [
        {"probs": [0.5, 0.5], "answer": i, "choices": ["no", "yes"][:: 1 - 2 * i]} for i in (0, 1)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert files.load(str(path), Reading()).states
    with pytest.raises(UserError, match="row 2 .*column 'choices' has the options 'yes', 'no'"):
        files.load(str(path), Reading(ordered=True))
